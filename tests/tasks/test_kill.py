"""A process killed in the middle of training costs the iterations since its last checkpoint and changes no byte, of the
segmenters kept on the way neither."""

import json
import shutil
import subprocess
import sys
import time

from excel_core.config.presets import with_settings
from tasks.chain import follow
from tasks.engine.build import run_stage
from tasks.engine.stage import RunEnvironment
from tests.conftest import ROOT

EDITS = ["train.iterations=24", "train.checkpoint_every=2", "train.keep_every=3"]
SCRIPT = """
import sys, json
from pathlib import Path
from excel_core.config import RunSpec
from tasks.engine.build import run_stage
from tasks.chain import follow
from tasks.engine.stage import Place
follow(RunSpec.model_validate_json(sys.argv[1]), Place(store=Path(sys.argv[2])), "train", run_stage)
"""


def test_sigkill_while_training(chain, small_run, tmp_path):
    run = with_settings(small_run, EDITS)
    stores = [shutil.copytree(chain[1].store, tmp_path / name) for name in ("whole", "killed")]
    whole = follow(run, RunEnvironment(store=stores[0]), "train", run_stage)["train"]
    process = subprocess.Popen([sys.executable, "-c", SCRIPT, run.model_dump_json(), str(stores[1])], cwd=ROOT)
    deadline = time.monotonic() + 240
    while not list(stores[1].glob("train/*.partial/checkpoint.pt")):
        assert process.poll() is None and time.monotonic() < deadline, "it ended before its first checkpoint"
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert not (stores[1] / "train" / whole.identity).exists()  # nothing half-done looks complete
    half = stores[1] / "train" / f"{whole.identity}.partial" / "kept" / ".000003.safetensors.7.tmp"
    half.parent.mkdir(exist_ok=True)
    half.write_bytes(b"killed while it was written")
    resumed = follow(run, RunEnvironment(store=stores[1]), "train", run_stage)["train"]
    assert resumed.identity == whole.identity and resumed.content == whole.content
    files = json.loads((resumed.folder / "stage.json").read_text())["files"]
    kept = {f"kept/{iteration:06d}.safetensors" for iteration in range(3, 25, 3)}
    assert set(files) == {"losses.csv", "losses.png", "segmenter.safetensors"} | kept


def test_a_damaged_checkpoint_costs_the_training_and_not_every_run_to_come(chain, small_run, tmp_path, capfd):
    """As a disk that filled up, or a power cut, leaves it; a half-written temporary file beside it is no output."""
    run = with_settings(small_run, EDITS[:1])
    whole = follow(run, chain[1], "train", run_stage)["train"]
    place = RunEnvironment(store=shutil.copytree(chain[1].store, tmp_path / "store"))
    shutil.rmtree(place.store / "train" / whole.identity)
    partial = place.store / "train" / f"{whole.identity}.partial"
    partial.mkdir()
    (partial / "checkpoint.pt").write_bytes(b"PK\x03\x04 and no more")
    (partial / ".checkpoint.pt.7.tmp").write_bytes(b"half")
    again = follow(run, place, "train", run_stage)["train"]
    assert "the checkpoint is damaged, training starts again" in capfd.readouterr().err
    assert again.content == whole.content
