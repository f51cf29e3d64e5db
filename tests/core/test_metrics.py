"""Scores against counts by hand, by loops and by scikit-learn; folders against arrays."""

import json
import unicodedata
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image
from sklearn.metrics import jaccard_score, precision_score, recall_score

from excel_core.datasets import forbid_mask_access
from excel_core.datasets.palette import save_labels_png
from excel_core.errors import DataError, MaskLeakError, SettingError
from excel_core.evaluation.metrics import (
    average_precision,
    confusion_matrix,
    confusion_of_counts,
    evaluate_folders,
    mean_average_precision,
    pixel_counts,
    scores,
)
from tests.voc_folder import TRAIN, VAL, write_voc

NAMES = ["background", "cat", "dog", "kite"]
PIXELS = hnp.arrays(np.uint8, (2, 6, 7), elements=st.sampled_from([0, 1, 2, 3, 255]))


@given(pair=PIXELS)
def test_confusion_counts_every_pixel_that_is_not_ignored(pair: np.ndarray) -> None:
    truth, prediction = pair[0], pair[1] % 4
    expected = np.zeros((4, 4), dtype=np.int64)
    for true, predicted in zip(truth.ravel().tolist(), prediction.ravel().tolist(), strict=True):
        if true != 255:
            expected[true, predicted] += 1
    matrix = confusion_matrix(truth, prediction, 4)
    np.testing.assert_array_equal(matrix, expected)
    assert matrix.dtype == np.int64


@given(pair=PIXELS)
def test_counts_by_cell_add_up_to_the_confusion(pair: np.ndarray) -> None:
    truth, prediction = pair[0], np.where(pair[1] == 255, 0, pair[1])
    whole = confusion_matrix(truth, prediction, 4)
    assert (pixel_counts(whole)["pixels"] > 0).all()
    rows = [pixel_counts(confusion_matrix(a, b, 4)) for a, b in zip(truth, prediction, strict=True)]
    np.testing.assert_array_equal(confusion_of_counts(pd.concat(rows), 4), whole)


@given(pair=PIXELS)
def test_scores_agree_with_scikit_learn(pair: np.ndarray) -> None:
    truth, prediction = pair[0].ravel(), pair[1].ravel() % 4
    kept = truth != 255
    if not kept.any():
        return
    result = scores(confusion_matrix(truth, prediction, 4), NAMES)
    options = {"labels": range(4), "average": None, "zero_division": np.nan}
    arguments = (truth[kept], prediction[kept])
    precision = precision_score(*arguments, **options)
    recall = recall_score(*arguments, **options)
    np.testing.assert_allclose(_array(result.precision), precision)
    np.testing.assert_allclose(_array(result.recall), recall)
    present = np.isin(range(4), truth[kept])
    iou = jaccard_score(*arguments, labels=np.flatnonzero(present), average=None)
    np.testing.assert_allclose(_array(result.iou)[present], iou)
    np.testing.assert_allclose(result.miou, iou.mean())
    np.testing.assert_allclose(result.mean_recall, recall[present].mean())
    seen = precision[present & ~np.isnan(precision)]
    assert result.mean_precision == (pytest.approx(seen.mean()) if seen.size else None)
    assert result.pixels == kept.sum()


def _array(by_name: dict[str, float | None]) -> np.ndarray:
    return np.array([np.nan if by_name[name] is None else by_name[name] for name in NAMES], dtype=float)


def test_scores_by_hand() -> None:
    # cat: 6 hit, 2 missed as background, 3 found in background; dog never predicted; kite only predicted
    confusion = np.array([[10, 3, 0, 1], [2, 6, 0, 0], [4, 0, 0, 0], [0, 0, 0, 0]])
    result = scores(confusion, NAMES)
    assert result.iou == {"background": 10 / 20, "cat": 6 / 11, "dog": 0.0, "kite": 0.0}
    assert result.precision == {"background": 10 / 16, "cat": 6 / 9, "dog": None, "kite": 0.0}
    assert result.recall == {"background": 10 / 14, "cat": 6 / 8, "dog": 0.0, "kite": None}
    assert result.confusion_ratio == {"background": 6 / 10, "cat": 3 / 6, "dog": None, "kite": None}
    assert result.miou == pytest.approx((10 / 20 + 6 / 11 + 0) / 3)
    assert result.mean_precision == pytest.approx((10 / 16 + 6 / 9) / 2)
    assert result.mean_recall == pytest.approx((10 / 14 + 6 / 8 + 0) / 3)


def test_a_class_in_neither_is_undefined_and_leaves_the_mean_alone() -> None:
    result = scores(np.diag([5, 7, 0, 0]), NAMES)
    assert result.miou == 1.0 and result.iou["dog"] is None and result.recall["kite"] is None


def test_json_has_stable_keys_and_no_nan() -> None:
    data = scores(np.diag([5, 7, 0, 0]), NAMES).to_json()
    assert list(data) == ["miou", "iou", "precision", "recall", "confusion_ratio", "pixels"]
    assert json.loads(json.dumps(data, allow_nan=False)) == data
    assert list(data["iou"]) == NAMES and data["pixels"] == 12


def test_matrices_add_up_over_images() -> None:
    truth, prediction = np.random.default_rng(0).integers(0, 4, (2, 8, 9, 9), dtype=np.uint8)
    parts = sum(confusion_matrix(t, p, 4) for t, p in zip(truth, prediction, strict=True))
    np.testing.assert_array_equal(parts, confusion_matrix(truth, prediction, 4))


@pytest.mark.parametrize(
    ("truth", "prediction", "message"),
    [
        ([0, 1], [0, 4], "the prediction holds the value 4, expected 0 … 3"),
        ([0, 1], [0, 255], "the prediction holds the value 255"),
        ([0, 1], [0, -1], "the prediction holds the value -1"),
        ([0, 9], [0, 1], "the truth holds the value 9"),
        ([0, 1], [0.0, 1.0], "the prediction must hold integers, got float64"),
        ([0, 1], [[0, 1]], "must have the truth's shape"),
    ],
)
def test_wrong_pixels_are_named(truth: list[int], prediction: list[int], message: str) -> None:
    with pytest.raises(DataError, match=message):
        confusion_matrix(np.array(truth), np.array(prediction), 4)


def test_what_is_predicted_at_ignored_pixels_does_not_matter() -> None:
    assert confusion_matrix(np.array([0, 255]), np.array([0, 255]), 4).sum() == 1


def test_wrong_matrices() -> None:
    with pytest.raises(DataError, match="expected 3 distinct class names, got 4"):
        scores(np.eye(3, dtype=np.int64), NAMES)
    with pytest.raises(DataError, match="no pixel was counted"):
        scores(np.zeros((4, 4), dtype=np.int64), NAMES)
    with pytest.raises(SettingError, match="num_classes"):
        confusion_matrix(np.zeros(1, int), np.zeros(1, int), 256)


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path, np.ndarray, np.ndarray]:
    """Three predictions and truths of 9 × 8 pixels as PNGs, and the arrays they hold."""
    prediction, truth = np.random.default_rng(0).integers(0, 4, (2, 3, 9, 8), dtype=np.uint8)
    truth[:, 0] = 255
    for index in range(3):
        save_labels_png(tmp_path / "pred" / f"{index}.png", prediction[index])
        save_labels_png(tmp_path / "gt" / f"{index}.png", truth[index])
    return tmp_path / "pred", tmp_path / "gt", prediction, truth


def test_folders_score_as_their_arrays(folders: tuple[Path, Path, np.ndarray, np.ndarray]) -> None:
    pred, gt, prediction, truth = folders
    assert evaluate_folders(pred, gt, NAMES) == scores(confusion_matrix(truth, prediction, 4), NAMES)
    some = scores(confusion_matrix(truth[1:], prediction[1:], 4), NAMES)
    assert evaluate_folders(pred, gt, NAMES, ids=["1", "2"]) == some
    (gt / "0.png").unlink()
    result = evaluate_folders(pred, gt, NAMES)
    assert replace(result, warnings=()) == some  # a prediction without a mask is not counted
    assert result.warnings == (f"1 predictions (0) have no mask in {gt}: not counted",)


def test_what_is_not_counted_is_named(tmp_path: Path) -> None:
    labels = np.ones((9, 8), dtype=np.uint8)
    for name in ("été", "more"):
        save_labels_png(tmp_path / "pred" / f"{name}.png", labels)
    save_labels_png(tmp_path / "gt" / f"{unicodedata.normalize('NFD', 'été')}.png", labels)  # as macOS writes it
    Image.fromarray(labels).save(tmp_path / "gt" / "more.tif")
    (tmp_path / "gt" / "._more.jpg").write_bytes(b"x")
    result = evaluate_folders(tmp_path / "pred", tmp_path / "gt", NAMES)
    assert (
        result.pixels == 72
        and result.miou == 1
        and result.warnings
        == (
            f"1 predictions (more) have no mask in {tmp_path / 'gt'}: not counted",
            f"1 pictures in {tmp_path / 'gt'} (more.tif) are no PNG: not read as masks",
        )
    )
    listed = evaluate_folders(tmp_path / "pred", tmp_path / "gt", NAMES, ids=["été"])
    assert listed.pixels == 72 and not listed.warnings  # who names images knows of the others


def test_wrong_folders(folders: tuple[Path, Path, np.ndarray, np.ndarray], tmp_path: Path) -> None:
    pred, gt, _, _ = folders
    with pytest.raises(DataError, match=r"0\.png: the (truth|prediction) holds the value [23], expected 0"):
        evaluate_folders(pred, gt, NAMES[:2])
    with pytest.raises(MaskLeakError), forbid_mask_access():
        evaluate_folders(pred, gt, NAMES)
    save_labels_png(pred / "2.png", np.zeros((8, 9), dtype=np.uint8))
    with pytest.raises(DataError, match="2.png: the mask is 9 high and 8 wide, expected 8 high and 9 wide"):
        evaluate_folders(pred, gt, NAMES)
    (pred / "1.png").unlink()
    with pytest.raises(DataError, match="1 of 3 predictions are missing: 1$"):
        evaluate_folders(pred, gt, NAMES)
    with pytest.raises(DataError, match="no such folder"):
        evaluate_folders(tmp_path / "nowhere", gt, NAMES)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no"):
        evaluate_folders(pred, tmp_path / "empty", NAMES)


def test_masks_against_themselves_are_perfect(tmp_path: Path) -> None:
    masks = write_voc(tmp_path) / "SegmentationClass"
    names = ["background", *(f"class {index}" for index in range(20))]
    result = evaluate_folders(masks, masks, names, [*TRAIN, *VAL])
    assert result.miou == 1.0 and set(result.iou.values()) == {1.0, None}


@given(
    presence=hnp.arrays(np.float64, (12, 3), elements=st.sampled_from([0.0, 0.1, 0.5, 0.7, 1.0])),
    truth=hnp.arrays(np.bool_, (12, 3)),
)
def test_average_precision_is_precision_summed_over_gains_in_recall(presence: np.ndarray, truth: np.ndarray) -> None:
    result = average_precision(presence, truth)
    for index in range(3):
        if truth[:, index].any():
            expected, recall = 0.0, 0.0
            for threshold in sorted(set(presence[:, index]), reverse=True):  # equal scores share one threshold
                chosen = presence[:, index] >= threshold
                hits = (truth[:, index] & chosen).sum()
                expected += hits / chosen.sum() * (hits / truth[:, index].sum() - recall)
                recall = hits / truth[:, index].sum()
            assert result[index] == pytest.approx(expected)
        else:
            assert np.isnan(result[index])


def test_mean_average_precision() -> None:
    truth = np.array([[True, False], [True, False], [False, False]])
    assert mean_average_precision(np.array([[0.9, 0.1], [0.8, 0.3], [0.1, 0.2]]), truth) == 1.0
    with pytest.raises(DataError, match="no image has any class"):
        mean_average_precision(np.zeros((3, 2)), np.zeros((3, 2), dtype=bool))
    with pytest.raises(DataError, match="expected finite scores"):
        average_precision(np.full((3, 2), np.nan), truth)
