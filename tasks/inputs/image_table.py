"""The images of a split as columns: 200 bytes an image, where a list of records takes 2,000.

Ten million images fit in a worker's memory, and a shard's images are found by an index rather than by looking at all of them.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
from itertools import chain, pairwise
from pathlib import Path
from typing import Any, NamedTuple, overload

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from excel_core.datasets.images import AS_STORED, DecodeOptions
from excel_core.errors import DataError
from tasks.engine.fingerprint import digest_of_blocks

__all__ = ["ImageRecord", "ImageTable", "first_bytes", "read_image_table"]

BLOCK = 50_000  # rows that are Python objects at once
SIZES = ("height", "width")


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


@dataclass(frozen=True, eq=False)
class _Columns:
    """Columns of N images. ids, digests: Arrow's arrays of text; sizes (N, 2) int32; classes (M,) int16, those of image i from
    starts[i] to starts[i + 1]; starts (N + 1,) int64. `read_paths`: their paths, which no key depends on."""

    ids: Any
    digests: Any
    sizes: NDArray[np.int32]
    classes: NDArray[np.int16]
    starts: NDArray[np.int64]
    data: Path
    decode: DecodeOptions
    read_paths: Callable[[], Any]

    @cached_property
    def paths(self) -> Any:
        """Paths inside `data`, read when the first image is looked at."""
        return self.read_paths()

    @cached_property
    def numbers(self) -> NDArray[np.uint64]:
        """`first_bytes` of each id, (N,)."""
        numbers = np.empty(len(self.ids), dtype=np.uint64)
        for first in range(0, len(numbers), BLOCK):
            digests = b"".join([sha256(id.encode()).digest() for id in self.ids[first : first + BLOCK].to_pylist()])
            block = np.frombuffer(digests, dtype=">u8")[::4]  # a digest has 32 bytes
            numbers[first : first + len(block)] = block
        return numbers


@dataclass(frozen=True, eq=False)
class ImageTable(Sequence[ImageRecord]):
    """Some rows of columns, in their order; each is an ImageRecord when it is looked at."""

    columns: _Columns
    rows: NDArray[np.int64]
    _orders: dict[int, tuple[NDArray[np.int64], NDArray[np.int64]]] = field(default_factory=dict)
    _shards: dict[tuple[int, int], "ImageTable"] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, index: int) -> ImageRecord: ...
    @overload
    def __getitem__(self, index: slice) -> "ImageTable": ...
    def __getitem__(self, index: int | slice) -> "ImageRecord | ImageTable":
        if isinstance(index, slice):
            return ImageTable(self.columns, self.rows[index])
        return next(iter(ImageTable(self.columns, self.rows[[index]])))

    def __iter__(self) -> Iterator[ImageRecord]:
        data, decode = self.columns.data, self.columns.decode
        for block in self._blocks():
            paths = self.columns.paths.take(block).to_pylist()
            for (id, digest, classes, height, width), path in zip(self._values(block), paths, strict=True):
                yield ImageRecord(id, data / path, tuple(classes), height, width, digest, decode)

    @property
    def ids(self) -> list[str]:
        """Their ids."""
        ids: list[str] = self.columns.ids.take(self.rows).to_pylist()
        return ids

    @cached_property
    def key(self) -> str:
        """Digest of the images themselves, how they are read, their ids, image-level classes and sizes."""
        blocks = (self._values(block) for block in self._blocks())
        decode = self.columns.decode
        options = [] if decode == AS_STORED else [[decode.upright, decode.max_side]] * len(self)
        return digest_of_blocks(chain(blocks, [options]))

    def without(self, others: Sequence["ImageTable"]) -> "ImageTable":
        """Those whose ids no other table has. Equal ids have equal numbers, and ids are compared where numbers are equal."""
        other_numbers = np.concatenate([other.columns.numbers[other.rows] for other in others])
        suspects = np.flatnonzero(np.isin(self.columns.numbers[self.rows], other_numbers))
        if not len(suspects):
            return self
        ids = {id for other in others for id in other.ids}
        drop = [row for row in suspects.tolist() if self.columns.ids[self.rows[row]].as_py() in ids]
        return ImageTable(self.columns, np.delete(self.rows, drop))

    def shards(self, count: int) -> Iterator[tuple[int, "ImageTable"]]:
        """Each shard that has images, by its index of `count` (a power of two), with its images in this table's order."""
        _, starts = self._in_order(count)
        for index in np.flatnonzero(np.diff(starts)).tolist():
            yield index, self.shard(index, count)

    def shard(self, index: int, count: int) -> "ImageTable":
        """The images of one shard."""
        if (index, count) not in self._shards:
            order, starts = self._in_order(count)
            self._shards[index, count] = ImageTable(self.columns, self.rows[order[starts[index] : starts[index + 1]]])
        return self._shards[index, count]

    def _in_order(self, count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Positions by shard, and where each shard begins among them, (count + 1,)."""
        if count not in self._orders:
            shards = ((self.columns.numbers[self.rows] >> np.uint64(32)) * np.uint64(count)) >> np.uint64(32)
            order = np.argsort(shards, kind="stable")
            self._orders[count] = order, np.searchsorted(shards[order], np.arange(count + 1, dtype=np.uint64))
        return self._orders[count]

    def _blocks(self) -> Iterator[NDArray[np.int64]]:
        return (self.rows[first : first + BLOCK] for first in range(0, len(self.rows), BLOCK))

    def _values(self, rows: NDArray[np.int64]) -> list[tuple[str, str, list[int], int, int]]:
        """(id, digest, classes, height, width) of each of the rows."""
        columns = self.columns
        starts, ends = columns.starts[rows], columns.starts[rows + 1]
        bounds = np.concatenate([[0], np.cumsum(ends - starts)])
        positions = np.repeat(starts - bounds[:-1], ends - starts) + np.arange(bounds[-1])
        flat, limits = columns.classes[positions].tolist(), bounds.tolist()
        classes = [flat[start:end] for start, end in pairwise(limits)]
        ids, digests = columns.ids.take(rows).to_pylist(), columns.digests.take(rows).to_pylist()
        heights, widths = columns.sizes[rows].T.tolist()
        return list(zip(ids, digests, classes, heights, widths, strict=True))


def first_bytes(image: str) -> int:
    """The first 8 bytes of an id's SHA-256, as a number; its first bits say to which shard the image belongs."""
    return int.from_bytes(sha256(image.encode()).digest()[:8])


def read_image_table(manifest: Path, data: Path, split: str, class_names: Sequence[str], decode: DecodeOptions) -> ImageTable:
    """The usable images of a split, in the manifest's order, read column by column: one at a time is in memory as a whole.
    DataError for a manifest of another shape (excel_core/datasets/manifest.py), and for a split that it does not hold."""
    is_usable = [("split", "==", split), ("error", "==", "")]

    def read(name: str) -> "pd.Series[Any]":
        return pd.read_parquet(manifest, columns=[name], filters=is_usable, dtype_backend="pyarrow")[name]

    def text(name: str) -> Any:
        return _in_one_piece(name, read(name))

    splits = pd.read_parquet(manifest, columns=["split"], dtype_backend="pyarrow")["split"].unique().tolist()
    if split not in splits:
        raise DataError(f"split {split!r} is not in the manifest; it holds: {', '.join(map(str, splits)) or 'nothing'}")
    digests, ids = text("digest"), text("id")  # the largest first, which is there twice while it is read
    sizes = np.stack([read(name).to_numpy(dtype=np.int32) for name in SIZES], axis=1)
    classes, starts = _class_indices(read("labels"), class_names)

    def paths() -> Any:
        column = read("image")
        if column.str.contains(r"^/|(?:^|/)\.\.(?:/|$)", regex=True).any():
            raise DataError("manifest: 'image' must be a path inside the root; rerun dataset")
        return _in_one_piece("image", column)

    columns = _Columns(ids, digests, sizes, classes, starts, data, decode, paths)
    _check_ids(columns, split)
    return ImageTable(columns, np.arange(len(sizes)))


def _in_one_piece(name: str, column: "pd.Series[Any]") -> Any:
    """The column as one Arrow array, of which single rows are taken quickly."""
    if str(column.dtype) not in ("string[pyarrow]", "large_string[pyarrow]") or column.hasnans:
        raise DataError(f"manifest: {name!r} must be text, got {column.dtype}; rerun dataset")
    return column.array.__arrow_array__().combine_chunks()


def _class_indices(labels: "pd.Series[Any]", class_names: Sequence[str]) -> tuple[NDArray[np.int16], NDArray[np.int64]]:
    """Lists of class names → indices one after the other, and where each image's begin."""
    if not str(labels.dtype).startswith("list<"):
        raise DataError(f"manifest: 'labels' must be lists of names, got {labels.dtype}; rerun dataset")
    starts = np.zeros(len(labels) + 1, dtype=np.int64)
    np.cumsum(labels.list.len().to_numpy(), out=starts[1:])
    codes, names = pd.factorize(labels.list.flatten())
    unknown = [name for name in names if name not in class_names]
    if unknown:
        raise DataError(f"manifest: label {unknown[0]!r} is no class; rerun dataset")
    index_of = np.array([class_names.index(name) for name in names], dtype=np.int16)
    return index_of[codes] if len(codes) else np.empty(0, np.int16), starts


def _check_ids(columns: _Columns, split: str) -> None:
    """DataError where an id occurs twice."""
    in_order = np.sort(columns.numbers)
    if (in_order[1:] == in_order[:-1]).any():
        ids = columns.ids.to_pylist()  # numbers of different ids may be equal
        if len(set(ids)) < len(ids):
            raise DataError(f"manifest: an id occurs twice in split {split!r}; rerun dataset")
