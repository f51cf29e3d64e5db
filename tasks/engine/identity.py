"""Digests of plain data and of files: what identities are made from."""

import hashlib
import json
from pathlib import Path
from typing import Any

__all__ = ["digest_of", "file_digest"]


def digest_of(value: Any) -> str:
    """SHA-256 of plain data as canonical JSON, in hex."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
