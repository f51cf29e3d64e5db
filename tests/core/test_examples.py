"""Best, median and worst images: the right ones, and none twice."""

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from excel_core.evaluation.examples import (
    image_scores,
    most_changed_images,
    per_image_miou,
    pick_examples,
    shares,
    spread_images,
)
from excel_core.evaluation.metrics import confusion_matrix


@pytest.mark.parametrize("count", [0, 1, 2, 4, 24, 100])
def test_best_median_and_worst(count):
    scores = np.random.default_rng(0).permutation(count) / max(1, count)
    examples = pick_examples([f"i{n}" for n in range(count)], scores)
    ranks = [entry["rank"] for entry in examples]
    assert len(set(ranks)) == len(ranks) == min(count, 24)
    for entry in examples:
        position = int(entry["id"][1:])
        assert entry["iou"] == scores[position] and entry["rank"] == 1 + (scores > scores[position]).sum()
        assert entry["of"] == count
    by_group = {group: [e["rank"] for e in examples if e["group"] == group] for group in ("best", "median", "worst")}
    if count >= 4:
        assert by_group["best"][0] == 1 and by_group["worst"][0] == count
        assert all(abs(rank - (count + 1) / 2) <= 4 for rank in by_group["median"])
        # The first of the group is the median itself, and the next ones lie closest to it.
        assert abs(by_group["median"][0] - (count + 1) / 2) <= 0.5
        assert [entry["group"] for entry in examples][:3] == ["best", "median", "worst"]


def test_images_without_a_class_have_no_rank():
    examples = pick_examples(list("abc"), [0.5, None, 0.7])
    assert [(entry["id"], entry["rank"], entry["of"]) for entry in examples] == [("c", 1, 2), ("a", 2, 2)]


def test_an_image_s_foreground_iou_counts_no_background():
    truth, prediction = np.random.default_rng(1).integers(0, 5, (2, 40, 40))
    truth[truth == 4], prediction[prediction == 3] = 0, 0  # class 3 is missed, class 4 is false
    truth[0] = 255
    score = next(image_scores(csr_matrix(confusion_matrix(truth, prediction, 5).reshape(1, 25)), 5))
    counted = truth != 255
    either = counted & ((truth > 0) | (prediction > 0))
    assert score.iou == pytest.approx((truth == prediction)[either].mean())
    assert score.missed == (3,) and score.false == (4,) and score.classes[3] == score.classes[4] == 0
    for value in (1, 2):
        both, one = ((truth == value) & (prediction == value))[counted], ((truth == value) | (prediction == value))[counted]
        assert score.classes[value] == pytest.approx(both.sum() / one.sum())


def test_without_any_class_there_is_no_foreground_iou():
    (score,) = image_scores(csr_matrix([[9, 0, 0, 0]]), 2)
    assert score.iou is None and score.classes == {} and score.missed == score.false == ()


def test_images_are_spread_over_the_ranking():
    iou = [0.1, None, 0.9, 0.5, 0.3]
    assert spread_images(list("abcde"), iou, 9) == ["c", "d", "e", "a", "b"]
    assert spread_images(list("abcde"), iou, 3) == ["c", "e", "b"] and spread_images(list("abcde"), iou, 0) == []


@pytest.mark.parametrize(
    ("sizes", "total", "expected"),
    [
        ({"train": 240, "a": 40, "b": 40}, 300, {"train": 220, "a": 40, "b": 40}),
        ({"train": 10, "val": 10}, 300, {"train": 10, "val": 10}),
        ({"train": 100, "val": 100}, 30, {"train": 15, "val": 15}),
        ({"train": 100}, 0, {"train": 0}),
        ({}, 5, {}),
    ],
)
def test_what_small_splits_leave_goes_to_larger_ones(sizes, total, expected):
    assert shares(sizes, total) == expected


def test_an_image_is_scored_over_what_it_or_its_prediction_holds():
    confusion = np.zeros((300, 3, 3), dtype=np.int64)
    confusion[:, 0, 0] = 10
    confusion[299] = [[6, 2, 0], [0, 2, 0], [0, 0, 0]]
    scores = per_image_miou(csr_matrix(confusion.reshape(300, 9)), 3)
    assert scores[0] == 1 and scores[299] == pytest.approx((6 / 8 + 2 / 4) / 2) and len(scores) == 300


def test_the_images_that_changed_most_come_first():
    a = np.zeros((4, 2, 2), dtype=np.int64)
    a[:] = [[8, 0], [0, 2]]
    b = a.copy()
    b[1] = [[4, 4], [0, 2]]  # worse
    b[3] = [[8, 0], [1, 1]]  # a little worse
    changed = most_changed_images(list("pqrs"), csr_matrix(a.reshape(4, 4)), csr_matrix(b.reshape(4, 4)), 2, count=2)
    assert [entry["id"] for entry in changed] == ["q", "s"]
    assert changed[0]["a"] == 1 and changed[0]["b"] == pytest.approx((4 / 8 + 2 / 6) / 2)
    assert changed[0]["difference"] == changed[0]["b"] - changed[0]["a"] < 0
