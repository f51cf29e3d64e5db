"""Checkpoints of training and the trained segmenter on disk, each with the architecture it belongs to."""

import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from excel_core.config import SegmenterSpec
from excel_core.errors import StoreError
from excel_core.files import written_then_renamed
from excel_core.models.clip import FrozenClip
from excel_core.models.segmenter import Segmenter

__all__ = ["Architecture", "load_checkpoint", "load_segmenter", "save_checkpoint", "save_segmenter"]


@dataclass(frozen=True)
class Architecture:
    """The architecture of a segmenter: L blocks of width D_s of `clip`, the class names, and the segmenter's own spec."""

    clip: str
    blocks: int
    token_width: int
    class_names: tuple[str, ...]
    segmenter: SegmenterSpec

    @classmethod
    def of(cls, clip: FrozenClip, class_names: Sequence[str], segmenter: SegmenterSpec) -> "Architecture":
        """What fits a segmenter of these classes behind `clip`."""
        return cls(clip.name, len(clip.blocks), clip.width, tuple(class_names), segmenter)

    def build(self) -> Segmenter:
        """A fresh segmenter of this architecture."""
        return Segmenter(self.blocks, self.token_width, len(self.class_names), self.segmenter)

    def to_json(self) -> dict[str, Any]:
        """The architecture as plain data, for files and for `require`."""
        return {
            "clip": self.clip,
            "blocks": self.blocks,
            "token_width": self.token_width,
            "class_names": list(self.class_names),
            "segmenter": self.segmenter.model_dump(),
        }

    def require(self, stored: dict[str, Any], path: Path) -> None:
        """StoreError with the differing fields unless `stored`, from the file `path`, describes this architecture."""
        expected = self.to_json()
        different = [key for key, value in expected.items() if value != stored.get(key)]
        if different:
            differences = "; ".join(f"{key}: expected {expected[key]}, got {stored.get(key)}" for key in different)
            raise StoreError(f"{path}: weights of another architecture ({differences}); rerun train")


def save_checkpoint(path: Path, architecture: Architecture, state: dict[str, Any]) -> None:
    """Write `state` (tensors, numbers, lists and dicts of them) with the architecture it belongs to."""
    buffer = io.BytesIO()  # in memory first: of a full disk, torch's own writer raises no OSError
    torch.save({"format": "excel-checkpoint/1", "architecture": architecture.to_json(), **state}, buffer)
    with written_then_renamed(path) as temporary:
        temporary.write_bytes(buffer.getbuffer())


def load_checkpoint(path: Path, architecture: Architecture) -> dict[str, Any]:
    """Read a checkpoint (weights only, nothing is unpickled); StoreError if damaged or of another architecture."""
    state = _guarded(lambda: torch.load(path, map_location="cpu", weights_only=True), path)
    if not isinstance(state, dict) or state.get("format") != "excel-checkpoint/1":
        raise StoreError(f"{path}: is no excel-checkpoint/1; rerun train")
    architecture.require(state["architecture"], path)
    return state


def save_segmenter(path: Path, architecture: Architecture, segmenter: Segmenter) -> None:
    """Write the trained weights with their architecture as metadata."""
    from safetensors.torch import save

    tensors = {key: value.detach().cpu().contiguous() for key, value in segmenter.state_dict().items()}
    with written_then_renamed(path) as temporary:
        temporary.write_bytes(save(tensors, metadata={"architecture": json.dumps(architecture.to_json())}))


def load_segmenter(path: Path, architecture: Architecture) -> Segmenter:
    """Read trained weights, in evaluation mode; StoreError if damaged or of another architecture."""
    from safetensors import safe_open

    def read() -> tuple[dict[str, Any], dict[str, Tensor]]:
        with safe_open(path, framework="pt") as file:
            return file.metadata() or {}, {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  it is no dict

    metadata, tensors = _guarded(read, path)
    architecture.require(json.loads(metadata.get("architecture", "{}")), path)
    segmenter = architecture.build()
    segmenter.load_state_dict(tensors)
    return segmenter.eval()


def _guarded(read: Callable[[], Any], path: Path) -> Any:
    try:
        return read()
    except Exception as error:  # torch and safetensors raise many types; all mean that the file is damaged
        raise StoreError(f"{path}: not readable ({type(error).__name__}: {error}); remove it and rerun train") from None
