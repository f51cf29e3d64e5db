"""Complete output folders: committed by a marker that is written last, verified before reuse, locked while they are built.

    STORE/<stage>/<key>/            complete; never written again. A part's folder is in STORE/<stage>-parts/
        stage.json                  excel-stage/3: each file's size, time of change and digest; what it was made from
    STORE/<stage>/<key>.partial/    being built, or left by a run that was killed
    STORE/<stage>/.<key>.lock       held by the run that builds it; the system frees it when that run dies

What follows is keyed by the output's *content*, so an upstream rerun that changes nothing stops there.
"""

import hashlib
import os
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from excel_core.errors import StoreError
from excel_core.files import read_json, write_json
from tasks.engine.fingerprint import file_digest
from tasks.engine.memory import Peak

__all__ = [
    "MARKER", "Marker", "Origin", "StageOutput", "StageResult", "commit", "damaged_files", "is_resumable", "link_tree",
    "read_marker", "read_output",
]  # fmt: skip

MARKER = "stage.json"


class StageResult(BaseModel):
    """What a stage says of its output; each stage has its own kind, which those that read it name."""

    model_config = ConfigDict(frozen=True)


R = TypeVar("R", bound=StageResult)


class StageOutput(BaseModel):
    """A complete output folder, as its marker describes it. Making one reads nothing: `read_output` verifies.

    `content`: digest of all files. `result`: the stage's StageResult as plain data. `parts`: content of each part that it was
    joined from. `seconds` and peaks of memory are those of building it; a peak is None where it was not measured."""

    model_config = ConfigDict(frozen=True)

    stage: str
    key: str
    content: str
    folder: Path
    result: dict[str, Any]
    seconds: float
    bytes: int
    parts: dict[str, str] = {}
    peak_host_bytes: int | None = None
    peak_gpu_bytes: int | None = None

    @property
    def peak(self) -> Peak:
        """Its peaks of memory."""
        return Peak(host_bytes=self.peak_host_bytes, gpu_bytes=self.peak_gpu_bytes)

    def result_as(self, kind: type[R]) -> R:
        """The stage's result as its own type."""
        return kind.model_validate(self.result)


class Origin(BaseModel):
    """What an output was made from: the parts of its key, the keys of inputs and parts; when, where and by which run."""

    key_parts: dict[str, Any]
    inputs: dict[str, str]
    parts: dict[str, str]
    items: int  # images or texts of a part
    kind: str  # of a part
    finished: str
    host: str
    pid: int
    flow_run_id: str = ""
    flow_run_name: str = ""
    task_run_id: str = ""


class Marker(BaseModel):
    """stage.json: the output without its folder, and each file's size, time of change (ns) and SHA-256."""

    format: Literal["excel-stage/3"] = "excel-stage/3"
    output: dict[str, Any]
    files: dict[str, tuple[int, int, str]]
    origin: Origin


def read_marker(folder: Path) -> Marker:
    """The marker of a complete folder; StoreError where there is none, or one of an earlier version."""
    try:
        return Marker.model_validate(read_json(folder / MARKER))
    except ValidationError as error:
        problem = error.errors()[0]
        field = ".".join(map(str, problem["loc"]))
        raise StoreError(f"{folder / MARKER}: {field}: {problem['msg']}; the next run builds it again") from None


def read_output(folder: Path) -> StageOutput | None:
    """The complete output in `folder`, verified: each file is there, of its size, and untouched or of its digest. Else None."""
    try:
        marker = read_marker(folder)
        output = StageOutput.model_validate(marker.output | {"folder": folder})
    except (StoreError, ValidationError):
        return None
    intact = all(_is_intact(folder / name, *expected) for name, expected in marker.files.items())
    return output if intact else None


def damaged_files(folder: Path) -> list[str]:
    """Files of a complete folder whose bytes are not those that were committed; every byte is read."""
    files = read_marker(folder).files
    return [name for name, expected in files.items() if not _is_intact(folder / name, *expected, read_all=True)]


def _is_intact(path: Path, size: int, changed_ns: int, digest: str, read_all: bool = False) -> bool:
    """A file that nobody touched is believed by its size; hashing gigabytes before every run would take minutes."""
    try:
        status = path.stat()
        untouched = status.st_mtime_ns == changed_ns and not read_all
        return status.st_size == size and (untouched or file_digest(path) == digest)
    except OSError:
        return False


def commit(partial: Path, final: Path, output: dict[str, Any], origin: Origin) -> StageOutput:
    """Write the marker over everything in `partial`, then move the folder to its final name."""
    files: dict[str, tuple[int, int, str]] = {}
    content = hashlib.sha256()
    for path in sorted(path for path in partial.rglob("*") if path.is_file()):
        name = path.relative_to(partial).as_posix()
        status, digest = path.stat(), file_digest(path)
        files[name] = (status.st_size, status.st_mtime_ns, digest)
        content.update(f"{name}\0{digest}\n".encode())
    output = output | {"content": content.hexdigest(), "bytes": sum(size for size, _, _ in files.values())}
    marker = Marker(output=output, files=files, origin=origin)
    write_json(partial / MARKER, marker.model_dump(mode="json"))
    os.replace(partial, final)
    return StageOutput.model_validate(output | {"folder": final})


def is_resumable(folder: Path) -> bool:
    """Whether a run can go on from what a killed one left in this folder of the store; `excel gc` leaves it then."""
    return folder.name.endswith(".partial") and (folder / "checkpoint.pt").is_file()


def link_tree(source: Path, target: Path) -> None:
    """Give every file below `source`, but its marker, a second name below `target`; or a copy, where there are no links."""
    for place, _, names in os.walk(source):
        folder = target / Path(place).relative_to(source)
        folder.mkdir(parents=True, exist_ok=True)
        for name in names:
            if name != MARKER:
                _link(Path(place) / name, folder / name)


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except FileExistsError:
        raise
    except OSError:
        target.write_bytes(source.read_bytes())
