"""What a disk may hold after a power cut, from the layer's log and what it kept.

A file system promises little. A file's bytes are on the disk once the file is synced. A change of a name (made, renamed,
linked, removed) is there once its folder is synced. Of everything else each piece may be there or not, in any order: a new name
without the file's bytes, a rename without the folder it was in. The model is that of ALICE and CrashMonkey, by inodes: a folder
that gets another name keeps the names in it, and a file with two names has one content.
"""

import os
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from tests.faults.file_layer import Change

__all__ = ["VARIANTS", "Journal", "keep_names", "write_state"]

BLOCK = 512  # bytes that a disk writes at once
# Which names, and which bytes of files, of those that were not synced.
VARIANTS = ("nothing", "names", "names and zeros", "all", "random", "random", "first names", "first names")
Bytes = Literal["synced", "zeros", "all", "random"]


@dataclass(eq=False)
class Folder:
    """A folder's names: what each stands for, a folder or a file by its inode."""

    names: dict[str, "Folder | int"] = field(default_factory=dict)


@dataclass
class NameChange:
    """`name` of `folder` stands for something else from here on, or for nothing. `number`: of the change that did it; the two
    of a rename happen together."""

    folder: Folder
    name: str
    child: "Folder | int | None"
    number: int
    synced: bool = False


class Journal:
    """A run's changes of names and files: `names` in order, `synced`, for each inode the change at which its bytes were synced
    last, `written` the one at which they were written last. `start` are the names from before, all of them on the disk."""

    def __init__(self, start: "Folder", log: Iterable[Change]) -> None:
        self.root, self.names = start, list[NameChange]()
        self.start = _copy(start)
        self.synced: dict[int, int] = {}
        self.written: dict[int, int] = {}
        for change in log:
            if change.word == "done" and (change.path or change.kind.startswith("sync")):  # "": the store itself
                self._apply(change)

    def _apply(self, change: Change) -> None:
        match change.kind:
            case "create":
                self._name(change.path, change.inode, change.number)
                self.written[change.inode] = change.number
            case "write" | "truncate":
                self.written[change.inode] = change.number
            case "mkdir":
                self._name(change.path, Folder(), change.number)
            case "unlink" | "rmdir":
                self._name(change.path, None, change.number)
            case "rename":
                child = self._find(change.path)
                self._name(change.path, None, change.number)
                self._name(change.second, child, change.number)
            case "link":
                self._name(change.second, self._find(change.path), change.number)
            case "sync":
                self.synced[change.inode] = change.number
            case "sync-folder":
                folder = self._find(change.path)
                for name in self.names:
                    name.synced |= name.folder is folder
            case "sync-all":
                self.synced.update(dict.fromkeys(self.written, change.number))
                for name in self.names:
                    name.synced = True
            case "open":
                pass
            case _:
                raise NotImplementedError(f"{change.kind} of {change.path}")

    def _find(self, path: str) -> "Folder | int":
        place: Folder | int = self.root
        for name in path.split("/") if path else ():
            assert isinstance(place, Folder)
            place = place.names[name]
        return place

    def _name(self, path: str, child: "Folder | int | None", number: int) -> None:
        folder = self._find(path.rpartition("/")[0])
        assert isinstance(folder, Folder)
        name = path.rpartition("/")[2]
        self.names.append(NameChange(folder, name, child, number))
        _set(folder.names, name, child)


def keep_names(store: Path, keep: Path) -> Folder:
    """The names of a store before a run; its files get a second name in `keep`, as the layer gives to new ones."""
    folder = Folder()
    for path in store.iterdir() if store.exists() else ():
        if path.is_dir():
            folder.names[path.name] = keep_names(path, keep)
        else:
            inode = path.stat().st_ino
            folder.names[path.name] = inode
            if not (keep / str(inode)).exists():
                os.link(path, keep / str(inode))
    return folder


def write_state(journal: Journal, keep: Path, variant: str, rng: random.Random, target: Path) -> None:
    """Write a state that the disk may hold into the folder `target`, which is made."""
    unsynced = sorted({name.number for name in journal.names if not name.synced})
    names: Sequence[int] = unsynced
    if variant == "nothing":
        names = []
    elif variant == "random":
        names = [number for number in unsynced if rng.random() < 0.5]
    elif variant == "first names":  # of a file system that keeps the order of names
        names = unsynced[: rng.randint(0, len(unsynced))]
    content: Bytes = "all" if variant == "all" else "zeros" if variant == "names and zeros" else "random"
    content = "synced" if variant in ("nothing", "names") else content
    there = {id(folder): dict(first) for folder, first in journal.start}
    for change in journal.names:
        if change.synced or change.number in names:
            _set(there.setdefault(id(change.folder), {}), change.name, change.child)
    files: dict[int, Path] = {}

    def write(folder: Folder, place: Path) -> None:
        place.mkdir()
        for name, child in there.get(id(folder), {}).items():
            if isinstance(child, Folder):
                write(child, place / name)
            elif child in files:
                os.link(files[child], place / name)
            else:
                _write_file(journal, keep, child, content, rng, place / name)
                files[child] = place / name

    write(journal.root, target)


def _write_file(journal: Journal, keep: Path, inode: int, content: Bytes, rng: random.Random, path: Path) -> None:
    """Size and time of change are the newest, as if they were on the disk before the bytes, unless bytes are missing."""
    latest, synced = keep / str(inode), journal.synced.get(inode, 0)
    if journal.written.get(inode, 0) <= synced:
        os.link(latest, path)
        return
    new = latest.read_bytes()
    old = (keep / f"{inode}.{synced}").read_bytes() if synced else b""
    kind = rng.choice(("synced", "zeros", "all", "cut", "blocks")) if content == "random" else content
    if kind == "cut":
        new = new[: rng.randint(0, len(new))]
    elif kind == "blocks":
        starts = range(0, len(new), BLOCK)
        new = b"".join(rng.choice((new, bytes(len(new)), old))[start : start + BLOCK] for start in starts)
    path.write_bytes({"synced": old, "zeros": bytes(len(new))}.get(kind, new))
    os.utime(path, ns=(latest.stat().st_atime_ns, latest.stat().st_mtime_ns))


def _copy(folder: Folder) -> list[tuple[Folder, dict[str, "Folder | int"]]]:
    """The folders below, this one included, each with its names of this moment."""
    below = [pair for child in folder.names.values() if isinstance(child, Folder) for pair in _copy(child)]
    return [(folder, dict(folder.names)), *below]


def _set(names: dict[str, "Folder | int"], name: str, child: "Folder | int | None") -> None:
    if child is None:
        names.pop(name, None)
    else:
        names[name] = child
