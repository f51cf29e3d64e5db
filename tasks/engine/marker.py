"""The marker of an output: stage.json, written last, which says what files a complete folder holds and what made them."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError

from excel_core.checked_files import parse_checked_json, read_checked_json
from excel_core.errors import StoreError
from tasks.engine.memory import Peak

__all__ = [
    "MARKER", "PARTIAL", "RESUME", "Description", "Marker", "Origin", "is_earlier", "key_of", "parse_marker", "read_marker",
]  # fmt: skip

MARKER, PARTIAL, RESUME = "stage.json", ".partial", ".resume"
EARLIER_FORMATS = ("excel-stage/1", "excel-stage/2", "excel-stage/3")


class Description(BaseModel):
    """What a marker says of a complete output.

    `content`: digest of all files. `result`: the stage's StageResult as plain data. `parts`: content of each part that it was
    joined from. `seconds` and peaks of memory are those of building it; a peak is None where it was not measured."""

    model_config = ConfigDict(frozen=True)

    stage: str
    key: str
    content: str
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


def _inside(name: str) -> str:
    """A file's name in a marker: a path that stays inside the folder."""
    if "\0" in name or name == MARKER or any(part in ("", ".", "..") for part in name.split("/")):
        raise ValueError("must be a path inside the folder")
    return name


class Marker(BaseModel):
    """stage.json: the output, and each file's size, time of change (ns) and SHA-256."""

    format: Literal["excel-stage/4"] = "excel-stage/4"
    output: dict[str, Any]
    files: dict[Annotated[str, AfterValidator(_inside)], tuple[int, int, str]]
    origin: Origin


def read_marker(folder: Path) -> Marker:
    """The marker of a complete folder; StoreError where there is none, or one that is damaged, of an earlier version, or of
    another folder."""
    return _checked(read_checked_json(folder / MARKER, EARLIER_FORMATS), folder)


def parse_marker(content: bytes, folder: Path) -> Marker:
    """`read_marker` of the bytes of the marker that lies, or is to lie, in `folder`."""
    return _checked(parse_checked_json(content, folder / MARKER, EARLIER_FORMATS), folder)


def _checked(content: dict[str, Any], folder: Path) -> Marker:
    path = folder / MARKER
    try:
        marker = Marker.model_validate(content)
        described = Description.model_validate(marker.output)
    except ValidationError as error:
        problem = error.errors()[0]
        field = ".".join(map(str, problem["loc"]))
        raise StoreError(f"{path}: {field}: {problem['msg']}; the next run builds it again") from None
    if (described.stage, described.key) != (folder.parent.name, key_of(folder)):
        raise StoreError(f"{path}: is the marker of {described.stage}/{described.key}; the next run builds it again")
    return marker.model_copy(update={"output": described.model_dump()})


def is_earlier(folder: Path) -> bool:
    """Whether an output is one of an earlier version of excel, which is not read, and is no damage."""
    try:
        return read_checked_json(folder / MARKER, EARLIER_FORMATS).get("format") in EARLIER_FORMATS
    except StoreError:
        return False


def key_of(folder: Path) -> str:
    """The key of the output that a folder of the store is, or is to become, or is resumed from."""
    return folder.name.removesuffix(PARTIAL).removesuffix(RESUME)
