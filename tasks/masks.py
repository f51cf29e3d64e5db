"""What scoring stages need of the masks: which images have one, and a fingerprint that opens none."""

from collections.abc import Sequence
from typing import Any

from excel_core.datasets.truth import TruthDoor
from tasks.code_version import code_version
from tasks.records import Record, records
from tasks.stage import Work

__all__ = ["masked_rows", "masks_key", "missing_masks"]


def masked_rows(work: Work, split: str) -> list[Record]:
    """Records of a split that have a mask, of its first evaluate.max_images."""
    rows = records(work, split)[: work.run.evaluate.max_images]
    folder = _folder(work)
    return [row for row in rows if (folder / f"{row.id}.png").is_file()]


def missing_masks(work: Work, split: str) -> dict[str, str]:
    """What to say about the images of a split that have no mask: {what: reason}."""
    wanted, found = len(records(work, split)[: work.run.evaluate.max_images]), len(masked_rows(work, split))
    name = TruthDoor(work.data).folder
    return {f"{split}: {wanted - found} of {wanted} images": f"no mask in {name}"} if found < wanted else {}


def masks_key(work: Work, rows: Sequence[Record]) -> Any:
    """Sizes and times of change of the masks of `rows`. The world's masks are drawn with its images, whose digests the
    rows have already: there, the code that draws them."""
    if "world" in work.inputs:
        return {"world": code_version("tasks.world")}
    status = [(_folder(work) / f"{row.id}.png").stat() for row in rows]
    return [[found.st_size, found.st_mtime_ns] for found in status]


def _folder(work: Work) -> Any:
    door = TruthDoor(work.data)
    return door.root / door.folder
