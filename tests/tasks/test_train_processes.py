"""Training in two processes that torchrun starts (gloo, on the CPU): what one does, and what is left when it is cut off."""

import json
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
from safetensors.torch import load_file

from excel_core.config.presets import with_settings
from excel_core.errors import MaskLeakError, StoreError, WorkerError
from tasks.engine.losses import hearing_losses
from tasks.engine.memory import measured_by_processes
from tasks.engine.progress import listening
from tasks.engine.stage import Job, RunEnvironment
from tasks.pipeline import STAGES
from tasks.processes.launch import launch_training
from tests.conftest import ROOT
from tests.pipeline_runs import follow

EDITS = ["train.iterations=12", "train.checkpoint_every=2"]
SCRIPT = """
import sys
from pathlib import Path
from excel_core.config import RunSpec
from tasks.engine.stage import RunEnvironment
from tests.pipeline_runs import follow
follow(RunSpec.model_validate_json(sys.argv[1]), RunEnvironment(store=Path(sys.argv[2]), processes=2), "train")
"""


@pytest.fixture
def environment(chain, tmp_path):
    """Two processes on a copy of the small run's store."""
    return RunEnvironment(store=shutil.copytree(chain[1].store, tmp_path / "store"), processes=2)


def _distance(ours, theirs):
    """Largest difference of a weight or a loss between two outputs of the stage."""
    a, b = (load_file(output.folder / "segmenter.safetensors") for output in (ours, theirs))
    weights = []
    for key in a:
        difference = (a[key] - b[key]).abs()
        if key.endswith("in_proj_bias"):  # softmax does not see the keys' bias: its gradient is rounding, scaled up by Adam
            difference[len(difference) // 3 : 2 * len(difference) // 3] = 0
        weights.append(difference.max().item())
    losses = [pd.read_csv(output.folder / "losses.csv") for output in (ours, theirs)]
    return max(weights), (losses[0] - losses[1]).abs().to_numpy().max()


def _training(store: Path) -> list[str]:
    """Command lines of the processes that train into `store`."""
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = file.read_bytes().decode(errors="replace").split("\0")
        except OSError:  # gone by now
            continue
        if any(word.startswith(str(store)) and word.endswith(".job.json.tmp") for word in words):
            found.append(" ".join(words))
    return found


def test_the_stage_in_two_processes(chain, small_run, environment, capfd, monkeypatch):
    """The same output under the same identity; on the way, a damaged checkpoint is noticed and said. Its peak memory is the
    sum of what the two measured (this process', where that is more)."""
    alone = chain[0]["train"]
    shutil.rmtree(environment.store / "train")
    resume = environment.store / "train" / f"{alone.key}.resume"
    resume.mkdir(parents=True)
    (resume / "checkpoint.pt").write_bytes(b"PK\x03\x04 and no more")
    seen, told = [], []
    monkeypatch.setattr(
        "tasks.processes.launch.measured_by_processes", lambda peaks: (told.extend(peaks), measured_by_processes(peaks))
    )
    heard = []
    with (
        listening(lambda stage, done, total: seen.append((stage, done, total))),
        hearing_losses(lambda work, rows: heard.extend((work, row.iteration, row.loss) for row in rows)),
    ):
        process_group = follow(small_run, environment, "train")["train"]
    assert process_group.key == alone.key and seen == [("train", done, 4) for done in (1, 2, 3, 4)]
    assert capfd.readouterr().err.count("the checkpoint is damaged, training starts again") == 1
    files = json.loads((process_group.folder / "stage.json").read_text())["files"]
    assert set(files) == {"segmenter.safetensors", "losses.csv"}
    table = pd.read_csv(process_group.folder / "losses.csv")
    assert heard == [("train", iteration, pytest.approx(loss)) for iteration, loss in enumerate(table["loss"])]
    assert max(_distance(process_group, alone)) < 1e-5
    assert len(told) == 2 and all(peak.host_bytes > 10**8 and peak.gpu_bytes is None for peak in told)
    assert process_group.peak_host_bytes >= sum(peak.host_bytes for peak in told) and process_group.peak_gpu_bytes is None


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGINT], ids=lambda sent: sent.name)
def test_no_process_outlives_the_one_that_started_them(chain, small_run, environment, tmp_path, sent):
    run = with_settings(small_run, EDITS)
    process = subprocess.Popen(
        ["env", "--default-signal=INT", sys.executable, "-c", SCRIPT, run.model_dump_json(), str(environment.store)],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
    )  # SIGINT is ignored where the tests run in a shell's background
    deadline = time.monotonic() + 120
    while not list(environment.store.glob("train/*.resume/checkpoint.pt")):
        assert process.poll() is None and time.monotonic() < deadline, "it ended before its first checkpoint"
        time.sleep(0.01)
    assert len(_training(environment.store)) >= 3  # torchrun and its two
    process.send_signal(sent)
    process.communicate()
    deadline = time.monotonic() + 30
    while _training(environment.store):
        assert time.monotonic() < deadline, _training(environment.store)
        time.sleep(0.1)
    seen = []
    with listening(lambda stage, done, total: seen.append(done)):
        resumed = follow(run, environment, "train")["train"]
    assert 2 < seen[0] <= 12 and seen[-1] == 12
    elsewhere = RunEnvironment(store=shutil.copytree(chain[1].store, tmp_path / "whole"))
    whole = follow(run, elsewhere, "train")["train"]
    assert max(_distance(resumed, whole)) < 1e-5


def test_a_mask_opened_in_a_process_of_the_team_fails_the_stage(small_run, environment):
    """A training image that is, behind a link, a mask."""
    world = next(environment.store.glob("world/*/JPEGImages")).parent
    for image in world.glob("JPEGImages/*"):
        mask = world / "SegmentationClass" / f"leaked_{image.name}"
        image.rename(mask)
        image.symlink_to(mask)
    with pytest.raises(MaskLeakError, match="train: open of the segmentation mask .*leaked_"):
        follow(with_settings(small_run, ["train.seed=1"]), environment, "train")
    assert not _training(environment.store)


def test_a_full_disk_is_the_same_error(small_run, environment):
    """The system itself refuses to write more than 64 KiB to a file: the checkpoint is larger."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**16, hard))
    try:
        with pytest.raises(StoreError, match="train: cannot write to .*File too large.*make room or choose another --store"):
            follow(with_settings(small_run, EDITS), environment, "train")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_processes_that_die_are_one_error_with_their_last_words(chain, small_run, tmp_path):
    """What no person can act on, such as a job without an input: torchrun's report of the process that failed first."""
    job = Job(STAGES["train"], small_run, RunEnvironment(store=tmp_path, processes=2), {"dataset": chain[0]["dataset"]})
    with pytest.raises(WorkerError, match=r"(?s)train: its 2 processes ended with status 1:.*KeyError: 'knowledge'"):
        launch_training(job, tmp_path, print)
    assert not list(tmp_path.iterdir())
