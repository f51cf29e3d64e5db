"""Bootstrap intervals over images: how far a score would move had other images been drawn.

Pixels of one image hang together, so images, not pixels, are drawn again (percentile bootstrap).
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

__all__ = ["class_iou", "confusions_by_image", "image_draws", "interval", "mean_iou", "resampled"]

COVERAGE = 0.95


def confusions_by_image(counts: pd.DataFrame, images: Sequence[str], classes: int) -> csr_matrix:
    """counts with the columns image, truth, predicted, pixels → (I, C·C) int64, a row for each of `images` in order."""
    row = pd.Index(images).get_indexer(pd.Index(counts["image"]))
    kept = row >= 0
    cell = counts["truth"].to_numpy(np.int64) * classes + counts["predicted"].to_numpy(np.int64)
    pixels = counts["pixels"].to_numpy(np.int64)
    return csr_matrix((pixels[kept], (row[kept], cell[kept])), shape=(len(images), classes**2), dtype=np.int64)


def image_draws(images: int, resamples: int, seed: int = 0) -> NDArray[np.int64]:
    """(B, I): how often each image is drawn in each resample; every row sums to I."""
    generator = np.random.default_rng(seed)
    return generator.multinomial(images, np.full(images, 1 / images), size=resamples)


def resampled(by_image: csr_matrix, draws: NDArray[np.int64], classes: int) -> NDArray[np.int64]:
    """Confusions by image (I, C·C) and draws (B, I) → the resamples' confusions (B, C, C)."""
    return np.asarray(draws @ by_image).reshape(len(draws), classes, classes)


def class_iou(confusion: NDArray[np.int64]) -> NDArray[np.float64]:
    """Confusions (…, C, C), rows truth → IoU (…, C), NaN for a class that the truth does not hold."""
    hit = np.diagonal(confusion, axis1=-2, axis2=-1)
    true, predicted = confusion.sum(axis=-1), confusion.sum(axis=-2)
    union = np.maximum(true + predicted - hit, 1)
    return np.where(true > 0, hit / union, np.nan)


def mean_iou(confusion: NDArray[np.int64]) -> NDArray[np.float64]:
    """Confusions (…, C, C) → mIoU (…) over the classes that the truth holds; 0 where it holds none."""
    iou = class_iou(confusion)
    held = ~np.isnan(iou)
    return np.asarray(np.where(held, iou, 0).sum(axis=-1) / np.maximum(held.sum(axis=-1), 1))


def interval(values: NDArray[np.float64]) -> tuple[float, float]:
    """Resampled values (B,) → the ends of the central 95 %, leaving out undefined ones; NaN where none is defined."""
    defined = values[~np.isnan(values)]
    if not defined.size:
        return float("nan"), float("nan")
    low, high = np.quantile(defined, [(1 - COVERAGE) / 2, (1 + COVERAGE) / 2])
    return float(low), float(high)
