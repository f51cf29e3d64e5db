"""Every on-disk format of the pipeline: name, version, dimensions, types; how it is written and read.

    manifest.parquet     excel-manifest/1      one row an image; columns in datasets/manifest.py
    descriptions.json    excel-descriptions/1  provenance, class -> n texts
    knowledge.zarr       excel-knowledge/1     text (C+Z, D), attributes (A, D), descriptions (n*C, D) float32;
                                               names and description texts as attributes of the group
    cams.zarr            excel-cams/1          cams (I, K, h, w) float16 in [0, 1], one chunk an image, sharded;
                                               classes (I, K) int16, 0-based, -1 where an image has fewer than K
    cams.parquet         excel-cams/1          ids of cams.zarr's rows, in order
    *.png                                      palette PNG, 0 background, c+1 class c, 255 ignore (palette.py)
    checkpoint.pt        excel-checkpoint/1    iteration, architecture, segmenter and optimiser tensors, losses (checkpoints.py)
    segmenter.safetensors                      the trained weights; architecture and class names as metadata (checkpoints.py)
    metrics.json         excel-metrics/1       scores by protocol key (tasks/evaluate.py)

Files are written under a temporary name and renamed, so a reader never meets half a file.
"""

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from excel_core.errors import StoreError
from excel_core.knowledge import Knowledge

__all__ = [
    "CamReader", "CamWriter", "KnowledgeStore", "read_json", "read_knowledge", "read_manifest", "write_json",
    "write_knowledge", "write_manifest", "written_then_renamed",
]  # fmt: skip


@contextmanager
def written_then_renamed(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path`; rename it over `path` on success, remove it on failure."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON."""
    with written_then_renamed(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read JSON; StoreError when it is missing or not JSON."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise StoreError(f"{path}: not readable ({error}); rerun the stage that writes it") from None


def write_manifest(path: Path, manifest: pd.DataFrame) -> None:
    """Write a manifest (see datasets/manifest.py) as Parquet."""
    with written_then_renamed(path) as temporary:
        manifest.to_parquet(temporary, index=False)


def read_manifest(path: Path) -> pd.DataFrame:
    """Read a manifest; its `labels` column holds lists of class names."""
    try:
        manifest = pd.read_parquet(path)
    except (OSError, ValueError) as error:
        raise StoreError(f"{path}: not readable ({error}); rerun dataset") from None
    manifest["labels"] = [list(labels) for labels in manifest["labels"]]
    return manifest


@dataclass(frozen=True)
class KnowledgeStore:
    """A knowledge base with its words: `knowledge` arrays, class names (C), background prompts (Z), texts (n*C)."""

    knowledge: Knowledge
    class_names: tuple[str, ...]
    background: tuple[str, ...]
    texts: tuple[str, ...]


def write_knowledge(path: Path, store: KnowledgeStore) -> None:
    """Write `knowledge.zarr`; `path` must not exist yet (stages fill an empty folder)."""
    import zarr

    group = zarr.open_group(path, mode="w-", zarr_format=3)
    group.attrs.update(
        format="excel-knowledge/1",
        class_names=list(store.class_names),
        background=list(store.background),
        texts=list(store.texts),
    )
    for name, array in asdict(store.knowledge).items():
        group.create_array(name, data=array.numpy(), dimension_names=(name, "joint"))


def read_knowledge(path: Path) -> KnowledgeStore:
    """Read `knowledge.zarr`, checking that its parts fit each other."""
    group = _open_zarr(path, "excel-knowledge/1", "knowledge")
    parts = {name: torch.from_numpy(group[name][:]) for name in ("text", "attributes", "descriptions")}
    names, background, texts = (tuple(group.attrs[key]) for key in ("class_names", "background", "texts"))
    if len(parts["text"]) != len(names) + len(background) or len(parts["descriptions"]) != len(texts):
        raise StoreError(
            f"{path}: 'text' must have {len(names) + len(background)} rows and 'descriptions' {len(texts)}, got "
            f"{len(parts['text'])} and {len(parts['descriptions'])}; rerun knowledge"
        )
    return KnowledgeStore(Knowledge(**parts), names, background, texts)


class CamWriter:
    """Fill a cams.zarr of known ids shard by shard, in order; call `close` when all are in."""

    def __init__(self, folder: Path, ids: Sequence[str], slots: int, grid: tuple[int, int], shard: int) -> None:
        import zarr

        self._group = zarr.open_group(folder / "cams.zarr", mode="w", zarr_format=3)
        self._group.attrs.update(format="excel-cams/1")
        count, shard = len(ids), max(1, min(shard, len(ids)))
        self._cams = self._group.create_array(
            "cams",
            shape=(count, slots, *grid),
            chunks=(1, slots, *grid),
            shards=(shard, slots, *grid),
            dtype="float16",
            fill_value=0,
            dimension_names=("image", "slot", "row", "column"),
        )
        self._classes = np.full((count, slots), -1, dtype=np.int16)
        self._buffer = np.zeros((shard, slots, *grid), dtype=np.float16)
        self._start = self._filled = 0
        self._count = count
        with written_then_renamed(folder / "cams.parquet") as temporary:
            pd.DataFrame({"id": list(ids)}).to_parquet(temporary, index=False)

    def append(self, classes: Sequence[int], cams: NDArray[np.float32]) -> None:
        """Add the next image: its K' <= K class indices and cams (K', h, w) in [0, 1]."""
        self._buffer[self._filled] = 0
        self._buffer[self._filled, : len(classes)] = cams
        self._classes[self._start + self._filled, : len(classes)] = classes
        self._filled += 1
        if self._filled == len(self._buffer):
            self._flush()

    def _flush(self) -> None:
        if self._filled:
            self._cams[self._start : self._start + self._filled] = self._buffer[: self._filled]
        self._start, self._filled = self._start + self._filled, 0

    def close(self) -> None:
        """Write what is left and the class indices; StoreError if an image is missing."""
        self._flush()
        if self._start != self._count:
            raise StoreError(f"cams.zarr: {self._start} of {self._count} images were appended")
        self._group.create_array("classes", data=self._classes, dimension_names=("image", "slot"))


class CamReader:
    """cams.zarr by image id, read a chunk at a time."""

    def __init__(self, folder: Path) -> None:
        group = _open_zarr(folder / "cams.zarr", "excel-cams/1", "cams")
        self._cams = group["cams"]
        self._classes: NDArray[np.int16] = group["classes"][:]
        self.ids: list[str] = pd.read_parquet(folder / "cams.parquet")["id"].tolist()
        if len(self.ids) != self._cams.shape[0]:
            raise StoreError(f"{folder}: {len(self.ids)} ids for {self._cams.shape[0]} CAMs; rerun cams")
        self._rows = {image: row for row, image in enumerate(self.ids)}

    def read(self, image: str) -> tuple[list[int], NDArray[np.float32]]:
        """Class indices (K',) and CAMs (K', h, w) float32 of one image; StoreError if it is not there."""
        if image not in self._rows:
            raise StoreError(f"cams.zarr holds no image {image!r}; rerun cams on this data set")
        row = self._rows[image]
        classes = [int(c) for c in self._classes[row] if c >= 0]
        return classes, self._cams[row, : len(classes)].astype(np.float32)


def _open_zarr(path: Path, expected: str, stage: str) -> Any:
    import zarr

    try:
        group = zarr.open_group(path, mode="r")
    except (OSError, ValueError) as error:
        raise StoreError(f"{path}: not readable ({error}); rerun {stage}") from None
    if group.attrs.get("format") != expected:
        raise StoreError(f"{path}: format must be {expected}, got {group.attrs.get('format')}; rerun {stage}")
    return group
