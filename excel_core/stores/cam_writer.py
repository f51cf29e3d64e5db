"""cams.zarr, written a shard at a time, and the index of its images."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from excel_core.stores.tables import write_table

__all__ = ["CAMS_FORMAT", "CamWriter", "join_cams", "write_cams"]

CAMS_FORMAT = "excel-cams/4"
CAMS_PER_CHUNK, ATTENTION_PER_CHUNK = 32, 8  # images: chunks of 100 KB and 2 MB
ROW_GROUP = 50_000  # rows of a table of shards that are read together, or passed over


class Values(Protocol):
    """A tensor, or what will be one (host_copies.py)."""

    shape: Any

    def numpy(self) -> NDArray[Any]: ...


def write_cams(
    folder: Path,
    ids: Sequence[str],
    classes: Sequence[Sequence[int]],
    cams: Sequence[NDArray[np.float32]],
    attention: Sequence[NDArray[np.float16]] = (),
) -> None:
    """Write one shard: of each image its K' class indices and its CAMs (K', h, w) in [0, 1]; and its `attention` (M, M), of all
    images or of none."""
    writer = CamWriter(folder, ids, classes)
    for row in range(len(ids)):
        maps = torch.from_numpy(attention[row])[None] if attention else None
        writer.add(1, torch.from_numpy(cams[row])[None], maps)
    writer.close()


class CamWriter:
    """Writes one shard, `add` by `add`, in the order of its images. `submit` calls a function with arguments, here and now or
    on a thread; whoever gave it waits for its calls. `grids`: rows and columns of each image's CAMs, where these differ; all
    are stored on the largest, and read back as they were."""

    def __init__(
        self,
        folder: Path,
        ids: Sequence[str],
        classes: Sequence[Sequence[int]],
        submit: Callable[..., Any] = lambda function, *arguments: function(*arguments),
        grids: Sequence[tuple[int, int]] | None = None,
    ) -> None:
        import zarr

        from excel_core.stores.zarr_folder import ZarrFolder

        self._folder, self._ids, self._submit = folder, ids, submit
        # Images have different numbers of classes: each gets as many slots as the largest needs; empty ones compress well.
        self._slots = max((len(indices) for indices in classes), default=1)
        table = np.full((len(ids), self._slots), -1, dtype=np.int16)
        for row, indices in zip(table, classes, strict=True):
            row[: len(indices)] = indices
        self._group = zarr.open_group(ZarrFolder(folder / "cams.zarr"), mode="w-", zarr_format=3)
        self._group.attrs.update(format=CAMS_FORMAT)
        self._group.create_array("classes", data=table, dimension_names=("image", "slot"))
        self._arrays: dict[str, _GrowingArray] = {}
        self._grid: tuple[int, int] | None = None
        if grids is not None:
            self._grid = max((rows for rows, _ in grids), default=0), max((columns for _, columns in grids), default=0)
            table = np.array(grids, dtype=np.int16).reshape(len(ids), 2)
            self._group.create_array("grid", data=table, dimension_names=("image", "side"))

    def add(self, images: int, cams: Values, attention: Values | None = None) -> None:
        """CAMs (images, K, h, w) in [0, 1] of the next images, each image's own classes first, then zeros; and their attention
        (images, M, M), of all images or of none. Values that are on their way from a GPU may still be so."""
        h, w = self._grid or cams.shape[2:]
        self._array("cams", (self._slots, h, w), ("image", "slot", "row", "column"), CAMS_PER_CHUNK).add(images, cams)
        if attention is not None:
            names = ("image", "patch", "other")
            self._array("attention", attention.shape[1:], names, ATTENTION_PER_CHUNK).add(images, attention)

    def close(self) -> None:
        """All images were added: write the last of them, and the index."""
        for array in self._arrays.values():
            array.flush()
        write_table(self._folder / "cams.parquet", pd.DataFrame({"id": list(self._ids)}))

    def _array(self, name: str, shape: Sequence[int], axes: tuple[str, ...], chunk: int) -> "_GrowingArray":
        from zarr.codecs import ZstdCodec

        if name not in self._arrays:
            array = self._group.create_array(
                name,
                shape=(len(self._ids), *shape),
                dtype=np.float16,
                chunks=(chunk, *shape),
                compressors=ZstdCodec(level=1),  # zarr's own level takes three times as long for the same bytes
                dimension_names=axes,
            )
            self._arrays[name] = _GrowingArray(array, chunk, self._submit)
        return self._arrays[name]


class _GrowingArray:
    """An array whose rows come in order, and are written a chunk at a time."""

    def __init__(self, array: Any, chunk: int, submit: Callable[..., Any]) -> None:
        self._array, self._chunk, self._submit = array, chunk, submit
        self._start, self._waiting = 0, 0
        self._parts: list[tuple[Values, slice]] = []

    def add(self, count: int, values: Values) -> None:
        first = 0
        while first < count:
            rows = min(count - first, self._chunk - self._waiting)
            self._parts.append((values, slice(first, first + rows)))
            first, self._waiting = first + rows, self._waiting + rows
            if self._waiting == self._chunk:
                self.flush()

    def flush(self) -> None:
        """Write the rows that are waiting, which make a chunk, or the last one."""
        if self._parts:
            self._submit(self._write, self._start, self._waiting, self._parts)
            self._start, self._waiting, self._parts = self._start + self._waiting, 0, []

    def _write(self, start: int, count: int, parts: list[tuple[Values, slice]]) -> None:
        rows = np.zeros((count, *self._array.shape[1:]), np.float16)
        first = 0
        for values, part in parts:
            content = values.numpy()[part]
            # The others' slots stay empty, and so does what a larger grid of the shard has beyond this one.
            rows[first : first + len(content), *(slice(side) for side in content.shape[1:])] = content
            first += len(content)
        self._array[start : start + count] = rows


def join_cams(folder: Path, shards: dict[str, Path]) -> int:
    """Make one store of `folder`/cams.zarr, where the arrays of each shard lie already under its name → number of images."""
    import zarr

    from excel_core.stores.zarr_folder import ZarrFolder

    zarr.open_group(ZarrFolder(folder / "cams.zarr"), mode="a", zarr_format=3).attrs.update(format=CAMS_FORMAT)
    tables = [pd.read_parquet(path / "cams.parquet").assign(shard=name) for name, path in shards.items()]
    index = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame({"id": [], "shard": []}, dtype=str)
    index["row"] = index.groupby("shard").cumcount()
    write_table(folder / "cams.parquet", index, ROW_GROUP)
    return len(index)
