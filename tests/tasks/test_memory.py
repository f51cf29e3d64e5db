"""Peak memory of a piece of work: its own and nothing of what came before, over threads, parts and other processes."""

import json
import multiprocessing
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from excel_core.config.presets import preset
from tasks.engine import memory
from tasks.engine.executor import Step, build_stage, complete_output
from tasks.engine.memory import MemoryWatch, Peak, largest, measured_by_processes
from tasks.engine.output import StageResult
from tasks.engine.stage import Job, KeyParts, Part, RunEnvironment, Sharded, Stage, Whole
from tests.conftest import ROOT

MEGA = 10**6
SLACK = 60 * MEGA  # what a process holds may shrink or grow by this beside what a test asks for
RUN = preset("voc")
linux = pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="Linux measures, other systems do not")
ALONE = "EXCEL_MEMORY_TESTS"  # set in the process that runs this file and nothing else
measured = pytest.mark.skipif(ALONE not in os.environ, reason="runs in a process of its own")


def _touch(megabytes):
    """Hold so much, and let it go."""
    return float(np.ones(megabytes * MEGA // 8).sum())


def _job(store, name, work):
    stage = Stage(name, (), "a file", work, KeyParts(settings=lambda run: {}))
    return Job(stage, RUN, RunEnvironment(store=store), {})


def _whole(store, name, megabytes):
    def build(job, folder):
        _touch(megabytes)
        (folder / "out.txt").write_text(name)
        return StageResult()

    return _job(store, name, Whole(build))


@linux
@pytest.mark.skipif(ALONE in os.environ, reason="this is that process")
def test_what_measures_holds_in_a_process_of_its_own():
    """A test process that holds gigabytes from other tests gives and takes more than these tests ask for."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__]
    ran = subprocess.run(command, cwd=ROOT, env={**os.environ, ALONE: "1"}, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr


@measured
def test_a_stage_has_its_own_peak_and_not_that_of_the_one_before(tmp_path):
    before, large, after = (build_stage(_whole(tmp_path, name, size)) for name, size in (("a", 1), ("b", 200), ("c", 1)))
    low = before.peak_host_bytes
    assert low > 10 * MEGA
    assert low + 200 * MEGA - SLACK < large.peak_host_bytes < low + 200 * MEGA + SLACK and large.peak_host_bytes > 200 * MEGA
    assert after.peak_host_bytes < low + SLACK
    assert {output.peak_gpu_bytes for output in (before, large, after)} == {None}
    assert build_stage(_whole(tmp_path, "b", 200)) == large  # found again, with what building it took


@measured
def test_a_stage_of_parts_has_the_largest_peak_of_them(tmp_path):
    def parts(job):
        return [Part(str(size), 1, {"size": size}) for size in (1, 200, 2)]

    def build_part(job, part, folder):
        _touch(part.key["size"])
        return StageResult()

    def join(job, outputs, folder):
        return StageResult()

    whole = build_stage(_job(tmp_path, "toy", Sharded(parts, build_part, join)))
    markers = [json.loads(path.read_text())["output"] for path in tmp_path.glob("toy-parts/*/stage.json")]
    found = sorted(marker["peak_host_bytes"] for marker in markers)
    assert len(found) == 3 and whole.peak_host_bytes == found[2] > found[1] + 200 * MEGA - SLACK
    assert whole.seconds >= sum(marker["seconds"] for marker in markers)


def test_a_whole_has_no_figure_where_a_piece_has_none():
    a, b = Peak(host_bytes=5, gpu_bytes=1), Peak(host_bytes=3, gpu_bytes=2)
    assert largest([a, b, Peak(host_bytes=1)]) == Peak(host_bytes=5, gpu_bytes=2)
    assert largest([a, Peak()]) == Peak(host_bytes=None, gpu_bytes=1) and largest([]) == Peak()


@measured
def test_work_at_once_on_threads_has_the_peak_of_its_own_time():
    """The one that lasts holds 200 MB and lets them go before the other begins, which begins the process' peak anew."""
    peaks, freed, ended = {}, threading.Event(), threading.Event()

    def lasting():
        with MemoryWatch(gpu=False) as watch:
            _touch(200)
            freed.set()
            ended.wait(60)
        peaks["lasting"] = watch.peak.host_bytes

    def brief():
        freed.wait(60)
        with MemoryWatch(gpu=False) as watch:
            _touch(1)
        peaks["brief"] = watch.peak.host_bytes
        ended.set()

    threads = [threading.Thread(target=target) for target in (lasting, brief)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert abs(peaks["lasting"] - peaks["brief"] - 200 * MEGA) < SLACK


def _hold(megabytes, ready, done):
    held = np.ones(megabytes * MEGA // 8)
    ready.set()
    done.wait(60)
    assert held[0] == 1


@measured
def test_processes_started_meanwhile_add_what_they_hold_alone(monkeypatch):
    """A forked one: what it shares with this process, 300 MB among it, counts once. One that was there before is not work's."""
    monkeypatch.setattr(memory, "MIN_PAUSE", 0.02)
    context = multiprocessing.get_context("fork")
    shared, done = np.ones(300 * MEGA // 8), context.Event()
    earlier, ours = (context.Process(target=_hold, args=(100, context.Event(), done)) for _ in range(2))
    earlier.start()
    with MemoryWatch(gpu=False) as watch:
        ours.start()
        deadline = time.monotonic() + 60
        while watch._children.max_bytes < 100 * MEGA:
            assert time.monotonic() < deadline, "nobody saw the other process"
            time.sleep(0.01)
        done.set()
        ours.join()
    earlier.join()
    assert watch._children.max_bytes < 100 * MEGA + SLACK and shared[0] == 1
    assert watch.peak.host_bytes == max(watch.host) + watch._children.max_bytes


def test_processes_that_measure_themselves_are_summed():
    told = [Peak(host_bytes=10**15, gpu_bytes=7), Peak(host_bytes=2 * 10**15, gpu_bytes=9)]
    for peaks, expected in ((told, Peak(host_bytes=3 * 10**15, gpu_bytes=9)), ([*told, Peak()], Peak(gpu_bytes=9))):
        with MemoryWatch(gpu=False) as watch:
            measured_by_processes(peaks)
        assert watch.peak == (expected if Path("/proc/self/clear_refs").exists() else Peak(gpu_bytes=9))
    measured_by_processes(told)  # nobody measures: nothing happens


@measured
@pytest.mark.parametrize("broken", ["_host_peak", "_reset_host", "_descendants"])
def test_no_reading_fails_the_work(tmp_path, monkeypatch, broken):
    def closed(*arguments):
        raise PermissionError(13, "Permission denied", "/proc")

    monkeypatch.setattr(memory, broken, closed)
    monkeypatch.setattr(memory, "_cuda", closed)
    output = build_stage(_whole(tmp_path, "toy", 1))
    assert (output.peak_host_bytes is None) == (broken != "_descendants") and output.peak_gpu_bytes is None
    assert complete_output(Step(_whole(tmp_path, "toy", 1))) == output


def test_work_that_fails_leaves_no_watch_behind(tmp_path):
    with pytest.raises(ZeroDivisionError), MemoryWatch(gpu=False) as watch:
        1 / 0  # noqa: B018
    assert memory._watches == [] and memory._current.get() is None
    assert not watch._children._thread.is_alive() or watch._children.ended.is_set()


def test_torch_is_not_imported_to_measure():
    code = (
        "import sys\nfrom tasks.engine.memory import MemoryWatch\n"
        "with MemoryWatch(gpu=True) as watch: pass\nassert 'torch' not in sys.modules and watch.peak.gpu_bytes == 0"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_a_gpus_peak_is_that_of_the_block():
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("needs a GPU")
    peaks = []
    for side in (1, 5000, 1):
        with MemoryWatch(gpu=True) as watch:
            torch.zeros(side, side, device="cuda")
        peaks.append(watch.peak.gpu_bytes)
    assert peaks[1] >= 4 * 5000**2 > peaks[2]


def test_an_output_committed_before_memory_was_measured_is_complete(tmp_path):
    job = _whole(tmp_path, "toy", 1)
    committed = build_stage(job)
    marker = json.loads((committed.folder / "stage.json").read_text())
    for field in ("peak_host_bytes", "peak_gpu_bytes"):
        del marker["output"][field]
    (committed.folder / "stage.json").write_text(json.dumps(marker))
    output = build_stage(job)
    assert output.peak == Peak() and output.content == committed.content
    assert json.loads((committed.folder / "stage.json").read_text()) == marker  # nothing was built again
