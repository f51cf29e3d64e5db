"""The guard that stops every stage but evaluation from opening a segmentation mask. It is against our own mistakes.

Evaluation runs outside the guard; every other stage runs inside `forbid_mask_access`. No permission is handed around: the two
never overlap in one process. There is one explicit exemption: COCO keeps labels and masks in one file. The stage that reads
labels may open that file, and its reader (coco_json.py) keeps no mask.

Seen, in any thread and forked worker, and in spawned ones that call `inherited_guards`:

* every file that Python opens (open, Path, os.open, Pillow, np.load, np.memmap, shutil, zipfile), by any path that leads to a
  mask: relative, dotted, through symbolic links, in other case; a hard link or another mount of one of the data set's masks
* a mask that is linked or renamed to another name, and one that a program is started with as an argument
* a mask that is open, or mapped into memory, when the guard begins (on Linux)

Not seen: C code that opens files by itself (cv2.imread, torchvision.io.read_image, pyarrow), of which excel calls none; os.open
below a file descriptor of a folder (dir_fd); a program that finds a mask by itself; a copy of a mask, and an archive of masks.
"""

import os
import re
import sys
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import lru_cache
from pathlib import Path

from excel_core.errors import MaskLeakError

__all__ = [
    "LABELS_IN_MASK_FILES", "MASK_FILES", "MASK_FOLDERS", "check_mask_access", "forbid_mask_access", "inherited_guards",
    "mask_places",
]  # fmt: skip

# Names under which VOC and its augmented set keep masks; protected wherever they are.
MASK_FOLDERS = ("SegmentationClass", "SegmentationClassAug", "SegmentationObject")
_NAMES = frozenset(name.casefold() for name in MASK_FOLDERS)  # some file systems ignore case
MASK_FILES = ("instances_*.json", "person_keypoints_*.json", "panoptic_*.json", "stuff_*.json")  # COCO's
LABELS_IN_MASK_FILES = ("instances_*.json",)  # those of MASK_FILES that hold the image-level labels as well
# Where a layout has masks, below its data folder: folders, or patterns of files. They hold in runs of this layout alone. Where
# nothing is said: in MASK_FOLDERS.
PLACES = {"coco": tuple(f"annotations/{pattern}" for pattern in MASK_FILES)}
# What starts a program → the position of its arguments.
PROGRAMS = {"subprocess.Popen": 1, "os.system": 0, "os.exec": 1, "os.posix_spawn": 1, "pty.spawn": 0}
Inode = tuple[int, int]  # device and number


def mask_places(layout: str, data: Path | None) -> list[Path]:
    """The folders and files below the data folder that hold masks in this layout, as far as they are there."""
    patterns = PLACES.get(layout, MASK_FOLDERS) if data is not None else ()
    return [place for pattern in patterns for place in Path(data or "").glob(pattern)]


def check_mask_access(path: Path, how: str) -> None:
    """Raise MaskLeakError inside `forbid_mask_access`, whatever it exempts; `how` names the caller that reads `path`. A mask
    reader calls this first: what it has in memory opens no file, so that the hook would not see it."""
    for guard in _snapshot():
        raise MaskLeakError(_message(guard, str(path), how))


@contextmanager
def forbid_mask_access(*places: Path, stage: str = "this stage", exempt: Collection[str] = ()) -> Iterator[None]:
    """While active, opening a mask anywhere in the process raises MaskLeakError.

    Protected are the folders named in MASK_FOLDERS, the files named in MASK_FILES, and `places`: folders and files with masks,
    which are known by their inodes too. Left out are files of the patterns in `exempt`. Each is protected under its own name
    and under the path that its symbolic links lead to. The error names `stage`. Guards may be nested, where the strictest
    counts, and may be active in several threads at once. A folder of pseudo labels needs another name.
    """
    _install()
    places = tuple(place for place in places if not any(fnmatchcase(place.name.casefold(), name) for name in exempt))
    paths = {path for place in places for path in _absolute_paths(os.fspath(place))}
    inodes = {inode: path for place in places for inode, path in _inodes(os.path.realpath(place)).items()}
    guard = _Guard(stage, tuple(sorted(paths)), tuple(pattern for pattern in MASK_FILES if pattern not in exempt), inodes)
    for path in _open_files():
        if guard.protects(path):
            raise MaskLeakError(_message(guard, path, "a handle from before"))
    token = object()  # the same guard may be entered twice
    _active[token] = guard
    try:
        yield
    finally:
        del _active[token]


@dataclass(frozen=True)
class _Guard:
    stage: str
    places: tuple[str, ...]  # folders and files, absolute, as named and as resolved
    files: tuple[str, ...]  # patterns of file names
    inodes: Mapping[Inode, str]  # of the masks in `places`, with the path of each

    def protects(self, path: str) -> bool:
        """Whether the absolute path is a place of masks, lies in one, or is a file of masks."""
        if any(path == place or path.startswith(place + os.sep) for place in self.places):
            return True
        names = path.casefold().split(os.sep)
        return not _NAMES.isdisjoint(names) or any(fnmatchcase(names[-1], pattern) for pattern in self.files)

    def is_mask(self, path: str) -> bool:
        """Whether the file is one of the masks under another name: a hard link, or another mount."""
        with suppress(OSError, ValueError):  # no such file, or no path at all
            status = os.stat(path)
            mask = self.inodes.get((status.st_dev, status.st_ino))
            # A mask may be gone since, and its number given to another file.
            return mask is not None and os.path.samestat(status, os.stat(mask))
        return False


@dataclass(frozen=True)
class _Inherited:
    """The guards of a process, to be sent to a process that it spawns: `worker_init_fn` of a DataLoader."""

    guards: tuple[_Guard, ...]

    def __call__(self, worker: int = 0) -> None:
        _install()
        _active.update({object(): guard for guard in self.guards})


def inherited_guards() -> _Inherited:
    """What makes a spawned process obey the guards that are active here: called there, for good."""
    return _Inherited(tuple(_snapshot()))


# Insertion, deletion and list(values()) are atomic, so no lock: the hook runs inside every open, and a
# lock that another thread holds at a fork would stay locked in the worker for ever.
_active: dict[object, _Guard] = {}
_installed: list[bool] = []


def _snapshot() -> list[_Guard]:
    return list(_active.values())


def _install() -> None:
    """Add the audit hook once; a hook cannot be removed, so it is idle while no guard is active."""
    if not _installed:
        _installed.append(True)
        sys.addaudithook(_watch)


def _watch(event: str, arguments: tuple[object, ...]) -> None:
    """Audit hook: raising here stops the event before it happens."""
    if not _active:
        return
    if event == "open":
        _check(arguments[0], "open")
    elif event in ("os.link", "os.rename"):
        for path in arguments[:2]:
            _check(path, event.removeprefix("os."))
    elif event in PROGRAMS:
        command, folder = arguments[PROGRAMS[event]], arguments[2] if event == "subprocess.Popen" else None
        start = os.fsdecode(folder) if isinstance(folder, str | bytes | os.PathLike) else ""
        for word in _words(command):
            _check(os.path.join(start, word), "a program's reading")


def _check(path: object, how: str) -> None:
    """Raise MaskLeakError where the path leads to a mask that is protected now."""
    if not isinstance(path, str | bytes | os.PathLike):
        return  # a file descriptor: whoever opened it went through here
    written, real = _absolute_paths(os.fsdecode(path))
    for guard in _snapshot():
        if guard.protects(written) or guard.protects(real) or (guard.inodes and guard.is_mask(real)):
            raise MaskLeakError(_message(guard, written if guard.protects(written) else real, how))


def _words(command: object) -> list[str]:
    """What may be paths in a program's arguments: a list of them, or a line for a shell."""
    parts = command if isinstance(command, list | tuple) else [command]
    texts = [os.fsdecode(part) for part in parts if isinstance(part, str | bytes | os.PathLike)]
    return [word for text in texts for word in (text, *re.split(r"[\s=;|&<>'\"]+", text)) if word and "\0" not in word]


def _absolute_paths(path: str) -> tuple[str, str]:
    """The absolute path as it is written, and where its symbolic links lead."""
    return os.path.abspath(path), os.path.realpath(path)


def _inodes(place: str) -> dict[Inode, str]:
    """Every file of a place of masks by its inode; opens none."""
    if not os.path.isdir(place):
        with suppress(OSError):
            status = os.stat(place)
            return {(status.st_dev, status.st_ino): place}
        return {}
    status = os.stat(place)
    return _inodes_of_folder(place, status.st_dev, status.st_mtime_ns)


@lru_cache(maxsize=16)
def _inodes_of_folder(folder: str, device: int, changed: int) -> dict[Inode, str]:
    """`changed` is part of the cache's key alone: a folder is listed again when it has changed."""
    inodes: dict[Inode, str] = {}
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_file(follow_symlinks=False):
                inodes[device, entry.inode()] = entry.path
            elif entry.is_file() or not entry.is_symlink():  # a link to a file, or a folder; not one that may lead back here
                inodes |= _inodes(os.path.realpath(entry.path))
    return inodes


def _open_files() -> Iterator[str]:
    """Paths of the files that this process has open or mapped, where the system tells (Linux)."""
    with suppress(OSError):
        for number in os.listdir("/proc/self/fd"):
            with suppress(OSError):  # the listing's own is closed by now
                yield os.readlink(f"/proc/self/fd/{number}")
        with open("/proc/self/maps", encoding="utf-8", errors="surrogateescape") as maps:
            yield from {line.split(maxsplit=5)[5].rstrip("\n") for line in maps if line.count(" ") > 4 and "/" in line}


def _message(guard: _Guard, path: str, how: str) -> str:
    return (
        f"{guard.stage}: {how} of the segmentation mask {path}, but only evaluation may see masks; "
        "take labels from labels.csv, Annotations or read_coco, and score in the evaluate stage, outside forbid_mask_access"
    )
