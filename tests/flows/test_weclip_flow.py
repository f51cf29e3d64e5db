"""`excel run demo --method weclip` and `weclip_plus` on a real Prefect server, with a few iterations."""

import json
from pathlib import Path

import numpy as np
import pytest

from excel_core.errors import ModelError, SettingError
from flows import stages
from flows.excel import excel
from flows.request import RunRequest
from tasks.history.find_run import find_record
from tasks.photos.trained import run_segmenter
from tests.flows.server import task_states

pytestmark = pytest.mark.usefixtures("prefect_server")

SMALL = [
    "dataset.train_scenes=4", "dataset.val_scenes=1", "shards.images=8", "report.gallery_images=1", "train.iterations=2",
    "train.batch_size=2", "train.segmenter.width=16", "refine.par.iterations=2",
]  # fmt: skip


@pytest.mark.parametrize("method", ["weclip", "weclip_plus"])
def test_the_whole_chain_runs(method, tmp_path, prefect_server, monkeypatch):
    store = tmp_path / "store"
    page = excel.with_options(flow_run_name=method)("demo", method=method, settings=SMALL, store=str(store))
    assert f"{method}:reference" in Path(page).read_text(encoding="utf-8")
    names = {name.split()[0] for name in task_states(method)}
    assert {"cams", "refine", "train", "dynamic", "predict", "evaluate", "report"} <= names
    [record] = [json.loads(path.read_text()) for path in (store / "records").glob("*.json")]
    assert record["spec"]["method"] == f"{method}:reference"
    # A stage's flow finds what the chain left.
    folder = stages.train("demo", method=method, settings=SMALL, store=str(store))
    assert (Path(folder) / "segmenter.safetensors").is_file()
    # Its segmenter takes photos of other sizes, as long as its encoders are the same.
    trained = run_segmenter(find_record(store, "latest"), "cpu")
    steps = trained.label_steps(np.zeros((40, 90, 3), np.uint8), multi_scale=True)
    assert steps["segmenter"].shape == (40, 90)
    if method == "weclip_plus":
        monkeypatch.setattr("tasks.photos.trained.dino_fingerprint", lambda name: "other")
        with pytest.raises(ModelError, match="no longer those that run"):
            run_segmenter(find_record(store, "latest"), "cpu")


@pytest.mark.parametrize(
    ("method", "setting", "message"),
    [
        ("excel", "dino.model=dino-tiny", r"the second encoder is WeCLIP\+'s"),
        ("excel", "cams.gradcam_skips=1", "cams.gradcam_skips: method excel:reference .* does not use it"),
        ("weclip", "train.mutual_weight=0.1", "mutual losses need a second encoder"),
        ("weclip", "predict.average_at=0.5", "predict.average_at: method weclip:reference .* does not use it"),
        ("weclip", "train.keep_every=10", "train.keep_every: method weclip:reference .* does not use it"),
        ("weclip", "cams.gradcam_skips=4", None),
        ("weclip_plus", "dino.model=dinov2_vits14:nowhere.pth", "DINO weights 'nowhere.pth' do not exist"),
        ("weclip_plus", "dino.model=dinov9", "unknown DINO 'dinov9'; valid: dino-tiny"),
        ("weclip", "train.from_checkpoint=pyproject.toml", "segmenters of ExCEL's published code, not of weclip:reference"),
    ],
)
def test_options_of_other_methods_are_refused(method, setting, message):
    request = RunRequest(preset="demo", method=method, settings=[setting])
    if message is None:
        assert request.spec().method == f"{method}:reference"
        return
    with pytest.raises((SettingError, ModelError), match=message):
        request.spec()
