"""Checkpoints of training and the trained segmenter on disk, each with the architecture it belongs to."""

import io
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from excel_core.checked_files import read_checked, write_checked
from excel_core.config import SegmenterSpec
from excel_core.errors import MACHINE_ERRORS, StoreError
from excel_core.files import first_sentence, load_tensors, written_then_renamed
from excel_core.models.clip import FrozenClip
from excel_core.models.dino import FrozenDino
from excel_core.models.segmenter import Segmenter

__all__ = [
    "CHECKPOINT_FORMAT", "Architecture", "is_finite", "load_checkpoint", "load_segmenter", "previous_checkpoint",
    "save_checkpoint", "save_segmenter", "segmenter_bytes", "trained_parameters",
]  # fmt: skip

CHECKPOINT_FORMAT = "excel-checkpoint/2"


@dataclass(frozen=True)
class Architecture:
    """The architecture of a segmenter: L blocks of width D_s of `clip`, the class names, the segmenter's own spec, and the
    second encoder, (name, width) of a DINO, or None."""

    clip: str
    blocks: int
    token_width: int
    class_names: tuple[str, ...]
    segmenter: SegmenterSpec
    second: tuple[str, int] | None = None

    @classmethod
    def of(
        cls, clip: FrozenClip, class_names: Sequence[str], segmenter: SegmenterSpec, dino: FrozenDino | None = None
    ) -> "Architecture":
        """What fits a segmenter of these classes behind `clip`, and `dino` where there is one."""
        second = None if dino is None else (dino.name, dino.width)
        return cls(clip.name, len(clip.blocks), clip.width, tuple(class_names), segmenter, second)

    def build(self) -> Segmenter:
        """A fresh segmenter of this architecture."""
        second_width = None if self.second is None else self.second[1]
        return Segmenter(self.blocks, self.token_width, len(self.class_names), self.segmenter, second_width)

    def to_json(self) -> dict[str, Any]:
        """The architecture as plain data, for files and for `require`."""
        return {
            "clip": self.clip,
            "blocks": self.blocks,
            "token_width": self.token_width,
            "class_names": list(self.class_names),
            "segmenter": self.segmenter.model_dump(),
            "second": None if self.second is None else list(self.second),
        }

    def require(self, stored: dict[str, Any], path: Path) -> None:
        """StoreError with the differing fields unless `stored`, from the file `path`, describes this architecture."""
        expected, own = self.to_json(), stored.get("segmenter")
        # Versions before the second encoder wrote neither it nor which blocks the neck reads.
        stored = stored | ({"segmenter": SegmenterSpec().model_dump(include={"blocks"}) | own} if isinstance(own, dict) else {})
        different = [key for key, value in expected.items() if value != stored.get(key)]
        if different:
            differences = "; ".join(f"{key}: expected {expected[key]}, got {stored.get(key)}" for key in different)
            raise StoreError(f"{path}: weights of another architecture ({differences}); rerun train")


def save_checkpoint(path: Path, architecture: Architecture, state: dict[str, Any]) -> None:
    """Write `state` (tensors, numbers, lists and dicts of them) with the architecture it belongs to. The checkpoint that was
    there stays as the previous one."""
    buffer = io.BytesIO()  # in memory first: of a full disk, torch's own writer raises no OSError
    torch.save({"architecture": architecture.to_json(), **state}, buffer)
    if path.exists():
        with suppress(OSError), written_then_renamed(previous_checkpoint(path)) as temporary:
            try:
                os.link(path, temporary)
            except OSError:  # a disk without links
                shutil.copyfile(path, temporary)
    write_checked(path, CHECKPOINT_FORMAT, buffer.getbuffer())


def previous_checkpoint(path: Path) -> Path:
    """Where the checkpoint before the one in `path` is."""
    return path.with_name(f"{path.stem}.previous{path.suffix}")


def load_checkpoint(path: Path, architecture: Architecture) -> dict[str, Any]:
    """Read a checkpoint (weights only, nothing is unpickled); StoreError if damaged or of another architecture."""

    def read() -> Any:
        return load_tensors(io.BytesIO(read_checked(path, CHECKPOINT_FORMAT)))

    state = _guarded(read, path)
    if not isinstance(state, dict) or not isinstance(state.get("architecture"), dict):
        raise StoreError(f"{path}: is no {CHECKPOINT_FORMAT}; remove it and rerun train")
    architecture.require(state["architecture"], path)
    if not is_finite(_tensors(state)):
        raise StoreError(f"{path}: holds numbers that are not finite; remove it and rerun train")
    return state


def is_finite(tensors: Iterable[Tensor]) -> bool:
    """Whether no number is NaN or infinite; asks the device once."""
    finite = [torch.isfinite(tensor).all() for tensor in tensors]
    return not finite or bool(torch.stack([value.to(finite[0].device) for value in finite]).all())


def _tensors(value: Any) -> Iterator[Tensor]:
    """Every tensor of nested dicts and lists."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict | list | tuple):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _tensors(inner)


def save_segmenter(path: Path, architecture: Architecture, segmenter: Segmenter) -> None:
    """Write the trained weights with their architecture as metadata."""
    with written_then_renamed(path) as temporary:
        temporary.write_bytes(segmenter_bytes(architecture, segmenter))


def segmenter_bytes(architecture: Architecture, segmenter: Segmenter) -> bytes:
    """The bytes of the file that `save_segmenter` writes."""
    from safetensors.torch import save

    tensors = {key: value.detach().cpu().contiguous() for key, value in segmenter.state_dict().items()}
    content: bytes = save(tensors, metadata={"architecture": json.dumps(architecture.to_json())})
    return content


def trained_parameters(path: Path) -> int:
    """How many numbers a segmenter's file holds, all of which are trained; StoreError if damaged. Reads its header alone."""
    from safetensors import safe_open

    def read() -> int:
        with safe_open(path, framework="pt") as file:
            return sum(prod(file.get_slice(key).get_shape()) for key in file.keys())  # noqa: SIM118  it is no dict

    count: int = _guarded(read, path)
    return count


def load_segmenter(path: Path, architecture: Architecture) -> Segmenter:
    """Read trained weights, in evaluation mode; StoreError if damaged or of another architecture."""
    from safetensors import safe_open

    def read() -> tuple[dict[str, Any], dict[str, Tensor]]:
        with safe_open(path, framework="pt") as file:
            stored = json.loads((file.metadata() or {}).get("architecture", "{}"))
            return dict(stored), {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  it is no dict

    stored, tensors = _guarded(read, path)
    architecture.require(stored, path)
    segmenter = architecture.build()
    _guarded(lambda: segmenter.load_state_dict(tensors), path)
    return segmenter.eval()


def _guarded(read: Callable[[], Any], path: Path) -> Any:
    """What `read` gives; StoreError where the file is damaged. What the machine lacks is no damage."""
    try:
        return read()
    except Exception as error:  # torch and safetensors raise many types; all others mean that the file is damaged
        lacks = isinstance(error, OSError) and error.errno in MACHINE_ERRORS
        if lacks or isinstance(error, MemoryError) or "allocate memory" in str(error):
            raise
        why = f"{type(error).__name__}: {first_sentence(error)}"
        raise StoreError(f"{path}: not readable ({why}); remove it and rerun train") from None
