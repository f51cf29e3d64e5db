"""Fingerprints of what lies outside the store: data folders by their listings (cheap), single files by their bytes."""

import os
from functools import cache
from pathlib import Path
from typing import Any

from excel_core.config import RunSpec
from excel_core.models.clip_weights import parse_clip_name
from tasks.engine.identity import digest_of, file_digest
from tasks.engine.stage import RunEnvironment

__all__ = ["clip_fingerprint", "files_fingerprint", "folders_fingerprint"]


def folders_fingerprint(root: Path | None, *names: str) -> str | None:
    """Digest of path, size and time of change of every file under `root`/name (files or folders); None without a root."""
    if root is None:
        return None
    rows: list[Any] = []
    for name in names:
        top = root / name
        files = [top] if top.is_file() else (Path(place) / f for place, _, found in os.walk(top) for f in found)
        for path in files:
            status = path.stat()
            rows.append([path.relative_to(root).as_posix(), status.st_size, status.st_mtime_ns])
    return digest_of(sorted(rows))


def files_fingerprint(*paths: Path) -> list[str]:
    """Names and digests of files, wherever the folder is and whenever they were written."""
    return [f"{path.name}:{_file_digest(path, *_version(path))}" for path in paths]


def clip_fingerprint(run: RunSpec, place: RunEnvironment) -> str:
    """The model's name, and the bytes of its weights where they are a local file."""
    source = parse_clip_name(run.clip.model)
    if source.file is None:
        return f"{source.model}:{source.tag}"
    if not source.file.is_file():
        return f"{source.model}:missing"  # loading it will say what to do
    return f"{source.model}:{_file_digest(source.file, *_version(source.file))}"


def _version(path: Path) -> tuple[int, int]:
    """Size and time of change, by which a digest is remembered."""
    status = path.stat()
    return status.st_size, status.st_mtime_ns


@cache
def _file_digest(path: Path, size: int, changed: int) -> str:
    return file_digest(path)
