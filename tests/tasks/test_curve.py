"""The learning curve at miniature size: which segmenters are kept, what they score, and who opens masks for it."""

import html
import re
import shutil

import pytest
from PIL import Image
from safetensors.torch import load_file

from excel_core.config.presets import preset, with_settings
from excel_core.errors import SettingError
from excel_core.files import read_json
from tasks.engine.stage import RunEnvironment
from tasks.pipeline import STAGES, pipeline
from tasks.stages.train_resume import kept_segmenters
from tests.pipeline_runs import files_made, files_named, follow, follow_and_note, follow_and_watch_masks
from tests.voc_folder import VAL, write_voc

SPLITS = ("held_out_1", "held_out_2", "held_out_3")


@pytest.fixture(scope="module")
def run(small_run):
    return with_settings(small_run, ["train.keep_every=2", "evaluate.ablation=false"])


@pytest.fixture(scope="module")
def environment(chain, tmp_path_factory):
    """A store of this file alone: what another test scored would be found, and no mask opened for it."""
    store = tmp_path_factory.mktemp("curved") / "store"
    scored = shutil.ignore_patterns("predict*", "evaluate*", "ablation*", "report*")
    shutil.copytree(chain[1].store, store, symlinks=True, ignore=scored)
    return RunEnvironment(store=store)


@pytest.fixture(scope="module")
def curved(run, environment):
    """(outputs, masks that each stage opened) of a run whose training keeps segmenters."""
    follow(run, environment, "dataset")  # what was copied is verified once, its masks too
    return follow_and_watch_masks(run, environment, "report")


def test_segmenters_are_kept_when_they_were_asked_for(curved, chain):
    folder = curved[0]["train"].folder
    files = kept_segmenters(folder, 4)
    assert {path.name for path in (folder / "kept").iterdir()} == {"000002.safetensors", "000004.safetensors"}
    assert files == {2: folder / "kept" / "000002.safetensors", 4: folder / "segmenter.safetensors"}
    second, last, trained = (load_file(path) for path in (files[2], folder / "kept" / "000004.safetensors", files[4]))
    assert all((last[key] == trained[key]).all() for key in trained)
    assert any((second[key] != trained[key]).any() for key in trained)
    plain = load_file(chain[0]["train"].folder / "segmenter.safetensors")
    assert all((plain[key] == trained[key]).all() for key in trained)  # keeping changes nothing
    assert not (chain[0]["train"].folder / "kept").exists() and "curve" not in chain[0]


def test_the_trained_segmenter_is_a_point_whatever_was_asked_for(tmp_path):
    (tmp_path / "kept").mkdir()
    for iteration in (3, 12):
        (tmp_path / "kept" / f"{iteration:06d}.safetensors").touch()
    assert list(kept_segmenters(tmp_path, 14)) == [3, 12, 14]
    assert list(kept_segmenters(tmp_path / "none", 14)) == [14]


def test_the_last_point_is_what_evaluation_says(curved):
    """The same weights on the same images at the same size, counted by another stage."""
    outputs, _ = curved
    curve = read_json(outputs["curve"].folder / "curve.json")
    assert curve["format"] == "excel-curve/1" and curve["skipped"] == {}
    assert [(row["split"], row["iteration"]) for row in curve["rows"]] == [(s, t) for s in SPLITS for t in (2, 4)]
    results = read_json(outputs["evaluate"].folder / "metrics.json")["results"]
    for row in curve["rows"]:
        assert row["published"] is None and 0 < row["pseudo_labels"] < 1
        if row["iteration"] == 4:
            assert row["segmentation"] == pytest.approx(results[f"segmentation.{row['split']}.single_scale"]["miou"], abs=2e-3)
    assert outputs["curve"].result["miou"] == {
        row["split"]: {kind: round(row[kind], 4) for kind in ("pseudo_labels", "segmentation")}
        for row in curve["rows"]
        if row["iteration"] == 4
    }
    protocol = curve["protocol"]
    assert protocol["images"] == dict.fromkeys(SPLITS, 4) and "supervision" not in protocol
    assert "affinity+PAR; R̂ in the affinity, threshold 0.75" in protocol["pseudo labels"]


def test_training_opens_no_mask_and_the_curve_does(curved):
    _, masks = curved
    opening = {name for name, found in masks.items() if found}
    assert opening == {"curve", "evaluate"} and masks["train"] == set()
    held_out = {f"{name}.png" for name in _ids(curved[0])}
    assert {path.rpartition("/")[2] for path in masks["curve"]} == held_out


def _ids(outputs):
    folder = outputs["predict"].folder / "single_scale"
    return [path.stem for split in SPLITS for path in (folder / split).iterdir()]


def test_chart_and_table_are_in_the_report(curved):
    outputs, _ = curved
    assert files_made(outputs["curve"]) == files_named("curve")
    assert files_made(outputs["train"]) == files_named("train")
    with Image.open(outputs["curve"].folder / "curve.png") as chart:
        assert chart.format == "PNG"
    page = (outputs["report"].folder / "index.html").read_text()
    section = page[page.index("Scores on the way") :]
    assert "segmenters kept during training" in section and "learning curve: segmentation on held_out" in section
    row = read_json(outputs["curve"].folder / "curve.json")["rows"][0]
    cells = re.findall(r"<t[dh][^>]*>\s*([^<]*?)\s*</t[dh]>", section)
    first = cells[cells.index("held_out_1") :][:4]
    assert [html.unescape(cell) for cell in first] == [
        "held_out_1",
        "2",
        f"{row['pseudo_labels']:.3f}",
        f"{row['segmentation']:.3f}",
    ]


def test_it_is_asked_for_by_keeping_alone(run, small_run, environment, curved):
    assert "curve" in pipeline(run, environment).own_ids and "curve" not in pipeline(small_run, environment).own_ids
    edited = with_settings(run, ["curve.threshold=0.5"])
    _, built = follow_and_note(edited, environment, "report", parts=False)
    assert built == ["curve", "report"]  # nothing is trained again
    with pytest.raises(SettingError, match="train.keep_every: .*greater than or equal to 1"):
        with_settings(run, ["train.keep_every=0"])


@pytest.mark.parametrize(
    ("name", "settings", "published"),
    [
        ("voc", [], {"val": True}),
        ("voc", ["dataset.val_splits=[train, val]"], {"train": False, "val": True}),
        ("voc", ["train.iterations=20000"], {"val": False}),
        ("voc", ["dataset.max_images=100"], {"val": False}),
        ("voc", ["train.supervision=masks"], {"val": False}),
        ("coco", ["train.iterations=30000"], {"val": False}),
    ],
)
def test_the_published_log_is_of_voc_val_and_its_own_length(name, settings, published):
    run = with_settings(preset(name), ["train.keep_every=2000", *settings])
    assert STAGES["curve"].key.settings(run)["published"] == published


def test_what_has_no_mask_is_said(tmp_path):
    data = write_voc(tmp_path / "VOC2012")
    (data / "SegmentationClass" / f"{VAL[0]}.png").unlink()
    small = [
        "dataset.partial=true", "dataset.train_split=train", "clip.model=excel-tiny", "describe.n=2",
        "knowledge.attributes=8", "cams.image_size=48", "train.crop=48", "train.iterations=2", "train.batch_size=2",
        "train.dynamic_from=1", "train.own_argmax_from=1", "train.segmenter.width=16", "refine.par.iterations=2",
        "refine.crf.enabled=false", "train.keep_every=2",
    ]  # fmt: skip
    environment = RunEnvironment(store=tmp_path / "store", data=data)
    outputs = follow(with_settings(preset("voc"), small), environment, "curve")
    curve = read_json(outputs["curve"].folder / "curve.json")
    assert curve["skipped"] == {"val: 1 of 2 images": "no mask in SegmentationClass"}
    assert curve["protocol"]["images"] == {"val": 1} and [row["iteration"] for row in curve["rows"]] == [2]
