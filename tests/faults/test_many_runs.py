"""`excel runs` and `excel plan` in a store of many runs: how many files they read; with --soak, how long they take."""

import builtins
import copy
import io
import os
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from excel_core.checked_files import read_checked_json, write_checked_json
from excel_core.config.presets import preset, with_settings
from tasks.engine.executor import build_stage
from tasks.engine.output import MARKER
from tasks.engine.stage import RunEnvironment
from tasks.history.plan import MAX_COMPARED, MAX_MEASURED, plan_run
from tasks.history.run_record import read_records, start_record
from tasks.pipeline import pipeline
from tests.conftest import ROOT, SMALL_DEMO
from tests.pipeline_runs import follow

EDITS = ["refine.crf.iterations=3"]  # which the plan is about


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """(store, record) of one small run up to `refine`."""
    run = with_settings(preset("demo"), SMALL_DEMO)
    environment = RunEnvironment(store=tmp_path_factory.mktemp("many") / "store")
    record = start_record("excel", run, environment)

    def build(job):
        output = build_stage(job)
        record.use(output, cached=False)
        return output

    record.note_own(follow(run, environment, "refine", build))
    record.end("complete")
    return environment.store, record


def _as_many_runs(store: Path, count: int) -> None:
    """`count` copies of the store's run: records of their own, and outputs under keys of their own whose markers say another
    setting. Files are linked."""
    (record,) = read_records(store)
    folders = [folder.parent for folder in store.glob(f"*/*/{MARKER}")]
    for number in range(1, count):
        keys = {folder.name: f"{number:08x}{folder.name[8:]}" for folder in folders}
        for folder in folders:
            _copy_output(folder, keys, number)
        other = record.model_copy(update={"id": f"20200101-{number:06d}-abcdef", "number": 1 + number})
        other.outputs = [f"{kind}/{keys[key]}" for kind, key in (output.split("/") for output in record.outputs)]
        other.own = {name: keys[key] for name, key in record.own.items()}
        other.save()


def _copy_output(folder: Path, keys: dict[str, str], number: int) -> None:
    target = folder.with_name(keys[folder.name])
    shutil.copytree(folder, target, copy_function=os.link)
    marker = copy.deepcopy(read_checked_json(folder / MARKER))
    marker["output"]["key"] = target.name
    marker["origin"]["key_parts"].setdefault("settings", {})["of_run"] = number
    marker["origin"]["parts"] = {name: keys[key] for name, key in marker["origin"]["parts"].items()}
    (target / MARKER).unlink()
    write_checked_json(target / MARKER, marker)


def _markers_read(monkeypatch, action) -> int:
    """How many markers and records `action` opens."""
    opened, open_file = [], io.open

    def counting(file, *arguments, **options):
        opened.append(str(file))
        return open_file(file, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(io, "open", counting)  # pathlib's
        patch.setattr(builtins, "open", counting)
        action()
    return sum(name.endswith(".json") and ("/records/" in name or name.endswith(MARKER)) for name in opened)


def test_a_plan_reads_as_much_of_many_runs_as_of_some(recorded, tmp_path, monkeypatch):
    run = with_settings(preset("demo"), SMALL_DEMO + EDITS)
    counts = []
    for many in (MAX_COMPARED * 2, MAX_COMPARED * 3):
        store = shutil.copytree(recorded[0], tmp_path / str(many))
        _as_many_runs(store, many)
        graph = pipeline(run, RunEnvironment(store=store), "refine")
        counts.append(_markers_read(monkeypatch, lambda graph=graph: plan_run(graph)))
        assert _markers_read(monkeypatch, lambda store=store: read_records(store)) == many
    assert counts[0] == counts[1] <= MAX_COMPARED + MAX_MEASURED + 50


def test_listing_runs_loads_neither_torch_nor_pandas():
    code = (
        "import sys, flows.cli.history, artifacts.history, artifacts.stages, tasks.history.run_record\n"
        "print({'torch', 'pandas', 'prefect', 'zarr'} & set(sys.modules))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert ran.stdout == "set()\n"


def test_the_time_of_five_hundred_runs(recorded, tmp_path, soak, figures):
    if not soak:
        pytest.skip("a figure of --soak")
    store = shutil.copytree(recorded[0], tmp_path / "store")
    _as_many_runs(store, 500)
    settings = [part for setting in SMALL_DEMO + EDITS for part in ("--set", setting)]
    measured = {}
    for name, arguments in {"runs": [], "plan": ["demo", *settings, "--stage", "refine"]}.items():
        command = [str(Path(sys.executable).with_name("excel")), name, *arguments, "--store", str(store)]
        seconds = []
        for _ in range(3):
            before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
            subprocess.run(command, check=True, capture_output=True, cwd=ROOT)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
            seconds.append((round(time.perf_counter() - started, 2), round(cpu, 2)))
        measured[name] = {"seconds": min(seconds)[0], "cpu_seconds": min(cpu for _, cpu in seconds)}
    figures("many_runs", runs=500, markers=len(list(store.glob(f"*/*/{MARKER}"))), commands=measured)
