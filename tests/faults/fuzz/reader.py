"""What a fuzzed reader is: a valid folder, made by code, and the call that reads it."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["CLASSES", "JSON_WORDS", "Reader", "each", "files_of", "json_of"]

CLASSES = ("cat", "dog", "traffic light")
JSON_WORDS = (b'"format"', b'"classes"', b'"cat"', b"{", b"}", b"[", b"]", b",", b":", b'"a"', b'{"a": 1}', b"\\u0000")


@dataclass(frozen=True)
class Reader:
    """`make` writes a valid folder. Each input is that folder with one of its `files` mutated; `words` are of their format.
    `read` may return, or raise an ExcelError; it looks at what it gets, since what only opens a file has read nothing yet."""

    name: str
    make: Callable[[Path], None]
    read: Callable[[Path], Any]
    files: Sequence[str]
    words: Sequence[bytes] = ()


def files_of(**files: bytes) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        for name, data in files.items():
            (folder / name.replace("__", ".")).write_bytes(data)

    return make


def json_of(value: Any) -> bytes:
    return json.dumps(value, indent=1).encode()


def each(read: Callable[[Path], Any], *names: str) -> Callable[[Path], Any]:
    """`read` of each file; one that is refused does not keep the others from being read."""

    def read_each(folder: Path) -> Any:
        from excel_core.errors import ExcelError

        results: list[Any] = []
        for name in names:
            try:
                results.append(read(folder / name))
            except ExcelError as error:
                assert str(error) and "\n" not in str(error)
                results.append(None)
        return results

    return read_each
