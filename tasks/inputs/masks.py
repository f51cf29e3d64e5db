"""What scoring stages need of the masks: which images have one, and a fingerprint that opens none."""

from collections.abc import Sequence
from typing import Any

from excel_core.datasets.layouts import LAYOUTS
from excel_core.datasets.masks import MaskReader
from excel_core.world.voc_layout import write_world
from tasks.engine.code_digest import code_digest
from tasks.engine.stage import Job, Part
from tasks.inputs.images import ImageRecord, image_shards, images_of
from tasks.inputs.models import classes_of

__all__ = ["mask_reader_of", "masked_images", "masked_shards", "masks_key", "missing_masks"]


def mask_reader_of(job: Job, split: str) -> MaskReader:
    """The masks of a split of the run's data."""
    return LAYOUTS[job.run.dataset.layout].mask_reader(job.data, split, classes_of(job))


def masked_images(job: Job, split: str) -> list[ImageRecord]:
    """Images of a split that have a mask, of its first evaluate.max_images."""
    masks = mask_reader_of(job, split)
    return [image for image in images_of(job, split)[: job.run.evaluate.max_images] if masks.has(image.id)]


def missing_masks(job: Job, split: str) -> dict[str, str]:
    """What to say about the images of a split that have no mask: {which: reason}."""
    to_score, scored = len(images_of(job, split)[: job.run.evaluate.max_images]), len(masked_images(job, split))
    if scored == to_score:
        return {}
    return {f"{split}: {to_score - scored} of {to_score} images": f"no mask in {mask_reader_of(job, split).where}"}


def masks_key(job: Job, split: str, images: Sequence[ImageRecord]) -> Any:
    """Versions of the masks of `images`. The world's masks are drawn with its images, whose digests are known already: there,
    the code that draws them."""
    if "world" in job.inputs:
        return {"world": code_digest(write_world)}
    masks = mask_reader_of(job, split)
    return [masks.version(image.id) for image in images]


def masked_shards(job: Job, key: dict[str, Any], max_images: int | None = None) -> list[Part]:
    """One part per shard of the images with a mask of each validation split, at most `max_images` of a split. A part depends on
    `key`, its images and their masks."""
    parts: list[Part] = []
    for split in job.run.dataset.val_splits:

        def key_of(shard: str, images: Sequence[ImageRecord], split: str = split) -> dict[str, Any]:
            return key | {"masks": masks_key(job, split, images)}

        parts += image_shards(job, split, key_of, among=masked_images(job, split)[:max_images])
    return parts
