"""Removing what of a store can go: garbage.py says what that is, and is asked again under the store's lock, since a run may
have begun meanwhile. With an output goes its lock; with a record, its copy on the storage behind the store.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path

from tasks.engine.lock import last_lock, store_alone
from tasks.engine.object_store import remote_of
from tasks.engine.output import key_of, remove_output
from tasks.engine.progress import say
from tasks.history.garbage import KINDS, Garbage, check_at_work, find_garbage
from tasks.history.named_folder import remove_strays
from tasks.history.run_record import Records, read_records
from tasks.history.shared_records import remove_shared

__all__ = ["remove_garbage"]


def remove_garbage(
    store: Path,
    garbage: Sequence[Garbage],
    keep: int | None = None,
    ignored: Collection[str] = (),
    notify: Callable[[str], None] = say,
) -> list[Garbage]:
    """Remove what is still garbage of `garbage`, once nobody uses the store, and locks of outputs that are gone → what was
    removed. SettingError where a run has begun meanwhile; what another process has locked stays."""

    def check() -> None:
        check_at_work(store, read_records(store), ignored)

    check()
    with store_alone(store, notify, check):
        current = {(item.path, bool(item.objects)): item for item in find_garbage(store, keep, ignored)}
        approved = (_still_garbage(item, current.get((item.path, bool(item.objects)))) for item in garbage)
        removed = [item for item in approved if item and _remove(store, item)]
        _remove_leftovers(store, read_records(store))
    return removed


def _still_garbage(approved: Garbage, current: Garbage | None) -> Garbage | None:
    """What of the garbage that a user approved is garbage by now; None where nothing is."""
    if current is not None and approved.objects:
        objects = tuple(sorted({*approved.objects} & {*current.objects}))
        return replace(current, objects=objects) if objects else None
    if current is None or not approved.files:
        return current
    files = tuple(path for path in approved.files if path in set(current.files))
    return replace(current, files=files) if files else None


def _remove(store: Path, item: Garbage) -> bool:
    """→ whether it is gone. An output that somebody builds at the moment, such as a worker that outlived its run, stays."""
    remote = remote_of(store)
    if item.objects and remote is not None:
        remote.delete(item.objects)
        return True
    if item.kind == "records":
        remove_shared(item.path)
    if item.files or not item.path.is_dir():
        for path in item.files or (item.path,):
            path.unlink(missing_ok=True)
        return True
    with last_lock(_lock_of(item.path)) as is_free:
        if is_free:
            remove_output(item.path)
    return is_free


def _lock_of(folder: Path) -> Path:
    """The lock of who builds the output of a folder, half built or not."""
    return folder.with_name(f".{key_of(folder)}.lock")


def _remove_leftovers(store: Path, records: Records) -> None:
    """Locks of outputs that are gone, signs of life of runs that are dead, named folders of no run, and folders of no text."""
    for lock in chain.from_iterable(_unused_locks(store / kind) for kind in KINDS):
        with last_lock(lock):  # which removes it, unless somebody has it
            pass
    alive = {record.heartbeat_file for record in records if record.state == "running" and not record.dead}
    for path in set((store / "records").glob(".*.alive")) - alive:
        path.unlink(missing_ok=True)
    remove_strays(store, records)
    for folder in (store / "texts").glob("*"):
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()


def _unused_locks(folder: Path) -> list[Path]:
    """Locks whose output is gone."""
    outputs = {key_of(path) for path in folder.glob("[!.]*")}
    return [lock for lock in folder.glob(".*.lock") if lock.name[1:].removesuffix(".lock") not in outputs]
