"""Digests of plain data, files, and what lies outside the store: data folders by their listings, weights by their bytes."""

import hashlib
import json
import os
from array import array
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from itertools import chain
from pathlib import Path, PurePath
from typing import Any

from excel_core.models.clip_names import parse_clip_name
from excel_core.models.dino_names import dino_file

__all__ = [
    "clip_fingerprint",
    "digest_of",
    "digest_of_blocks",
    "dino_fingerprint",
    "file_digest",
    "files_fingerprint",
    "folders_fingerprint",
]


BLOCK = 50_000  # files that are text at once


def digest_of(value: Any) -> str:
    """SHA-256 of plain data as canonical JSON, in hex."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def digest_of_blocks(blocks: Iterable[Sequence[Any]]) -> str:
    """`digest_of` the one list that the blocks are pieces of; one block at a time is in memory as text."""
    digest, comma = hashlib.sha256(b"["), b""
    for block in blocks:
        if block:
            digest.update(comma + json.dumps(block, sort_keys=True, separators=(",", ":"))[1:-1].encode())
            comma = b","
    digest.update(b"]")
    return digest.hexdigest()


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def folders_fingerprint(root: Path | None, *names: str) -> str | None:
    """Digest of path, size and time of change of every file under `root`/name (files or folders); None without a root.

    Nothing is read: a data folder holds gigabytes."""
    if root is None:
        return None
    paths: list[str] = []
    sizes, times = array("q"), array("q")  # of millions of files, these are numbers and not objects
    for path, status in chain.from_iterable(_files(root / name, name) for name in names):
        paths.append(path)
        sizes.append(status.st_size)
        times.append(status.st_mtime_ns)
    in_order = sorted(range(len(paths)), key=paths.__getitem__)
    rows = ([[paths[i], sizes[i], times[i]] for i in in_order[first : first + BLOCK]] for first in range(0, len(paths), BLOCK))
    return digest_of_blocks(rows)


def _files(top: Path, name: str) -> Iterator[tuple[str, os.stat_result]]:
    """Every file that `top` is or holds, as its path from `name` on; links to folders are not followed."""
    name = PurePath(name).as_posix()
    if top.is_file():
        yield name, top.stat()
        return
    if not top.is_dir():
        return
    folders = [(str(top), name)]
    while folders:
        folder, prefix = folders.pop()
        with os.scandir(folder) as entries:
            for entry in entries:
                path = f"{prefix}/{entry.name}"
                if not entry.is_dir():
                    yield path, entry.stat()
                elif not entry.is_symlink():
                    folders.append((entry.path, path))


def files_fingerprint(*paths: Path) -> list[str]:
    """NAME:DIGEST of each file, wherever its folder is and whenever it was written; NAME:missing where there is none: reading
    it will say what to do."""
    return [f"{path.name}:{_bytes_digest(path)}" for path in paths]


def clip_fingerprint(name: str) -> str:
    """MODEL:TAG of the CLIP `name`, or MODEL:DIGEST of its weights where they are a local file."""
    source = parse_clip_name(name)
    return f"{source.model}:{source.tag if source.file is None else _bytes_digest(source.file)}"


def dino_fingerprint(name: str | None) -> str | None:
    """MODEL:DIGEST of the weights of the DINO `name`; None for none."""
    return None if name is None else f"{name.partition(':')[0]}:{_bytes_digest(dino_file(name))}"


def _bytes_digest(path: Path) -> str:
    if not path.is_file():
        return "missing"
    status = path.stat()
    return _remembered_digest(path, status.st_size, status.st_mtime_ns)


@cache
def _remembered_digest(path: Path, size: int, changed_ns: int) -> str:
    return file_digest(path)
