"""The file layer from Python: compiling it, its actions, and its log.

file_layer.c says what it does.
"""

import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

__all__ = ["FAIL_FROM", "FAIL_ONCE", "KILL_AFTER", "KILL_BEFORE", "KINDS", "PRELOAD", "Change", "compiled_layer", "read_log"]

PRELOAD = "LD_PRELOAD"
KILL_BEFORE, KILL_AFTER, FAIL_ONCE, FAIL_FROM = 1, 2, 3, 4  # file_layer.c: enum action
KINDS = (
    "create", "open", "truncate", "write", "sync", "sync-folder", "sync-all", "rename", "link", "symlink", "unlink", "rmdir",
    "mkdir", "mmap",
)  # fmt: skip
SOURCE = Path(__file__).with_name("file_layer.c")


@cache
def compiled_layer() -> Path:
    """The layer as a shared library, in a folder of its own that ends with this process."""
    compiler = next(path for name in ("cc", "gcc", "g++", "c++") if (path := shutil.which(name)))
    folder = tempfile.TemporaryDirectory(prefix="file-layer-")
    _folders.append(folder)
    library = Path(folder.name) / "file_layer.so"
    subprocess.run([compiler, "-x", "c", "-shared", "-fPIC", "-O2", "-o", library, SOURCE, "-ldl", "-lpthread"], check=True)
    return library


_folders: list[tempfile.TemporaryDirectory[str]] = []


@dataclass(frozen=True)
class Change:
    """A line of the log. `word`: done, refused (by the system), before or after (killed there), failed (by the layer), or note,
    whose text is `path`. `number` counts changes from 1; `place` is the last note before it."""

    word: str
    number: int
    kind: str
    inode: int
    path: str
    second: str
    place: str


def read_log(log: Path) -> list[Change]:
    """Every line, in order."""
    changes, place = [], ""
    for line in log.read_text(encoding="utf-8").splitlines() if log.exists() else ():
        word, number, kind, inode, path, second = line.split("\t")
        place = path if word == "note" else place
        changes.append(Change(word, int(number), kind, int(inode), path, second, place))
    return changes
