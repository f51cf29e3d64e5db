"""Readers of the store's own files, which a disk may damage."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from PIL import Image

from tests.faults.fuzz.reader import CLASSES, JSON_WORDS, Reader, each, files_of, json_of

__all__ = ["STORE_READERS"]


def _pixels() -> Any:
    return np.random.default_rng(0).integers(0, 255, (24, 33, 3), dtype=np.uint8)


def _make_texts(folder: Path) -> None:
    from excel_core.text.embeddings import TextEmbeddings

    TextEmbeddings(folder).encode(_OneText(), ["a cat"])


class _OneText:
    """Stands for a CLIP: the embedding of any text."""

    def encode_texts(self, texts: Sequence[str]) -> torch.Tensor:
        return torch.nn.functional.normalize(torch.arange(1.0, 9.0).repeat(len(texts), 1), dim=1)


def _read_texts(folder: Path) -> Any:
    from excel_core.text.embeddings import TextEmbeddings

    return TextEmbeddings(folder).encode(_OneText(), ["a cat"])


def _make_manifest(folder: Path) -> None:
    from excel_core.datasets.manifest import ListedImage, build_manifest
    from excel_core.stores import write_manifest

    Image.fromarray(_pixels()).save(folder / "a.jpg")
    write_manifest(
        folder / "manifest.parquet",
        build_manifest(folder, [ListedImage("a", "train", "a.jpg", ["cat"])], max_bad=0.5, threads=1),
    )


def _read_manifest(folder: Path) -> Any:
    from excel_core.datasets.manifest import usable
    from excel_core.stores import read_manifest

    return len(usable(read_manifest(folder / "manifest.parquet"), "train"))


def _make_counts(folder: Path) -> None:
    from excel_core.stores import write_counts

    write_counts(
        folder / "confusion.parquet", pd.DataFrame({"id": ["a", "b"], "true": [0, 1], "predicted": [1, 1], "pixels": [7, 9]})
    )


def _read_counts(folder: Path) -> Any:
    from excel_core.stores import read_counts

    return read_counts(folder / "confusion.parquet").describe()


def _make_knowledge(folder: Path) -> None:
    from excel_core.stores import write_knowledge
    from excel_core.text.knowledge import Knowledge, KnowledgeBase

    parts = [torch.randn(rows, 4, generator=torch.Generator().manual_seed(rows)) for rows in (4, 3, 2, 6)]
    texts = tuple(f"text {i}" for i in range(6))
    write_knowledge(folder / "knowledge.zarr", KnowledgeBase(Knowledge(*parts), CLASSES, ("sky",), texts))


def _read_knowledge(folder: Path) -> Any:
    from excel_core.stores import read_knowledge

    return read_knowledge(folder / "knowledge.zarr")


def _make_cams(folder: Path) -> None:
    from excel_core.stores import join_cams, write_cams

    shard, whole = folder / "shard", folder / "cams.zarr"
    cams = [np.random.default_rng(i).random((1, 3, 4), dtype=np.float32) for i in range(2)]
    write_cams(shard, ["a", "b"], [[0], [2]], cams, [np.ones((12, 12), np.float16)] * 2)
    whole.mkdir()
    (shard / "cams.zarr").rename(whole / "s0")
    join_cams(folder, {"s0": shard})


def _read_cams(folder: Path) -> Any:
    from excel_core.stores import CamReader

    reader = CamReader(folder)
    return [(reader.read(image), reader.attention(image)) for image in reader.ids[:3]]


def _make_stage(folder: Path) -> None:
    from tasks.engine.output import Origin, commit

    partial = folder / "a.partial"
    partial.mkdir()
    (partial / "metrics.json").write_bytes(json_of({"format": "excel-metrics/1", "scores": {"val": 0.5}}))
    output = {"stage": "evaluate", "key": "a", "result": {"images": 3}, "seconds": 1.5, "parts": {}}
    origin = Origin(
        key_parts={"spec": {"a": 1}}, inputs={"cams": "b"}, parts={}, items=0, kind="", finished="2026-01-01T00:00:00+00:00",
        host="here", pid=1,
    )  # fmt: skip
    commit(partial, folder / "a", output, origin)


def _read_stage(folder: Path) -> Any:
    from excel_core.errors import StoreError
    from tasks.engine.output import damaged_files, read_marker, read_output

    read_output(folder / "a")
    try:
        read_marker(folder / "a")
    except StoreError:
        return None
    return damaged_files(folder / "a")


def _make_record(folder: Path) -> None:
    from excel_core.config.presets import preset
    from tasks.engine.stage import RunEnvironment
    from tasks.history.run_record import start_record

    record = start_record("excel", preset("demo"), RunEnvironment(store=folder))
    record.end("complete")
    (folder / "records" / f"{record.id}.json").rename(folder / "records" / "20260101-000000-abcdef.json")


def _read_record(folder: Path) -> Any:
    from tasks.history.run_record import read_records

    return [(record.dead, record.run) for record in read_records(folder)]


def _make_installation(folder: Path) -> None:
    from flows.local.processes import Process
    from flows.local.state import Installation, write_state

    (folder / "prefect").mkdir()
    write_state(folder / "prefect", Installation("mark", 4200, "SQLite", server=Process(1, 2), worker=Process(3, 4)))


def _read_installation(folder: Path) -> Any:
    from flows.local.state import read_state, running_server

    return read_state(folder), running_server(folder)


def _read_json(path: Path) -> Any:
    from excel_core.files import read_json

    return read_json(path)


STORE_READERS = (
    Reader("text embeddings", _make_texts, _read_texts, ["*.embedding"], (b"excel-embedding/1", b"\n", b"sha256")),
    Reader("manifest", _make_manifest, _read_manifest, ["manifest.parquet"], (b"PAR1", b"pandas", b"labels", b"status")),
    Reader("counts", _make_counts, _read_counts, ["confusion.parquet"], (b"PAR1", b"pandas", b"pixels")),
    Reader(
        "knowledge.zarr",
        _make_knowledge,
        _read_knowledge,
        ["knowledge.zarr/**/*"],
        (b'"codecs"', b'"name": "numcodecs.pickle"', b'"shape"', b'"data_type"', b'"bytes"', *JSON_WORDS),
    ),
    Reader(
        "cams.zarr",
        _make_cams,
        _read_cams,
        ["cams.zarr/**/*", "cams.parquet"],
        (b'"codecs"', b'"shape"', b'"sharding_indexed"', b'"fill_value"', *JSON_WORDS),
    ),
    Reader("marker", _make_stage, _read_stage, ["a/stage.json"], (b'"files"', b'"output"', b'"result"', *JSON_WORDS)),
    Reader(
        "record",
        _make_record,
        _read_record,
        ["records/20260101-000000-abcdef.json"],
        (b'"spec"', b'"process"', b'"state"', *JSON_WORDS),
    ),
    Reader(
        "up.json", _make_installation, _read_installation, ["prefect/up.json"], (b'"server"', b'"pid"', b'"port"', *JSON_WORDS)
    ),
    Reader(
        "other JSON",
        files_of(metrics__json=json_of({"format": "excel-metrics/1", "a": [1, 2.5, None]})),
        each(_read_json, "metrics.json"),
        ["metrics.json"],
        JSON_WORDS,
    ),
)
