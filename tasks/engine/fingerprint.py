"""Digests of plain data, files, and what lies outside the store: data folders by their listings, weights by their bytes."""

import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from excel_core.models.clip_names import parse_clip_name

__all__ = ["clip_fingerprint", "digest_of", "digest_of_blocks", "file_digest", "files_fingerprint", "folders_fingerprint"]


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
    rows: list[Any] = []
    for name in names:
        top = root / name
        files = [top] if top.is_file() else [Path(folder) / file for folder, _, held in os.walk(top) for file in held]
        for path in files:
            status = path.stat()
            rows.append([path.relative_to(root).as_posix(), status.st_size, status.st_mtime_ns])
    return digest_of(sorted(rows))


def files_fingerprint(*paths: Path) -> list[str]:
    """NAME:DIGEST of each file, wherever its folder is and whenever it was written; NAME:missing where there is none: reading
    it will say what to do."""
    return [f"{path.name}:{_bytes_digest(path)}" for path in paths]


def clip_fingerprint(name: str) -> str:
    """MODEL:TAG of the CLIP `name`, or MODEL:DIGEST of its weights where they are a local file."""
    source = parse_clip_name(name)
    return f"{source.model}:{source.tag if source.file is None else _bytes_digest(source.file)}"


def _bytes_digest(path: Path) -> str:
    if not path.is_file():
        return "missing"
    status = path.stat()
    return _remembered_digest(path, status.st_size, status.st_mtime_ns)


@cache
def _remembered_digest(path: Path, size: int, changed_ns: int) -> str:
    return file_digest(path)
