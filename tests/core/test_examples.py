"""Best, median and worst images: the right ones, and none twice."""

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from excel_core.evaluation.examples import most_changed_images, per_image_miou, pick_examples


@pytest.mark.parametrize("count", [0, 1, 2, 4, 24, 100])
def test_best_median_and_worst(count):
    scores = np.random.default_rng(0).permutation(count) / max(1, count)
    examples = pick_examples([f"i{n}" for n in range(count)], scores)
    ranks = [entry["rank"] for entry in examples]
    assert len(set(ranks)) == len(ranks) == min(count, 24)
    for entry in examples:
        position = int(entry["id"][1:])
        assert entry["miou"] == scores[position] and entry["rank"] == 1 + (scores > scores[position]).sum()
    by_group = {group: [e["rank"] for e in examples if e["group"] == group] for group in ("best", "median", "worst")}
    if count >= 4:
        assert by_group["best"][0] == 1 and by_group["worst"][0] == count
        assert all(abs(rank - (count + 1) / 2) <= 5 for rank in by_group["median"])
        assert [entry["group"] for entry in examples][:3] == ["best", "median", "worst"]


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
