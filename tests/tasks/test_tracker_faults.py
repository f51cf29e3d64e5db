"""A tracker that fails in the middle of a training ends no run: it is said in a line, and tried once more at the end."""

import os
import shutil
import threading

import pytest

from excel_core.config.presets import with_settings
from tasks.engine.stage import RunEnvironment
from tasks.trackers import live
from tasks.trackers.target import LogTarget
from tests.tasks.tracked_training import LEARNT, train

pytestmark = pytest.mark.filterwarnings("default")  # of the tools' packages


@pytest.fixture
def environment(chain, tmp_path):
    """A copy of the small run's store."""
    return RunEnvironment(store=shutil.copytree(chain[1].store, tmp_path / "store"))


@pytest.fixture
def thread_faults(monkeypatch):
    """Faults of threads, which Python would print as tracebacks."""
    faults = []
    monkeypatch.setattr(threading, "excepthook", faults.append)
    return faults


class Lines:
    """A tracker that writes each step into a file of the folder at `place`, a line each; what it has is read from there."""

    def __init__(self, info, place):
        os.makedirs(place, exist_ok=True)
        self.file = os.path.join(place, "steps.txt")
        open(self.file, "a").close()
        steps = _lines(self.file)
        self.last = {"train/loss": steps[-1]} if steps else {}

    def write(self, points):
        with open(self.file, "r+") as file:
            file.seek(0, os.SEEK_END)
            file.writelines(f"{point.iteration}\n" for point in points if "train/loss" in point.values)

    def close(self, protocols, ending):
        self.write([])
        return ending


def _lines(file):
    with open(file) as lines:
        return [int(line) for line in lines]


def _tensorboard_steps(run):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run))
    events.Reload()
    return [event.step for event in events.Scalars("train/loss")]


def _fill_disk(folder):
    """From now on every byte of the event file is one too many."""
    (file,) = folder.glob("*/events.*")
    file.rename(folder / "begun")
    file.symlink_to("/dev/full")


def _empty_disk(folder):
    (file,) = folder.glob("*/events.*")
    (folder / "begun").rename(file)


def _assert_trained(record):
    assert record.state == "complete" and (record.output("train") / "segmenter.safetensors").exists()


def _train_while_the_folder_is_removed(small_run, environment, folder):
    target = LogTarget("tensorboard", str(folder))
    record, said = train(with_settings(small_run, LEARNT), environment, target, at={3: lambda: shutil.rmtree(folder)})
    _assert_trained(record)
    return record, said


def test_a_folder_that_goes_away_and_comes_back_has_all_steps(small_run, environment, tmp_path, monkeypatch, thread_faults):
    monkeypatch.setitem(live.LIVE_TRACKERS, "tensorboard", Lines)
    folder = tmp_path / "logs"
    _, said = _train_while_the_folder_is_removed(small_run, environment, folder)
    assert said[0].startswith(f"warning: --log tensorboard:{folder}: [Errno 2] ") and said[1:] == ["logged: complete"]
    assert said[0].endswith("; the run goes on without it") and _lines(folder / "steps.txt") == [1, 2, 3, 4, 5, 6]


def test_tensorboard_whose_folder_is_removed_gets_all_in_the_end(small_run, environment, tmp_path, thread_faults):
    pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    folder = tmp_path / "logs"
    record, said = _train_while_the_folder_is_removed(small_run, environment, folder)
    assert len(said) == 2 and "No such file" in said[0] and said[1] == f"logged: tensorboard --logdir {folder}"
    assert _tensorboard_steps(folder / record.id) == [1, 2, 3, 4, 5, 6] and not thread_faults


def test_tensorboard_on_a_full_disk_goes_on_in_another_file(small_run, environment, tmp_path, thread_faults):
    pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    folder = tmp_path / "logs"
    times = {3: lambda: _fill_disk(folder), 5: lambda: _empty_disk(folder)}
    record, said = train(with_settings(small_run, LEARNT), environment, LogTarget("tensorboard", str(folder)), at=times)
    _assert_trained(record)
    assert len(said) == 2 and "No space left" in said[0] and said[1].startswith("logged: ") and not thread_faults
    assert _tensorboard_steps(folder / record.id) == [1, 2, 3, 4, 5, 6]
    assert len(list((folder / record.id).iterdir())) == 2  # what the first may hold the half of is not written to again


def test_tensorboard_whose_folder_became_a_file_is_told_twice_and_ends_nothing(small_run, environment, tmp_path, thread_faults):
    pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    folder = tmp_path / "logs"

    def replace():
        shutil.rmtree(folder)
        folder.touch()

    target = LogTarget("tensorboard", str(folder))
    record, said = train(with_settings(small_run, LEARNT), environment, target, at={3: replace})
    _assert_trained(record)
    assert len(said) == 2 and all(line.startswith(f"warning: {target}: ") and "\n" not in line for line in said)
    assert not thread_faults
