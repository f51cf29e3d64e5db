"""Batches by worker processes: without shared memory for them, and when a worker dies or hangs, a run ends and says so."""

import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch

from excel_core.config import TrainSpec
from excel_core.errors import WorkerError
from excel_core.training import loading
from excel_core.training.batches import Batch, Batches
from excel_core.training.loading import has_shared_memory, loaded, worker_faults_named
from tests.conftest import ROOT

SPEC = TrainSpec(iterations=4, batch_size=2, crop=320, workers=2)
# A batch has a megabyte, and /dev/shm sixteen pages.
PROGRAM = """
import sys
import torch
from tests.core.test_loading import SPEC, batches
from excel_core.training.loading import loaded
for workers in (0, 2):
    found = list(loaded(batches(SPEC.model_copy(update={"workers": workers})), 0, torch.device("cpu")))
    print([int(batch.planes.long().sum()) for _, batch in found], flush=True)
"""


@dataclass(frozen=True)
class Photo:
    """As far as training looks at a photo: noise, which does something else first."""

    before: str = ""
    classes: tuple[int, ...] = (0,)
    labels: None = None

    def read(self) -> np.ndarray:
        if self.before == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.before == "hang":
            time.sleep(60)
        return np.random.default_rng(0).integers(0, 256, (400, 400, 3), dtype=np.uint8)


def batches(spec: TrainSpec, before: str = "") -> Batches:
    photos: Any = [Photo(before)] * 4
    return Batches(photos, spec, slice(0, spec.batch_size))


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_batches_are_the_same_whichever_way_they_come(monkeypatch):
    ways = {}
    for folder in ("/dev/shm", "/proc"):  # a file system without room
        monkeypatch.setattr(loading, "SHARED_MEMORY", folder)
        ways[folder] = [batch for _, batch in loaded(batches(SPEC), 0, torch.device("cpu"))]
    assert not has_shared_memory(SPEC, 2) and has_shared_memory(SPEC, 0)
    for one, other in zip(*ways.values(), strict=True):
        assert isinstance(other, Batch) and torch.equal(one.planes, other.planes) and torch.equal(one.slots, other.slots)
        other.planes[0] = 0  # it can be written, as the other can


def test_a_system_without_dev_shm_shares_memory_otherwise(monkeypatch, tmp_path):
    monkeypatch.setattr(loading, "SHARED_MEMORY", str(tmp_path / "none"))
    assert has_shared_memory(SPEC, 8)


@pytest.mark.skipif(not shutil.which("unshare"), reason="no unshare")
def test_a_full_dev_shm_does_not_matter():
    mount = "mount -t tmpfs -o size=64k tmpfs /dev/shm"
    if subprocess.run(["unshare", "-m", "sh", "-c", mount], capture_output=True).returncode:
        pytest.skip("no mounts are allowed here")
    command = ["unshare", "-m", "sh", "-c", f'{mount} && exec "$0" -c "$1"', sys.executable, PROGRAM]
    ran = subprocess.run(
        command, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=120
    )
    assert ran.returncode == 0 and not ran.stderr, ran.stderr
    alone, helped = ran.stdout.splitlines()
    assert alone == helped and alone.count(",") == 3


@pytest.mark.parametrize(("before", "says"), [("die", "died, as when memory"), ("hang", "gave no batch in time")])
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_worker_that_dies_or_hangs_ends_the_training_in_a_line(monkeypatch, before, says):
    monkeypatch.setattr(loading, "MAX_WAIT_SECONDS", 2.0)
    with (
        pytest.raises(WorkerError, match=f"^train.workers: a process that reads photos {says}") as ended,
        worker_faults_named(),
    ):
        list(loaded(batches(SPEC, before), 0, torch.device("cpu")))
    assert "\n" not in str(ended.value) and "set it lower, or to 0" in str(ended.value)


def test_workers_that_cannot_be_started_are_said(monkeypatch):
    def full(loader):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(loading.DataLoader, "__iter__", full)
    with pytest.raises(WorkerError, match=r"train.workers=2: .* cannot be started \(No space left on device\); set it lower"):
        list(loaded(batches(SPEC), 0, torch.device("cpu")))


def test_other_errors_stay_what_they_are():
    with pytest.raises(RuntimeError, match="^another"), worker_faults_named():
        raise RuntimeError("another")
