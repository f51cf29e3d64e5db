"""Outputs that no kept run refers to, and their removal."""

import shutil
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from excel_core.errors import SettingError, StoreError
from tasks.engine.output import MARKER, PARTIAL, RESUME, is_resumable, key_of, read_marker
from tasks.history.run_record import RunRecord, read_records
from tasks.pipeline import STAGES

__all__ = ["KINDS", "Garbage", "find_garbage", "remove_garbage"]

KINDS = tuple(kind for name in STAGES for kind in (name, f"{name}-parts"))


@dataclass(frozen=True)
class Garbage:
    """A folder or file to remove: its kind, why, and the bytes that go with it alone (linked files count once)."""

    path: Path
    kind: str
    why: str
    bytes: int


def find_garbage(store: Path, keep: int | None = None) -> list[Garbage]:
    """What can go when the newest `keep` runs (None: all) are kept. SettingError while a run is at work in the store."""
    records = read_records(store)
    working = [record.id for record in records if record.state == "running" and not record.dead]
    if working:
        raise SettingError(f"{store}: run {working[0]} is at work; wait until it ends, or stop it")
    kept_runs = records if keep is None else records[max(0, len(records) - keep) :]
    needed = _needed_outputs(store, kept_runs)
    garbage = [_old_record(record) for record in records if record not in kept_runs]
    for kind in KINDS:
        for folder in sorted(path for path in (store / kind).glob("*") if path.is_dir()):
            if f"{kind}/{folder.name}" in needed or is_resumable(folder):
                continue
            why = "half built" if folder.name.endswith((PARTIAL, RESUME)) else "no kept run refers to it"
            garbage.append(Garbage(folder, kind, why, 0))
    return _with_sizes(garbage)


def remove_garbage(garbage: list[Garbage]) -> None:
    """Remove it, with the locks of what is removed; what another process has locked stays."""
    for item in garbage:
        if item.path.is_file():
            item.path.unlink()
            continue
        lock = item.path.with_name(f".{key_of(item.path)}.lock")
        try:
            with FileLock(lock, timeout=0):
                (item.path / MARKER).unlink(missing_ok=True)  # first, so that half of it is never taken for an output
                shutil.rmtree(item.path)
                lock.unlink()
        except Timeout:
            continue


def _needed_outputs(store: Path, records: list[RunRecord]) -> set[str]:
    """kind/key of everything that the records' runs used, and the parts that it was joined from."""
    needed = {output for record in records for output in record.outputs}
    for output in list(needed):
        kind, _, _ = output.partition("/")
        try:
            parts = read_marker(store / output).origin.parts
        except StoreError:
            continue
        needed |= {f"{kind}-parts/{key}" for key in parts.values()}
    return needed


def _old_record(record: RunRecord) -> Garbage:
    return Garbage(record.store / "records" / f"{record.id}.json", "records", "older than the kept runs", 0)


def _with_sizes(garbage: list[Garbage]) -> list[Garbage]:
    """Bytes that the file system gets back: a file whose every name goes counts once, at the first; others not at all."""
    names: dict[tuple[int, int], int] = {}
    files = [[path for path in _files(item.path)] for item in garbage]
    for paths in files:
        for path in paths:
            status = path.stat()
            names[status.st_dev, status.st_ino] = names.get((status.st_dev, status.st_ino), 0) + 1
    sized = []
    for item, paths in zip(garbage, files, strict=True):
        total = 0
        for path in paths:
            status = path.stat()
            if names.pop((status.st_dev, status.st_ino), 0) == status.st_nlink:
                total += status.st_size
        sized.append(Garbage(item.path, item.kind, item.why, total))
    return sized


def _files(path: Path) -> list[Path]:
    return [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
