"""Every byte below the store against its digest: what checks before reuse, by size and time of change, cannot see.

Outputs and parts, what trainings go on from, text embeddings and attributes, records, the paper's tables, comparisons of
scores. Not `prefect/`, which is Prefect's, nor `runs/`, which is made from the records.
"""

import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from excel_core.checked_files import read_checked_json
from excel_core.errors import StoreError
from excel_core.files import READ_ONLY
from excel_core.text.embeddings import read_embedding
from excel_core.text.kept_attributes import read_attributes
from tasks.engine.lock import try_lock
from tasks.engine.object_store import REMOTE, remote_of
from tasks.engine.output import MARKER, PARTIAL, RESUME, damaged_files, is_earlier, key_of, read_marker
from tasks.history.garbage import KINDS
from tasks.history.named_folder import NAMED
from tasks.history.score_change import read_change
from tasks.history.shared_garbage import check_shared
from tasks.history.shared_records import receive_records
from tasks.stages.train_resume import check_resume_file

__all__ = ["StoreCheck", "verify_store"]

KEY = re.compile(r"[0-9a-f]{32}")
LOCK = re.compile(r"\..*(lock|alive)")
LEFT_SUFFIXES = (".tmp", ".npy")  # .npy: text embeddings of an earlier version
TABLES = {"paper": read_checked_json, "score": read_change}  # stages in whose folder tables of runs lie, and their readers
Digests = dict[tuple[int, int], str]
Reader = Callable[[Path], object]  # raises OSError or StoreError
SINGLE: dict[str, dict[str, Reader]] = {  # files that stand alone: folder → pattern of names → reader
    "texts": {"*/*.embedding": read_embedding, "*/*.attributes": read_attributes},
    "records": {"*.json": partial(read_checked_json, unchecked=["excel-run/1"])},
}


@dataclass
class StoreCheck:
    """What `verify_store` met. `checked`: outputs and single files that were read. `damaged`: the damaged files of an output,
    or [] for a file that stands alone; what can be made again will be. `left`: half-written, of runs that were killed or are at
    work, or of an earlier version. `unknown`: what excel does not write. `lost`: files of an output that the storage behind
    the store has not."""

    checked: int = 0
    damaged: dict[Path, list[str]] = field(default_factory=dict)
    left: list[Path] = field(default_factory=list)
    unknown: list[Path] = field(default_factory=list)
    lost: dict[Path, list[str]] = field(default_factory=dict)

    @property
    def undropped(self) -> list[Path]:
        """Damaged outputs whose marker could not be removed, since their disk can only be read or a run builds them."""
        return [path for path, names in self.damaged.items() if names and (path / MARKER).exists()]


def verify_store(store: Path) -> StoreCheck:
    """Read the whole store. A damaged output loses its marker, and a damaged file that can be made again goes, so that the next
    run builds them; a damaged record stays. Of the storage behind a store, sizes are compared."""
    receive_records(store)
    check, digests = StoreCheck(), Digests()
    for entry in sorted(store.iterdir()):
        if entry.name in KINDS and entry.is_dir():
            tables = set(entry.glob("*.json")) if entry.name in TABLES else set()
            pictures = {path.with_suffix(".png") for path in tables}  # a table's reader looks at its picture
            _check_files(check, sorted(tables), dict.fromkeys(tables, TABLES.get(entry.name, read_checked_json)), again=True)
            for path in sorted(set(entry.iterdir()) - tables - pictures):
                _check_folder(check, path, digests)
        elif entry.name in SINGLE and entry.is_dir():
            readers = {path: read for pattern, read in SINGLE[entry.name].items() for path in entry.glob(pattern)}
            _check_files(check, _files(entry), readers, again=entry.name != "records")
        elif entry.name not in ("prefect", NAMED, REMOTE) and not LOCK.fullmatch(entry.name):
            check.unknown.append(entry)
    if (remote := remote_of(store)) is not None:
        check.checked += check_shared(remote, store, KINDS, check.lost.__setitem__)
    return check


def _check_folder(check: StoreCheck, folder: Path, digests: Digests) -> None:
    """An output's folder, complete or not, or what lies beside those."""
    if not KEY.fullmatch(key_of(folder)) or not folder.is_dir():
        if not LOCK.fullmatch(folder.name):
            check.unknown.append(folder)
    elif folder.suffix == RESUME:
        files = _files(folder)
        readers = dict.fromkeys((path for path in files if path.suffix in (".pt", ".kept")), check_resume_file)
        _check_files(check, files, readers, again=True)
    elif folder.suffix == PARTIAL or not (folder / MARKER).exists() or is_earlier(folder):
        check.left.append(folder)
    else:
        _check_output(check, folder, digests)


def _check_output(check: StoreCheck, folder: Path, digests: Digests) -> None:
    """Read a complete output; of a damaged one the marker is removed, so that the next run makes it again."""
    check.checked += 1
    if not _damage(folder, digests):
        written = {folder / name for name in read_marker(folder).files} | {folder / MARKER}
        check.unknown += [path for path in _files(folder) if path not in written]
        return
    with _alone(folder) as alone:  # a run may have put another in its place
        names = _damage(folder, {})
        if names and alone:
            _drop(folder / MARKER)
    if names:
        check.damaged[folder] = names


def _damage(folder: Path, digests: Digests) -> list[str]:
    try:
        return damaged_files(folder, digests)
    except StoreError:
        return [MARKER]


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if not path.is_dir())


def _check_files(check: StoreCheck, paths: list[Path], readers: Mapping[Path, Reader], again: bool) -> None:
    """Read those of `paths` that have a reader, files that stand alone; `again`: they can be made again."""
    for path in paths:
        if path not in readers:
            if not LOCK.fullmatch(path.name):
                (check.left if path.suffix in LEFT_SUFFIXES else check.unknown).append(path)
            continue
        check.checked += 1
        try:
            readers[path](path)
        except FileNotFoundError:
            check.checked -= 1  # a run removed it
        except (OSError, StoreError):
            check.damaged[path] = []
            if again:
                _drop(path)


def _drop(path: Path) -> None:
    """Remove a file; from a disk that can only be read, nothing goes."""
    try:
        path.unlink()
    except OSError as error:
        if error.errno not in READ_ONLY:
            raise


@contextmanager
def _alone(folder: Path) -> Iterator[bool]:
    """Whether no run builds this output; one that wants to waits for the block."""
    try:
        file = try_lock(folder.with_name(f".{folder.name}.lock"))
    except OSError as error:
        if error.errno not in READ_ONLY:
            raise
        file = None
    try:
        yield file is not None
    finally:
        if file is not None:
            os.close(file)
