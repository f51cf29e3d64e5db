"""Which mask files are opened while a test looks: an audit hook of its own, beside the guard's."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_seen: list[set[str]] = []
_installed: list[bool] = []


def _watch(event: str, arguments: tuple[object, ...]) -> None:
    if event == "open" and _seen and isinstance(arguments[0], str | bytes | os.PathLike):
        path = os.fsdecode(arguments[0])
        if "/SegmentationClass/" in path:
            _seen[-1].add(path)


@contextmanager
def opened_masks() -> Iterator[set[str]]:
    """Paths of the masks (in folders named SegmentationClass) that this process opens within the block."""
    if not _installed:
        _installed.append(True)
        sys.addaudithook(_watch)
    found: set[str] = set()
    _seen.append(found)
    try:
        yield found
    finally:
        _seen.remove(found)
