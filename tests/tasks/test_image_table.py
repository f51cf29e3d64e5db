"""Images as columns: the same records, shards and keys as of a list of them, and what a manifest must be."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from excel_core.datasets.images import AS_STORED, DecodeOptions
from excel_core.errors import DataError
from tasks.engine.fingerprint import digest_of, digest_of_blocks
from tasks.engine.stage import Shard
from tasks.inputs import image_table
from tasks.inputs.image_table import ImageRecord, read_image_table
from tasks.inputs.images import _by_shard, images_key, in_shard

CLASSES = ("cat", "dog", "été")
DATA = Path("/data")


def _manifest(**changes):
    ids = [f"{i:04}_é{i % 7}" for i in range(500)]
    rows = {
        "id": [*ids, *ids[400:], "bad"],
        "split": ["train"] * 500 + ["val"] * 100 + ["train"],
        "image": [f"JPEGImages/{id}.jpg" for id in [*ids, *ids[400:], "bad"]],
        "height": np.arange(601, dtype=np.int32),
        "width": np.arange(601, dtype=np.int32)[::-1],
        "labels": [[name for bit, name in enumerate(CLASSES) if i >> bit & 1] for i in range(601)],
        "error": [""] * 600 + ["truncated"],
        "digest": [f"{i:064x}" for i in range(601)],
    }
    return pd.DataFrame(rows | changes)


@pytest.fixture
def read(tmp_path, monkeypatch):
    """read(split, decode, **changed columns) → the table."""
    monkeypatch.setattr(image_table, "BLOCK", 70)

    def read(split="train", decode=AS_STORED, **changes):
        _manifest(**changes).to_parquet(tmp_path / "manifest.parquet", index=False, row_group_size=64)
        return read_image_table(tmp_path / "manifest.parquet", DATA, split, CLASSES, decode)

    return read


def _records(split="train", decode=AS_STORED):
    records = []
    for row in _manifest().query("split == @split and error == ''").itertuples():
        classes = tuple(CLASSES.index(name) for name in row.labels)
        records.append(ImageRecord(row.id, DATA / row.image, classes, row.height, row.width, row.digest, decode))
    return records


@pytest.mark.parametrize("decode", [AS_STORED, DecodeOptions(upright=True, max_side=640)])
def test_a_table_is_a_list_of_records(read, decode):
    table, records = read(decode=decode), _records(decode=decode)
    assert len(table) == 500 and list(table) == records and table.ids == [record.id for record in records]
    assert (table[3], table[-1], list(table[10:20])) == (records[3], records[-1], records[10:20])
    assert list(read("val", decode)) == _records("val", decode)
    with pytest.raises(IndexError):
        _ = table[500]


@pytest.mark.parametrize("decode", [AS_STORED, DecodeOptions(upright=True, max_side=640)])
def test_shards_and_keys_are_those_of_a_list(read, decode):
    table, records = read(decode=decode), _records(decode=decode)
    assert images_key(table) == images_key(records) and images_key(table[:0]) == images_key([])
    for count in (1, 16, 1024):
        of_table = [(index, list(members), images_key(members)) for index, members in _by_shard(table, count)]
        assert of_table == [(index, members, images_key(members)) for index, members in _by_shard(records, count)]
        for index, members, _ in of_table:
            assert list(in_shard(Shard("train", index, count, "train"), table)) == members


def test_images_of_an_earlier_split_are_left_out(read):
    train, val = read(), read("val")
    assert len(val.without([train])) == 0 and val.without([train[:450]]).ids == train.ids[450:]
    assert val.without([train[:400]]) is val


def test_the_digest_of_blocks_is_that_of_the_list():
    items = [["é", 1], {"b": [2], "a": None}, 3.5]
    for blocks in ([items], [items[:1], [], items[1:]], [[item] for item in items], [[], items, []]):
        assert digest_of_blocks(blocks) == digest_of(items)
    assert digest_of_blocks([]) == digest_of_blocks([[]]) == digest_of([])


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("image", "/etc/passwd", "'image' must be a path inside the root"),
        ("image", "a/../../b", "'image' must be a path inside the root"),
        ("id", "0001_é1", "an id occurs twice"),
        ("labels", ["unicorn"], "'unicorn' is no class"),
        ("digest", None, "'digest' must be text"),
    ],
)
def test_a_manifest_that_does_not_fit_is_refused(read, column, value, message):
    values = _manifest()[column].tolist()
    values[5] = value
    with pytest.raises(DataError, match=message):
        list(read(**{column: values}))
    with pytest.raises(DataError, match="split 'test' is not in the manifest; it holds: train, val"):
        read("test")
