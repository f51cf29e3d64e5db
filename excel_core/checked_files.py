"""Files that say whether they are whole: each holds a digest of what it holds, checked whenever it is read.

JSON     an object with a field `sha256`, the digest of all its other fields
bytes    a first line `FORMAT SHA256`, then the payload that the digest is of
"""

import hashlib
import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

from excel_core.errors import StoreError
from excel_core.files import read_json, write_json, written_then_renamed

__all__ = ["read_checked", "read_checked_json", "write_checked", "write_checked_json"]

DIGEST = "sha256"


def write_checked_json(path: Path, value: dict[str, Any]) -> None:
    """Write plain data as indented JSON with its digest."""
    plain = json.loads(json.dumps(value, allow_nan=False))  # tuples become lists and keys strings, as they are read back
    write_json(path, plain | {DIGEST: _json_digest(plain)})


def read_checked_json(path: Path, unchecked: Collection[str] = ()) -> dict[str, Any]:
    """Read what `write_checked_json` wrote, without the digest. StoreError when it is missing, no object, or not what was
    written. `unchecked`: values of `format` that an earlier version wrote without digest."""
    value = read_json(path)
    if not isinstance(value, dict):
        raise StoreError(f"{path}: is damaged: must be a JSON object, got {type(value).__name__}")
    if DIGEST not in value and value.get("format") in tuple(unchecked):
        return value
    digest = value.pop(DIGEST, None)
    try:
        intact = digest == _json_digest(value)
    except (ValueError, RecursionError):  # numbers that JSON has not, or nesting without end
        intact = False
    if not intact:
        raise StoreError(f"{path}: is damaged: its bytes are not those that were written")
    return value


def write_checked(path: Path, format: str, payload: bytes | memoryview, of: str = "", sync: bool = True) -> None:
    """Write bytes with their digest. `of`: what the file is about, so that another file's bytes under its name are damage.
    `sync`: see `written_then_renamed`."""
    with written_then_renamed(path, sync) as temporary, temporary.open("wb") as file:
        file.write(_first_line(format, payload, of))
        file.write(payload)


def read_checked(path: Path, format: str, of: str = "") -> memoryview:
    """Read what `write_checked` wrote; OSError when it cannot be read, StoreError when it is not what was written."""
    content = memoryview(path.read_bytes())
    length = len(_first_line(format, b"", of))
    payload = content[length:]
    if content[:length] != _first_line(format, payload, of):
        raise StoreError(f"{path}: is damaged, or no {format}: its bytes are not those that were written")
    return payload


def _json_digest(value: dict[str, Any]) -> str:
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


def _first_line(format: str, payload: bytes | memoryview, of: str) -> bytes:
    digest = hashlib.sha256(json.dumps([format, of]).encode())
    digest.update(payload)
    return f"{format} {digest.hexdigest()}\n".encode()
