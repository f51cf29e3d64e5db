"""What scoring stages need of the masks: which images have one, and a fingerprint that opens none."""

from collections.abc import Sequence
from typing import Any

from excel_core.datasets.layouts import LAYOUTS
from excel_core.datasets.masks import MaskReader
from tasks.engine.code_version import code_version
from tasks.engine.stage import Part, Work
from tasks.inputs.cam_model import classes_of
from tasks.inputs.records import Record, image_parts, records

__all__ = ["mask_reader_of", "masked_parts", "masked_rows", "masks_key", "missing_masks"]


def mask_reader_of(work: Work, split: str) -> MaskReader:
    """The door to the masks of a split of the run's data."""
    return LAYOUTS[work.run.dataset.layout].truth(work.data, split, classes_of(work))


def masked_rows(work: Work, split: str) -> list[Record]:
    """Records of a split that have a mask, of its first evaluate.max_images."""
    truth = mask_reader_of(work, split)
    return [row for row in records(work, split)[: work.run.evaluate.max_images] if truth.has(row.id)]


def missing_masks(work: Work, split: str) -> dict[str, str]:
    """What to say about the images of a split that have no mask: {what: reason}."""
    wanted, found = len(records(work, split)[: work.run.evaluate.max_images]), len(masked_rows(work, split))
    where = mask_reader_of(work, split).where
    return {f"{split}: {wanted - found} of {wanted} images": f"no mask in {where}"} if found < wanted else {}


def masks_key(work: Work, split: str, rows: Sequence[Record]) -> Any:
    """Versions of the masks of `rows`. The world's masks are drawn with its images, whose digests the rows have already:
    there, the code that draws them."""
    if "world" in work.inputs:
        return {"world": code_version("tasks.world")}
    truth = mask_reader_of(work, split)
    return [truth.version(row.id) for row in rows]


def masked_parts(work: Work, key: dict[str, Any], max_images: int | None = None) -> list[Part]:
    """One part a shard of the first so many images with a mask of each validation split. A part depends on `key`, its images
    and their masks."""
    return [
        part
        for split in work.run.dataset.val_splits
        for part in image_parts(
            work,
            split,
            records(work, split),
            lambda shard, rows, split=split: key | {"masks": masks_key(work, split, rows)},
            among=masked_rows(work, split)[:max_images],
        )
    ]
