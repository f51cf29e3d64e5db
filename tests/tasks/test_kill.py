"""A process killed in the middle of training costs the iterations since its last checkpoint and changes no byte, of the
segmenters kept on the way neither."""

import json
import shutil
import subprocess
import sys
import time

from excel_core.config.presets import with_settings
from tasks.engine.stage import RunEnvironment
from tests.conftest import ROOT
from tests.pipeline_runs import follow

EDITS = ["train.iterations=24", "train.checkpoint_every=2", "train.keep_every=3"]
SCRIPT = """
import sys, json
from pathlib import Path
from excel_core.config import RunSpec
from tasks.engine.stage import RunEnvironment
from tests.pipeline_runs import follow
follow(RunSpec.model_validate_json(sys.argv[1]), RunEnvironment(store=Path(sys.argv[2])), "train")
"""


def test_sigkill_while_training(chain, small_run, tmp_path):
    run = with_settings(small_run, EDITS)
    stores = [shutil.copytree(chain[1].store, tmp_path / name) for name in ("whole", "killed")]
    whole = follow(run, RunEnvironment(store=stores[0]), "train")["train"]
    process = subprocess.Popen([sys.executable, "-c", SCRIPT, run.model_dump_json(), str(stores[1])], cwd=ROOT)
    deadline = time.monotonic() + 240
    while not list(stores[1].glob("train/*.resume/checkpoint.pt")):
        assert process.poll() is None and time.monotonic() < deadline, "it ended before its first checkpoint"
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert not (stores[1] / "train" / whole.key).exists()  # nothing half-done looks complete
    half = stores[1] / "train" / f"{whole.key}.resume" / "kept" / ".000003.kept.7.tmp"
    half.parent.mkdir(exist_ok=True)
    half.write_bytes(b"killed while it was written")
    resumed = follow(run, RunEnvironment(store=stores[1]), "train")["train"]
    assert resumed.key == whole.key and resumed.content == whole.content
    files = json.loads((resumed.folder / "stage.json").read_text())["files"]
    kept = {f"kept/{iteration:06d}.safetensors" for iteration in range(3, 25, 3)}
    assert set(files) == {"losses.csv", "segmenter.safetensors"} | kept


def test_a_damaged_checkpoint_costs_the_training_and_not_every_run_to_come(chain, small_run, tmp_path, capfd):
    """As a disk that filled up, or a power cut, leaves it; a half-written temporary file beside it is no output."""
    run = with_settings(small_run, EDITS[:1])
    whole = follow(run, chain[1], "train")["train"]
    environment = RunEnvironment(store=shutil.copytree(chain[1].store, tmp_path / "store"))
    shutil.rmtree(environment.store / "train" / whole.key)
    resume = environment.store / "train" / f"{whole.key}.resume"
    resume.mkdir()
    (resume / "checkpoint.pt").write_bytes(b"PK\x03\x04 and no more")
    (resume / ".checkpoint.pt.7.tmp").write_bytes(b"half")
    again = follow(run, environment, "train")["train"]
    assert "the checkpoint is damaged, training starts again" in capfd.readouterr().err
    assert again.content == whole.content and not resume.exists()
