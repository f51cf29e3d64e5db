"""Every on-disk format of the pipeline: name, version, dimensions, types; how it is written and read.

    manifest.parquet     excel-manifest/1      one row per image; columns in datasets/manifest.py
    left_out.csv                               what of a folder of photos is not used, and why (tasks/stages/dataset.py)
    descriptions.json    excel-descriptions/1  provenance, class -> n texts (text/descriptions.py)
    prompts.json                               the class set, as text/prompts.py's PromptSet
    knowledge.zarr       excel-knowledge/2     text (C+Z, D), templates (C, D), attributes (A, D), descriptions (n*C, D)
                                               float32; names and description texts as attributes of the group
    cams.zarr            excel-cams/4          one group per shard of images: cams (I, K, h, w) float16 in [0, 1], 32 images a
                                               chunk; classes (I, K) int16, 0-based, -1 where an image has fewer than K;
                                               where it is kept, attention (I, M, M) float16 of M = h*w patches, 8 images a
                                               chunk
    cams.parquet         excel-cams/4          id, shard and row of each image in cams.zarr
    presence/SHARD.parquet                     CLIP's scores by image, a column per class by its number from 0
    masks/ID.json                              masks that vote on an image's label map (datasets/mask_proposals.py)
    quality.csv, doubtful.csv                  what to look at first, for people (tasks/stages/quality.py, safe_csv.py)
    confusion.parquet    excel-confusion/1     pixels by image, result key, true and predicted label; only counts above 0
    levels.parquet       excel-levels/1        pixels by image, true label, strongest class (0-based) and CAM level in 0..99
    presence.parquet     excel-presence/1      zero-shot presence scores by image, one column per class
    *.png                                      palette PNG, 0 background, c+1 class c, 255 ignore (datasets/palette.py)
    segmenter.safetensors                      the trained weights; architecture and class names as metadata
                                               (models/checkpoints.py)
    kept/N.safetensors                         the same after N iterations, by `train.keep_every` (tasks/stages/train.py)
    <key>.resume/        of a training that is not complete:
      checkpoint.pt      excel-checkpoint/2    iteration, architecture, segmenter and optimiser tensors, losses
                                               (models/checkpoints.py); checkpoint.previous.pt is the one before it
      kept/N.kept        excel-kept/1          the bytes of kept/N.safetensors
    texts/ENCODER/TEXT.embedding  excel-embedding/1  (D,) float32 (text/embeddings.py)
    metrics.json         excel-metrics/1       scores by protocol key (tasks/stages/evaluate.py)
    ablation.json        excel-ablation/1      a row's score, interval and threshold (tasks/stages/ablation.py)
    curve.json           excel-curve/1         scores by iteration of the segmenters that were kept (tasks/stages/curve.py)
    counts.parquet                             pixels by iteration, kind of label map, true and predicted label
                                               (tasks/stages/curve.py)
    figures.json         excel-figures/1       what the paper's figures show (tasks/stages/figures.py)
    table.json           excel-paper/1         a table of the paper for one data set (tasks/stages/paper.py); of all its data
                                               sets in STORE/paper/TABLE.json (flows/paper.py)
    stage.json           excel-stage/4         the marker of a complete output (tasks/engine/output.py)
    records/ID.json      excel-run/1           one run (tasks/history/run_record.py)

Outside the store, for others:

    *.safetensors        excel-segmenter/1     the trained segmenter with its vision tower, to run alone
                                               (prediction/trained_segmenter.py)
    *.onnx               excel-segmenter-onnx/1  the same as a graph (exports/onnx_graph.py)
    export.json          excel-export/1        what an exported folder holds and from which run (exports/published.py)
    photos.json          excel-photos/1        the results of single photos (tasks/photos/segment_photos.py)

Files are written under a temporary name, synced and renamed (files.py), so a reader never meets half a file, not after a power
cut either. Those that no marker speaks of hold a digest of their own (checked_files.py): markers, records, the paper's tables,
checkpoints, kept segmenters, text embeddings. A file of an earlier format is made again.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from excel_core.datasets.manifest import check_manifest
from excel_core.errors import MACHINE_ERRORS, ExcelError, StoreError
from excel_core.files import first_sentence, read_json, written_then_renamed
from excel_core.text.knowledge import Knowledge, KnowledgeBase

__all__ = [
    "CamReader", "CamWriter", "StoredCams", "join_cams", "read_counts", "read_knowledge", "read_manifest", "write_cams",
    "write_counts", "write_knowledge", "write_manifest",
]  # fmt: skip

# What arrays are written with. A file of zarr names its own; of the others some run filters of a long list of libraries, and
# those of zarr's older format unpickle.
CODECS = {"bytes", "zstd", "crc32c", "sharding_indexed"}
ROW_GROUP = 50_000  # rows of a table of shards that are read together, or passed over
CAMS_FORMAT, KNOWLEDGE_FORMAT = "excel-cams/4", "excel-knowledge/2"
CAMS_PER_CHUNK, ATTENTION_PER_CHUNK = 32, 8  # images: chunks of 100 KB and 2 MB


class Values(Protocol):
    """A tensor, or what will be one (host_copies.py)."""

    shape: Any

    def numpy(self) -> NDArray[Any]: ...


def write_manifest(path: Path, manifest: pd.DataFrame) -> None:
    """Write a manifest (see datasets/manifest.py) as Parquet."""
    _write_table(path, manifest)


def read_manifest(path: Path) -> pd.DataFrame:
    """Read a manifest; its `labels` column holds lists of class names."""
    with _reading(path, "dataset"):
        manifest = pd.read_parquet(path)
        manifest["labels"] = [list(labels) for labels in manifest["labels"]]
        return check_manifest(manifest)  # among others, that no image lies outside the data folder


def write_knowledge(path: Path, base: KnowledgeBase) -> None:
    """Write `knowledge.zarr`; `path` must not exist yet (stages fill an empty folder)."""
    import zarr

    from excel_core.zarr_folder import ZarrFolder

    group = zarr.open_group(ZarrFolder(path), mode="w-", zarr_format=3)
    group.attrs.update(
        format=KNOWLEDGE_FORMAT,
        class_names=list(base.class_names),
        background=list(base.background),
        texts=list(base.texts),
    )
    for name, array in asdict(base.knowledge).items():
        group.create_array(name, data=array.numpy(), dimension_names=(name, "joint"))


def read_knowledge(path: Path) -> KnowledgeBase:
    """Read `knowledge.zarr`, checking that its parts fit each other."""
    with _reading(path, "knowledge"):
        group = _open_zarr(path, KNOWLEDGE_FORMAT, "knowledge")
        arrays = ("text", "templates", "attributes", "descriptions")
        parts = {name: torch.from_numpy(_open_array(path / name, "float32", 2, "knowledge")[:]) for name in arrays}
        names, background, texts = (tuple(group.attrs[key]) for key in ("class_names", "background", "texts"))
    if len(parts["text"]) != len(names) + len(background) or len(parts["descriptions"]) != len(texts):
        raise StoreError(
            f"{path}: 'text' must have {len(names) + len(background)} rows and 'descriptions' {len(texts)}, got "
            f"{len(parts['text'])} and {len(parts['descriptions'])}; rerun knowledge"
        )
    return KnowledgeBase(Knowledge(**parts), names, background, texts)


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

        from excel_core.zarr_folder import ZarrFolder

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
        _write_table(self._folder / "cams.parquet", pd.DataFrame({"id": list(self._ids)}))

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

    from excel_core.zarr_folder import ZarrFolder

    zarr.open_group(ZarrFolder(folder / "cams.zarr"), mode="a", zarr_format=3).attrs.update(format=CAMS_FORMAT)
    tables = [pd.read_parquet(path / "cams.parquet").assign(shard=name) for name, path in shards.items()]
    index = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame({"id": [], "shard": []}, dtype=str)
    index["row"] = index.groupby("shard").cumcount()
    _write_table(folder / "cams.parquet", index, ROW_GROUP)
    return len(index)


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
        _open_zarr(self._path, CAMS_FORMAT, "cams")
        filters = None if shard is None else [("shard", "==", shard)]
        with _reading(folder / "cams.parquet", "cams"):
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
        with _reading(self._path, "cams"):
            classes = [int(c) for c in table[row] if c >= 0]
            h, w = self._grid(shard, cams, slice(row, row + 1))
            return classes, cams[row, : len(classes), :h, :w].astype(np.float32)

    def attention(self, image: str) -> NDArray[np.float16] | None:
        """Patch attention (M, M) of one image for refinement, None where none was kept; StoreError if it is not there."""
        shard, row = self._position(image)
        attention = self._attention_of(shard)
        with _reading(self._path, "cams"):
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
            with _reading(self._path, "cams"):
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
        with _reading(self._path, "cams"):
            if shard not in self._shards:
                cams = _open_array(self._path / shard / "cams", "float16", 4, "cams")
                self._shards[shard] = cams, _open_array(self._path / shard / "classes", "int16", 2, "cams")[:]
            return self._shards[shard]

    def _grid(self, shard: str, cams: Any, rows: slice) -> tuple[int, int]:
        """Rows and columns that hold the CAMs of these images of a shard: the largest of their grids, or the array's."""
        if shard not in self._grids:
            path = self._path / shard / "grid"
            self._grids[shard] = _open_array(path, "int16", 2, "cams")[:] if path.exists() else None
        grids = self._grids[shard]
        if grids is None:
            return int(cams.shape[2]), int(cams.shape[3])
        return int(grids[rows, 0].max()), int(grids[rows, 1].max())

    def _attention_of(self, shard: str) -> Any | None:
        """A shard's attention, None where none was kept."""
        with _reading(self._path, "cams"):
            if shard not in self._attention:
                path = self._path / shard / "attention"
                self._attention[shard] = _open_array(path, "float16", 3, "cams") if path.exists() else None
            return self._attention[shard]

    def _position(self, image: str) -> tuple[str, int]:
        """Shard and row of an image."""
        if image not in self._positions:
            raise StoreError(f"cams.zarr holds no image {image!r}; rerun cams on this data set")
        return self._positions[image]


def write_counts(path: Path, counts: pd.DataFrame) -> None:
    """Write a table of pixel counts (confusion.parquet, levels.parquet) or scores by image as Parquet."""
    _write_table(path, counts)


def read_counts(path: Path) -> pd.DataFrame:
    """Read what `write_counts` wrote."""
    with _reading(path, "the stage that writes it"):
        return pd.read_parquet(path)


def _write_table(path: Path, table: pd.DataFrame, row_group: int | None = None) -> None:
    with written_then_renamed(path) as temporary:
        table.to_parquet(temporary, index=False, row_group_size=row_group)


def _open_zarr(path: Path, expected: str, stage: str) -> Any:
    import zarr

    with _reading(path, stage):
        group = zarr.open_group(path, mode="r", zarr_format=3)  # others have filters that unpickle
    if group.attrs.get("format") != expected:
        raise StoreError(f"{path}: format must be {expected}, got {group.attrs.get('format')}; rerun {stage}")
    return group


def _open_array(path: Path, dtype: str, dimensions: int, stage: str) -> Any:
    """An array of zarr's format 3 whose metadata names this type, these many axes, and codecs of CODECS alone; StoreError for
    any other."""
    import zarr

    with _reading(path, stage):
        metadata = read_json(path / "zarr.json")
        fields = ("zarr_format", "node_type", "data_type")
        actual = (*(metadata[field] for field in fields), len(metadata["shape"]), metadata.get("storage_transformers", []))
        if actual != (3, "array", dtype, dimensions, []) or not _codec_names(metadata["codecs"]) <= CODECS:
            raise ValueError(f"expected {dtype} of {dimensions} axes with codecs {', '.join(sorted(CODECS))}")
        return zarr.open_array(path, mode="r", zarr_format=3)


def _codec_names(codecs: Any) -> set[str]:
    """Names of the codecs and of those inside them."""
    names: set[str] = set()
    for codec in codecs:
        names.add(str(codec["name"]))
        configuration = codec.get("configuration", {})
        names |= _codec_names([*configuration.get("codecs", []), *configuration.get("index_codecs", [])])
    return names


@contextmanager
def _reading(path: Path, stage: str) -> Iterator[None]:
    """StoreError in one line for whatever pandas, Arrow, zarr and its codecs raise for a damaged file: dozens of kinds.
    What the machine lacks is no damage."""
    try:
        yield
    except (ExcelError, MemoryError):
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno in MACHINE_ERRORS:
            raise
        raise StoreError(f"{path}: not readable ({first_sentence(error)}); rerun {stage}") from None
