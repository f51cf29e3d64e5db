"""A text is encoded once for a CLIP, whatever comes beside it, and damage is made good."""

import pytest
import torch

from excel_core.errors import StoreError
from excel_core.models.clip import FrozenClip
from excel_core.text.embeddings import TextEmbeddings, read_embedding
from tests.conftest import small_clip_model


def test_only_new_texts_are_encoded_and_the_rest_keep_their_bits(small_clip, tmp_path):
    first = TextEmbeddings(tmp_path)
    before = first.encode(small_clip, ["a dog.", "a cat.", "a sofa."])
    assert first.encoded == 3 and before.shape == (3, 16) and before.dtype == torch.float32
    second = TextEmbeddings(tmp_path)
    after = second.encode(small_clip, ["a sofa.", "a red dog.", "a cat."])
    assert second.encoded == 1
    assert torch.equal(after[0], before[2]) and torch.equal(after[2], before[1])
    torch.testing.assert_close(after, small_clip.encode_texts(["a sofa.", "a red dog.", "a cat."]))
    alone = TextEmbeddings(tmp_path / "other").encode(small_clip, ["a red dog."])
    assert torch.equal(alone[0], after[1])


def test_the_text_tower_moves_without_the_vision_tower():
    """To the device `meta`, where there is no GPU; test_gpu_train.py does it with one."""
    clip = FrozenClip(small_clip_model(), None, "small")
    clip._move_text_tower(torch.device("meta"))
    places = {name.startswith("visual."): value.device.type for name, value in clip.model.named_parameters()}
    assert places == {True: "cpu", False: "meta"} and clip.model.attn_mask.device.type == "meta"
    assert clip.model.visual is clip.visual and clip.device.type == "cpu"


def test_damaged_embeddings_are_made_again(small_clip, tmp_path):
    embeddings = TextEmbeddings(tmp_path)
    before = embeddings.encode(small_clip, ["a dog.", "a cat."])
    path = embeddings.path("a dog.")
    path.write_bytes(path.read_bytes()[:60])
    embeddings.path("a cat.").write_bytes(b"")
    assert torch.equal(embeddings.encode(small_clip, ["a dog.", "a cat."]), before) and embeddings.encoded == 4


@pytest.mark.parametrize("damage", ["zeros", "sign", "a bit", "another's", "nothing", "longer"])
def test_an_embedding_that_is_not_what_was_written_is_made_again(small_clip, tmp_path, damage):
    embeddings = TextEmbeddings(tmp_path / "encoder")
    before = embeddings.encode(small_clip, ["a dog.", "a cat."])
    path, other = (embeddings.path(text) for text in ("a dog.", "a cat."))
    whole, content = path.read_bytes(), bytearray(path.read_bytes())
    start = len(content) - before[0].numpy().nbytes
    if damage == "zeros":
        content[start:] = bytes(len(content) - start)
    elif damage == "sign":
        content[start:] = (-before[0]).numpy().tobytes()
    elif damage == "a bit":
        content[-3] ^= 1
    path.write_bytes({"another's": other.read_bytes(), "nothing": b"", "longer": whole + b"\0"}.get(damage, bytes(content)))
    with pytest.raises(StoreError):
        read_embedding(path)
    assert torch.equal(embeddings.encode(small_clip, ["a dog.", "a cat."]), before) and embeddings.encoded == 3
    assert path.read_bytes() == whole


def test_an_embedding_of_another_encoder_is_none_of_this_one(small_clip, tmp_path):
    embeddings = TextEmbeddings(tmp_path / "encoder")
    embeddings.encode(small_clip, ["a dog."])
    (tmp_path / "encoder").rename(tmp_path / "other")
    moved = TextEmbeddings(tmp_path / "other")
    moved.encode(small_clip, ["a dog."])
    assert moved.encoded == 1
