"""Peak memory, where a process must hold nothing from other tests: run by test_memory.py in a process of its own."""

import json
import multiprocessing
import threading
import time

import numpy as np
import pytest

from excel_core.config.presets import preset
from tasks.engine import memory
from tasks.engine.executor import Step, build_stage, complete_output
from tasks.engine.memory import MemoryWatch
from tasks.engine.output import StageResult
from tasks.engine.stage import Job, KeyParts, Part, RunEnvironment, Sharded, Stage, Whole

MEGA = 10**6
SLACK = 60 * MEGA  # what a process holds may shrink or grow by this beside what a test asks for
RUN = preset("voc")


def _touch(megabytes):
    """Hold so much, and let it go."""
    return float(np.ones(megabytes * MEGA // 8).sum())


def _job(store, name, work):
    stage = Stage(name, (), "a file", work, KeyParts(settings=lambda run: {}))
    return Job(stage, RUN, RunEnvironment(store=store), {})


def whole_job(store, name, megabytes):
    def build(job, folder):
        _touch(megabytes)
        (folder / "out.txt").write_text(name)
        return StageResult()

    return _job(store, name, Whole(build))


def test_a_stage_has_its_own_peak_and_not_that_of_the_one_before(tmp_path):
    before, large, after = (build_stage(whole_job(tmp_path, name, size)) for name, size in (("a", 1), ("b", 200), ("c", 1)))
    low = before.peak_host_bytes
    assert low > 10 * MEGA
    assert low + 200 * MEGA - SLACK < large.peak_host_bytes < low + 200 * MEGA + SLACK and large.peak_host_bytes > 200 * MEGA
    assert after.peak_host_bytes < low + SLACK
    assert {output.peak_gpu_bytes for output in (before, large, after)} == {None}
    assert build_stage(whole_job(tmp_path, "b", 200)) == large  # found again, with what building it took


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


@pytest.mark.parametrize("broken", ["_host_peak", "_reset_host", "_descendants"])
def test_no_reading_fails_the_work(tmp_path, monkeypatch, broken):
    def closed(*arguments):
        raise PermissionError(13, "Permission denied", "/proc")

    monkeypatch.setattr(memory, broken, closed)
    monkeypatch.setattr(memory, "_cuda", closed)
    output = build_stage(whole_job(tmp_path, "toy", 1))
    assert (output.peak_host_bytes is None) == (broken != "_descendants") and output.peak_gpu_bytes is None
    assert complete_output(Step(whole_job(tmp_path, "toy", 1))) == output
