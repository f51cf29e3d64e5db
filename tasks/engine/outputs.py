"""Complete output folders: sealed with a marker that is written last, checked before reuse, locked while they are built.

    STORE/<kind>/<identity>/            complete; never written again
        stage.json                      excel-stage/2: each file's size, time of change, digest; what it was made from
    STORE/<kind>/<identity>.partial/    being built, or left by a run that was killed
    STORE/<kind>/.<identity>.lock       held by the run that builds it; the system frees it when that run dies

What follows is keyed by the output's *content*, so an upstream rerun that changes nothing stops there.
"""

import fcntl
import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, model_validator

from excel_core.errors import StoreError
from excel_core.files import read_json, write_json
from tasks.engine.identity import file_digest
from tasks.engine.memory import Peak

__all__ = ["MARKER", "StageOutput", "damaged_files", "link_tree", "locked", "read_marker", "read_output", "seal"]

MARKER = "stage.json"
FORMAT = "excel-stage/2"
Note = Callable[[str], None]


class StageOutput(BaseModel):
    """A complete output folder. Loading one whose files are missing, of another size, or touched since and of another
    digest fails, so a damaged output is never mistaken for a cached one. `parts`: content of each part it was joined from.
    Peaks of memory are those of building it (tasks/engine/memory.py), None too where nobody measured when it was built."""

    model_config = ConfigDict(frozen=True)

    stage: str
    identity: str
    content: str
    folder: Path
    summary: dict[str, Any]
    seconds: float
    bytes: int
    parts: dict[str, str] = {}
    peak_host_bytes: int | None = None
    peak_gpu_bytes: int | None = None

    @property
    def peak(self) -> Peak:
        """Its peaks of memory."""
        return Peak(host_bytes=self.peak_host_bytes, gpu_bytes=self.peak_gpu_bytes)

    @model_validator(mode="after")
    def _check_files(self) -> "StageOutput":
        try:
            files = read_marker(self.folder)["files"]
        except (StoreError, KeyError, TypeError) as error:
            raise ValueError(f"{self.folder}: no usable {MARKER}; the output is incomplete ({error})") from None
        for name, expected in files.items():
            if not _intact(self.folder, name, *expected):
                raise ValueError(f"{self.folder / name}: missing or changed; the output is damaged")
        return self


def _intact(folder: Path, name: str, size: int, changed: int, digest: str, hashed: bool = False) -> bool:
    """Whether a file is as it was sealed. One that nobody touched is taken at its size, unless `hashed`."""
    try:
        status = os.stat(f"{folder}/{name}")
        same = status.st_size == size
        return same and ((status.st_mtime_ns == changed and not hashed) or file_digest(folder / name) == digest)
    except OSError:
        return False


def damaged_files(folder: Path) -> list[str]:
    """Files of a complete folder whose bytes are not those that were sealed; every byte is read."""
    files = read_marker(folder)["files"]
    return [name for name, expected in files.items() if not _intact(folder, name, *expected, hashed=True)]


def read_marker(folder: Path) -> dict[str, Any]:
    """The marker of a complete folder; StoreError where there is none."""
    marker: dict[str, Any] = read_json(folder / MARKER)
    if marker.get("format") != FORMAT:
        raise StoreError(f"{folder / MARKER}: format must be {FORMAT}, got {marker.get('format')}; it is built again")
    return marker


def read_output(folder: Path) -> StageOutput | None:
    """The complete, undamaged output in `folder`, or None."""
    if not (folder / MARKER).is_file():
        return None
    try:
        return StageOutput(**read_marker(folder)["output"], folder=folder)
    except (StoreError, ValueError, KeyError, TypeError):
        return None


def seal(folder: Path, final: Path, output: dict[str, Any], origin: dict[str, Any]) -> StageOutput:
    """Write the marker over everything in `folder`, then move it to its final name."""
    files, content = {}, hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        name = path.relative_to(folder).as_posix()
        status, digest = path.stat(), file_digest(path)
        files[name] = [status.st_size, status.st_mtime_ns, digest]
        content.update(f"{name}\0{digest}\n".encode())
    output = output | {"content": content.hexdigest(), "bytes": sum(size for size, _, _ in files.values())}
    write_json(folder / MARKER, {"format": FORMAT, "output": output, "files": files, "origin": origin})
    os.replace(folder, final)
    return StageOutput(**output, folder=final)


def link_tree(source: Path, target: Path) -> None:
    """Give every file below `source`, but its marker, a second name below `target`; a copy where links are refused."""
    for place, _, names in os.walk(source):
        folder = target / Path(place).relative_to(source)
        folder.mkdir(parents=True, exist_ok=True)
        for name in names:
            if name != MARKER:
                _link(Path(place) / name, folder / name)


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError as error:
        if isinstance(error, FileExistsError):
            raise
        target.write_bytes(source.read_bytes())


@contextmanager
def locked(path: Path, note: Note) -> Iterator[None]:
    """Hold an exclusive lock on `path`; the system frees it when a process dies."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            note(f"another run is building {path.parent.name}; waiting for it")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
