"""Complete output folders: committed by a marker that is written last, verified before reuse, locked while they are built.

    STORE/<stage>/<key>/            complete; never written again. A part's folder is in STORE/<stage>-parts/
        stage.json                  excel-stage/4: each file's size, time of change and digest; what it was made from
    STORE/<stage>/<key>.partial/    being built, or left by a run that was killed: the next one starts with an empty folder
    STORE/<stage>/<key>.resume/     what a stage has to go on from (training's checkpoints); removed once the output is complete
    STORE/<stage>/.<key>.lock       held by the run that builds it; the system frees it when that run dies

What follows is keyed by the output's *content*, so an upstream rerun that changes nothing stops there.
"""

import hashlib
import os
import shutil
import stat
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict

from excel_core.checked_files import write_checked_json
from excel_core.errors import StoreError
from excel_core.sync import make_folder, sync_folder, sync_tree
from tasks.engine.fingerprint import file_digest
from tasks.engine.marker import MARKER, PARTIAL, RESUME, Description, Marker, Origin, is_earlier, key_of, read_marker
from tasks.engine.shared_outputs import bring_here, remove_copy, shared_marker

__all__ = [
    "MARKER", "PARTIAL", "RESUME", "Marker", "Origin", "StageOutput", "StageResult", "commit", "commit_interrupted",
    "damaged_files", "empty_folder", "find_output", "is_earlier", "is_resumable", "key_of", "link_file", "link_tree",
    "read_marker", "read_output", "remove_output", "resume_folder",
]  # fmt: skip

# Before reuse, files of an output are hashed where they are few and small: the ones that decide all that follows. Hashing all
# of a store would take minutes.
MAX_HASHED_FILES, MAX_HASHED_BYTES = 100, 64 * 2**20


class StageResult(BaseModel):
    """What a stage says of its output; each stage has its own kind, which those that read it name."""

    model_config = ConfigDict(frozen=True)


R = TypeVar("R", bound=StageResult)


class StageOutput(Description):
    """A complete output: what its marker says, and its folder's `place`. Making one reads nothing: `read_output` verifies."""

    place: Path

    @property
    def folder(self) -> Path:
        """Its folder with all its files, which are brought here where only the storage behind the store has them."""
        return bring_here(self.place)

    def result_as(self, kind: type[R]) -> R:
        """The stage's result as its own type."""
        return kind.model_validate(self.result)

    def in_store(self, store: Path) -> "StageOutput":
        """The same output in another machine's copy of the store."""
        return self.model_copy(update={"place": store / self.stage / self.key})


def find_output(folder: Path, is_locked: bool = False) -> StageOutput | None:
    """The complete output that belongs in `folder`: verified here, else as the storage behind its store has it, whose files
    stay there until somebody asks for the output's folder. None where there is neither. `is_locked`: by the caller."""
    output = read_output(folder)
    if output is not None:
        return output
    try:
        marker = shared_marker(folder)
    except StoreError:  # damaged: it is built again
        return None
    if marker and (folder / MARKER).exists():  # damaged here
        remove_copy(folder, is_locked)
    return StageOutput.model_validate(marker.output | {"place": folder}) if marker else None


def read_output(folder: Path) -> StageOutput | None:
    """The complete output in `folder`, verified: each file is there, of its size, and of its digest where it was touched or is
    one of a few small ones. Else None."""
    try:
        marker = read_marker(folder)
    except StoreError:
        return None
    few = len(marker.files) <= MAX_HASHED_FILES
    for name, (size, changed_ns, digest) in marker.files.items():
        if not _is_intact(folder / name, size, changed_ns, digest, few and size <= MAX_HASHED_BYTES, _remembered_digest):
            return None
    return StageOutput.model_validate(marker.output | {"place": folder})


def damaged_files(folder: Path, digests: dict[tuple[int, int], str] | None = None) -> list[str]:
    """Files of a complete folder whose bytes are not those that were committed; every byte is read, but of linked files that
    `digests`, by device and inode, has already. StoreError where the marker itself is damaged."""
    known_digests = {} if digests is None else digests

    def digest(path: Path, status: os.stat_result) -> str:
        file = status.st_dev, status.st_ino
        if file not in known_digests:
            known_digests[file] = file_digest(path)
        return known_digests[file]

    files = read_marker(folder).files
    return [name for name, expected in files.items() if not _is_intact(folder / name, *expected, True, digest)]


Digest = Callable[[Path, os.stat_result], str]


def _is_intact(path: Path, size: int, changed_ns: int, digest: str, read: bool, digest_of: Digest) -> bool:
    """Whether it is a file with these bytes. Unless it is to be read, one that nobody touched is believed by its size."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode) or status.st_size != size:
            return False
        return (status.st_mtime_ns == changed_ns and not read) or digest_of(path, status) == digest
    except (OSError, ValueError):  # ValueError: a name that no file can have
        return False


def _remembered_digest(path: Path, status: os.stat_result) -> str:
    """A run looks at an output several times and reads it once. Whoever writes to a file changes its st_ctime_ns."""
    return _digest_at(path, status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


@lru_cache(maxsize=10_000)
def _digest_at(path: Path, *state: int) -> str:
    return file_digest(path)


def commit(partial: Path, final: Path, output: dict[str, Any], origin: Origin) -> StageOutput:
    """Write the marker over everything in `partial`, then move the folder to its final name.

    Each is on the disk before the next: files, folders, marker, new name. So neither a kill nor a power cut leaves an output
    that counts as complete with missing bytes."""
    files: dict[str, tuple[int, int, str]] = {}
    content_digest = hashlib.sha256()
    for path in sorted(path for path in partial.rglob("*") if path.is_file()):
        name = path.relative_to(partial).as_posix()
        status, digest = path.stat(), file_digest(path)
        files[name] = (status.st_size, status.st_mtime_ns, digest)
        content_digest.update(f"{name}\0{digest}\n".encode())
    output = output | {"content": content_digest.hexdigest(), "bytes": sum(size for size, _, _ in files.values())}
    marker = Marker(output=output, files=files, origin=origin)
    sync_tree(partial)
    write_checked_json(partial / MARKER, marker.model_dump(mode="json"))
    _move(partial, final)
    return StageOutput.model_validate(output | {"place": final})


def commit_interrupted(partial: Path, final: Path) -> StageOutput | None:
    """Finish a `commit` that was cut off between marker and move → the output; None where the folder is not whole."""
    try:
        if damaged_files(partial):
            return None
        output = read_marker(partial).output
    except StoreError:
        return None
    sync_tree(partial)
    _move(partial, final)
    return StageOutput.model_validate(output | {"place": final})


def _move(partial: Path, final: Path) -> None:
    """Give the folder its final name, which nothing has, and forget what its stage would have gone on from."""
    os.replace(partial, final)
    sync_folder(final.parent)
    shutil.rmtree(resume_folder(final), ignore_errors=True)


def empty_folder(folder: Path) -> None:
    """Make an empty folder, whatever has its name."""
    remove_output(folder)
    make_folder(folder)


def remove_output(folder: Path) -> None:
    """Remove a folder of the store; its marker first, so that half of it is never taken for an output."""
    _remove(folder / MARKER)
    _remove(folder)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def resume_folder(folder: Path) -> Path:
    """Where a stage that fills `folder` keeps what it goes on from when it is killed. It need not exist."""
    return folder.with_name(f"{key_of(folder)}{RESUME}")


def is_resumable(folder: Path) -> bool:
    """Whether a run can go on from what a killed one left in this folder of the store; `excel gc` leaves it then. It was cut
    off while it worked, or between the marker and the final name."""
    if (folder.with_name(key_of(folder)) / MARKER).exists():
        return False  # it is complete: these are remains
    return (folder.suffix == RESUME and any(folder.glob("*"))) or (folder.suffix == PARTIAL and (folder / MARKER).exists())


def link_tree(source: Path, target: Path) -> None:
    """Give every file below `source`, but its marker, a second name below `target`; or a copy, where there are no links."""
    for place, _, names in os.walk(source):
        folder = target / Path(place).relative_to(source)
        folder.mkdir(parents=True, exist_ok=True)
        for name in names:
            if name != MARKER:
                link_file(Path(place) / name, folder / name)


def link_file(source: Path, target: Path) -> None:
    """Give a file a second name, or make a copy, where there are no links."""
    try:
        os.link(source, target)
    except FileExistsError:
        raise
    except OSError:
        shutil.copyfile(source, target)
