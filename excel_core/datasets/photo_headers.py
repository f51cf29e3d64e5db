"""Photos of a folder that cannot be used, told by their headers before any work: missing, empty, of a format that is not read,
too small, too large. Damage further on is found when the photos are decoded (manifest.py), by the same rule."""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from excel_core.config import DatasetSpec
from excel_core.datasets.folder import list_folder
from excel_core.datasets.images import read_header
from excel_core.datasets.links import check_inside
from excel_core.datasets.manifest import max_bad_images
from excel_core.datasets.photo_files import unread_format
from excel_core.errors import DataError, ImageError

__all__ = ["check_photo_headers"]

MAX_NAMED = 3  # photos in a message


def check_photo_headers(root: Path, spec: DatasetSpec, class_names: Sequence[str]) -> None:
    """DataError, in one line, where more photos of the run's splits cannot be used than `spec.max_bad` tolerates, or all of a
    split; errors as of `list_folder` too."""
    listed = [row for row in list_folder(root, class_names, spec.test_splits) if row.split in spec.settings_of_splits]
    reason_of: dict[str, str] = {}
    for row in listed:
        reason_of[row.image] = f"{row.image}: {row.problem}" if row.problem else _problem(root, row.image)
    bad = [reason for reason in reason_of.values() if reason]
    if len(bad) > max_bad_images(len(reason_of), spec.max_bad):
        head = f"{len(bad)} of {len(reason_of)} photos cannot be used, {spec.max_bad:.1%} are tolerated"
        raise DataError(f"{root}: {head}; repair them or leave them out: {_named(bad)}")
    for split in spec.settings_of_splits:
        reasons = [reason_of[row.image] for row in listed if row.split == split]
        if reasons and all(reasons):
            raise DataError(f"{root}: split {split!r} has no photo that can be used: {_named(reasons)}")


def _named(reasons: Sequence[str]) -> str:
    """The first of them, and how many more."""
    more = len(reasons) - MAX_NAMED
    return "; ".join(reasons[:MAX_NAMED]) + (f"; and {more} more" if more > 0 else "")


def _problem(root: Path, image: str) -> str:
    """Why a photo cannot be used, after its name; "" where its header tells nothing."""
    path = root / image
    try:
        check_inside(root, path)
        stat = path.stat()
    except ImageError as error:
        return str(error)
    except OSError as error:
        return f"{path.name}: no such file" if isinstance(error, FileNotFoundError) else f"{path.name}: {error.strerror}"
    return _problem_of(path, stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=100_000)
def _problem_of(path: Path, size: int, modified: int) -> str:
    """Once for a file, since a run is checked by the command and by its flow."""
    if not size:
        return f"{path.name}: the file is empty"
    try:
        read_header(path)
    except ImageError as error:
        advice = unread_format(path)
        return f"{path.name}: {advice}" if advice else str(error)
    return ""
