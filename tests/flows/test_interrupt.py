"""Ctrl-C, as a terminal sends it: to the command and everything it started."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import prefect.settings
import pytest
from prefect.client.orchestration import get_client

from flows.interrupts import STOPPED
from tests.conftest import ROOT, SMALL_DEMO
from tests.flows.store_files import committed

MORE = [*SMALL_DEMO, "train.iterations=400", "train.checkpoint_every=2"]  # so many that it is never done
# Where the tests run in a shell's background, SIGINT is ignored, and what they start would inherit that.
COMMAND = ["env", "--default-signal=INT", sys.executable, "-c", "from flows.cli import main; main()", "demo"]


def _interrupted(log, store, runner, server, word):
    """Run `excel demo`, press Ctrl-C once it has said `word` → its exit status and what it said."""
    arguments = ["--store", str(store), "--runner", runner, *[part for s in MORE for part in ("--set", s)]]
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_API", "PREFECT_HOME"))}
    with log.open("w") as out:
        process = subprocess.Popen(
            [*COMMAND, *arguments], stdout=out, stderr=out, cwd=ROOT, env=clean | server, start_new_session=True
        )
    while word not in log.read_text():
        assert process.poll() is None, log.read_text()
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)
    status = process.wait()
    until = time.monotonic() + 30  # Python's own resource tracker ends when it sees that its parent has
    while _session(process.pid) and time.monotonic() < until:
        time.sleep(0.1)
    return status, log.read_text(), _session(process.pid)


def _session(leader):
    """Processes of a session that still run."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == leader and fields[0] != "Z":
            found.append(int(entry.name))
    return found


def _records(store):
    return [json.loads(path.read_text()) for path in sorted((store / "records").glob("*.json"))]


def test_ctrl_c_stops_the_command_and_its_own_server(tmp_path):
    """Twice: what was finished the first time is there the second."""
    store = tmp_path / "store"
    for word, stages in (("cams: ", {"knowledge"}), ("train: 40/400", {"knowledge", "refine"})):
        status, said, left = _interrupted(tmp_path / "log", store, "sequential", {}, word)
        assert status == 130 and "Traceback" not in said and not left
        assert said.strip().endswith(STOPPED)
        assert stages <= {name.partition("/")[0] for name in committed(store)}
    assert [record["state"] for record in _records(store)] == ["stopped", "stopped"]
    assert list(store.glob("train/*.resume/checkpoint.pt"))


@pytest.mark.usefixtures("prefect_server")
def test_ctrl_c_stops_dask_and_the_flow_run_says_so(tmp_path):
    store, url = tmp_path / "store", str(prefect.settings.get_current_settings().api.url)
    status, said, left = _interrupted(tmp_path / "log", store, "dask", {"PREFECT_API_URL": url}, "refine: ")
    assert status == 130 and "Traceback" not in said and not left
    assert said.strip().endswith(STOPPED)
    (record,) = _records(store)
    assert record["state"] == "stopped" and record["message"].startswith("KeyboardInterrupt")
    with get_client(sync_client=True) as client:
        assert client.read_flow_run(record["flow_run_id"]).state.is_crashed()
