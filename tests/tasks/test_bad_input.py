"""One bad image costs itself and nothing else; too many end the run before work starts."""

import json
import shutil

import pytest

from excel_core.config.presets import preset, with_settings
from excel_core.errors import DataError
from tasks.engine.stage import RunEnvironment
from tests.conftest import SMALL_DEMO
from tests.pipeline_runs import follow

# The world's folder, read as any user's folder in VOC layout.
AS_VOC = [
    "dataset.prompts=world", "dataset.train_split=train", "dataset.val_splits=[held_out_1]", "clip.model=excel-tiny",
    "knowledge.attributes=16",
]  # fmt: skip
SMALL = [setting for setting in SMALL_DEMO if not setting.startswith("dataset")]
SIZES = ["cams.image_size=64", "predict.image_size=64", "train.crop=64"]


@pytest.fixture
def data(chain, tmp_path):
    """A copy of the small world to spoil."""
    return shutil.copytree(chain[0]["world"].folder, tmp_path / "photos")


def _follow(data, tmp_path, last, *edits):
    run = with_settings(preset("voc"), [*AS_VOC, *SMALL, *SIZES, *edits])
    return follow(run, RunEnvironment(store=tmp_path / "store", data=data), last)


def test_a_truncated_photo_is_recorded_and_the_run_goes_on(data, tmp_path):
    spoilt = sorted((data / "JPEGImages").iterdir())[0]
    spoilt.write_bytes(spoilt.read_bytes()[:700])
    outputs = _follow(data, tmp_path, "report")
    bad = outputs["dataset"].result["bad"]
    assert list(bad) == [spoilt.stem] and "truncated" in bad[spoilt.stem]
    assert outputs["refine"].result["images"] == 11
    assert not (outputs["refine"].folder / "SegmentationClassPseudo" / f"{spoilt.stem}.png").exists()
    metrics = json.loads((outputs["evaluate"].folder / "metrics.json").read_text())
    assert metrics["results"]["seeds.static.train.crf"]["protocol"]["images"] == 11
    assert spoilt.stem in (outputs["report"].folder / "index.html").read_text()


def test_too_many_bad_photos_end_the_run_first(data, tmp_path):
    for spoilt in sorted((data / "JPEGImages").iterdir())[:2]:
        spoilt.write_bytes(b"")
    with pytest.raises(DataError, match=r"2 of 16 images are bad, 1.0% are tolerated(.|\n)*the file is empty"):
        _follow(data, tmp_path, "dataset")


def test_without_masks_everything_but_scores(data, tmp_path):
    shutil.rmtree(data / "SegmentationClass")
    outputs = _follow(data, tmp_path, "report")
    metrics = json.loads((outputs["evaluate"].folder / "metrics.json").read_text())
    assert metrics["results"] == {} and "no image has a mask" in metrics["skipped"]["scores"]
    assert len(list((outputs["refine"].folder / "SegmentationClassPseudo").glob("*.png"))) == 12


def test_a_replaced_photo_is_another_data_set(data, tmp_path):
    before = _follow(data, tmp_path, "cams")
    first, second = sorted((data / "JPEGImages").iterdir())[:2]
    shutil.copyfile(second, first)
    after = _follow(data, tmp_path, "cams")
    assert after["cams"].key != before["cams"].key
    assert after["knowledge"] == before["knowledge"]
