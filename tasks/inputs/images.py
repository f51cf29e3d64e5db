"""The images of a split as the stages see them, and how they are cut into shards."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

from excel_core.datasets.images import AS_STORED, DecodeOptions
from excel_core.datasets.layouts import decode_options
from tasks.engine.code_digest import result_in_key
from tasks.engine.fingerprint import digest_of
from tasks.engine.stage import Job, Part, Shard
from tasks.inputs.image_table import ImageRecord, ImageTable, first_bytes, read_image_table
from tasks.inputs.models import classes_of

__all__ = [
    "ImageRecord", "ImageTable", "batches", "cam_images", "cam_shards", "image_shards", "images_key", "images_of",
    "in_shard", "shard_index",
]  # fmt: skip

Item = TypeVar("Item")


ShardKey = Callable[[str, Sequence[ImageRecord]], dict[str, Any]]  # a shard's name and images → what its part depends on


@result_in_key  # images_key
def images_of(job: Job, split: str) -> ImageTable:
    """Usable images of a split, in the manifest's order."""
    dataset = job.inputs["dataset"]
    decode = decode_options(job.run.dataset)
    return _images(dataset.folder / "manifest.parquet", dataset.content, job.data, split, classes_of(job), decode)


@lru_cache(maxsize=8)
def _images(
    manifest: Path, content: str, data: Path, split: str, class_names: tuple[str, ...], decode: DecodeOptions
) -> ImageTable:
    """`content` is there for the cache alone."""
    return read_image_table(manifest, data, split, class_names, decode)


def images_key(images: Sequence[ImageRecord]) -> str:
    """Digest of the images themselves, how they are read, their ids, image-level classes and sizes."""
    if isinstance(images, ImageTable):
        return images.key
    values = [[image.id, image.digest, image.classes, image.height, image.width] for image in images]
    options = [[image.decode.upright, image.decode.max_side] for image in images if image.decode != AS_STORED]
    return digest_of(values + options)


@result_in_key  # images_key
def cam_images(job: Job, split: str) -> ImageTable:
    """Images of one of `dataset.cam_splits` that are in none before it: an image of several is computed once, in the first."""
    splits = job.run.dataset.cam_splits
    tables = [images_of(job, other) for other in splits[: splits.index(split) + 1]]
    return _first_seen(*tables)


@lru_cache(maxsize=8)
def _first_seen(*tables: ImageTable) -> ImageTable:
    """Images of the last table that are in none before it."""
    *earlier, last = tables
    return last.without(earlier) if earlier else last


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
    parts = []
    for index, members in _by_shard(images if among is None else among, count):
        shard = Shard(split, index, count, scored_as or split)
        shard_name = f"{split}-{index + 1}of{count}"
        name = shard_name if shard.scored_as == split else f"{scored_as}-in-{shard_name}"
        part_key = {"rows": images_key(members), **key(shard_name, members)}
        parts.append(Part(f"{kind}-{name}" if kind else name, len(members), part_key, kind, shard))
    return parts


def _by_shard(images: Sequence[ImageRecord], count: int) -> Iterable[tuple[int, Sequence[ImageRecord]]]:
    """Each of `count` shards that has images, by its index, with its images in order."""
    if isinstance(images, ImageTable):
        return images.shards(count)
    shards: dict[int, list[ImageRecord]] = {}
    for image in images:
        shards.setdefault(shard_index(image.id, count), []).append(image)
    return sorted(shards.items())


@result_in_key  # images_key
def in_shard(shard: Shard, images: Sequence[ImageRecord]) -> Sequence[ImageRecord]:
    """Those of a split's `images` that belong to the shard."""
    if isinstance(images, ImageTable):
        return images.shard(shard.index, shard.count)
    return [image for image in images if shard_index(image.id, shard.count) == shard.index]


def shard_index(image: str, count: int) -> int:
    """Which of `count` (a power of two) shards an image id belongs to."""
    return (first_bytes(image) >> 32) * count >> 32


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
