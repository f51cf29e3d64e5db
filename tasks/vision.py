"""Load what the image stages look through, once a process: the frozen CLIP and the knowledge's texts."""

from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from excel_core.clip import FrozenClip
from excel_core.clip_weights import load_clip
from excel_core.datasets.images import read_image
from excel_core.datasets.manifest import usable
from excel_core.seeds import Vision
from excel_core.stores import KnowledgeStore, read_knowledge, read_manifest
from tasks.stage import Work

__all__ = ["Record", "batches", "cached_clip", "classes_of", "load_knowledge", "load_vision", "records"]

cached_clip = lru_cache(maxsize=2)(load_clip)


class Record(NamedTuple):
    """A usable image of a split: id, its path, 0-based indices of its image-level classes, and its size."""

    id: str
    path: Any
    classes: tuple[int, ...]
    height: int
    width: int

    def read(self) -> NDArray[np.uint8]:
        """The image, (H, W, 3) uint8 RGB."""
        return read_image(self.path)


def load_knowledge(work: Work) -> KnowledgeStore:
    """The knowledge stage's output."""
    return read_knowledge(work.input("knowledge") / "knowledge.zarr")


def load_vision(work: Work) -> Vision:
    """The run's CLIP with the run's texts."""
    clip: FrozenClip = cached_clip(work.run.clip.model, work.place.device)
    store = load_knowledge(work)
    return Vision(clip, store.knowledge.text.to(clip.device), len(store.class_names), work.run.cams)


def classes_of(work: Work) -> tuple[str, ...]:
    """Class names in class order."""
    return load_knowledge(work).class_names


def records(work: Work, split: str) -> list[Record]:
    """Usable images of a split, in the manifest's order."""
    assert work.place.data is not None
    index = {name: i for i, name in enumerate(classes_of(work))}
    manifest = usable(read_manifest(work.input("dataset") / "manifest.parquet"), split)
    root = work.place.data
    return [
        Record(row.id, root / row.image, tuple(index[label] for label in row.labels), int(row.height), int(row.width))
        for row in manifest.itertuples()
    ]


def batches(rows: Iterable[Record], size: int) -> Iterator[list[Record]]:
    """`rows` in lists of at most `size`."""
    batch: list[Record] = []
    for row in rows:
        batch.append(row)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
