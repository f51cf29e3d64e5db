"""Stage `world` (demo only): draw the picture-book world into the store, in VOC layout.

Not under the mask guard, since it writes the masks; no later stage but evaluation may read them.
"""

from typing import Any

from excel_core.config import RunSpec
from excel_core.world.scenes import HELD_OUT_SEEDS, TRAIN_SEEDS
from excel_core.world.voc_layout import write_world
from tasks.engine.stage import Stage, Work, always

__all__ = ["STAGE"]


def build_world(work: Work) -> dict[str, Any]:
    """Fill the folder with JPEGImages, Annotations, ImageSets and SegmentationClass."""
    spec = work.run.dataset
    splits = {spec.train_split: TRAIN_SEEDS[: spec.train_scenes]}
    for split, seeds in zip(spec.val_splits, HELD_OUT_SEEDS, strict=False):
        splits[split] = seeds[: spec.val_scenes]
    write_world(work.folder, splits, spec.scene_size)
    return {"scenes": {split: len(seeds) for split, seeds in splits.items()}, "size": spec.scene_size}


def _spec(run: RunSpec) -> dict[str, Any]:
    return run.dataset.model_dump(
        mode="json", include={"train_split", "val_splits", "scene_size", "train_scenes", "val_scenes"}
    )


STAGE = Stage("world", (), _spec, build_world, sees_masks=always)
