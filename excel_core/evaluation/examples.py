"""Which images a report shows: best, median and worst by their own mIoU, so that neither luck nor choice picks them; and, of
two results, the images that changed most."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from excel_core.evaluation.metrics import class_iou

__all__ = ["most_changed_images", "per_image_miou", "pick_examples"]

EXAMPLES_PER_GROUP = 8  # best, median and worst, of each split
IMAGES_PER_CHUNK = 256  # whose dense confusions fit in memory at once, 81 classes too


def per_image_miou(by_image: csr_matrix, classes: int) -> NDArray[np.float64]:
    """Confusions by image (I, C·C) → mIoU (I,) of each image over the classes that it or its prediction holds."""
    chunks = [np.zeros(0)]
    for start in range(0, by_image.shape[0], IMAGES_PER_CHUNK):
        confusion = by_image[start : start + IMAGES_PER_CHUNK].toarray().reshape(-1, classes, classes)
        iou = class_iou(confusion)
        defined = ~np.isnan(iou)
        chunks.append(np.where(defined, iou, 0).sum(axis=1) / np.maximum(defined.sum(axis=1), 1))
    return np.concatenate(chunks)


def pick_examples(images: Sequence[str], miou: NDArray[np.float64]) -> list[dict[str, Any]]:
    """images and their mIoU (I,) → {id, group, rank, miou} of up to EXAMPLES_PER_GROUP best, median and worst images, one of
    each group in turn; no image twice. `rank` counts from 1, the best."""
    ranked = np.argsort(-miou, kind="stable").tolist()
    size = min(EXAMPLES_PER_GROUP, -(-len(ranked) // 3))
    middle = (len(ranked) - size) // 2
    groups = {"best": ranked[:size], "median": ranked[middle : middle + size], "worst": ranked[::-1][:size]}
    rank = {row: position + 1 for position, row in enumerate(ranked)}
    examples: dict[int, dict[str, Any]] = {}
    for position in range(size):
        for group, rows in groups.items():
            row = rows[position]
            if row not in examples:  # with few images the groups overlap
                examples[row] = {"id": images[row], "group": group, "rank": rank[row], "miou": float(miou[row])}
    return list(examples.values())


def most_changed_images(images: Sequence[str], a: csr_matrix, b: csr_matrix, classes: int, count: int) -> list[dict[str, Any]]:
    """Two results of the same images, confusions by image (I, C·C) → {id, a, b, difference} of the `count` images whose mIoU
    changed most, the largest change first; `difference` is b − a."""
    miou_a, miou_b = per_image_miou(a, classes), per_image_miou(b, classes)
    change = miou_b - miou_a
    order = np.argsort(-np.abs(change), kind="stable")[:count]
    return [
        {"id": images[row], "a": float(miou_a[row]), "b": float(miou_b[row]), "difference": float(change[row])} for row in order
    ]
