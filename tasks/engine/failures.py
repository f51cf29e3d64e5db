"""What a machine refuses, disk or memory, as one line that a person can act on. What was finished before stays."""

import errno
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from excel_core.errors import ExcelError, OutOfMemoryError, StoreError
from excel_core.files import READ_ONLY

__all__ = ["in_one_line", "plain_failures"]

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# How torch says it: the CPU's allocator, CUDA, cuBLAS and MPS raise a RuntimeError each.
NO_MEMORY = ("out of memory", "can't allocate memory", "not enough memory", "ALLOC_FAILED")
ADVICE = {
    "train": "lower train.batch_size or train.crop, or train on more --gpus",
    "predict": "choose fewer or smaller predict.scales, or lower dataset.max_side",
}


@contextmanager
def plain_failures(name: str, store: Path, needed: Iterable[Path] = ()) -> Iterator[None]:
    """Around the work `name`, which writes to the store and reads the folders `needed` of it. StoreError where the disk refuses
    or a folder was removed meanwhile, OutOfMemoryError where memory does not suffice. Other errors pass."""
    try:
        yield
    except ExcelError as error:
        removed = _removed(store, needed)
        if removed is None or not isinstance(error, StoreError):
            raise
        raise _removal(name, removed) from error
    except Exception as error:
        if _is_of_memory(error):
            raise OutOfMemoryError(f"{name}: {_memory_text(error, name.partition(' ')[0])}") from error
        removed = _removed(store, needed)
        if removed is not None:
            raise _removal(name, removed) from error
        if not _is_of_disk(error):
            raise
        raise StoreError(f"{name}: {_disk_text(error, store)}") from error


def in_one_line(error: Exception) -> str | None:
    """What a command tells of an error that escaped from it; None of one that is a mistake of the program."""
    if isinstance(error, ExcelError):
        return str(error)
    if _is_of_memory(error):
        return _memory_text(error)
    return _first_line(error) if _is_of_disk(error) else None


def _is_of_memory(error: Exception) -> bool:
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in NO_MEMORY)


def _is_of_disk(error: Exception) -> bool:
    """Of a file system: the system's own, or one without a number, as numpy's and Pillow's writers raise it. Other kinds, such
    as those of urllib, are no disk's."""
    return isinstance(error, OSError) and (error.errno is not None or type(error) is OSError)


def _memory_text(error: Exception, stage: str = "") -> str:
    advice = ADVICE.get(stage, "lower dataset.max_side, run fewer workers or runs at a time")
    return f"memory does not suffice ({_first_line(error)}). Finished stages and shards are kept; {advice}, and run again"


def _disk_text(error: Exception, store: Path) -> str:
    """What to do depends on the error's number; numpy and Pillow give none, mostly for a full disk."""
    number, problem = getattr(error, "errno", None), _first_line(error)
    if number is None or number in FULL:
        return (
            f"cannot write to {store} ({problem}{_room(store)}). "
            "Finished stages and shards are kept; make room or choose another --store, and run again"
        )
    if number in READ_ONLY:
        return f"cannot write to {store} ({problem}). Make it writable or choose another --store, and run again"
    return f"{problem}. Finished stages and shards are kept; look after the disk of {store}, and run again"


def _room(store: Path) -> str:
    """What is left on the store's disk: bytes and, where the file system counts them, files."""
    try:
        disk = os.statvfs(store)
    except OSError:
        return ""
    files = f" and {disk.f_favail} files" if disk.f_files else ""
    return f"; {disk.f_bavail * disk.f_frsize / 2**20:.0f} MiB{files} free"


def _removed(store: Path, needed: Iterable[Path]) -> Path | None:
    """The first of the folders that is gone."""
    return next((folder for folder in (store, *needed) if not folder.is_dir()), None)


def _removal(name: str, removed: Path) -> StoreError:
    return StoreError(f"{name}: {removed} was removed while it was in use; run again, which builds anew what is missing")


def _first_line(error: Exception) -> str:
    """`No space left on device: FILE`, or the first line of another message."""
    if isinstance(error, OSError) and error.strerror:
        file = error.filename2 or error.filename
        return f"{error.strerror}: {file}" if file else error.strerror
    return (str(error).strip() or type(error).__name__).splitlines()[0]
