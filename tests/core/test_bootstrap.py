"""Intervals over images, against resamples made by hand."""

import numpy as np
import pandas as pd
import pytest

from excel_core.evaluation.bootstrap import (
    compare_scores,
    confusions_by_image,
    image_draws,
    percentile_interval,
    resample,
    scores_with_interval,
)
from excel_core.evaluation.metrics import class_iou, confusion_matrix, mean_iou, present_class_iou, scores

NAMES = ("background", "dog", "cat")


@pytest.fixture
def images():
    """Ten (truth, prediction) pairs, the cat in two of them only."""
    rng = np.random.default_rng(0)
    truths = [rng.integers(0, 3 if i < 2 else 2, (6, 7)).astype(np.uint8) for i in range(10)]
    return [(truth, np.where(rng.random((6, 7)) < 0.7, truth, rng.integers(0, 3, (6, 7))).astype(np.uint8)) for truth in truths]


def _table(images):
    rows = []
    for i, (truth, prediction) in enumerate(images):
        matrix = confusion_matrix(truth, prediction, 3)
        rows += [(f"i{i}", t, p, matrix[t, p]) for t, p in zip(*np.nonzero(matrix), strict=True)]
    return pd.DataFrame(rows, columns=["image", "truth", "predicted", "pixels"])


def test_resamples_are_the_sums_of_the_images_drawn(images):
    by_image = confusions_by_image(_table(images), [f"i{i}" for i in range(10)], 3)
    draws = image_draws(10, 20, seed=3)
    assert (draws.sum(axis=1) == 10).all() and (draws >= 0).all()
    got = resample(by_image, draws, 3)
    for counts, matrix in zip(draws, got, strict=True):
        expected = sum(n * confusion_matrix(*images[i], 3) for i, n in enumerate(counts))
        np.testing.assert_array_equal(matrix, expected)


def test_iou_is_that_of_the_scores(images):
    total = sum(confusion_matrix(*pair, 3) for pair in images[2:])  # no cat in the truth
    found = scores(total, NAMES)
    assert mean_iou(total) == pytest.approx(found.miou)
    assert np.isnan(present_class_iou(total)[2]) and present_class_iou(total)[1] == pytest.approx(found.iou["dog"])
    np.testing.assert_allclose(class_iou(total), [found.iou[name] for name in NAMES])
    assert mean_iou(np.zeros((3, 3), dtype=np.int64)) == 0


def test_images_left_out_do_not_count(images):
    by_image = confusions_by_image(_table(images), ["i3", "unknown", "i1"], 3).toarray().reshape(3, 3, 3)
    np.testing.assert_array_equal(by_image[0], confusion_matrix(*images[3], 3))
    np.testing.assert_array_equal(by_image[2], confusion_matrix(*images[1], 3))
    assert by_image[1].sum() == 0


def test_interval_is_the_middle_95_percent():
    assert percentile_interval(np.arange(1001.0)) == pytest.approx((25.0, 975.0))
    assert percentile_interval(np.array([np.nan, 2.0])) == (2.0, 2.0)
    assert np.isnan(percentile_interval(np.array([np.nan]))).all()


def test_the_interval_of_a_mean_covers_it_about_as_often_as_it_says():
    """200 data sets of 60 images whose true share of right pixels is 0.6."""
    rng = np.random.default_rng(1)
    covered = 0
    for _ in range(200):
        right = rng.binomial(50, rng.beta(6, 4, 60))
        draws = image_draws(60, 300, seed=int(rng.integers(1 << 30)))
        low, high = percentile_interval(draws @ right / (60 * 50))
        covered += low <= 0.6 <= high
    assert 175 <= covered <= 199


def test_scores_carry_the_interval_of_their_miou(images):
    by_image = confusions_by_image(_table(images), [f"i{i}" for i in range(10)], 3)
    total = sum(confusion_matrix(*pair, 3) for pair in images)
    result = scores_with_interval(by_image, NAMES)
    low, high = result.pop("miou_interval")
    assert result == scores(total, NAMES).to_json() and low < result["miou"] < high
    expected = percentile_interval(mean_iou(resample(by_image, image_draws(10, 1000), 3)))
    assert (low, high) == expected


def test_two_results_are_compared_over_the_same_draws(images):
    ids = [f"i{i}" for i in range(10)]
    a = confusions_by_image(_table(images), ids, 3)
    b = confusions_by_image(_table([(truth, truth) for truth, _ in images]), ids, 3)  # perfect
    comparison = compare_scores(a, b, NAMES)
    assert comparison.miou.b == 1 and comparison.miou.difference == 1 - comparison.miou.a > 0
    draws = image_draws(10, 1000)
    expected = percentile_interval(1 - mean_iou(resample(a, draws, 3)))
    assert (comparison.miou.low, comparison.miou.high) == pytest.approx(expected)
    assert list(comparison.classes) == list(NAMES) and all(each.b == 1 and each.low > 0 for each in comparison.classes.values())
    same = compare_scores(a, a, NAMES)
    assert (same.miou.difference, same.miou.low, same.miou.high) == (0, 0, 0)
    dogs = [2, 3, 4]  # images without a cat: the class is left out
    assert list(compare_scores(a[dogs], b[dogs], NAMES).classes) == ["background", "dog"]
