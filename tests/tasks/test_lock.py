"""Locks: one holder at a time whoever removes their files, shared by many, and what a file system without them says."""

import fcntl
import multiprocessing
import os
import random
import signal
import time

import pytest

from excel_core.errors import StoreError
from tasks.engine.lock import STORE_LOCK, last_lock, locked, store_alone, store_in_use, try_lock

CONTEXT = multiprocessing.get_context("fork")
BUILDERS = 12
ROUNDS = 60


def _build(folder, seed):
    """Take the lock again and again; inside, a file that only one may make at a time."""
    chance = random.Random(seed)
    for _ in range(ROUNDS):
        with locked(folder / ".key.lock", "waiting", lambda text: None):
            os.close(os.open(folder / "inside", os.O_CREAT | os.O_EXCL))  # FileExistsError: somebody else is in too
            time.sleep(chance.random() / 2000)
            (folder / "inside").unlink()


def _remove_for_ever(folder):
    while True:
        if (folder / ".key.lock").exists():
            with last_lock(folder / ".key.lock"):
                pass


def test_two_are_never_in_at_once_while_locks_are_removed(tmp_path):
    removers = [CONTEXT.Process(target=_remove_for_ever, args=(tmp_path,), daemon=True) for _ in range(2)]
    builders = [CONTEXT.Process(target=_build, args=(tmp_path, seed)) for seed in range(BUILDERS)]
    for process in removers + builders:
        process.start()
    for process in builders:
        process.join()
    for process in removers:
        process.kill()
        process.join()
    assert [process.exitcode for process in builders] == [0] * BUILDERS


def test_a_lock_of_a_file_that_was_removed_or_replaced_is_worth_nothing(tmp_path, monkeypatch):
    """Between opening the file and locking it, as a scheduler may choose: another one removes it, or puts one in its place."""
    path, lock = tmp_path / "a.lock", fcntl.flock
    for replace in (lambda: path.unlink(), lambda: (tmp_path / "other").touch() or os.replace(tmp_path / "other", path)):
        meanwhile = [replace]

        def flock(file, operation, meanwhile=meanwhile):
            if meanwhile:
                meanwhile.pop()()
            lock(file, operation)

        monkeypatch.setattr(fcntl, "flock", flock)
        file = try_lock(path)
        assert os.path.samestat(os.fstat(file), path.stat()) and try_lock(path) is None
        os.close(file)


def _hold(path, shared, ready):
    with locked(path, "", shared=shared):
        ready.set()
        signal.pause()


def test_a_lock_is_free_when_its_process_is_killed(tmp_path):
    path, ready = tmp_path / "a.lock", CONTEXT.Event()
    process = CONTEXT.Process(target=_hold, args=(path, False, ready))
    process.start()
    ready.wait()
    with last_lock(path) as is_held:
        assert not is_held and try_lock(path) is None
    assert path.exists()
    process.kill()
    process.join()
    with last_lock(path) as is_held:
        assert is_held
    assert not path.exists()


def test_whoever_uses_a_store_shares_it_and_who_removes_waits(tmp_path):
    heard, ready = [], CONTEXT.Event()
    with store_in_use(tmp_path, heard.append), store_in_use(tmp_path, heard.append):
        assert heard == [] and try_lock(tmp_path / STORE_LOCK) is None
    process = CONTEXT.Process(target=_hold, args=(tmp_path / STORE_LOCK, True, ready))
    process.start()
    ready.wait()

    def end(text):
        heard.append(text)
        process.kill()

    with store_alone(tmp_path, end):
        assert heard == [f"another command uses the outputs of {tmp_path}; waiting for it"]
        assert try_lock(tmp_path / STORE_LOCK, shared=True) is None
    process.join()


def test_a_store_that_is_not_there_is_not_made(tmp_path):
    with store_in_use(tmp_path / "none"):
        assert not (tmp_path / "none").exists()
    with pytest.raises(KeyError), store_in_use(tmp_path):
        raise KeyError  # from the block, as it is
    assert try_lock(tmp_path / STORE_LOCK) is not None


def test_a_link_in_the_place_of_a_lock_is_refused(tmp_path):
    (tmp_path / STORE_LOCK).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic links"), store_alone(tmp_path):
        pass
    assert not (tmp_path / "elsewhere").exists()


def test_a_file_system_without_locks_is_named(tmp_path, monkeypatch):
    def flock(file, operation):
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(StoreError, match="this file system has no locks .No locks available."), store_in_use(tmp_path):
        pass
