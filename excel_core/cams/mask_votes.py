"""Mask voting: proposed masks are taken into the classes of a label map (docs/upgrades.md).

A mask is taken into a class if more than half of it lies in the class's label, or if it covers most of that label. The pixels
of a mask that is taken become its class; everywhere else the label stays.
"""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from excel_core.config import VoteSpec
from excel_core.datasets.mask_proposals import Proposals
from excel_core.datasets.run_lengths import Runs, inside

__all__ = ["class_of_mask", "voted_labels"]

Labels = NDArray[np.uint8]


def voted_labels(labels: Labels, proposals: Proposals, spec: VoteSpec) -> Labels:
    """labels (H, W) uint8, 0 background; proposals of the same size → labels (H, W) uint8. Of masks that overlap the smaller
    lies above. One mask is unpacked at a time."""
    totals = np.bincount(labels.ravel(), minlength=256)
    chosen_masks: list[tuple[int, int, Runs]] = []  # pixels, class, mask
    for runs in proposals.masks:
        counts = np.bincount(labels[inside(runs)], minlength=256)
        if (label := class_of_mask(counts, totals, spec)) is not None:
            chosen_masks.append((int(counts.sum()), label, runs))
    voted = labels.copy()
    for _, label, runs in _largest_first(chosen_masks):
        voted[inside(runs)] = label
    return voted


def class_of_mask(counts: NDArray[np.int64], totals: NDArray[np.int64], spec: VoteSpec) -> int | None:
    """Pixels of each label inside the mask (256,) and in all (256,) → the class that takes the mask, None for none. Of several
    classes the one with most pixels in the mask takes it; background takes none."""
    area = counts.sum()
    lies_in = counts > spec.inside * area
    covers = (totals > 0) & (counts >= spec.covered * totals)
    takers = np.flatnonzero((lies_in | covers)[1:]) + 1
    return int(takers[np.argmax(counts[takers])]) if area and len(takers) else None


def _largest_first(taken: list[tuple[int, int, Runs]]) -> Iterable[tuple[int, int, Runs]]:
    return sorted(taken, key=lambda entry: -entry[0])
