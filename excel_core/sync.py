"""Bring files and folders onto the disk, so that a power cut takes nothing that counts as written.

EXCEL_FSYNC=0 leaves that to the system: for scratch disks, whose files a power cut may take.
"""

import errno
import os
from concurrent.futures import ThreadPoolExecutor
from itertools import takewhile
from pathlib import Path

from excel_core.errors import SettingError

__all__ = ["SWITCH", "make_folder", "sync_file", "sync_folder", "sync_tree"]

SWITCH = "EXCEL_FSYNC"
THREADS = 8  # that wait for the disk together: it writes what several ask for at once


def sync_file(path: Path) -> None:
    """Bring a file's bytes onto the disk."""
    if _wanted():
        _sync(path)


def sync_folder(path: Path) -> None:
    """Bring a folder's names onto the disk: those of files that were made, renamed or removed in it."""
    if _wanted():
        _sync_names(path)


def sync_tree(top: Path) -> None:
    """Bring every file below `top` onto the disk, then every folder, `top` last."""
    if not _wanted():
        return
    files: list[Path] = []
    folders: list[Path] = []
    for place, _, names in os.walk(top):
        folders.append(Path(place))
        files += [Path(place, name) for name in names]
    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(_sync, files))
    for folder in reversed(folders):
        _sync_names(folder)


def make_folder(path: Path) -> None:
    """Make a folder and those above it that are missing, each with its name on the disk."""
    missing = list(takewhile(lambda folder: not folder.exists(), (path, *path.parents)))
    path.mkdir(parents=True, exist_ok=True)
    for folder in reversed(missing):
        sync_folder(folder.parent)


def _wanted() -> bool:
    """The switch; SettingError for another value than 0 and 1."""
    switch = os.environ.get(SWITCH, "1")
    if switch not in ("0", "1"):
        raise SettingError(
            f"{SWITCH}={switch!r}: must be 1 (files are on the disk before they count) or 0 (scratch disk: the system decides)"
        )
    return switch == "1"


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_names(folder: Path) -> None:
    try:
        _sync(folder)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network file systems sync no folders
            raise
