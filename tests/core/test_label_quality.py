"""What a person should look at first: agreement of label maps by hand, doubtful labels against known corruptions, safe CSV."""

import csv

import numpy as np
import pytest

from bench.label_doubts import found_errors, plant_errors, world_presence
from excel_core.errors import StoreError
from excel_core.evaluation.label_doubts import PresenceReference, label_table
from excel_core.evaluation.label_quality import agreement, agreements, quality_score, rank_correlation
from excel_core.safe_csv import read_rows, write_csv

A = np.array([[0, 1, 1], [2, 2, 0]], dtype=np.uint8)
B = np.array([[0, 1, 0], [2, 2, 3]], dtype=np.uint8)


def test_agreement_is_the_mean_iou_of_the_classes_of_either():
    assert agreement(A, A, 4) == 1
    assert agreement(A, B, 4) == pytest.approx((1 / 2 + 1 + 0) / 3)  # classes 1, 2, 3; background does not count
    empty = np.zeros_like(A)
    assert agreement(empty, empty, 4) == 1 and agreement(A, empty, 4) == 0


def test_every_pair_of_steps_is_compared_and_lvc_with_static():
    static, learnt = {"raw": A, "par": B}, {"raw": B, "par": B, "crf": A}
    found = agreements(static, learnt, 4)
    half = pytest.approx(agreement(A, B, 4))
    assert found == {"raw-par": 1, "raw-crf": half, "par-crf": half, "static-lvc": 1}
    assert agreements(static, {}, 4) == {"raw-par": half}
    assert quality_score({"a": 0.2, "b": 0.6}) == pytest.approx(0.4) and quality_score({}) == 1


def test_the_correlation_is_of_ranks():
    assert rank_correlation(np.array([0.1, 0.2, 0.9]), np.array([1.0, 2.0, 3.0])) == pytest.approx(1)
    assert rank_correlation(np.array([3.0, 2.0, 1.0, 0.0]), np.array([0.0, 0.1, 5.0, 5.1])) == pytest.approx(-1)
    assert rank_correlation(np.ones(3), np.arange(3.0)) is None


def test_ranks_are_shares_of_the_other_images():
    """One class: ten images without it score 0.0 … 0.9, ten with it 1.0 … 1.9, and two labels are wrong."""
    scores = np.arange(20, dtype=np.float32)[:, None] / 10
    given = np.arange(20)[:, None] >= 10
    given[[2, 17]] = ~given[[2, 17]]  # image 2 has the label and shows nothing; image 17 shows the class and has no label
    images = [f"i{index}" for index in range(20)]
    doubts = PresenceReference.of(scores, given).doubts(images, scores, given, seen=0.5, unseen=0.8)
    assert [(d.image, d.given) for d in doubts] == [("i2", True), ("i17", False)]
    assert doubts[0].rank == pytest.approx(2 / 10) and doubts[1].rank == pytest.approx(8 / 10)
    few = PresenceReference.of(scores[:12], given[:12])  # of three images with the class nothing can be said
    assert few.doubts(images[:12], scores[:12], given[:12], 0.5, 0.8) == []


def test_labels_as_a_table():
    np.testing.assert_array_equal(label_table([(0, 2), ()], 3), [[True, False, True], [False, False, False]])


def test_wrong_and_missing_labels_of_the_world_are_found():
    """A tenth of 96 scenes get a label too many, another tenth lose one."""
    scores, truth = world_presence(96)
    given, *planted = plant_errors(truth, 0.1, seed=0)
    for doubted, errors in zip(found_errors(scores, given), planted, strict=True):
        assert len(errors) == 10
        assert len(doubted & errors) >= 5, "half of the planted ones are found"
        assert len(doubted - errors) <= 3, "few others are suspected"


def test_a_cell_is_never_a_formula(tmp_path):
    names = ["=1+1", "+x", "-dash", "@a", "plain", "'=quoted", 'with "quotes", commas', "\ttab"]
    write_csv(tmp_path / "a.csv", ("image", "score"), [(name, 0.5) for name in names])
    with (tmp_path / "a.csv").open(newline="") as file:
        cells = [row["image"] for row in csv.DictReader(file)]
    assert not [cell for cell in cells if cell.startswith(("=", "+", "-", "@", "\t"))]
    assert [row["image"] for row in read_rows(tmp_path / "a.csv", 100)] == names
    assert [row["score"] for row in read_rows(tmp_path / "a.csv", 2)] == ["0.5", "0.5"]
    with pytest.raises(StoreError, match="not readable"):
        read_rows(tmp_path / "b.csv", 1)
