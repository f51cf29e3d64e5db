"""Bootstrap intervals over images: how far a score would move had other images been drawn.

Pixels of one image depend on each other, so images, not pixels, are drawn again (percentile bootstrap).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from excel_core.evaluation.metrics import mean_iou, present_class_iou, scores

__all__ = [
    "Difference", "ResampledScore", "ScoreComparison", "SeedScores", "compare_scores", "confusions_by_image", "image_draws",
    "paired_difference", "percentile_interval", "resample", "score_over_seeds", "scores_with_interval",
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
class ResampledScore:
    """One mIoU, and the same of resampled images (B,)."""

    miou: float
    resampled_miou: NDArray[np.float64]


SeedScores = Mapping[str, Sequence[ResampledScore]]  # by split, one a seed


def score_over_seeds(scores: SeedScores) -> dict[str, Any]:
    """A score of several splits and seeds as plain data. `miou` is the mean over splits, then over seeds; `std` is over seeds,
    None where there is one. `low` and `high` are the 95 % interval of that mean over resampled images."""
    by_seed = _by_seed(scores)
    low, high = percentile_interval(_resampled(scores))
    return {
        "miou": float(np.mean(by_seed)),
        "std": _deviation(by_seed),
        "low": low,
        "high": high,
        "seeds": len(by_seed),
        "by_split": {split: float(np.mean([score.miou for score in seeds])) for split, seeds in scores.items()},
    }


def paired_difference(a: SeedScores, b: SeedScores) -> dict[str, Any]:
    """Scores of the same splits, resampled with the same draws → `difference` b − a of their means, `std` over pairs of equal
    seeds, `low` and `high` of its 95 % interval. Where one of them has one seed, each seed of the other is paired with it."""
    low, high = percentile_interval(_resampled(b) - _resampled(a))
    by_seed = _by_seed(b) - _by_seed(a)  # one seed stands beside all
    return {"difference": float(np.mean(by_seed)), "std": _deviation(by_seed), "low": low, "high": high}


def _by_seed(scores: SeedScores) -> NDArray[np.float64]:
    """Mean over splits of each seed (S,)."""
    return np.asarray(np.mean([[score.miou for score in seeds] for seeds in scores.values()], axis=0))


def _resampled(scores: SeedScores) -> NDArray[np.float64]:
    """Mean over splits and seeds of each resample (B,)."""
    return np.asarray(np.mean([score.resampled_miou for seeds in scores.values() for score in seeds], axis=0))


def _deviation(values: NDArray[np.float64]) -> float | None:
    """Standard deviation of a sample (S,); None of a single value."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else None


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
