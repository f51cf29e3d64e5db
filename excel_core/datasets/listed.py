"""Images that a layout lists, with their image-level labels → the manifest: every image is decoded once and checked."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from excel_core.datasets.images import AS_STORED, DecodeOptions
from excel_core.datasets.manifest import Manifest, check_bad_share, check_manifest, image_digest
from excel_core.errors import DataError, ImageError, SettingError

__all__ = ["NO_LABELS", "Listed", "check_splits", "read_listed"]

NO_LABELS = "no labels: the image has no object of any class"


@dataclass(frozen=True)
class Listed:
    """One image of one split: its id, its path relative to the root with '/', its labels in class order, and what is wrong
    with it so far ("" for nothing)."""

    id: str
    split: str
    image: str
    labels: tuple[str, ...] = ()
    problem: str = ""


def check_splits(splits: Sequence[str]) -> None:
    """SettingError unless `splits` is a list of distinct names."""
    if isinstance(splits, str) or not splits or len(set(splits)) != len(splits):
        raise SettingError(f"splits must be a list of distinct names, got {splits!r}")


def read_listed(
    root: Path, listed: Sequence[Listed], *, max_bad: float, threads: int, view: DecodeOptions = AS_STORED
) -> Manifest:
    """Decode every image under root once, in `threads` threads → Manifest, rows in the order of `listed`, sizes as in `view`.

    An image that is missing, damaged, too small, or that a symbolic link takes out of its data folder keeps its row with the
    reason in `error`; more than max_bad of them (a share in [0, 1], but always at least one image) raise DataError. So do ids
    that differ only by case: what is written for one would overwrite the other's on many file systems.
    """
    _check_case(listed)
    images = list(dict.fromkeys(row.image for row in listed))
    with ThreadPoolExecutor(threads) as pool:
        looked = dict(zip(images, pool.map(lambda image: _look(root, image, view), images), strict=True))
    manifest = pd.DataFrame(
        {
            "id": [row.id for row in listed],
            "split": [row.split for row in listed],
            "image": [row.image for row in listed],
            "height": np.array([looked[row.image].height for row in listed], dtype=np.int32),
            "width": np.array([looked[row.image].width for row in listed], dtype=np.int32),
            "labels": [list(row.labels) for row in listed],
            "error": ["; ".join(filter(None, [looked[row.image].problem, row.problem])) for row in listed],
            "digest": [looked[row.image].digest for row in listed],
        }
    )
    check_bad_share(manifest, max_bad)
    return check_manifest(manifest)


@dataclass(frozen=True)
class _Look:
    height: int = 0
    width: int = 0
    problem: str = ""
    digest: str = ""


def _look(root: Path, image: str, view: DecodeOptions) -> _Look:
    path = root / image
    if not _inside(root, path):
        return _Look(problem=f"{path.name}: a symbolic link that leads out of the data folder; put the file itself there")
    try:
        height, width, _ = view.read(path).shape
    except ImageError as error:
        return _Look(problem=str(error), digest=image_digest(path))
    return _Look(height, width, digest=image_digest(path))


def _inside(root: Path, path: Path) -> bool:
    """Whether a file is really where it is listed. The folder that holds images may itself be a link to a larger disk."""
    real = path.resolve()
    return real.is_relative_to(root.resolve()) or real.is_relative_to(path.parent.resolve())


def _check_case(listed: Sequence[Listed]) -> None:
    known: dict[str, str] = {}
    for row in listed:
        other = known.setdefault(row.id.casefold(), row.id)
        if other != row.id:
            raise DataError(f"images {other!r} and {row.id!r} differ only by case; rename one")
