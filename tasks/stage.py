"""What a stage is, how its identity is computed, and how its output becomes complete. Knows no Prefect.

A stage's identity is a digest of its spec, the content of its inputs and the code it uses. Its output folder
`STORE/<stage>/<identity>/` is filled as `.partial`, then renamed with its marker `stage.json` written last; a complete
folder is never written again. What follows is keyed by the output's *content*, so an upstream rerun that changes
nothing stops there.
"""

import errno
import fcntl
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, model_validator

from excel_core.config import RunSpec
from excel_core.datasets.truth import masks_forbidden
from excel_core.errors import StoreError
from excel_core.stores import read_json, write_json
from tasks.code_version import code_version

__all__ = ["Place", "Stage", "StageOutput", "Work", "complete_output", "run_stage", "stage_identity"]

MARKER = "stage.json"
DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
Note = Callable[[str], None]


class Place(BaseModel):
    """Where a run happens; nothing here changes results."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    store: Path
    data: Path | None = None
    device: str = "cpu"


class StageOutput(BaseModel):
    """A complete output folder. Loading one whose files are missing or of another size fails, so a damaged output is
    never mistaken for a cached one."""

    model_config = ConfigDict(frozen=True)

    stage: str
    identity: str
    content: str
    folder: Path
    files: dict[str, int]
    summary: dict[str, Any]
    seconds: float

    @model_validator(mode="after")
    def _check_files(self) -> "StageOutput":
        if not (self.folder / MARKER).is_file():
            raise ValueError(f"{self.folder}: no {MARKER}; the output is incomplete")
        for name, size in self.files.items():
            path = self.folder / name
            if not path.is_file() or path.stat().st_size != size:
                raise ValueError(f"{path}: missing or not {size} bytes; the output is damaged")
        return self


@dataclass(frozen=True)
class Work:
    """What a stage's `build` gets: the run, the complete inputs by stage name, and the folder to fill."""

    run: RunSpec
    place: Place
    inputs: dict[str, StageOutput]
    folder: Path

    def input(self, stage: str) -> Path:
        """Output folder of an input stage."""
        return self.inputs[stage].folder


@dataclass(frozen=True)
class Stage:
    """A named step: which stages it reads, which part of the run it depends on, and the function that fills its folder.

    `spec(run)` is plain data; `outside(run, place)` fingerprints what lies outside the store (data, weights);
    `sees_masks` is True for evaluation alone: every other stage runs under the mask guard. `resumable` keeps a partial
    folder for the next try.
    """

    name: str
    inputs: tuple[str, ...]
    spec: Callable[[RunSpec], dict[str, Any]]
    build: Callable[[Work], dict[str, Any]]
    outside: Callable[[RunSpec, Place], Any] = field(default=lambda run, place: None)
    sees_masks: bool = False
    resumable: bool = False


def stage_identity(stage: Stage, run: RunSpec, place: Place, inputs: dict[str, StageOutput]) -> str:
    """32 hex digits over the stage's spec, inputs' content, outside fingerprint and code."""
    identity = {
        "stage": stage.name,
        "spec": stage.spec(run),
        "inputs": {name: inputs[name].content for name in stage.inputs},
        "outside": stage.outside(run, place),
        "code": code_version(stage.build.__module__),
    }
    return digest_of(identity)[:32]


def digest_of(value: Any) -> str:
    """SHA-256 of plain data as canonical JSON."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def complete_output(stage: Stage, identity: str, store: Path) -> StageOutput | None:
    """The stage's complete, undamaged output under that identity, or None."""
    marker = store / stage.name / identity / MARKER
    if not marker.is_file():
        return None
    try:
        record = read_json(marker)
        return StageOutput(**{**record["output"], "folder": marker.parent})
    except (StoreError, ValueError, KeyError, TypeError):
        return None


def run_stage(
    stage: Stage, run: RunSpec, place: Place, inputs: dict[str, StageOutput], note: Note = lambda text: None
) -> StageOutput:
    """The stage's output: reused when it is complete, else built. A second run at the same time waits for the first."""
    identity = stage_identity(stage, run, place, inputs)
    final = place.store / stage.name / identity
    final.parent.mkdir(parents=True, exist_ok=True)
    with _locked(final.with_name(f".{identity}.lock"), note):
        found = complete_output(stage, identity, place.store)
        if found is not None:
            return found
        if final.exists():
            note(f"{stage.name}: {final} is damaged and is built again")
            shutil.rmtree(final)
        partial = final.with_name(f"{identity}.partial")
        if partial.exists() and not stage.resumable:
            shutil.rmtree(partial)
        partial.mkdir(exist_ok=True)
        work = Work(run, place, {name: inputs[name] for name in stage.inputs}, partial)
        started = time.perf_counter()
        summary = _build(stage, work)
        return _seal(stage, identity, work, summary, time.perf_counter() - started, final)


def _build(stage: Stage, work: Work) -> dict[str, Any]:
    try:
        if stage.sees_masks:
            return stage.build(work)
        with masks_forbidden(stage=stage.name):
            return stage.build(work)
    except OSError as error:
        if error.errno not in DISK_ERRORS:
            raise
        free = shutil.disk_usage(work.place.store).free
        raise StoreError(
            f"{stage.name}: cannot write to {work.place.store} ({error.strerror}; {free / 2**20:.0f} MiB free). "
            "Finished stages are kept; make room or choose another --store, and run again"
        ) from error


def _seal(stage: Stage, identity: str, work: Work, summary: dict[str, Any], seconds: float, final: Path) -> StageOutput:
    """Write the marker last, and move the folder to its final name."""
    files, content = {}, hashlib.sha256()
    for path in sorted(p for p in work.folder.rglob("*") if p.is_file()):
        name = path.relative_to(work.folder).as_posix()
        files[name] = path.stat().st_size
        with path.open("rb") as file:
            content.update(f"{name}\0{hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    output = {
        "stage": stage.name,
        "identity": identity,
        "content": content.hexdigest(),
        "files": files,
        "summary": summary,
        "seconds": round(seconds, 3),
    }
    record = {
        "format": "excel-stage/1",
        "output": output,
        "spec": stage.spec(work.run),
        "inputs": {name: {"identity": got.identity, "content": got.content} for name, got in work.inputs.items()},
    }
    write_json(work.folder / MARKER, record)
    os.replace(work.folder, final)
    return StageOutput(**output, folder=final)


@contextmanager
def _locked(path: Path, note: Note) -> Iterator[None]:
    """Hold an exclusive lock on `path`; the system frees it when a process dies."""
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            note(f"another run is building {path.parent.name}; waiting for it")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
