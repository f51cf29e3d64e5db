"""The Python interface and the pipeline compute the same: the small demo's outputs, again from its files in memory."""

import numpy as np
import pandas as pd
import pytest
import torch

import excel_core as excel
from excel_core.datasets.palette import load_labels_png
from excel_core.stores import CamReader, read_knowledge, read_manifest
from tasks.stages.refine import PSEUDO_LABELS


@pytest.fixture(scope="module")
def model(small_run):
    clip, classes = excel.load_clip("excel-tiny"), excel.classes("world")
    return excel.TrainingFreeModel(
        clip, excel.build_knowledge(clip, classes, excel.describe(classes, small_run), small_run), small_run
    )


def _photos(outputs, split):
    """(id, file, image-level labels) of a split's photos, in the manifest's order."""
    manifest = read_manifest(outputs["dataset"].folder / "manifest.parquet")
    data = outputs["world"].folder
    rows = manifest[manifest["split"] == split].to_dict("records")
    return [(row["id"], data / row["image"], tuple(row["labels"])) for row in rows]


def test_knowledge_is_equal_to_the_bit(chain, model):
    stored = read_knowledge(chain[0]["knowledge"].folder / "knowledge.zarr")
    assert torch.equal(model.knowledge.knowledge.text, stored.knowledge.text)
    assert model.class_names == stored.class_names and model.knowledge.texts == stored.texts


def test_cams_and_pseudo_labels_are_equal(chain, model):
    """But for the last bits: the stages see photos in batches, and keep attention as float16."""
    outputs = chain[0]
    reader, differing, pixels = CamReader(outputs["cams"].folder), 0, 0
    for image, path, labels in _photos(outputs, "train")[:4]:
        cams = model.cams(path, labels)
        stored = reader.read(image)[1]
        assert np.allclose(cams.maps, stored, atol=1e-3)
        truth = load_labels_png(outputs["refine"].folder / PSEUDO_LABELS / f"{image}.png")
        differing += int((model.refine(cams).labels != truth).sum())
        pixels += truth.size
    assert differing <= pixels / 500


def test_training_and_prediction_are_equal(chain, model):
    outputs = chain[0]
    segmenter = excel.train(model, [(path, labels) for _, path, labels in _photos(outputs, "train")])
    losses = pd.read_csv(outputs["train"].folder / "losses.csv")
    assert np.allclose([row.loss for row in segmenter.losses], losses["loss"], rtol=1e-5)
    image, path, _ = _photos(outputs, "held_out_1")[0]
    for variant, options in {
        "single_scale": {},
        "multi_scale": {"multi_scale": True},
        "multi_scale_crf": {"multi_scale": True, "crf": True},
    }.items():
        stored = load_labels_png(outputs["predict"].folder / variant / "held_out_1" / f"{image}.png")
        assert (segmenter.predict(path, **options) != stored).mean() < 0.002
