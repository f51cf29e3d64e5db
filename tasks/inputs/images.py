"""The images of a split as the stages see them, and how they are cut into shards."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from excel_core.datasets.images import AS_STORED, DecodeOptions
from excel_core.datasets.layouts import decode_options
from excel_core.datasets.manifest import usable
from excel_core.stores import read_manifest
from tasks.engine.code_digest import result_in_key
from tasks.engine.fingerprint import digest_of
from tasks.engine.stage import Job, Part, Shard
from tasks.inputs.models import classes_of

__all__ = [
    "ImageRecord", "batches", "cam_images", "cam_shards", "image_shards", "images_key", "images_of",
    "in_shard", "shard_index",
]  # fmt: skip

Item = TypeVar("Item")


class ImageRecord(NamedTuple):
    """A usable image of a split. `classes`: 0-based indices of its image-level classes; `digest`: of its file; `decode`: how
    its pixels are read."""

    id: str
    path: Path
    classes: tuple[int, ...]
    height: int
    width: int
    digest: str
    decode: DecodeOptions = AS_STORED

    def read(self, by_torchvision: bool = False) -> NDArray[np.uint8]:
        """The image, (H, W, 3) uint8 RGB."""
        return self.decode.read(self.path, by_torchvision)


ShardKey = Callable[[str, Sequence[ImageRecord]], dict[str, Any]]  # a shard's name and images → what its part depends on


@result_in_key  # images_key
def images_of(job: Job, split: str) -> list[ImageRecord]:
    """Usable images of a split, in the manifest's order."""
    dataset = job.inputs["dataset"]
    decode = decode_options(job.run.dataset)
    return list(_images(dataset.folder / "manifest.parquet", dataset.content, job.data, split, classes_of(job), decode))


@lru_cache(maxsize=8)
def _images(
    manifest: Path, content: str, data: Path, split: str, class_names: tuple[str, ...], decode: DecodeOptions
) -> tuple[ImageRecord, ...]:
    """`content` is there for the cache alone."""
    index = {name: i for i, name in enumerate(class_names)}
    records = []
    for row in usable(read_manifest(manifest), split).to_dict("records"):
        classes = tuple(index[label] for label in row["labels"])
        height, width = int(row["height"]), int(row["width"])
        records.append(ImageRecord(row["id"], data / row["image"], classes, height, width, row["digest"], decode))
    return tuple(records)


def images_key(images: Sequence[ImageRecord]) -> str:
    """Digest of the images themselves, how they are read, their ids, image-level classes and sizes."""
    decoded = [image.decode for image in images if image.decode != AS_STORED]
    options = [[decode.upright, decode.max_side] for decode in decoded]
    return digest_of([[image.id, image.digest, image.classes, image.height, image.width] for image in images] + options)


def cam_images(job: Job, split: str) -> list[ImageRecord]:
    """Images of one of `dataset.cam_splits` that are in none before it: an image of several is computed once, in the first."""
    splits = job.run.dataset.cam_splits
    earlier = {image.id for other in splits[: splits.index(split)] for image in images_of(job, other)}
    return [image for image in images_of(job, split) if image.id not in earlier]


def cam_shards(job: Job, key: ShardKey) -> list[Part]:
    """One part per shard of all images that get CAMs and label maps."""
    parts: list[Part] = []
    for split in job.run.dataset.cam_splits:
        parts += image_shards(job, split, key, among=cam_images(job, split))
    return parts


def image_shards(
    job: Job,
    split: str,
    key: ShardKey,
    among: Sequence[ImageRecord] | None = None,
    kind: str = "",
    scored_as: str | None = None,
) -> list[Part]:
    """One part per shard of a split's images. Parts are named SPLIT-IofN, with `KIND-` before it.

    A shard is the images whose ids' digests begin alike, so that an image added or removed touches its own shard alone, until
    the number of shards doubles. `among`: the images that the parts are about, where these are not all; shards are cut and
    named by the whole split even so, so that they fit the shards of a stage that is about more. `scored_as`: the split that the
    images are scored as, where it is another one; its name then stands before `-in-SPLIT`.
    """
    images = images_of(job, split)
    count = 1
    while len(images) > count * job.run.shards.images:
        count *= 2
    shards: dict[int, list[ImageRecord]] = {}
    for image in images if among is None else among:
        shards.setdefault(shard_index(image.id, count), []).append(image)
    parts = []
    for index, members in sorted(shards.items()):
        shard = Shard(split, index, count, scored_as or split)
        shard_name = f"{split}-{index + 1}of{count}"
        name = shard_name if shard.scored_as == split else f"{scored_as}-in-{shard_name}"
        part_key = {"rows": images_key(members), **key(shard_name, members)}
        parts.append(Part(f"{kind}-{name}" if kind else name, len(members), part_key, kind, shard))
    return parts


def in_shard(shard: Shard, images: Sequence[ImageRecord]) -> list[ImageRecord]:
    """Those of a split's `images` that belong to the shard."""
    return [image for image in images if shard_index(image.id, shard.count) == shard.index]


def shard_index(image: str, count: int) -> int:
    """Which of `count` (a power of two) shards an image id belongs to."""
    return int.from_bytes(hashlib.sha256(image.encode()).digest()[:4]) * count >> 32


def batches(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """`items` in lists of at most `size`."""
    batch: list[Item] = []
    for item in items:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
