"""Every format comes back as it was written, and damage is named."""

import shutil
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
import zarr

from excel_core.errors import StoreError
from excel_core.files import read_json, write_json, written_then_renamed
from excel_core.stores import CamReader, CamWriter, join_cams, read_knowledge, write_cams, write_knowledge
from excel_core.stores.cam_writer import ATTENTION_PER_CHUNK, CAMS_PER_CHUNK
from excel_core.text.knowledge import Knowledge, KnowledgeBase


def test_cams_round_trip_over_several_shards(tmp_path):
    rng = np.random.default_rng(0)
    ids = [f"image_{i}" for i in range(11)]
    classes = [sorted(rng.choice(20, size=1 + i % 3, replace=False).tolist()) for i in range(11)]
    cams = [rng.random((len(kept), 5, 6), dtype=np.float32) for kept in classes]
    parts = {"a": slice(0, 4), "b": slice(4, 8), "c": slice(8, 11)}
    for name, part in parts.items():
        write_cams(tmp_path / name, ids[part], classes[part], cams[part])
        shutil.copytree(tmp_path / name / "cams.zarr", tmp_path / "all" / "cams.zarr" / name)
    assert join_cams(tmp_path / "all", {name: tmp_path / name for name in parts}) == 11
    reader, of_shard = CamReader(tmp_path / "all"), CamReader(tmp_path / "all", "b")
    assert reader.ids == ids and of_shard.ids == ids[4:8]
    assert np.array_equal(of_shard.read(ids[5])[1], reader.read(ids[5])[1])
    with pytest.raises(StoreError, match="holds no image 'image_0'"):
        of_shard.read(ids[0])
    for i in (7, 0, 10):
        kept, cam = reader.read(ids[i])
        assert kept == classes[i]
        np.testing.assert_allclose(cam, cams[i], atol=5e-4)  # float16
    objects = [path for path in (tmp_path / "all" / "cams.zarr").glob("*/cams/c/**/*") if path.is_file()]
    assert len(objects) == 3  # not an object an image
    with pytest.raises(StoreError, match="holds no image 'other'; rerun cams"):
        reader.read("other")
    assert reader.attention(ids[0]) is None


def test_attention_is_kept_beside_cams(tmp_path):
    rng = np.random.default_rng(0)
    cams = [rng.random((1, 2, 3), dtype=np.float32) for _ in range(3)]
    attention = [rng.random((6, 6)).astype(np.float16) for _ in range(3)]
    write_cams(tmp_path / "a", ["x", "y", "z"], [[0]] * 3, cams, attention)
    shutil.copytree(tmp_path / "a" / "cams.zarr", tmp_path / "cams.zarr" / "a")
    join_cams(tmp_path, {"a": tmp_path / "a"})
    reader = CamReader(tmp_path)
    assert all(np.array_equal(reader.attention(image), its) for image, its in zip("xyz", attention, strict=True))
    with pytest.raises(StoreError, match="holds no image 'other'"):
        reader.attention("other")


@pytest.mark.parametrize("batch", [1, 5, 32, 50])
def test_batches_of_any_size_make_the_same_files(tmp_path, batch):
    """Whatever the batches are, and on threads too."""
    rng, count = np.random.default_rng(0), 70
    ids, classes = [f"{i}" for i in range(count)], [list(range(1 + i % 3)) for i in range(count)]
    cams = [rng.random((len(kept), 2, 3), dtype=np.float32) for kept in classes]
    attention = rng.random((count, 6, 6)).astype(np.float16)
    write_cams(tmp_path / "whole", ids, classes, cams, list(attention))
    with ThreadPoolExecutor(4) as pool:
        writer = CamWriter(tmp_path / "batches", ids, classes, pool.submit)
        for start in range(0, count, batch):
            group = cams[start : start + batch]
            padded = torch.zeros(len(group), max(map(len, group)), 2, 3)
            for row, own in zip(padded, group, strict=True):
                row[: len(own)] = torch.from_numpy(own)
            writer.add(len(group), padded, torch.from_numpy(attention[start : start + batch]))
        writer.close()
    files = {path.relative_to(tmp_path / "whole") for path in (tmp_path / "whole").rglob("*") if path.is_file()}
    assert files == {path.relative_to(tmp_path / "batches") for path in (tmp_path / "batches").rglob("*") if path.is_file()}
    assert all((tmp_path / "whole" / file).read_bytes() == (tmp_path / "batches" / file).read_bytes() for file in files)
    assert len(files) == 5 + -(-count // CAMS_PER_CHUNK) + -(-count // ATTENTION_PER_CHUNK) + 1


def test_knowledge_round_trip_and_misfit(tmp_path):
    knowledge = Knowledge(torch.rand(5, 4), torch.rand(3, 4), torch.rand(2, 4), torch.rand(6, 4))
    store = KnowledgeBase(knowledge, ("dog", "cat", "cow"), ("sky", "sea"), tuple("abcdef"))
    write_knowledge(tmp_path / "k.zarr", store)
    back = read_knowledge(tmp_path / "k.zarr")
    assert back.class_names == store.class_names and back.texts == store.texts
    torch.testing.assert_close(back.knowledge.text, knowledge.text)
    write_knowledge(tmp_path / "bad.zarr", KnowledgeBase(knowledge, ("dog",), (), tuple("abcdef")))
    with pytest.raises(StoreError, match="'text' must have 1 rows .*got 5.*rerun knowledge"):
        read_knowledge(tmp_path / "bad.zarr")
    with pytest.raises(StoreError, match="rerun knowledge"):
        read_knowledge(tmp_path / "missing.zarr")


def test_a_failed_write_leaves_the_old_file_and_no_rubbish(tmp_path):
    write_json(tmp_path / "a.json", {"old": 1})
    with pytest.raises(RuntimeError), written_then_renamed(tmp_path / "a.json") as temporary:
        temporary.write_text("{half")
        raise RuntimeError
    assert read_json(tmp_path / "a.json") == {"old": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]
    (tmp_path / "b.json").write_text("{half")
    with pytest.raises(StoreError, match="b.json: not readable"):
        read_json(tmp_path / "b.json")


def test_another_version_of_zarr_is_not_opened(tmp_path):
    """Older versions may name a filter that unpickles."""
    zarr.open_group(tmp_path / "knowledge.zarr", mode="w", zarr_format=2).attrs.update(format="excel-knowledge/2")
    with pytest.raises(StoreError, match=r"knowledge.zarr: not readable"):
        read_knowledge(tmp_path / "knowledge.zarr")


def _written(folder):
    """knowledge.zarr of random texts."""
    knowledge = Knowledge(torch.rand(3, 4), torch.rand(3, 4), torch.rand(2, 4), torch.rand(3, 4))
    write_knowledge(folder / "knowledge.zarr", KnowledgeBase(knowledge, ("dog", "cat", "cow"), (), tuple("abc")))
    return folder / "knowledge.zarr"


def _change(path, **fields):
    """Edit an array's metadata as somebody who writes to the store could."""
    write_json(path / "zarr.json", read_json(path / "zarr.json") | fields)


def test_an_array_with_a_codec_that_is_not_ours_is_not_read(tmp_path):
    """Zarr would take any codec that a file names, of every library that registers one: here, one that runs code."""
    from zarr.abc.codec import BytesBytesCodec
    from zarr.registry import register_codec

    ran = []

    class Planted(BytesBytesCodec):
        is_fixed_size = True

        @classmethod
        def from_dict(cls, data):
            ran.append(data)
            return cls()

        def compute_encoded_size(self, length, spec):
            return length

    register_codec("planted", Planted)
    path = _written(tmp_path)
    codecs = read_json(path / "text" / "zarr.json")["codecs"]
    _change(path / "text", codecs=[*codecs, {"name": "planted"}])
    zarr.open_group(path, mode="r")["text"]
    assert ran, "zarr itself runs it"
    ran.clear()
    with pytest.raises(StoreError, match=r"text: not readable \(expected float32 of 2 axes with codecs bytes, crc32c"):
        read_knowledge(path)
    shard = {"name": "sharding_indexed", "configuration": {"chunk_shape": [1, 1], "codecs": [*codecs, {"name": "planted"}]}}
    _change(path / "text", codecs=[shard])
    with pytest.raises(StoreError, match="text: not readable"):
        read_knowledge(path)
    assert not ran


@pytest.mark.parametrize(
    "fields",
    [
        {"data_type": "variable_length_bytes"},
        {"data_type": {"name": "structured"}},
        {"shape": [2]},
        {"shape": 7},
        {"codecs": None},
        {"codecs": [{"id": "pickle"}]},
        {"node_type": "group"},
        {"zarr_format": 2},
        {"storage_transformers": [{"name": "other"}]},
    ],
)
def test_an_array_of_another_kind_is_not_read(fields, tmp_path):
    path = _written(tmp_path)
    _change(path / "attributes", **fields)
    with pytest.raises(StoreError, match="attributes: not readable"):
        read_knowledge(path)
