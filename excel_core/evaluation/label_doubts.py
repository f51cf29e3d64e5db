"""Image-level labels that CLIP doubts: given but hardly seen, or seen but not given (docs/upgrades.md). Nothing is removed.

CLIP's score of a class, the cosine of the image's class token with the class's text, is on a scale of its own for every class.
So it is read against the data set itself: against the images without the class for a label that is given, against those with it
for one that is missing.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["LabelDoubt", "PresenceReference", "label_table", "most_doubtful_first"]

Scores = NDArray[np.float32]
Given = NDArray[np.bool_]
MIN_IMAGES = 5  # with the class, and without it, below which nothing is said of it


@dataclass(frozen=True)
class LabelDoubt:
    """A doubtful label: the class index (0-based) of an image; `given`: whether the image has the label; `rank`: for a given
    label the share of the images without the class whose score is lower (0: CLIP sees nothing of it), for a missing one the
    share of the images with it (1: CLIP sees more of it than in any of those)."""

    image: str
    class_index: int
    given: bool
    score: float
    rank: float


@dataclass(frozen=True)
class PresenceReference:
    """Sorted scores of the images with each class, and of those without it."""

    present: tuple[Scores, ...]
    absent: tuple[Scores, ...]

    @classmethod
    def of(cls, scores: Scores, given: Given) -> "PresenceReference":
        """scores (I, C), and which labels are given (I, C)."""
        columns = range(scores.shape[1])
        present = tuple(np.sort(scores[given[:, c], c]) for c in columns)
        return cls(present, tuple(np.sort(scores[~given[:, c], c]) for c in columns))

    def doubts(self, images: Sequence[str], scores: Scores, given: Given, seen: float, unseen: float) -> list[LabelDoubt]:
        """Image ids (I), scores (I, C), given (I, C) → labels that are given with a rank below `unseen`, then those that are
        not with a rank of at least `seen`, the most doubtful of each first."""
        wrong: list[LabelDoubt] = []
        missing: list[LabelDoubt] = []
        for c in range(scores.shape[1]):
            if min(len(self.present[c]), len(self.absent[c])) < MIN_IMAGES:
                continue
            among_absent, among_present = (_rank(side[c], scores[:, c]) for side in (self.absent, self.present))
            for row in np.flatnonzero(given[:, c] & (among_absent < unseen)).tolist():
                wrong.append(LabelDoubt(images[row], c, True, float(scores[row, c]), float(among_absent[row])))
            for row in np.flatnonzero(~given[:, c] & (among_present >= seen)).tolist():
                missing.append(LabelDoubt(images[row], c, False, float(scores[row, c]), float(among_present[row])))
        return most_doubtful_first(wrong + missing)


def most_doubtful_first(doubts: Iterable[LabelDoubt]) -> list[LabelDoubt]:
    """Given labels first, then missing ones, the most doubtful of each first."""
    return sorted(doubts, key=lambda doubt: (not doubt.given, doubt.rank if doubt.given else -doubt.rank, doubt.image))


def _rank(reference: Scores, scores: Scores) -> NDArray[np.float64]:
    """The share of `reference` (sorted) below each of `scores`."""
    return np.searchsorted(reference, scores, side="left") / len(reference)


def label_table(classes: Sequence[Sequence[int]], count: int) -> Given:
    """Class indices of each of I images → which of `count` labels each has (I, count)."""
    table = np.zeros((len(classes), count), dtype=bool)
    for row, indices in zip(table, classes, strict=True):
        row[list(indices)] = True
    return table
