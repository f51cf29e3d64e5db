"""The images of a split as the stages see them, and how they are cut into shards."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from excel_core.config import DatasetSpec
from excel_core.datasets.folder import folder_decode_options
from excel_core.datasets.images import AS_STORED, DecodeOptions
from excel_core.datasets.manifest import usable
from excel_core.stores import read_manifest
from tasks.engine.identity import digest_of
from tasks.engine.stage import Part, Work
from tasks.inputs.cam_model import classes_of

__all__ = [
    "Record",
    "batches",
    "cam_image_parts",
    "cam_records",
    "decode_options_of",
    "image_parts",
    "records",
    "rows_key",
    "shard_of",
    "shard_rows",
]  # fmt: skip

Row = TypeVar("Row")


class Record(NamedTuple):
    """A usable image of a split: id, its path, 0-based indices of its image-level classes, its size, its digest, and how its
    pixels are seen."""

    id: str
    path: Path
    classes: tuple[int, ...]
    height: int
    width: int
    digest: str
    view: DecodeOptions = AS_STORED

    def read(self) -> NDArray[np.uint8]:
        """The image, (H, W, 3) uint8 RGB."""
        return self.view.read(self.path)


def records(work: Work, split: str) -> list[Record]:
    """Usable images of a split, in the manifest's order."""
    manifest = work.input("dataset") / "manifest.parquet"
    return list(
        _records(
            manifest, work.inputs["dataset"].content, work.data, split, classes_of(work), decode_options_of(work.run.dataset)
        )
    )


@lru_cache(maxsize=8)
def _records(
    manifest: Path, content: str, data: Path, split: str, names: tuple[str, ...], view: DecodeOptions
) -> tuple[Record, ...]:
    """`content` is there for the cache alone."""
    index = {name: i for i, name in enumerate(names)}
    found = []
    for row in usable(read_manifest(manifest), split).itertuples():
        classes = tuple(index[label] for label in row.labels)
        found.append(Record(row.id, data / row.image, classes, int(row.height), int(row.width), row.digest, view))
    return tuple(found)


def cam_records(work: Work, split: str) -> list[Record]:
    """Images of one of `dataset.cam_splits` that are in none before it: an image of several is computed once, in the first."""
    splits = work.run.dataset.cam_splits
    earlier = {row.id for other in splits[: splits.index(split)] for row in records(work, other)}
    return [row for row in records(work, split) if row.id not in earlier]


def cam_image_parts(work: Work, key: Any) -> list[Part]:
    """One part a shard of all images that get CAMs and label maps; `key` as in `image_parts`."""
    return [
        part
        for split in work.run.dataset.cam_splits
        for part in image_parts(work, split, records(work, split), key, among=cam_records(work, split))
    ]


def decode_options_of(spec: DatasetSpec) -> DecodeOptions:
    """How a run sees the pixels of its images."""
    return folder_decode_options(spec.max_side) if spec.layout == "folder" else AS_STORED


def image_parts(
    work: Work,
    split: str,
    rows: Sequence[Record],
    key: Any,
    what: str = "",
    among: Sequence[Record] | None = None,
    scored: str | None = None,
) -> list[Part]:
    """One part a shard of `rows`; `key(shard's name, shard's rows)` is what the part depends on beside its rows.

    `among`: those of `rows` that the parts are about, where that is not all of them; shards are cut and named as if it
    were, so that they fit the shards of a stage that is about more. `scored`: the split that the images are scored as, where it
    is another than `split`. Parts are named SPLIT-iofn, with `what-` before it, or `what-SCORED-in-`. A
    shard is the images whose ids' digests begin alike, so that an image added or removed touches its own shard alone, until
    the number of shards doubles.
    """
    count = 1
    while len(rows) > count * work.run.shards.images:
        count *= 2
    shards: dict[int, list[Record]] = {}
    for row in rows if among is None else among:
        shards.setdefault(shard_of(row.id, count), []).append(row)
    parts = []
    for index in sorted(shards):
        shard = f"{split}-{index + 1}of{count}"
        basis = {"rows": rows_key(shards[index]), **key(shard, shards[index])}
        about = {"split": split, "index": index, "count": count, "scored": scored or split}
        name = f"{scored}-in-{shard}" if scored and scored != split else shard
        full = f"{what}-{name}" if what else name
        parts.append(Part(name=full, items=len(shards[index]), key=basis, what=what, about=about))
    return parts


def shard_rows(work: Work, rows: Sequence[Record]) -> list[Record]:
    """Those of a split's `rows` that belong to the part to build."""
    about = work.this_part.about
    return [row for row in rows if shard_of(row.id, about["count"]) == about["index"]]


def shard_of(image: str, count: int) -> int:
    """Which of `count` (a power of two) shards an image id belongs to."""
    return int.from_bytes(hashlib.sha256(image.encode()).digest()[:4]) * count >> 32


def rows_key(rows: Sequence[Record]) -> str:
    """Digest of the images themselves, as they are seen, their ids and their image-level classes."""
    seen = [] if all(row.view == AS_STORED for row in rows) else [[row.view.upright, row.view.max_side] for row in rows]
    return digest_of([[row.id, row.digest, row.classes] for row in rows] + seen)


def batches(rows: Iterable[Row], size: int) -> Iterator[list[Row]]:
    """`rows` in lists of at most `size`."""
    batch: list[Row] = []
    for row in rows:
        batch.append(row)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
