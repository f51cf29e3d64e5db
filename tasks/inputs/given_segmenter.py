"""The segmenter that a run takes from a checkpoint (`train.from_checkpoint`) instead of training one."""

from pathlib import Path

from excel_core.config import RunSpec
from excel_core.errors import SettingError
from excel_core.models.clip import FrozenClip
from excel_core.models.published_checkpoint import read_published
from excel_core.models.segmenter import Segmenter
from excel_core.text.class_sets import class_set
from tasks.engine.fingerprint import files_fingerprint
from tasks.inputs.models import cached_clip

__all__ = ["check_checkpoint_settings", "check_given_segmenter", "given_segmenter", "segmenter_file"]


def check_checkpoint_settings(run: RunSpec) -> None:
    """SettingError where the checkpoint is not there, or other settings ask for training."""
    spec = run.train
    if spec.from_checkpoint is None:
        return
    if not Path(spec.from_checkpoint).is_file():
        raise SettingError(
            f"train.from_checkpoint: there is no file {spec.from_checkpoint!r}; give a .pth, .pt or .safetensors"
        )
    if spec.segmenter.blocks != "all" or run.dino.model is not None:
        raise SettingError(
            f"train.from_checkpoint reads segmenters of ExCEL's published code, not of {run.method}; leave it out, or choose "
            "--method excel"
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


def segmenter_file(run: RunSpec) -> list[str] | None:
    """Name and digest of the checkpoint, as a key; None where the run trains."""
    return None if run.train.from_checkpoint is None else files_fingerprint(Path(run.train.from_checkpoint))
