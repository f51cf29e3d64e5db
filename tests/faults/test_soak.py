"""What a long-lived installation takes: the database, server, flow process and worker over many runs, and where that ends.

One process makes run after run against one Prefect server, as a worker on a workstation or a notebook does for days. After each
run everything that could grow is counted. Under --soak there are so many that twelve hours of runs of some minutes are
outnumbered (eighteen minutes each), and docs/soak_curve.py draws what was counted.
"""

import json
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from flows.retention import VARIABLE
from tests.conftest import ROOT
from tests.faults.soak_runs import TINY, holdings
from tests.prefect_server import PATIENCE_SECONDS, Server, own_server

WARM_UP = 2  # runs, in which modules are imported, models loaded, loops compiled
MAX_MB_A_RUN = 0.5  # of database
MAX_RSS_SLOPE = {"server": 0.5, "flow": 0.5, "worker": 0.5}  # MB a run, once warm
SLACK = 3  # handles and threads that come and go: pools of connections, timers
COUNTED = ("handles", "threads", "processes")
Point = dict[str, Any]


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """Not pytest's own: what runs make there is counted."""
    with tempfile.TemporaryDirectory(prefix="excel-soak-") as name:
        (Path(name) / "tmp").mkdir()
        yield Path(name)


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Server]:
    with own_server(folder) as started:
        yield started


def test_runs_leave_nothing_but_their_rows(soak: bool, figures: Any, folder: Path, server: Server) -> None:
    runs, repeats = (40, 10) if soak else (4, 1)
    # In four runs, pictures of older ones become text only if that happens from the second run on.
    points = _points(folder, server, runs, repeats, pictures=5 if soak else 1)
    per_run = _growth(points[WARM_UP:runs])
    per_repeat = _growth(points[runs:])
    slopes = {name: _slope([point[name]["rss_mb"] for point in points[runs // 2 :]]) for name in ("server", "flow")}
    settings = {"settings": TINY, "runs": runs, "repeats": repeats}
    means = {"database_mb_a_run": per_run, "database_mb_a_repeat": per_repeat, "rss_mb_a_run": slopes}
    figures("soak", **settings, **means, points=points)
    assert [point["new"] for point in points] == [True] * runs + [False] * repeats
    assert per_run <= MAX_MB_A_RUN and per_repeat <= MAX_MB_A_RUN / 2
    for name in ("server", "flow"):
        _assert_flat(points, name)
        assert not soak or slopes[name] <= MAX_RSS_SLOPE[name], f"{name}: {slopes[name]} MB a run"
    _assert_no_more([point["flow"]["temporary"] for point in points], "temporary files", slack=0)


def test_a_worker_is_as_large_after_many_runs(soak: bool, figures: Any, folder: Path, server: Server) -> None:
    if not soak:
        pytest.skip("a worker's runs take minutes: make soak")
    points = []
    with _worker(folder, server) as pid:
        for number in range(12):
            _run_deployment(server, folder, number)
            points.append(
                {"run": number, "worker": holdings(pid), "server": holdings(server.pid), "database_mb": _size(server)}
            )
    slope = _slope([point["worker"]["rss_mb"] for point in points[WARM_UP:]])
    figures("soak_worker", runs=len(points), rss_mb_a_run=slope, points=points)
    _assert_flat(points, "worker")
    assert slope <= MAX_RSS_SLOPE["worker"]


def _points(folder: Path, server: Server, runs: int, repeats: int, pictures: int) -> list[Point]:
    """A point a run: the database's megabytes, and what server and flow process hold."""
    command = [sys.executable, "-W", "ignore", "-m", "tests.faults.soak_runs", folder / "store", runs, repeats]
    points = []
    with (folder / "flow.log").open("w") as log:
        env = _environment(folder, server, pictures)
        process = subprocess.Popen(list(map(str, command)), env=env, cwd=ROOT, stdout=subprocess.PIPE, stderr=log, text=True)
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("{"):
                flow = json.loads(line)
                fields = {name: flow.pop(name) for name in ("run", "new", "seconds")}
                points.append({**fields, "database_mb": _size(server), "flow": flow, "server": holdings(server.pid)})
        process.stdout.close()
        assert process.wait() == 0, (folder / "flow.log").read_text()[-3000:]
    return points


def _environment(folder: Path, server: Server, pictures: int) -> dict[str, str]:
    """As `excel run` has it: log lines go to the server, not to the terminal. `pictures`: how many runs keep theirs."""
    quiet = {"PREFECT_LOGGING_LEVEL": "INFO", "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL"}
    return (
        server.environment()
        | quiet
        | {"TMPDIR": str(folder / "tmp"), "EXCEL_STORE": str(folder / "store"), VARIABLE: str(pictures)}
    )


def _size(server: Server) -> float:
    """Megabytes of the database: all pages, also those that are free to be used again."""
    with closing(sqlite3.connect(f"file:{server.database}?mode=ro", uri=True, timeout=PATIENCE_SECONDS)) as database:
        (pages,), (size,) = (database.execute(f"PRAGMA {name}").fetchone() for name in ("page_count", "page_size"))
    return round(pages * size / 1e6, 3)


def _growth(points: list[Point]) -> float:
    """Megabytes of database a run."""
    return round((points[-1]["database_mb"] - points[0]["database_mb"]) / max(1, len(points) - 1), 4)


def _slope(values: list[float]) -> float:
    """Change a step: the median over all pairs (Theil and Sen), which single leaps do not move."""
    pairs = [(b - a) / (j - i) for i, a in enumerate(values) for j, b in enumerate(values) if j > i]
    return round(statistics.median(pairs), 4) if pairs else 0.0


def _assert_flat(points: list[Point], name: str) -> None:
    for count in COUNTED:
        _assert_no_more([point[name][count] for point in points], f"{count} of {name}")


def _assert_no_more(values: list[float], words: str, slack: float = SLACK) -> None:
    """The last third of the counts is not above the third after the warm-up."""
    warm = values[WARM_UP:]
    third = max(1, len(warm) // 3)
    first, last = statistics.median(warm[:third]), statistics.median(warm[-third:])
    assert last <= first + slack, f"{words}: {first} → {last} in {values}"


@contextmanager
def _worker(folder: Path, server: Server) -> Iterator[int]:
    """A worker for this repository's deployments, as docs/prefect.md starts one by hand → its process."""
    env = _environment(folder, server, pictures=5)
    prefect = [sys.executable, "-m", "prefect"]
    for command in (["work-pool", "create", "excel", "--type", "process"], ["--no-prompt", "deploy", "--all"]):
        subprocess.run([*prefect, *command], env=env, cwd=ROOT, check=True, capture_output=True)
    with (folder / "worker.log").open("w") as log:
        worker = subprocess.Popen(
            [*prefect, "worker", "start", "--pool", "excel"], env=env, cwd=ROOT, stdout=log, stderr=log, start_new_session=True
        )
        try:
            yield worker.pid
        finally:
            worker.terminate()
            try:
                worker.wait(timeout=60)
            except subprocess.TimeoutExpired:  # sometimes it waits for ever for what has ended; `excel down` kills it too
                worker.kill()
                worker.wait()


def _run_deployment(server: Server, folder: Path, number: int) -> None:
    """A run of excel/demo with settings of its own, to its end."""
    api = f"{server.url}/api"
    deployment = httpx.get(f"{api}/deployments/name/excel/demo", timeout=60).json()["id"]
    parameters = {"settings": [*TINY, f"train.seed={1000 + number}"], "store": str(folder / "store")}
    run = httpx.post(f"{api}/deployments/{deployment}/create_flow_run", json={"parameters": parameters}, timeout=60).json()[
        "id"
    ]
    deadline = time.monotonic() + 5 * PATIENCE_SECONDS
    while (state := httpx.get(f"{api}/flow_runs/{run}", timeout=60).json()["state"]["type"]) not in ("COMPLETED", "FAILED"):
        assert state != "CRASHED" and time.monotonic() < deadline, (folder / "worker.log").read_text()[-3000:]
        time.sleep(1)
    assert state == "COMPLETED"
    time.sleep(3)  # until the run's process has ended
