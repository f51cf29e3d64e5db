"""What makes one doubt the truth: seen while masks are read to be scored, and told with the scores.

truth.json, beside the counts of a part of `evaluate`:

    split      whose masks these are
    ignored    ids of images whose mask is 255 throughout: no pixel of theirs can be scored
    no_class   ids of images whose mask holds 0 and 255 alone
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from excel_core.datasets.images import size_tells_turn
from excel_core.datasets.masks import NO_CLASS, holds_no_class
from excel_core.datasets.palette import IGNORE
from excel_core.errors import and_more
from excel_core.files import read_json, write_json
from tasks.engine.output import StageOutput
from tasks.engine.stage import Job
from tasks.inputs.images import ImageRecord
from tasks.inputs.masks import mask_reader_of, masked_images

__all__ = ["TruthDoubts", "read_doubts", "unscored_masks", "warnings"]

FILE = "truth.json"
MAX_EXAMPLES = 3  # ids that a warning names
TURNED = (
    "have an EXIF orientation, by which viewers turn them; masks are read for the pixels as stored, and their size cannot tell "
    "whether they were drawn so; `excel doctor` says what to do"
)


@dataclass
class TruthDoubts:
    """Ids of the images of a split whose masks are odd, as above."""

    split: str
    ignored: list[str] = field(default_factory=list)
    no_class: list[str] = field(default_factory=list)

    def add(self, image_id: str, mask: NDArray[np.uint8]) -> None:
        """Note what is odd about an image's mask (H, W)."""
        if (mask == IGNORE).all():
            self.ignored.append(image_id)
        elif holds_no_class(mask):
            self.no_class.append(image_id)

    def write(self, folder: Path) -> None:
        """Write truth.json."""
        write_json(folder / FILE, {"split": self.split, "ignored": self.ignored, "no_class": self.no_class})


def read_doubts(parts: Iterable[StageOutput]) -> dict[str, TruthDoubts]:
    """What the parts of `evaluate` noted, by split, each image once."""
    doubts: dict[str, TruthDoubts] = {}
    for note in (read_json(part.folder / FILE) for part in parts):
        of_split = doubts.setdefault(note["split"], TruthDoubts(note["split"]))
        of_split.ignored = sorted({*of_split.ignored, *note["ignored"]})
        of_split.no_class = sorted({*of_split.no_class, *note["no_class"]})
    return doubts


def unscored_masks(job: Job, doubts: TruthDoubts, images: Sequence[str]) -> dict[str, str]:
    """What to say about those of a split's `images` that no score counts, although there is a mask: {which: reason}."""
    ignored = set(doubts.ignored).intersection(images)
    if not ignored:
        return {}
    where = mask_reader_of(job, doubts.split).where
    reason = f"no pixel can be scored: an object has no segmentation, or the mask is 255 throughout, in {where}"
    return {f"{doubts.split}: {len(ignored)} of {len(images)} masks": f"{reason} ({and_more(sorted(ignored), MAX_EXAMPLES)})"}


def warnings(job: Job, doubts: TruthDoubts, orientations: Mapping[str, int]) -> dict[str, str]:
    """What to say about masks of a split that are scored and may be wrong: {which: reason}. `orientations`: the EXIF
    orientation of the photos that have one, by id."""
    images = masked_images(job, doubts.split)
    turned = [image.id for image in images if _is_doubtful(image, orientations.get(image.id, 1))]
    named = ((turned, TURNED), (doubts.no_class, f"hold {NO_CLASS}"))
    return {
        f"{doubts.split}: {len(ids)} of {len(images)} images ({and_more(ids, MAX_EXAMPLES)})": reason
        for ids, reason in named
        if ids
    }


def _is_doubtful(image: ImageRecord, orientation: int) -> bool:
    return orientation > 1 and not size_tells_turn(orientation, image.height, image.width)
