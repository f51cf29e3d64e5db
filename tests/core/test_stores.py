"""Every format comes back as it was written, and damage is named."""

import numpy as np
import pytest
import torch

from excel_core.errors import StoreError
from excel_core.knowledge import Knowledge
from excel_core.stores import (
    CamReader,
    CamWriter,
    KnowledgeStore,
    read_json,
    read_knowledge,
    write_json,
    write_knowledge,
    written_then_renamed,
)


def test_cams_round_trip_over_several_shards(tmp_path):
    rng = np.random.default_rng(0)
    ids = [f"image_{i}" for i in range(11)]
    rows = [(sorted(rng.choice(20, size=1 + i % 3, replace=False).tolist()),) for i in range(11)]
    cams = [rng.random((len(classes), 5, 6), dtype=np.float32) for (classes,) in rows]
    writer = CamWriter(tmp_path, ids, slots=3, grid=(5, 6), shard=4)
    for (classes,), cam in zip(rows, cams, strict=True):
        writer.append(classes, cam)
    writer.close()
    reader = CamReader(tmp_path)
    for i in (7, 0, 10):
        classes, cam = reader.read(ids[i])
        assert classes == rows[i][0]
        np.testing.assert_allclose(cam, cams[i], atol=5e-4)  # float16
    shards = [path for path in (tmp_path / "cams.zarr" / "cams" / "c").rglob("*") if path.is_file()]
    assert len(shards) == 3  # not an object an image
    with pytest.raises(StoreError, match="holds no image 'other'; rerun cams"):
        reader.read("other")


def test_a_cam_store_with_missing_images_is_not_closed(tmp_path):
    writer = CamWriter(tmp_path, ["a", "b"], slots=1, grid=(2, 2), shard=4)
    writer.append([0], np.zeros((1, 2, 2), dtype=np.float32))
    with pytest.raises(StoreError, match="1 of 2 images were appended"):
        writer.close()


def test_knowledge_round_trip_and_misfit(tmp_path):
    knowledge = Knowledge(torch.rand(5, 4), torch.rand(2, 4), torch.rand(6, 4))
    store = KnowledgeStore(knowledge, ("dog", "cat", "cow"), ("sky", "sea"), tuple("abcdef"))
    write_knowledge(tmp_path / "k.zarr", store)
    back = read_knowledge(tmp_path / "k.zarr")
    assert back.class_names == store.class_names and back.texts == store.texts
    torch.testing.assert_close(back.knowledge.text, knowledge.text)
    write_knowledge(tmp_path / "bad.zarr", KnowledgeStore(knowledge, ("dog",), (), tuple("abcdef")))
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
