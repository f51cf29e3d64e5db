"""What of a store can go: outputs that no kept run needs, what killed runs left, text embeddings. garbage_removal.py takes it.

A run needs the outputs that its record names: those that it used, with the parts that they were joined from, and what it was
building when it was killed. Nothing goes while a run is at work: it is about to use outputs that no record names yet.
"""

import os
import stat
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

from excel_core.errors import SettingError, StoreError
from tasks.engine.object_store import remote_of
from tasks.engine.output import PARTIAL, RESUME, is_resumable, key_of, read_marker
from tasks.engine.shared_outputs import shared_marker
from tasks.history.kept_runs import kept_runs
from tasks.history.needed_comparisons import needed_comparisons
from tasks.history.needed_texts import needed_texts
from tasks.history.run_record import Records, RunRecord, read_records
from tasks.history.shared_garbage import shared_outputs, unnamed_objects
from tasks.pipeline import STAGES
from tasks.stages.compare import COMPARE

__all__ = ["KINDS", "Garbage", "check_at_work", "find_garbage"]

KINDS = (*(kind for name in STAGES for kind in (name, f"{name}-parts")), COMPARE.name)
TEMPORARY = ".*.tmp"


@dataclass(frozen=True)
class Garbage:
    """A folder or file to remove, or `files` of a folder that stays: its kind, why, and the bytes that go with it alone
    (linked files count once). `objects`: names on the storage behind the store, which go in place of a file here."""

    path: Path
    kind: str
    why: str
    bytes: int = 0
    files: tuple[Path, ...] = ()
    objects: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Needed:
    """Outputs as kind/key, and kinds of which everything stays, since nobody can tell which of them is needed."""

    outputs: frozenset[str]
    kinds: frozenset[str]

    def __contains__(self, output: str) -> bool:
        return output in self.outputs or output.partition("/")[0] in self.kinds


def find_garbage(store: Path, keep: int | None = None, ignored: Collection[str] = ()) -> list[Garbage]:
    """What can go when the newest `keep` runs of each kind (None: all), and pinned ones, are kept. SettingError while a run is
    at work in the store, and where a record cannot be read; `ignored` are ids of runs that are taken for dead, and of records
    that are given up."""
    records = read_records(store)
    check_at_work(store, records, ignored)
    unreadable = _given_up(store, records, ignored)
    runs_to_keep = kept_runs(records, keep)
    needed_outputs = _needed_outputs(store, runs_to_keep)
    kept_ids = {record.id for record in runs_to_keep}
    garbage = [_record(record.path, _why_it_goes(record)) for record in records if record.id not in kept_ids]
    garbage += [_record(path, "cannot be read") for path in unreadable]
    for kind in KINDS:
        for folder in sorted(path for path in (store / kind).glob("*") if path.is_dir()):
            is_half_built = folder.suffix in (PARTIAL, RESUME)
            stays = not is_half_built and f"{kind}/{folder.name}" in needed_outputs
            if is_half_built and is_resumable(folder):
                # What a training can go on from belongs to the run that was killed over it, if a record tells.
                stays = keep is None or f"{kind}/{key_of(folder)}" in needed_outputs
            if not stays:
                garbage.append(Garbage(folder, kind, "half built" if is_half_built else "no kept run refers to it"))
    garbage += _unused_texts(store, runs_to_keep)
    garbage += _comparisons(store, kept_ids)
    garbage += [Garbage(path, path.parent.name, "half written") for path in _half_written(store)]
    return [*_with_sizes(garbage), *_shared_garbage(store, needed_outputs)]


def check_at_work(store: Path, records: Records, ignored: Collection[str]) -> None:
    """SettingError naming a run at work, but for the `ignored` ids of runs that are taken for dead."""
    for record in records:
        if record.state == "running" and not record.dead and record.id not in ignored:
            where = "" if record.process.alive() is not None else f" on {record.process.host}"
            raise SettingError(
                f"{store}: run {record.id} is at work{where}; wait until it ends, or stop it. If it ended long ago, on a "
                f"machine that cannot be seen from here: --ignore-run {record.id}"
            )


def _given_up(store: Path, records: Records, ignored: Collection[str]) -> list[Path]:
    """Unreadable records that are ignored; SettingError for any other."""
    for path in records.unreadable:
        if path.stem not in ignored:
            raise SettingError(
                f"{path}: is damaged, or of another version of excel, so that nobody can tell which outputs the run needs; "
                f"restore it, or give its outputs up: --ignore-run {path.stem}"
            )
    unknown = set(ignored) - {record.id for record in records} - {path.stem for path in records.unreadable}
    if unknown:
        raise SettingError(f"--ignore-run {min(unknown)}: {store} has no such run; `excel runs` lists them")
    return records.unreadable


def _needed_outputs(store: Path, records: Sequence[RunRecord]) -> _Needed:
    """Everything that the records' runs used, and the parts that it was joined from. Of an output whose marker cannot be read,
    all parts of its stage stay."""
    outputs = {output for record in records for output in (*record.outputs, *record.building)}
    kinds = set()
    for kind, _, key in [output.partition("/") for output in outputs]:
        folder = store / kind / key
        try:
            marker = read_marker(folder) if folder.exists() else shared_marker(folder)
        except StoreError:
            kinds.add(f"{kind}-parts")
            continue
        if marker is not None:  # else what a killed run was building, or what somebody removed
            outputs |= {f"{kind}-parts/{part}" for part in marker.origin.parts.values()}
    outputs |= set(needed_comparisons(store, outputs))
    return _Needed(frozenset(outputs), frozenset(kinds))


def _record(path: Path, why: str) -> Garbage:
    return Garbage(path, "records", why)


def _why_it_goes(record: RunRecord) -> str:
    return f"{record.title}, {record.flow}, {record.ended_as}: newer runs of its kind are kept"


def _shared_garbage(store: Path, needed: _Needed) -> list[Garbage]:
    """What can go from the storage behind the store; its records go with their copies here."""
    remote = remote_of(store)
    if remote is None:
        return []
    garbage, staying = [], []
    for kind in KINDS:
        for key, entry in shared_outputs(remote, kind).items():
            if f"{kind}/{key}" in needed:
                staying.append(entry.name)
            else:
                why = f"no kept run refers to it at {remote.address}"
                garbage.append(Garbage(store / kind / key, kind, why, entry.bytes, objects=(entry.name,)))
    unnamed = unnamed_objects(remote, store, staying)
    if unnamed:
        why = f"{len(unnamed)} files at {remote.address} are of no output that stays"
        size = sum(entry.bytes for entry in unnamed)
        garbage.append(Garbage(store / "objects", "files", why, size, objects=tuple(entry.name for entry in unnamed)))
    return garbage


def _unused_texts(store: Path, records: Sequence[RunRecord]) -> list[Garbage]:
    """Embeddings of texts that no kept run's knowledge base holds, a folder each CLIP and device."""
    folders = sorted(path for path in (store / "texts").glob("*") if path.is_dir())
    texts = needed_texts(store, records) if folders else set()
    if texts is None:
        return []
    garbage = []
    for folder in folders:
        files = sorted(path for path in folder.glob("[!.]*") if path.is_file())
        unused = tuple(path for path in files if path not in texts)
        if unused:
            why = f"no kept run needs {len(unused)} of {len(files)}"
            garbage.append(Garbage(folder, "texts", why, files=unused))
    return garbage


def _comparisons(store: Path, kept_ids: Collection[str]) -> list[Garbage]:
    """Comparisons of scores, and their pictures, of runs that are not kept."""
    files = (path for suffix in ("json", "png") for path in (store / "score").glob(f"[!.]*.{suffix}"))
    return [Garbage(path, "score", "its run is not kept") for path in sorted(files) if path.stem not in kept_ids]


def _half_written(store: Path) -> list[Path]:
    """Temporary files outside folders of outputs; inside, they go with the folder or with the next run."""
    folders = [store, store / "records", *(store / kind for kind in KINDS), *(store / "texts").glob("*")]
    return sorted(chain.from_iterable(folder.glob(TEMPORARY) for folder in folders))


def _with_sizes(garbage: list[Garbage]) -> list[Garbage]:
    """Bytes that the file system gets back: a file whose every name goes counts once, at the first; others not at all."""
    names: dict[tuple[int, int], int] = {}
    files = [
        [(status.st_dev, status.st_ino, status.st_nlink, status.st_size) for status in _statuses(item)] for item in garbage
    ]
    for device, inode, _, _ in chain.from_iterable(files):
        names[device, inode] = names.get((device, inode), 0) + 1
    sized = []
    for item, statuses in zip(garbage, files, strict=True):
        going = [size for device, inode, links, size in statuses if names.pop((device, inode), 0) == links]
        sized.append(replace(item, bytes=sum(going)))
    return sized


def _statuses(item: Garbage) -> Iterator[os.stat_result]:
    """Of every file that goes with it, but those that another process removes meanwhile."""
    paths = item.files or ([item.path] if not item.path.is_dir() else item.path.rglob("*"))
    for path in paths:
        with suppress(OSError):
            status = path.lstat()
            if not stat.S_ISDIR(status.st_mode):
                yield status
