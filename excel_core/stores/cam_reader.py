"""cams.zarr, read by image."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from excel_core.errors import StoreError
from excel_core.stores.cam_writer import CAMS_FORMAT
from excel_core.stores.damage import refuse_damaged
from excel_core.stores.zarr_arrays import open_array, open_group

__all__ = ["CamReader", "StoredCams"]


@dataclass(frozen=True)
class StoredCams:
    """Of I images: class indices of each; cams (I, K, h, w) float32, zeros in the slots that an image does not need; attention
    (I, M, M) float16, None where none was kept of some image. Images on grids of their own are on the largest of these."""

    classes: list[list[int]]
    cams: NDArray[np.float32]
    attention: NDArray[np.float16] | None


class CamReader:
    """Read cams.zarr by image id. `shard`: images of this one alone, which takes the same time whatever others there are."""

    def __init__(self, folder: Path, shard: str | None = None) -> None:
        self._path = folder / "cams.zarr"
        open_group(self._path, CAMS_FORMAT, "cams")
        filters = None if shard is None else [("shard", "==", shard)]
        with refuse_damaged(folder / "cams.parquet", "cams"):
            index = pd.read_parquet(folder / "cams.parquet", filters=filters)
            self.ids: list[str] = index["id"].tolist()
            positions = zip(index["shard"].tolist(), index["row"].tolist(), strict=True)
            self._positions: dict[str, tuple[str, int]] = dict(zip(self.ids, positions, strict=True))
        self._shards: dict[str, tuple[Any, NDArray[np.int16]]] = {}
        self._attention: dict[str, Any] = {}
        self._grids: dict[str, NDArray[np.int16] | None] = {}

    def read(self, image: str) -> tuple[list[int], NDArray[np.float32]]:
        """Class indices (K',) and CAMs (K', h, w) float32 of one image; StoreError if it is not there."""
        shard, row = self._position(image)
        cams, table = self._arrays(shard)
        with refuse_damaged(self._path, "cams"):
            classes = [int(c) for c in table[row] if c >= 0]
            h, w = self._grid(shard, cams, slice(row, row + 1))
            return classes, cams[row, : len(classes), :h, :w].astype(np.float32)

    def attention(self, image: str) -> NDArray[np.float16] | None:
        """Patch attention (M, M) of one image for refinement, None where none was kept; StoreError if it is not there."""
        shard, row = self._position(image)
        attention = self._attention_of(shard)
        with refuse_damaged(self._path, "cams"):
            return None if attention is None else attention[row]

    def read_together(self, images: Sequence[str]) -> StoredCams:
        """What `read` and `attention` give of at least one image. Images that lie one after the other in a shard, as those of a
        batch do, are read at once, which takes a fraction of the time."""
        classes: list[list[int]] = []
        cams: list[NDArray[np.float32]] = []
        attention: list[NDArray[np.float16] | None] = []
        for shard, rows in self._runs(images):
            run_cams, table = self._arrays(shard)
            stored = self._attention_of(shard)
            with refuse_damaged(self._path, "cams"):
                classes += [[int(c) for c in row if c >= 0] for row in table[rows]]
                h, w = self._grid(shard, run_cams, rows)
                cams.append(run_cams[rows, :, :h, :w].astype(np.float32))
                attention.append(None if stored is None else stored[rows])
        sides = np.max([part.shape[1:] for part in cams], axis=0)
        padded = []
        for part in cams:
            missing = [(0, int(side)) for side in sides - part.shape[1:]]
            padded.append(np.pad(part, [(0, 0), *missing]))
        kept = [part for part in attention if part is not None]
        return StoredCams(classes, np.concatenate(padded), np.concatenate(kept) if len(kept) == len(attention) else None)

    def _runs(self, images: Sequence[str]) -> Iterator[tuple[str, slice]]:
        """The images as runs of rows of a shard."""
        positions = [self._position(image) for image in images]
        start = 0
        for end in range(1, len(positions) + 1):
            shard, first = positions[start]
            if end == len(positions) or positions[end] != (shard, first + end - start):
                yield shard, slice(first, first + end - start)
                start = end

    def _arrays(self, shard: str) -> tuple[Any, NDArray[np.int16]]:
        """A shard's CAMs, and its classes."""
        with refuse_damaged(self._path, "cams"):
            if shard not in self._shards:
                cams = open_array(self._path / shard / "cams", "float16", 4, "cams")
                self._shards[shard] = cams, open_array(self._path / shard / "classes", "int16", 2, "cams")[:]
            return self._shards[shard]

    def _grid(self, shard: str, cams: Any, rows: slice) -> tuple[int, int]:
        """Rows and columns that hold the CAMs of these images of a shard: the largest of their grids, or the array's."""
        if shard not in self._grids:
            path = self._path / shard / "grid"
            self._grids[shard] = open_array(path, "int16", 2, "cams")[:] if path.exists() else None
        grids = self._grids[shard]
        if grids is None:
            return int(cams.shape[2]), int(cams.shape[3])
        return int(grids[rows, 0].max()), int(grids[rows, 1].max())

    def _attention_of(self, shard: str) -> Any | None:
        """A shard's attention, None where none was kept."""
        with refuse_damaged(self._path, "cams"):
            if shard not in self._attention:
                path = self._path / shard / "attention"
                self._attention[shard] = open_array(path, "float16", 3, "cams") if path.exists() else None
            return self._attention[shard]

    def _position(self, image: str) -> tuple[str, int]:
        """Shard and row of an image."""
        if image not in self._positions:
            raise StoreError(f"cams.zarr holds no image {image!r}; rerun cams on this data set")
        return self._positions[image]
