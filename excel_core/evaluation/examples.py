"""Which images a report shows: best, median and worst by their own foreground IoU, so that neither luck nor choice picks them;
what one image scores; and, of two results, the images that changed most."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from excel_core.evaluation.metrics import class_iou

__all__ = ["ImageScore", "image_scores", "most_changed_images", "per_image_miou", "pick_examples", "shares", "spread_images"]

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


@dataclass(frozen=True)
class ImageScore:
    """One image's scores, of the classes in its truth or its prediction; background is none of them.

    iou: pixels on which both agree about a class, over pixels that either calls a class; None where neither holds any.
    classes: IoU by label value. missed: label values of the truth of which no pixel was right; false: those of the prediction
    that the truth does not hold.
    """

    iou: float | None
    classes: dict[int, float]
    missed: tuple[int, ...]
    false: tuple[int, ...]


def image_scores(by_image: csr_matrix, classes: int) -> Iterator[ImageScore]:
    """Confusions by image (I, C·C), background first → the score of each image in order."""
    for start in range(0, by_image.shape[0], IMAGES_PER_CHUNK):
        for confusion in by_image[start : start + IMAGES_PER_CHUNK].toarray().reshape(-1, classes, classes):
            yield _image_score(confusion)


def _image_score(confusion: NDArray[np.int64]) -> ImageScore:
    """confusion (C, C), rows truth."""
    hit, true, predicted = confusion.diagonal(), confusion.sum(axis=1), confusion.sum(axis=0)
    foreground = int(confusion.sum() - hit[0])  # what truth or prediction calls a class
    classes = [value for value in range(1, len(confusion)) if true[value] or predicted[value]]
    return ImageScore(
        iou=float(hit[1:].sum() / foreground) if foreground else None,
        classes={value: float(hit[value] / (true[value] + predicted[value] - hit[value])) for value in classes},
        missed=tuple(value for value in classes if true[value] and not hit[value]),
        false=tuple(value for value in classes if not true[value]),
    )


def pick_examples(images: Sequence[str], iou: Sequence[float | None]) -> list[dict[str, Any]]:
    """images and their foreground IoU → {id, group, rank, of, iou} of up to EXAMPLES_PER_GROUP best, median and worst images,
    one of each group in turn; no image twice. `rank` counts from 1, the best, among the `of` images that have an IoU."""
    ranked, scores = _ranked(iou), dict(enumerate(iou))
    size = min(EXAMPLES_PER_GROUP, -(-len(ranked) // 3))
    # From the median outwards: a page that shows few of them shows the median itself.
    middle = sorted(range(len(ranked)), key=lambda position: (abs(2 * position - (len(ranked) - 1)), position))
    groups = {"best": ranked[:size], "median": [ranked[position] for position in middle[:size]], "worst": ranked[::-1][:size]}
    rank = {row: position + 1 for position, row in enumerate(ranked)}
    examples: dict[int, dict[str, Any]] = {}
    for position in range(size):
        for group, rows in groups.items():
            row = rows[position]
            if row not in examples:  # with few images the groups overlap
                place = {"rank": rank[row], "of": len(ranked), "iou": scores[row]}
                examples[row] = {"id": images[row], "group": group} | place
    return list(examples.values())


def spread_images(images: Sequence[str], iou: Sequence[float | None], count: int) -> list[str]:
    """At most `count` of the images, evenly over the ranking by foreground IoU, the best and the worst among them; the last are
    those without an IoU."""
    ranked = _ranked(iou)
    order = [*ranked, *sorted(set(range(len(images))) - set(ranked))]
    if len(order) > count:
        order = [order[position] for position in np.linspace(0, len(order) - 1, count).round().astype(int)]
    return [images[row] for row in order]


def shares(sizes: Mapping[str, int], total: int) -> dict[str, int]:
    """How many images of each split, of `sizes` by name, make up `total`: as many of each, and what small splits leave goes to
    the larger ones."""
    share_of_split, left = dict[str, int](), total
    for place, (split, size) in enumerate(sorted(sizes.items(), key=lambda item: item[1])):
        share_of_split[split] = min(size, left // (len(sizes) - place))
        left -= share_of_split[split]
    return share_of_split


def _ranked(iou: Sequence[float | None]) -> list[int]:
    """Rows with an IoU, best first."""
    return sorted((row for row, value in enumerate(iou) if value is not None), key=lambda row: -(iou[row] or 0.0))


def most_changed_images(images: Sequence[str], a: csr_matrix, b: csr_matrix, classes: int, count: int) -> list[dict[str, Any]]:
    """Two results of the same images, confusions by image (I, C·C) → {id, a, b, difference} of the `count` images whose mIoU
    changed most, the largest change first; `difference` is b − a."""
    miou_a, miou_b = per_image_miou(a, classes), per_image_miou(b, classes)
    change = miou_b - miou_a
    order = np.argsort(-np.abs(change), kind="stable")[:count]
    return [
        {"id": images[row], "a": float(miou_a[row]), "b": float(miou_b[row]), "difference": float(change[row])} for row in order
    ]
