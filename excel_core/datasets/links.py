"""Symbolic links that lead out of a data folder: a downloaded data set must not show files of its user's.

A file may be a link to another one in the data folder. A whole folder of images or masks may be a link, to a larger disk for
example; then its files lie in that folder.
"""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from excel_core.datasets.photo_files import is_hidden, printable
from excel_core.errors import ImageError

__all__ = ["LINK_ADVICE", "check_inside", "links_out"]

LINK_ADVICE = "put the files themselves there, or make the whole folder that they are in the link"
MAX_LEVELS = 3  # of folders: images/train2014/FILE, and one more


def check_inside(root: Path, path: Path) -> None:
    """ImageError where `path`, an image below root, is a link that leads out of the data folder."""
    if _leads_out(root, path):
        raise ImageError(f"{path.name}: a symbolic link that leads out of the data folder; {LINK_ADVICE}")


def links_out(root: Path, places: Iterable[str | Path]) -> list[str]:
    """Those files among `places` below root, and in those of them that are folders, that are links to files outside the data
    folder; as paths relative to root, sorted. Opens no file."""
    seen: set[str] = set()
    links = {link for place in places for link in _links(root / place, MAX_LEVELS, seen) if _leads_out(root, link)}
    return sorted(printable(link.relative_to(root)) for link in links if os.path.exists(link))  # else it is a missing file


def _leads_out(root: Path, path: Path) -> bool:
    if not os.path.islink(path):
        return False
    real = Path(os.path.realpath(path))  # unlike resolve(), it bears links that lead in a circle: reading then says so
    return not real.is_relative_to(root.resolve()) and not real.is_relative_to(path.parent.resolve())


def _links(place: Path, levels: int, seen: set[str]) -> Iterator[Path]:
    """`place` where it is a link to a file; the links to files in it where it is a folder that was not `seen`."""
    if not os.path.isdir(place):
        if place.is_symlink():
            yield place
        return
    real = os.path.realpath(place)
    if levels == 0 or real in seen:
        return
    seen.add(real)
    with os.scandir(place) as entries:
        for entry in entries:
            # Both are told without asking the disk for each of 100,000 photos.
            if (entry.is_symlink() or entry.is_dir()) and not is_hidden(entry.name):
                yield from _links(Path(entry.path), levels - 1, seen)
