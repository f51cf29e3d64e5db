"""A text is encoded once for a CLIP, whatever comes beside it, and damage is made good."""

import torch

from excel_core.text.embeddings import TextEmbeddings


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


def test_damaged_embeddings_are_made_again(small_clip, tmp_path):
    embeddings = TextEmbeddings(tmp_path)
    before = embeddings.encode(small_clip, ["a dog.", "a cat."])
    path = embeddings.path("a dog.")
    path.write_bytes(path.read_bytes()[:60])
    embeddings.path("a cat.").write_bytes(b"")
    assert torch.equal(embeddings.encode(small_clip, ["a dog.", "a cat."]), before) and embeddings.encoded == 4
