"""A segmenter that the published code trained, for single photos: with a CLIP and a class set, which its file does not name."""

from pathlib import Path

import torch

from excel_core.cams.cam_model import CamModel
from excel_core.config import RunSpec
from excel_core.config.presets import preset, with_settings
from excel_core.errors import ModelError
from excel_core.models.published_checkpoint import read_published
from excel_core.prediction.trained_segmenter import TrainedSegmenter
from excel_core.text.class_sets import BUNDLED_CLASS_SETS, class_set
from tasks.engine.progress import say
from tasks.inputs.cam_model import cached_clip

__all__ = ["published_trained"]


def published_trained(path: Path, device: str, clip_name: str | None) -> TrainedSegmenter:
    """The checkpoint's segmenter with `clip_name` (None: the presets' CLIP) and the bundled class set and preset that have as
    many classes. ModelError where none has, and where the CLIP is not the one that it was trained with."""
    checkpoint = read_published(path)
    sizes = checkpoint.sizes
    run, names = _preset_of(path, sizes.classes)
    run = with_settings(run, [f"clip.model={clip_name}"] if clip_name else [])
    spec = run.train.segmenter.model_copy(update={"width": sizes.width, "layers": sizes.layers})
    clip = cached_clip(run.clip.model, device)
    segmenter = checkpoint.fit(clip, len(names), spec)
    for words in checkpoint.differences(clip, run.cams):
        say(f"{path.name}: trained otherwise: {words}")
    view = run.cams.model_copy(update={"image_size": run.predict.image_size})
    texts = torch.empty(0, clip.joint_width, device=clip.device)  # it segments; only CAMs need texts
    cam_model = CamModel(clip, texts, len(names), view)
    return TrainedSegmenter(names, cam_model, segmenter.to(clip.device), spec, run.predict, run.refine.crf)


def _preset_of(path: Path, classes: int) -> tuple[RunSpec, tuple[str, ...]]:
    """The preset with so many classes, and their names."""
    known = {name: class_set(preset(name), None).class_names for name in BUNDLED_CLASS_SETS}
    for name, names in known.items():
        if len(names) == classes:
            return preset(name), names
    counts = ", ".join(f"{len(names)} ({name})" for name, names in known.items())
    raise ModelError(
        f"{path}: knows {classes} classes; the bundled class sets have {counts}. For others, run it by train.from_checkpoint "
        "with your class file, then segment by --weights RUN"
    )
