"""A process killed in the middle of training costs the iterations since its last checkpoint and changes no byte."""

import json
import shutil
import subprocess
import sys
import time

from excel_core.presets import with_settings
from tasks.build import run_stage
from tasks.chain import follow
from tasks.stage import Place
from tests.conftest import ROOT

EDITS = ["train.iterations=24", "train.checkpoint_every=2"]
SCRIPT = """
import sys, json
from pathlib import Path
from excel_core.config import RunSpec
from tasks.build import run_stage
from tasks.chain import follow
from tasks.stage import Place
follow(RunSpec.model_validate_json(sys.argv[1]), Place(store=Path(sys.argv[2])), "train", run_stage)
"""


def test_sigkill_while_training(chain, small_run, tmp_path):
    run = with_settings(small_run, EDITS)
    stores = [shutil.copytree(chain[1].store, tmp_path / name) for name in ("whole", "killed")]
    whole = follow(run, Place(store=stores[0]), "train", run_stage)["train"]
    process = subprocess.Popen([sys.executable, "-c", SCRIPT, run.model_dump_json(), str(stores[1])], cwd=ROOT)
    deadline = time.monotonic() + 240
    while not list(stores[1].glob("train/*.partial/checkpoint.pt")):
        assert process.poll() is None and time.monotonic() < deadline, "it ended before its first checkpoint"
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert not (stores[1] / "train" / whole.identity).exists()  # nothing half-done looks complete
    resumed = follow(run, Place(store=stores[1]), "train", run_stage)["train"]
    assert resumed.identity == whole.identity and resumed.content == whole.content
    marker = json.loads((resumed.folder / "stage.json").read_text())
    assert "checkpoint.pt" not in marker["output"]["files"]
