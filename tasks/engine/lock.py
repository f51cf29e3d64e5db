"""Locks in the store. Each is the system's lock on an open file, which is free again when its process dies.

    STORE/.store.lock            shared while outputs are relied on: by runs, and by commands that read outputs;
                                 alone by `excel gc` while it removes
    STORE/<stage>/.<key>.lock    alone by the process that builds that output
    STORE/records/.number.lock   alone while a run takes its number

A lock guards the *name* of its file. So whoever got it looks again: where the name is gone, or another file has it, the lock is
worth nothing, and is tried for again. `excel gc` removes the file of a lock only while it holds it.
"""

import errno
import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from excel_core.errors import StoreError
from excel_core.files import READ_ONLY
from tasks.engine.progress import say

__all__ = ["STORE_LOCK", "last_lock", "locked", "store_alone", "store_in_use", "try_lock"]

STORE_LOCK = ".store.lock"
WAIT_SECONDS = 0.05  # between two tries: a thread that waits in the system itself could not be stopped
HELD = (errno.EAGAIN, errno.EACCES)
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
Notify = Callable[[str], None]


@contextmanager
def locked(
    path: Path, waiting: str, notify: Notify = say, shared: bool = False, check: Callable[[], None] = lambda: None
) -> Iterator[None]:
    """Hold the lock `path`, whose folder exists: alone, or together with others that share it. `notify` hears `waiting` where
    another holds it; `check` is called while it does, and may raise. OSError where the file system refuses, StoreError where it
    has no locks."""
    file = try_lock(path, shared)
    if file is None:
        notify(waiting)
    while file is None:
        check()
        time.sleep(WAIT_SECONDS)
        file = try_lock(path, shared)
    try:
        yield
    finally:
        _release(file)


@contextmanager
def store_in_use(store: Path, notify: Notify = say) -> Iterator[None]:
    """No output of the store is removed while the block runs. A store that is not there, or that nobody can write to from here,
    needs no lock."""
    waiting = f"`excel gc` removes outputs of {store}; waiting for it"
    with ExitStack() as stack:
        try:
            stack.enter_context(locked(store / STORE_LOCK, waiting, notify, shared=True))
        except OSError as error:
            if error.errno not in (errno.ENOENT, *READ_ONLY):
                raise
        yield


@contextmanager
def store_alone(store: Path, notify: Notify = say, check: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Nobody relies on an output of the store, or removes one, while the block runs. `check`: as in `locked`."""
    waiting = f"another command uses the outputs of {store}; waiting for it"
    with locked(store / STORE_LOCK, waiting, notify, check=check):
        yield


def try_lock(path: Path, shared: bool = False) -> int | None:
    """The open file that holds the lock, or None where another process, thread or block holds it."""
    while True:
        file = _open(path)
        try:
            fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
            if _names(path, file):
                return file
        except OSError as error:
            os.close(file)
            if error.errno in HELD:
                return None
            if error.errno in NO_LOCKS:
                raise StoreError(
                    f"{path}: this file system has no locks ({error.strerror}): two runs could build the same output; mount it "
                    "with locks, or choose another --store"
                ) from None
            raise
        os.close(file)  # of a file that was removed meanwhile


@contextmanager
def last_lock(path: Path) -> Iterator[bool]:
    """Hold the lock `path` and remove its file at the end, unless another holds it → whether it is held. Who comes next makes
    another file."""
    file = try_lock(path)
    try:
        yield file is not None
    finally:
        if file is not None:
            path.unlink(missing_ok=True)
            _release(file)


def _open(path: Path) -> int:
    """The lock's file, made where it is missing. One that another user made is only read: that is enough to lock it."""
    flags = os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        return os.open(path, os.O_RDWR | flags, 0o666)
    except OSError as error:
        if error.errno not in READ_ONLY or not path.exists():
            raise
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)


def _names(path: Path, file: int) -> bool:
    """Whether the name is still that of the open file."""
    try:
        return os.path.samestat(os.stat(path, follow_symlinks=False), os.fstat(file))
    except FileNotFoundError:
        return False


def _release(file: int) -> None:
    """Free the lock first: a process that was forked meanwhile may have the same file open."""
    try:
        fcntl.flock(file, fcntl.LOCK_UN)
    finally:
        os.close(file)
