"""The segmenter that a run takes from a checkpoint (`train.from_checkpoint`) instead of training one: reading and checking it,
and the words that name its source."""

from pathlib import Path
from typing import Any

from excel_core.config import RunSpec
from excel_core.errors import SettingError
from excel_core.models.clip import FrozenClip
from excel_core.models.published_checkpoint import read_published
from excel_core.models.segmenter import Segmenter
from excel_core.text.class_sets import class_set
from tasks.engine.fingerprint import files_fingerprint
from tasks.inputs.cam_model import cached_clip

__all__ = ["check_checkpoint_settings", "check_given_segmenter", "given_by", "given_segmenter", "given_words"]


def check_checkpoint_settings(run: RunSpec) -> None:
    """SettingError where the checkpoint is not there, or other settings ask for training."""
    spec = run.train
    if spec.from_checkpoint is None:
        return
    if not Path(spec.from_checkpoint).is_file():
        raise SettingError(
            f"train.from_checkpoint: there is no file {spec.from_checkpoint!r}; give a .pth, .pt or .safetensors"
        )
    if spec.supervision == "masks":
        raise SettingError("train.from_checkpoint trains nothing: leave out train.supervision=masks, or the checkpoint")
    if spec.keep_every is not None:
        raise SettingError("train.from_checkpoint trains nothing: leave out train.keep_every, or the checkpoint")


def check_given_segmenter(run: RunSpec, data: Path | None, device: str) -> None:
    """Before any stage: ModelError where the file is no checkpoint, or its classes, sizes or CLIP are not the run's."""
    if run.train.from_checkpoint is not None:
        classes = len(class_set(run, data).class_names)
        given_segmenter(run, classes, cached_clip(run.clip.model, device))


def given_segmenter(run: RunSpec, classes: int, clip: FrozenClip) -> tuple[Segmenter, list[str]]:
    """The checkpoint's segmenter on the CPU, and what the run computes otherwise than the code that trained it, in words."""
    assert run.train.from_checkpoint is not None
    checkpoint = read_published(Path(run.train.from_checkpoint))
    return checkpoint.fit(clip, classes, run.train.segmenter), checkpoint.differences(clip, run.cams)


def given_by(run: RunSpec) -> list[str] | None:
    """Name and digest of the checkpoint, as a key; None where the run trains."""
    if run.train.from_checkpoint is None:
        return None
    path = Path(run.train.from_checkpoint)
    return files_fingerprint(path) if path.is_file() else [f"{path.name}:missing"]  # reading it will say what to do


def given_words(summary: dict[str, Any]) -> str:
    """Where the segmenter comes from, by the summary of `train`; "" where it was trained."""
    if "checkpoint" not in summary:
        return ""
    differs = f"; trained otherwise: {', '.join(summary['differs'])}" if summary["differs"] else ""
    return f"checkpoint {summary['checkpoint']} (SHA-256 {summary['sha256'][:16]}){differs}"
