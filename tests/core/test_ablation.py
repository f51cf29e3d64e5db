"""The ablation's rows, and its counts at every threshold against thresholds taken one by one."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from excel_core.ablation import BINS, ablation_rows, best_threshold, confusion_counts, level_counts
from excel_core.bootstrap import confusions_by_image, mean_iou
from excel_core.metrics import confusion_matrix
from excel_core.presets import preset, with_edits, with_method, with_settings


@pytest.fixture
def images():
    """Three images of 4 classes: (id, cams (4, 5, 5), classes, truth (12, 10) with ignored pixels)."""
    rng = np.random.default_rng(0)
    found = []
    for i, classes in enumerate([(0, 2), (1,), ()]):
        truth = rng.choice([0, *(c + 1 for c in classes), 255], size=(12, 10)).astype(np.uint8)
        found.append((f"i{i}", torch.from_numpy(rng.random((4, 5, 5), dtype=np.float32)), classes, truth))
    return found


def _levels(images):
    import pandas as pd

    return pd.concat([level_counts(cams, classes, truth).assign(image=i) for i, cams, classes, truth in images])


def _by_hand(cams, classes, truth, level):
    """The confusion of one image at one threshold."""
    if not classes:
        strongest, value = np.zeros(truth.shape, dtype=int), np.zeros(truth.shape)
    else:
        full = F.interpolate(cams[None], size=truth.shape, mode="bilinear", align_corners=False)[0].numpy()
        strongest = np.asarray(classes)[full[list(classes)].argmax(axis=0)]
        value = full[list(classes)].max(axis=0)
    return confusion_matrix(truth, np.where(np.floor(value * BINS) >= level, strongest + 1, 0).astype(np.uint8), 5)


@pytest.mark.parametrize("level", [0, 37, 60, 99])
def test_counts_at_a_threshold(images, level):
    counts = confusions_by_image(confusion_counts(_levels(images), level), [i for i, *_ in images], 5)
    for row, (_, cams, classes, truth) in zip(counts.toarray(), images, strict=True):
        np.testing.assert_array_equal(row.reshape(5, 5), _by_hand(cams, classes, truth, level))


def test_the_best_threshold_is_the_best_of_all(images):
    miou, level = best_threshold(_levels(images), 4)
    every = [mean_iou(sum(_by_hand(*image[1:], t) for image in images)) for t in range(BINS)]
    assert miou == pytest.approx(max(every)) and level == int(np.argmax(every))


def test_rows_are_the_runs_they_name():
    run = preset("demo")
    rows = {row.name: row for row in ablation_rows(run, 200)}
    assert list(rows)[:6] == [
        "q-k baseline", "value only, last block", "intra-correlation, last block", "SVC", "SVC + TSE", "SVC + TSE + LVC",
    ]  # fmt: skip
    assert rows["SVC + TSE"].run == rows["SVC + TSE + LVC"].run == run and rows["SVC + TSE + LVC"].learnt
    assert rows["SVC"].run == with_settings(run, ["knowledge.mode=none"]) and not rows["SVC"].seeded
    assert rows["112 attributes"].run.knowledge.attributes == 112
    assert rows["paper, SVC + TSE"].run == preset("demo", "paper")
    assert "196 attributes" not in {row.name for row in ablation_rows(run, 195)}
    few = with_edits(run, {"ablation": {"groups": ["method"]}})
    assert {row.group for row in ablation_rows(few, 200)} == {"method"}


@pytest.mark.parametrize("name", ["voc", "coco", "demo"])
def test_another_method_changes_what_methods_set_and_nothing_else(name):
    for method in ("reference", "paper", "clean"):
        for other in ("reference", "paper", "clean"):
            assert with_method(preset(name, other), method) == preset(name, method)
    edited = with_settings(preset(name, "paper"), ["train.iterations=7", "cams.image_size=64"])
    back = with_method(edited, "reference")
    assert back.train.iterations == 7 and back.cams == preset(name).cams.model_copy(update={"image_size": 64})
