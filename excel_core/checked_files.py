"""Files that say whether they are whole: each holds a digest of what it holds, checked whenever it is read.

JSON     an object whose last field `sha256` is the digest of all the bytes before that field
bytes    a first line `FORMAT SHA256`, then the payload that the digest is of
"""

import hashlib
import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

from excel_core.errors import StoreError
from excel_core.files import written_then_renamed

__all__ = ["checked_json", "parse_checked_json", "read_checked", "read_checked_json", "write_checked", "write_checked_json"]

DIGEST = "sha256"
LAST_FIELD = f',\n  "{DIGEST}": "'


def write_checked_json(path: Path, value: dict[str, Any]) -> None:
    """Write plain data, an object with one field at least, as indented JSON with its digest."""
    content = checked_json(value)
    with written_then_renamed(path) as temporary:
        temporary.write_bytes(content)


def checked_json(value: dict[str, Any]) -> bytes:
    """The bytes that `write_checked_json` writes."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False).removesuffix("\n}")
    return text.encode() + _last_field(text.encode())


def read_checked_json(path: Path, unchecked: Collection[str] = ()) -> dict[str, Any]:
    """Read what `write_checked_json` wrote, without the digest. StoreError when it is missing, no object, or not what was
    written. `unchecked`: values of `format` that an earlier version wrote without digest."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise StoreError(f"{path}: not readable ({error}); rerun the stage that writes it") from None
    return parse_checked_json(content, path, unchecked)


def parse_checked_json(content: bytes, path: Path, unchecked: Collection[str] = ()) -> dict[str, Any]:
    """`read_checked_json` of bytes; `path` names them in errors."""
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise StoreError(f"{path}: not readable ({error}); rerun the stage that writes it") from None
    if not isinstance(value, dict):
        raise StoreError(f"{path}: is damaged: must be a JSON object, got {type(value).__name__}")
    if DIGEST not in value and value.get("format") in tuple(unchecked):
        return value
    checked, _, _ = content.rpartition(LAST_FIELD.encode())
    if content != checked + _last_field(checked):
        raise StoreError(f"{path}: is damaged: its bytes are not those that were written")
    del value[DIGEST]
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


def _last_field(content: bytes) -> bytes:
    return f'{LAST_FIELD}{hashlib.sha256(content).hexdigest()}"\n}}\n'.encode()


def _first_line(format: str, payload: bytes | memoryview, of: str) -> bytes:
    digest = hashlib.sha256(json.dumps([format, of]).encode())
    digest.update(payload)
    return f"{format} {digest.hexdigest()}\n".encode()
