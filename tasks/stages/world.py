"""Stage `world` (demo only): draw the picture-book world into the store, in VOC layout.

Not under the mask guard, since it writes the masks; no later stage but evaluation may read them.
"""

from pathlib import Path
from typing import Any

from excel_core.config import RunSpec
from excel_core.world.scenes import HELD_OUT_SEEDS, TRAIN_SEEDS
from excel_core.world.voc_layout import write_world
from tasks.engine.output import StageResult
from tasks.engine.stage import Job

__all__ = ["WorldResult", "draw_world", "settings"]


class WorldResult(StageResult):
    """Scenes drawn for each split, and their side in pixels."""

    scenes: dict[str, int]
    size: int


def draw_world(job: Job, folder: Path) -> WorldResult:
    """Fill the folder with JPEGImages, Annotations, ImageSets and SegmentationClass."""
    spec = job.run.dataset
    splits = {spec.train_split: TRAIN_SEEDS[: spec.train_scenes]}
    for split, seeds in zip(spec.val_splits, HELD_OUT_SEEDS, strict=False):
        splits[split] = seeds[: spec.val_scenes]
    write_world(folder, splits, spec.scene_size)
    return WorldResult(scenes={split: len(seeds) for split, seeds in splits.items()}, size=spec.scene_size)


def settings(run: RunSpec) -> dict[str, Any]:
    """Splits, and how many scenes of which size."""
    fields = {"train_split", "val_splits", "scene_size", "train_scenes", "val_scenes"}
    return run.dataset.model_dump(mode="json", include=fields)
