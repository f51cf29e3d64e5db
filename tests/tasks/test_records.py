"""Shards: stable under additions, near their size, and a key that follows the images."""

from pathlib import Path

import pytest

from excel_core.config.presets import preset, with_settings
from tasks.engine.stage import RunEnvironment, Stage, Work
from tasks.inputs.records import Record, image_parts, rows_key, shard_of

STAGE = Stage("toy", (), lambda run: {}, lambda work: {})


def _rows(count):
    return [Record(f"{2007 + i % 6}_{i:06d}", Path(f"{i}.jpg"), (i % 20,), 100, 120, f"digest {i}") for i in range(count)]


def _parts(rows, size=256):
    work = Work(STAGE, with_settings(preset("voc"), [f"shards.images={size}"]), RunEnvironment(store=Path("/nowhere")), {})
    return {part.name: part for part in image_parts(work, "train", rows, lambda shard, rows: {"count": len(rows)})}


def test_shards_hold_every_image_once_and_are_of_about_one_size():
    parts = _parts(_rows(10_582))
    assert len(parts) == 64 and sum(part.items for part in parts.values()) == 10_582
    assert min(part.items for part in parts.values()) > 110 and max(part.items for part in parts.values()) < 256
    assert list(_parts(_rows(3))) == ["train-1of1"] and _parts([]) == {}


@pytest.mark.parametrize("place", [0, 500, 1000])
def test_an_image_more_touches_one_shard(place):
    rows = _rows(1000)
    new = Record("new_image", Path("new.jpg"), (3,), 10, 10, "new")
    before, after = _parts(rows, 64), _parts([*rows[:place], new, *rows[place:]], 64)
    changed = [name for name in after if after[name].key != before[name].key]
    assert list(before) == list(after) and len(changed) == 1
    assert changed == [f"train-{shard_of('new_image', len(after)) + 1}of{len(after)}"]


def test_the_key_follows_bytes_and_labels():
    rows = _rows(5)
    assert rows_key(rows) == rows_key(_rows(5))
    for change in ({"digest": "other"}, {"classes": (1, 2)}, {"id": "other"}):
        assert rows_key([rows[0]._replace(**change), *rows[1:]]) != rows_key(rows)
    assert rows_key([rows[0]._replace(path=Path("/elsewhere/0.jpg")), *rows[1:]]) == rows_key(rows)


def test_about_half_of_the_shards_keep_their_images_when_their_number_doubles():
    """Bits are taken from the front, so shard i splits into 2i and 2i + 1."""
    for row in _rows(200):
        assert shard_of(row.id, 8) == shard_of(row.id, 16) // 2
