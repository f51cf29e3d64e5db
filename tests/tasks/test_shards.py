"""Shards: stable under additions, near their size, and a key that follows the images."""

from pathlib import Path

import pytest

from excel_core.config.presets import preset, with_settings
from tasks.engine.output import StageResult
from tasks.engine.stage import Job, KeyParts, RunEnvironment, Stage, Whole
from tasks.inputs import images
from tasks.inputs.images import ImageRecord, image_shards, images_key, in_shard, shard_index

STAGE = Stage("toy", reads=(), makes="nothing", work=Whole(lambda job, folder: StageResult()), key=KeyParts(lambda run: {}))


def _records(count):
    return [ImageRecord(f"{2007 + i % 6}_{i:06d}", Path(f"{i}.jpg"), (i % 20,), 100, 120, f"digest {i}") for i in range(count)]


@pytest.fixture
def parts_of(monkeypatch):
    """Parts of a split that has these images, by name."""

    def parts(records, size=256, **arguments):
        monkeypatch.setattr(images, "images_of", lambda job, split: records)
        job = Job(STAGE, with_settings(preset("voc"), [f"shards.images={size}"]), RunEnvironment(store=Path("/nowhere")), {})
        shards = image_shards(job, "train", lambda shard, members: {"count": len(members)}, **arguments)
        return {part.name: part for part in shards}

    return parts


def test_shards_hold_every_image_once_and_are_of_about_one_size(parts_of):
    records = _records(10_582)
    parts = parts_of(records)
    assert len(parts) == 64 and sum(part.items for part in parts.values()) == 10_582
    assert min(part.items for part in parts.values()) > 110 and max(part.items for part in parts.values()) < 256
    members = [in_shard(part.images, records) for part in parts.values()]
    assert [len(shard) for shard in members] == [part.items for part in parts.values()]
    assert {image.id for shard in members for image in shard} == {image.id for image in records}
    assert list(parts_of(_records(3))) == ["train-1of1"] and parts_of([]) == {}


@pytest.mark.parametrize("place", [0, 500, 1000])
def test_an_image_more_touches_one_shard(parts_of, place):
    records = _records(1000)
    new = ImageRecord("new_image", Path("new.jpg"), (3,), 10, 10, "new")
    before, after = parts_of(records, 64), parts_of([*records[:place], new, *records[place:]], 64)
    changed = [name for name in after if after[name].key != before[name].key]
    assert list(before) == list(after) and len(changed) == 1
    assert changed == [f"train-{shard_index('new_image', len(after)) + 1}of{len(after)}"]


def test_a_few_images_of_a_split_are_in_the_shards_of_the_whole(parts_of):
    records = _records(1000)
    whole, few = parts_of(records, 64), parts_of(records, 64, among=records[::10], kind="static", scored_as="val")
    assert sum(part.items for part in few.values()) == 100
    for name, part in few.items():
        assert name.startswith("static-val-in-train-") and part.kind == "static" and part.images.scored_as == "val"
        same = whole[name.removeprefix("static-val-in-")].images
        assert (part.images.split, part.images.index, part.images.count) == (same.split, same.index, same.count)


def test_the_key_follows_bytes_and_labels():
    records = _records(5)
    assert images_key(records) == images_key(_records(5))
    for change in ({"digest": "other"}, {"classes": (1, 2)}, {"id": "other"}):
        assert images_key([records[0]._replace(**change), *records[1:]]) != images_key(records)
    assert images_key([records[0]._replace(path=Path("/elsewhere/0.jpg")), *records[1:]]) == images_key(records)


def test_about_half_of_the_shards_keep_their_images_when_their_number_doubles():
    """Bits are taken from the front, so shard i splits into 2i and 2i + 1."""
    for image in _records(200):
        assert shard_index(image.id, 8) == shard_index(image.id, 16) // 2
