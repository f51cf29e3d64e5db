"""Maps of one large photo in a temporary file, read and written window by window, so that memory does not grow with the photo.

A photo is large above MAX_PIXELS_AT_ONCE: its maps would take hundreds of bytes a pixel, gigabytes in all. What fits is
computed whole, as fast as before.
"""

import os
import tempfile
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

__all__ = ["MAX_BYTES_AT_ONCE", "DiskMaps", "Tile", "is_large", "strips", "tile_around", "tiles"]

MAX_PIXELS_AT_ONCE = 2**20  # a photo of 1024 x 1024 is not large
MAX_BYTES_AT_ONCE = 192 * 2**20  # of a window's arrays
STRIP_ROWS = 64  # strips have a multiple of as many rows: torch's sums over labels take pixels in vectors, from the first one
Floats = NDArray[np.float32]


def is_large(size: Sequence[int]) -> bool:
    """Whether a photo of (H, W, ...) is computed window by window."""
    return size[0] * size[1] > MAX_PIXELS_AT_ONCE


@dataclass(frozen=True)
class Tile:
    """A window of a picture, rows and columns, and the `region` around it that its values depend on, cut at the picture's
    edges."""

    rows: slice
    columns: slice
    region_rows: slice
    region_columns: slice

    @property
    def shape(self) -> tuple[int, int]:
        """(h, w) of the window."""
        return self.rows.stop - self.rows.start, self.columns.stop - self.columns.start

    @property
    def region_shape(self) -> tuple[int, int]:
        """(h, w) of the region."""
        return self.region_rows.stop - self.region_rows.start, self.region_columns.stop - self.region_columns.start

    @property
    def inner(self) -> tuple[slice, slice]:
        """The window's rows and columns within its region."""
        top, left = self.region_rows.start, self.region_columns.start
        return slice(self.rows.start - top, self.rows.stop - top), slice(self.columns.start - left, self.columns.stop - left)


def tiles(size: tuple[int, int], side: int, halo: tuple[int, int]) -> Iterator[Tile]:
    """Windows of at most `side` pixels a side that cover a picture of `size` (H, W), each with `halo` pixels (above and below,
    beside) around it."""
    for top, bottom in pairwise(_edges(size[0], side)):
        for left, right in pairwise(_edges(size[1], side)):
            yield tile_around(size, (top, bottom, left, right), halo)


def tile_around(size: tuple[int, int], window: tuple[int, int, int, int], halo: tuple[int, int]) -> Tile:
    """The Tile of a `window`: top, bottom, left, right."""
    top, bottom, left, right = window
    region_rows = slice(max(0, top - halo[0]), min(size[0], bottom + halo[0]))
    region_columns = slice(max(0, left - halo[1]), min(size[1], right + halo[1]))
    return Tile(slice(top, bottom), slice(left, right), region_rows, region_columns)


def _edges(length: int, side: int) -> list[int]:
    """Where pieces of nearly the same length, at most `side`, begin and end."""
    count = -(-length // side)
    return [length * i // count for i in range(count + 1)]


def strips(size: tuple[int, int], bytes_per_pixel: int) -> Iterator[slice]:
    """Rows of a picture of `size` (H, W) in strips of whole rows that take a quarter of MAX_BYTES_AT_ONCE or less."""
    rows = MAX_BYTES_AT_ONCE // 4 // (bytes_per_pixel * size[1]) // STRIP_ROWS * STRIP_ROWS
    for top in range(0, size[0], max(STRIP_ROWS, rows)):
        yield slice(top, min(size[0], top + max(STRIP_ROWS, rows)))


class DiskMaps:
    """Maps (K, H, W) float32, or (K, H, W, lanes), of zeros at first, in a file without a name in `folder`, or where temporary
    files are. It is gone with this object, and with the process however that ends.

    OSError where the disk is full.
    """

    def __init__(self, shape: tuple[int, ...], folder: Path | None = None) -> None:
        self.shape = shape
        self.folder = folder
        with tempfile.TemporaryFile(dir=folder) as file:
            self._file = os.dup(file.fileno())
        weakref.finalize(self, os.close, self._file)
        self._pixel = 4 * int(np.prod(shape[3:]))  # bytes
        os.truncate(self._file, shape[0] * shape[1] * shape[2] * self._pixel)

    @property
    def size(self) -> tuple[int, int]:
        """(H, W)."""
        return self.shape[1], self.shape[2]

    def read(self, rows: slice = slice(None), columns: slice = slice(None), maps: slice = slice(None)) -> Floats:
        """A window of all `maps`, or some → (k, h, w), or (k, h, w, lanes)."""
        indices = range(self.shape[0])[maps]
        top, bottom, left, right = self._window(rows, columns)
        values = np.empty((len(indices), bottom - top, right - left, *self.shape[3:]), np.float32)
        self._each_run(values, indices, (top, left), _read_all)
        return values

    def write(self, rows: slice, columns: slice, values: Floats, maps: slice = slice(None)) -> None:
        """Replace a window of all `maps`, or some, by values (k, h, w), or (k, h, w, lanes)."""
        indices = range(self.shape[0])[maps]
        top, bottom, left, right = self._window(rows, columns)
        values = np.ascontiguousarray(values, dtype=np.float32)
        if values.shape != (expected := (len(indices), bottom - top, right - left, *self.shape[3:])):
            raise ValueError(f"a window of maps must be {expected}, got {values.shape}")
        self._each_run(values, indices, (top, left), _write_all)

    def highest(self) -> NDArray[np.uint8]:
        """Of K ≤ 256 maps (K, H, W): the index (H, W) of each pixel's highest, the first where several are."""
        labels = np.zeros(self.size, np.uint8)
        for rows in strips(self.size, 12):
            best = self.read(rows, maps=slice(0, 1))[0]
            for index in range(1, self.shape[0]):
                plane = self.read(rows, maps=slice(index, index + 1))[0]
                labels[rows][plane > best] = index
                np.maximum(plane, best, out=best)
        return labels

    def _window(self, rows: slice, columns: slice) -> tuple[int, int, int, int]:
        top, bottom, _ = rows.indices(self.shape[1])
        left, right, _ = columns.indices(self.shape[2])
        return top, bottom, left, right

    def _each_run(
        self, values: Floats, indices: range, corner: tuple[int, int], move: Callable[[int, memoryview, int], None]
    ) -> None:
        """Call `move` for each run of the window that lies together in the file: whole rows, or each row of its own."""
        (H, W), pixel = self.size, self._pixel
        height, width = values.shape[1:3]
        for index, plane in zip(indices, values, strict=True):
            start = (index * H + corner[0]) * W + corner[1]
            pieces = [plane] if width == W else list(plane)
            for row, piece in enumerate(pieces if height and width else []):
                move(self._file, memoryview(piece).cast("B"), (start + row * W) * pixel)


def _read_all(file: int, buffer: memoryview, offset: int) -> None:
    while buffer:
        count = os.preadv(file, [buffer], offset)
        if not count:
            raise OSError("a temporary file of a large photo's maps is shorter than it was made")
        buffer, offset = buffer[count:], offset + count


def _write_all(file: int, buffer: memoryview, offset: int) -> None:
    while buffer:
        count = os.pwrite(file, buffer, offset)
        buffer, offset = buffer[count:], offset + count
