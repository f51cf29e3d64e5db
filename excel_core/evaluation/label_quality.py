"""How far a pseudo label can be trusted, without any truth: how well the steps that lead to it agree (docs/upgrades.md)."""

from collections.abc import Mapping
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from excel_core.evaluation.metrics import class_iou, confusion_matrix

__all__ = ["agreement", "agreements", "quality_score", "rank_correlation"]

Labels = NDArray[np.uint8]


def agreement(a: Labels, b: Labels, labels: int) -> float:
    """Two label maps (H, W) of `labels` values, background included → the mean IoU, in [0, 1], over the classes that are in
    either of them; background counts only where neither has a class."""
    iou = class_iou(confusion_matrix(a, b, labels))
    of_classes = iou[1:][~np.isnan(iou[1:])]
    return float(of_classes.mean()) if len(of_classes) else float(iou[0])


def agreements(static: Mapping[str, Labels], learnt: Mapping[str, Labels], labels: int) -> dict[str, float]:
    """Label maps by step, from static CAMs and from those with LVC (may be empty) → the agreement of each two steps, of the
    learnt maps where there are any, and of static and learnt maps at the last step they share."""
    steps = learnt or static
    by_pair = {f"{a}-{b}": agreement(steps[a], steps[b], labels) for a, b in combinations(steps, 2)}
    shared = [step for step in static if step in learnt]
    if shared:
        by_pair["static-lvc"] = agreement(static[shared[-1]], learnt[shared[-1]], labels)
    return by_pair


def quality_score(parts: Mapping[str, float]) -> float:
    """`agreements` → one score in [0, 1]: their mean; 1 where nothing is there to disagree."""
    return float(np.mean(list(parts.values()))) if parts else 1.0


def rank_correlation(scores: NDArray[np.float64], truth: NDArray[np.float64]) -> float | None:
    """Scores (I,) and the true IoU (I,) of the same images → Spearman's correlation of their ranks, in [-1, 1]; None where one
    of the two is the same for all images."""
    from scipy.stats import spearmanr

    if len(scores) < 2 or np.ptp(scores) == 0 or np.ptp(truth) == 0:
        return None
    return float(spearmanr(scores, truth).statistic)
