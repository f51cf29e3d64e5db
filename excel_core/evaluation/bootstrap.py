"""Bootstrap intervals over images: how far a score would move had other images been drawn.

Pixels of one image depend on each other, so images, not pixels, are drawn again (percentile bootstrap).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from excel_core.evaluation.metrics import mean_iou, present_class_iou, scores

__all__ = [
    "Difference", "ScoreComparison", "compare_scores", "confusions_by_image", "image_draws", "percentile_interval", "resample",
    "scores_with_interval",
]  # fmt: skip

COVERAGE = 0.95
RESAMPLES = 1000


def confusions_by_image(counts: pd.DataFrame, images: Sequence[str], classes: int) -> csr_matrix:
    """counts with the columns image, truth, predicted, pixels → (I, C·C) int64, a row for each of `images` in order."""
    row = pd.Index(images).get_indexer(pd.Index(counts["image"]))
    known = row >= 0
    cell = counts["truth"].to_numpy(np.int64) * classes + counts["predicted"].to_numpy(np.int64)
    pixels = counts["pixels"].to_numpy(np.int64)
    return csr_matrix((pixels[known], (row[known], cell[known])), shape=(len(images), classes**2), dtype=np.int64)


def image_draws(images: int, resamples: int, seed: int = 0) -> NDArray[np.int64]:
    """(B, I): how often each image is drawn in each resample; every row sums to I."""
    generator = np.random.default_rng(seed)
    # Drawing n images with replacement and counting them is one multinomial draw; scores need the counts alone.
    return generator.multinomial(images, np.full(images, 1 / images), size=resamples)


def resample(by_image: csr_matrix, draws: NDArray[np.int64], classes: int) -> NDArray[np.int64]:
    """Confusions by image (I, C·C) and draws (B, I) → the resamples' confusions (B, C, C)."""
    # A resample's confusion is the sum of its images' confusions, so all resamples are one sparse product.
    return np.asarray(draws @ by_image).reshape(len(draws), classes, classes)


def percentile_interval(values: NDArray[np.float64]) -> tuple[float, float]:
    """Resampled values (B,) → the ends of the central 95 %, leaving out undefined ones; NaN where none is defined."""
    defined = values[~np.isnan(values)]
    if not defined.size:
        return float("nan"), float("nan")
    low, high = np.quantile(defined, [(1 - COVERAGE) / 2, (1 + COVERAGE) / 2])
    return float(low), float(high)


def scores_with_interval(by_image: csr_matrix, names: Sequence[str], resamples: int = RESAMPLES) -> dict[str, Any]:
    """Confusions by image (I, C·C) and the C class names, background first → `Scores.to_json()` over all images, and
    `miou_interval`: the 95 % interval of the mIoU over resampled images."""
    classes = len(names)
    draws = image_draws(by_image.shape[0], resamples)
    low, high = percentile_interval(mean_iou(resample(by_image, draws, classes)))
    return scores(_total(by_image, classes), names).to_json() | {"miou_interval": [low, high]}


@dataclass(frozen=True)
class Difference:
    """One score of two results, `difference` = b − a, and the 95 % interval of the difference; NaN where it is undefined."""

    a: float
    b: float
    difference: float
    low: float
    high: float


@dataclass(frozen=True)
class ScoreComparison:
    """Two results of the same images: their mIoU, and the IoU of each class that the truth of `a` holds."""

    miou: Difference
    classes: dict[str, Difference]


def compare_scores(a: csr_matrix, b: csr_matrix, names: Sequence[str], resamples: int = RESAMPLES) -> ScoreComparison:
    """Two results of the same images, confusions by image (I, C·C), and the C class names → ScoreComparison. Both results are
    resampled with the same draws, so that what is hard in an image cancels out."""
    classes = len(names)
    draws = image_draws(a.shape[0], resamples)
    total_a, total_b = _total(a, classes), _total(b, classes)
    resampled_a, resampled_b = resample(a, draws, classes), resample(b, draws, classes)
    miou = _difference(mean_iou(total_a), mean_iou(total_b), mean_iou(resampled_b) - mean_iou(resampled_a))
    iou_a, iou_b = present_class_iou(total_a), present_class_iou(total_b)
    iou_samples = present_class_iou(resampled_b) - present_class_iou(resampled_a)
    present = np.flatnonzero(~np.isnan(iou_a)).tolist()
    by_class = {names[i]: _difference(iou_a[i], iou_b[i], iou_samples[:, i]) for i in present}
    return ScoreComparison(miou, by_class)


def _total(by_image: csr_matrix, classes: int) -> NDArray[np.int64]:
    """Confusions by image (I, C·C) → their sum (C, C)."""
    return np.asarray(by_image.sum(axis=0)).reshape(classes, classes)


def _difference(a: Any, b: Any, samples: NDArray[np.float64]) -> Difference:
    low, high = percentile_interval(samples)
    return Difference(float(a), float(b), float(b - a), low, high)
