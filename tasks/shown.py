"""Which images the report shows: best, median and worst by their own mIoU, so that neither luck nor choice picks them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

__all__ = ["image_scores", "picked"]

THIRD = 8  # images of each kind that a split keeps
CHUNK = 256  # images whose dense confusions fit in memory at once, 81 classes too


def image_scores(by_image: csr_matrix, classes: int) -> NDArray[np.float64]:
    """Confusions by image (I, C·C) → mIoU (I,) of each image over the classes that it or its prediction holds."""
    scores = [np.zeros(0)]
    for start in range(0, by_image.shape[0], CHUNK):
        confusion = by_image[start : start + CHUNK].toarray().reshape(-1, classes, classes)
        hit = np.diagonal(confusion, axis1=1, axis2=2)
        union = confusion.sum(axis=1) + confusion.sum(axis=2) - hit
        scores.append((hit / np.maximum(union, 1)).sum(axis=1) / np.maximum((union > 0).sum(axis=1), 1))
    return np.concatenate(scores)


def picked(images: Sequence[str], scores: NDArray[np.float64]) -> list[dict[str, Any]]:
    """{id, group, rank, miou} of up to THIRD best, median and worst images each, in turn; no image twice."""
    order = np.argsort(-scores, kind="stable").tolist()
    third = min(THIRD, -(-len(order) // 3))
    middle = (len(order) - third) // 2
    groups = {"best": order[:third], "median": order[middle : middle + third], "worst": order[::-1][:third]}
    rank = {row: position + 1 for position, row in enumerate(order)}
    chosen: dict[int, dict[str, Any]] = {}
    for position in range(third):
        for group, rows in groups.items():
            if (row := rows[position]) not in chosen:
                chosen[row] = {"id": images[row], "group": group, "rank": rank[row], "miou": float(scores[row])}
    return list(chosen.values())
