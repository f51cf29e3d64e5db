"""What the whole chain leaves in the store, at miniature size."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from artifacts.report import write_report
from excel_core.config.presets import with_settings
from excel_core.datasets.masks import VocMaskReader
from excel_core.datasets.palette import VOC_PALETTE, load_labels_png
from excel_core.errors import MaskLeakError
from excel_core.evaluation.metrics import confusion_matrix, scores
from excel_core.stores import CamReader, read_knowledge, read_manifest
from tasks.engine.executor import build_stage
from tasks.engine.output import StageResult
from tasks.engine.stage import Job, KeyParts, MaskAccess, RunEnvironment, Stage, Whole
from tasks.pipeline import STAGES, report_job
from tasks.stages.report import make_view
from tests.pipeline_runs import follow, follow_and_note


def test_every_stage_left_a_committed_output(chain):
    outputs, _ = chain
    others = ("sweep", "ablation", "benchmark", "curve", "paper", "figures", "proposals", "score")
    assert list(outputs) == [name for name in STAGES if not name.startswith(others)]
    for output in outputs.values():
        marker = json.loads((output.folder / "stage.json").read_text())
        assert marker["format"] == "excel-stage/4" and marker["output"]["content"] == output.content
        assert not list(output.folder.parent.glob("*.partial"))


def test_the_manifest_has_image_level_labels_only(chain):
    manifest = read_manifest(chain[0]["dataset"].folder / "manifest.parquet")
    assert len(manifest) == 12 + 3 * 4 and (manifest["error"] == "").all()
    assert all(1 <= len(labels) <= 3 for labels in manifest["labels"])
    assert set(zip(manifest["height"], manifest["width"], strict=True)) == {(128, 128)}


def test_knowledge_can_be_read_as_words(chain):
    store = read_knowledge(chain[0]["knowledge"].folder / "knowledge.zarr")
    assert len(store.texts) == 200 and store.texts[0].startswith(f"a clean origami {store.class_names[0]}. it ")
    assert store.knowledge.attributes.shape[0] == 64


def test_cams_are_small_and_of_image_level_classes(chain):
    outputs, _ = chain
    manifest = read_manifest(outputs["dataset"].folder / "manifest.parquet").set_index("id")
    names = read_knowledge(outputs["knowledge"].folder / "knowledge.zarr").class_names
    for stage in ("cams", "dynamic"):
        reader = CamReader(outputs[stage].folder)
        assert len(reader.ids) == 12
        for image in reader.ids:
            classes, cams = reader.read(image)
            assert [names[c] for c in classes] == manifest.loc[image, "labels"]
            assert cams.shape[1:] == (16, 16) and cams.min() >= 0 and cams.max() <= 1
        assert outputs[stage].result["bytes_per_image"] < 4096


def test_an_image_is_encoded_once_or_twice_to_the_same_labels(chain, small_run, tmp_path):
    outputs, environment = chain
    kept = CamReader(outputs["cams"].folder)
    assert all(kept.attention(image).shape == (256, 256) for image in kept.ids)
    assert 32_768 < outputs["cams"].result["attention_bytes_per_image"] < 131_072
    twice = with_settings(small_run, ["shards.keep_attention=false"])
    found = follow(twice, RunEnvironment(store=shutil.copytree(environment.store, tmp_path / "store")), "refine")
    again = CamReader(found["cams"].folder)
    assert again.attention(again.ids[0]) is None and found["cams"].result["attention_bytes_per_image"] == 0
    for image in kept.ids:
        np.testing.assert_allclose(kept.read(image)[1], again.read(image)[1], atol=1e-3)
        one, two = (
            load_labels_png(folder / "SegmentationClassPseudo" / f"{image}.png")
            for folder in (outputs["refine"].folder, found["refine"].folder)
        )
        assert (one == two).mean() > 0.99


def test_no_attention_is_kept_of_many_patches(small_run, tmp_path):
    edits = ["cams.image_size=264", "dataset.train_scenes=2", "dataset.val_splits=[]"]  # 33 x 33 patches of 8 pixels
    outputs = follow(with_settings(small_run, edits), RunEnvironment(store=tmp_path), "refine")
    assert outputs["cams"].result["attention_bytes_per_image"] == 0 and outputs["refine"].result["images"] == 2


def test_pseudo_labels_are_palette_pngs_of_the_images_size(chain):
    outputs, _ = chain
    folder = outputs["refine"].folder
    listed = (folder / "ImageSets" / "Segmentation" / "train.txt").read_text().split()
    assert len(listed) == 12
    for image in listed:
        with Image.open(folder / "SegmentationClassPseudo" / f"{image}.png") as png:
            assert png.mode == "P" and png.size == (128, 128)
            assert np.array_equal(np.array(png.getpalette()).reshape(-1, 3), VOC_PALETTE[: len(png.getpalette()) // 3])
        for step in outputs["refine"].result["steps"][:-1]:
            assert (folder / "steps" / step / f"{image}.png").is_file()


def test_metrics_are_what_the_files_say(chain):
    outputs, _ = chain
    metrics = json.loads((outputs["evaluate"].folder / "metrics.json").read_text())
    names = ("background", *read_knowledge(outputs["knowledge"].folder / "knowledge.zarr").class_names)
    reader = VocMaskReader(outputs["world"].folder)
    listed = (outputs["refine"].folder / "ImageSets" / "Segmentation" / "train.txt").read_text().split()
    matrix = sum(
        confusion_matrix(
            reader.read(image, 128, 128),
            load_labels_png(outputs["refine"].folder / "SegmentationClassPseudo" / f"{image}.png"),
            len(names),
        )
        for image in listed
    )
    last = outputs["refine"].result["steps"][-1]
    result = metrics["results"][f"seeds.static.train.{last}"]
    assert result["miou"] == pytest.approx(scores(matrix, names).miou)
    scored = {"miou", "miou_interval", "iou", "precision", "recall", "confusion_ratio", "pixels"}
    assert set(result) == {"protocol"} | scored
    assert result["miou_interval"][0] <= result["miou"] <= result["miou_interval"][1]
    protocol_fields = {"what", "split", "labels", "refinement", "scales", "images", "method"}
    assert all(set(found["protocol"]) == protocol_fields for found in metrics["results"].values())
    for split in ("held_out_1", "held_out_2", "held_out_3"):
        for name in ("single_scale", "multi_scale", "multi_scale_crf"):
            assert f"segmentation.{split}.{name}" in metrics["results"]
    rows = [row["name"] for row in metrics["ablation"]["rows"]]
    assert rows[:4] == ["q-k baseline", "SVC", "SVC + TSE", "SVC + TSE + LVC"] and rows[-1] == "SVC, TSE"
    assert metrics["skipped"] == {}


def test_the_explorer_s_scores_and_truths_are_those_of_the_masks(chain, small_run):
    """Of every image: the report opens no mask, so both come through what evaluation left."""
    outputs, environment = chain
    masks = VocMaskReader(outputs["world"].folder)
    images = make_view(report_job(small_run, environment, outputs)).explored
    assert [image.split for image in images] == ["train"] * 12 + [f"held_out_{n}" for n in (1, 2, 3) for _ in range(4)]
    for image in images:
        arrays, truth = image.load(), masks.read(image.id, 128, 128)
        assert (arrays.truth == truth).all() and list(arrays.maps) == list(image.scores)
        assert bool(arrays.cams) == (image.split == "train")
        for kind, labels in arrays.maps.items():
            either = (truth != 255) & ((truth > 0) | (labels > 0))
            assert image.scores[kind].iou == pytest.approx((truth == labels)[either].mean())
            assert set(image.scores[kind].missed) == set(truth[(truth > 0) & (truth != 255)]) - set(truth[truth == labels])
            assert set(image.scores[kind].false) == set(labels[either]) - set(np.unique(truth)) - {0}


def test_a_report_made_twice_is_the_same_bytes(chain, small_run, tmp_path):
    outputs, environment = chain
    page = write_report(tmp_path, make_view(report_job(small_run, environment, outputs)))
    assert page.read_bytes() == (outputs["report"].folder / "index.html").read_bytes()


def test_training_left_its_curve(chain):
    folder = chain[0]["train"].folder
    losses = pd.read_csv(folder / "losses.csv")
    assert losses["iteration"].tolist() == [0, 1, 2, 3] and np.isfinite(losses.to_numpy()).all()
    with Image.open(chain[0]["report"].folder / "losses.png") as chart:
        assert chart.format == "PNG" and min(chart.size) > 200
    assert not (folder / "checkpoint.pt").exists()


def test_nothing_runs_twice(chain, small_run):
    outputs, built = follow_and_note(small_run, chain[1], "report")
    assert outputs == chain[0] and built == []


def test_a_stage_that_opens_a_mask_fails_unless_it_evaluates(chain, small_run, tmp_path):
    mask = next((chain[0]["world"].folder / "SegmentationClass").glob("*.png"))

    def peek(job, folder):
        load_labels_png(mask)
        return StageResult()

    def build(name, run=small_run, **access):
        stage = Stage(name, reads=(), makes="nothing", work=Whole(peek), key=KeyParts(settings=lambda run: {}), **access)
        build_stage(Job(stage, run, RunEnvironment(store=tmp_path), {}))

    labels = MaskAccess.LABELS_IN_MASK_FILES  # of two folders that no VOC mask is in
    for access in ({}, {"masks": labels}, {"masks": MaskAccess.FULL_SUPERVISION}):
        with pytest.raises(MaskLeakError, match="spy"):
            build("spy", **access)
    supervised = with_settings(small_run, ["train.supervision=masks"])
    build("trainer", supervised, masks=MaskAccess.FULL_SUPERVISION)
    build("scorer", masks=MaskAccess.ALWAYS)


def test_segmentation_looks_at_its_own_size(chain, small_run):
    """predict.image_size is the side that segmentation is warped to, whatever the CAMs' side is."""
    edited = with_settings(small_run, ["predict.image_size=64", "evaluate.ablation=false", "predict.crf=false"])
    outputs = follow(edited, chain[1], "evaluate")
    before, after = (
        json.loads((found["evaluate"].folder / "metrics.json").read_text())["results"] for found in (chain[0], outputs)
    )
    key = "seeds.static.train.raw"
    assert before[key] == after[key]
    matrices = [[r[k] for k in r if k.startswith("segmentation") and "crf" not in k] for r in (before, after)]
    assert matrices[0] != matrices[1]
