"""Masks that a promptable segmenter proposed for an image: a JSON file an image, read with bounds. They are no truth.

ID.json holds a list of COCO RLEs, or of objects with an RLE as `segmentation`, or that list under `annotations` (as SA-1B's
files do). Whatever else is in it is not looked at.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from excel_core.datasets.manifest import check_image_id
from excel_core.datasets.run_lengths import Runs, encode_mask, inside, read_runs, runs_problem
from excel_core.errors import DataError
from excel_core.files import written_then_renamed

__all__ = ["MAX_PROPOSALS", "Proposals", "proposals_file", "read_proposals", "write_proposals"]

MAX_PROPOSALS = 4096  # masks of an image; SAM proposes some hundred
MAX_FILE_BYTES = 2**25  # of an image's masks


@dataclass(frozen=True)
class Proposals:
    """The sound masks of an image, and how many others its file holds, with what is wrong with the first of them."""

    masks: tuple[Runs, ...] = ()
    broken: int = 0
    problem: str = ""

    def areas(self) -> Iterable[NDArray[np.bool_]]:
        """The masks (H, W) bool, one at a time."""
        return map(inside, self.masks)


def proposals_file(folder: Path, image_id: str) -> Path:
    """Where the masks of an image are."""
    return folder / f"{check_image_id(image_id, 'mask proposals')}.json"


def read_proposals(path: Path, height: int, width: int) -> Proposals:
    """The masks of an image of this size. An RLE that is broken or of another size is left out and counted.

    DataError for a file that is not JSON, larger than MAX_FILE_BYTES, of another form, or of more than MAX_PROPOSALS masks.
    """
    size = path.stat().st_size
    if size > MAX_FILE_BYTES:
        raise DataError(f"{path}: {size:,} bytes of masks, expected at most {MAX_FILE_BYTES:,}; keep the largest masks")
    try:
        document = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not readable as JSON ({error}); expected a list of COCO RLEs") from None
    entries = document.get("annotations") if isinstance(document, dict) else document
    if not isinstance(entries, list):
        raise DataError(f"{path}: expected a list of COCO RLEs, or one under 'annotations', got {type(document).__name__}")
    if len(entries) > MAX_PROPOSALS:
        raise DataError(f"{path}: {len(entries):,} masks, expected at most {MAX_PROPOSALS:,}; keep the largest ones")
    read = [_read(entry, height, width) for entry in entries]
    problems = [runs for runs in read if isinstance(runs, str)]
    return Proposals(tuple(runs for runs in read if isinstance(runs, Runs)), len(problems), problems[0] if problems else "")


def _read(entry: Any, height: int, width: int) -> Runs | str:
    """An entry's runs, or what is wrong with it."""
    rle = entry.get("segmentation", entry) if isinstance(entry, dict) else None
    runs = read_runs(rle) if isinstance(rle, dict) else "an entry that is no RLE"
    return runs if isinstance(runs, str) else runs_problem(runs, height, width) or runs


def write_proposals(path: Path, masks: Iterable[NDArray[np.bool_]]) -> int:
    """Write masks (H, W) bool, completely or not at all → how many. Those beyond MAX_PROPOSALS are left out."""
    entries = [encode_mask(mask) for mask, _ in zip(masks, range(MAX_PROPOSALS), strict=False)]
    with written_then_renamed(path, sync=False) as temporary:
        temporary.write_text(json.dumps(entries), encoding="utf-8")
    return len(entries)
