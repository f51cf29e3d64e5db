"""The ablation's rows, and its counts at every threshold against thresholds taken one by one."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from excel_core.config.presets import preset, with_edits, with_method, with_settings
from excel_core.evaluation.ablation import (
    BINS,
    ablation_rows,
    best_threshold,
    confusion_counts,
    level_counts,
    presence_map,
    score_at_best_threshold,
)
from excel_core.evaluation.bootstrap import confusions_by_image
from excel_core.evaluation.metrics import confusion_matrix, mean_iou


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


def test_the_best_threshold_stays_for_resamples(images):
    ids = [i for i, *_ in images]
    draws = np.array([[1, 1, 1], [3, 0, 0], [0, 2, 1]])
    score = score_at_best_threshold(_levels(images), ids, 4, draws)
    miou, level = best_threshold(_levels(images), 4)
    assert (score.miou, score.threshold) == (miou, level / BINS)
    confusions = np.stack([_by_hand(*image[1:], level) for image in images])
    expected = [mean_iou(np.tensordot(counts, confusions, axes=1)) for counts in draws]
    np.testing.assert_allclose(score.resampled_miou, expected)
    assert score.resampled_miou[0] == pytest.approx(miou)


def test_presence_is_scored_against_the_images_classes():
    presence = np.array([[0.9, 0.1, 0.3], [0.2, 0.8, 0.4], [0.1, 0.7, 0.6]])
    assert presence_map(presence, [(0,), (1,), (1, 2)]) == 1
    # Class 0 is in the second of its ranking; class 1 in its second and third; class 2 in no image.
    assert presence_map(presence, [(1,), (0,), (1,)]) == pytest.approx((1 / 2 + (1 / 2 + 2 / 3) / 2) / 2)


def test_rows_are_the_runs_they_name():
    run = preset("demo")
    rows = {row.name: row for row in ablation_rows(run, 200)}
    assert list(rows)[:5] == ["q-k baseline", "SVC", "SVC + TSE", "SVC + LVC", "SVC + TSE + LVC"]
    assert rows["SVC + TSE"].run == rows["SVC + TSE + LVC"].run == run and rows["SVC + TSE + LVC"].learnt
    plain = with_settings(run, ["knowledge.mode=none"])
    assert rows["SVC"].run == rows["SVC + LVC"].run == plain and not rows["SVC"].seeded and rows["SVC + LVC"].learnt
    assert rows["112 attributes"].run.knowledge.attributes == 112
    assert rows["paper, SVC + TSE"].run == preset("demo", "paper")
    assert "196 attributes" not in {row.name for row in ablation_rows(run, 195)}
    few = with_edits(run, {"ablation": {"groups": ["method"]}})
    assert {row.group for row in ablation_rows(few, 200)} == {"method"}
    own = with_edits(run, {"ablation": {"groups": ["components"], "own_trainings": False}})
    assert [row.name for row in ablation_rows(own, 200)] == ["q-k baseline", "SVC", "SVC + TSE", "SVC + TSE + LVC"]


def test_no_attributes_is_named_in_both_readings():
    """Table 4's None still fuses descriptions; a row says how, and none is the plain template."""
    modes = {row.name: row.run.knowledge.mode for row in ablation_rows(preset("demo"), 200) if row.name.startswith("none")}
    assert modes == {
        "none: each class's own descriptions": "own_descriptions", "none: the class means as attributes": "class_means",
    }  # fmt: skip


def test_rows_of_table_5_are_enriched():
    rows = [row for row in ablation_rows(preset("demo"), 200) if row.group == "calibration"]
    assert [(row.run.cams.calibration.attention, row.run.cams.calibration.depth) for row in rows] == [
        ("qk", 5), ("v", 1), ("svc", 1), ("svc", 5),
    ]  # fmt: skip
    assert all(row.run.knowledge == preset("demo").knowledge for row in rows)


@pytest.mark.parametrize("name", ["voc", "coco", "demo"])
def test_another_method_changes_what_methods_set_and_nothing_else(name):
    for method in ("reference", "paper", "clean"):
        for other in ("reference", "paper", "clean"):
            assert with_method(preset(name, other), method) == preset(name, method)
    edited = with_settings(preset(name, "paper"), ["train.iterations=7", "cams.image_size=64"])
    back = with_method(edited, "reference")
    assert with_method(with_settings(preset(name), ["train.learning_rate=0.01"]), "paper").train.learning_rate == 0.01
    assert back.train.iterations == 7 and back.cams == preset(name).cams.model_copy(update={"image_size": 64})
