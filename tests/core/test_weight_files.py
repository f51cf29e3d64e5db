"""Weights as they arrive: under another suffix, wrapped, or as something else in the place of the file."""

import pickle

import pytest
import torch
from safetensors.torch import load_file, save_file

from excel_core.errors import ModelError, SettingError
from excel_core.models.clip_names import BUILT_IN_FOLDER, parse_clip_name
from excel_core.models.clip_weights import load_clip
from excel_core.models.dino_names import TINY_DINO_FILE
from excel_core.models.dino_weights import load_dino
from excel_core.models.published_checkpoint import read_published
from excel_core.models.weight_files import load_state, require_weights
from excel_core.prediction.trained_segmenter import load_portable
from excel_core.text.attributes_file import load_attributes

TINY = BUILT_IN_FOLDER / "tiny_clip.safetensors"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935c943f9e0ff69d22e\nsize 12345\n"
PAGE = b"\n<!DOCTYPE html>\n<html><head><title>Sign in</title></head></html>"
NOT_WEIGHTS = {
    "a pointer": (POINTER, "a pointer of git-lfs and not the file itself, which `git lfs pull`"),
    "a page": (PAGE, "it is a web page"),
    "an error of a store": (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "it is a web page"),
    "nothing": (b"", "the file is empty"),
    "a message": (b'{"error": "Repository not found"}', 'begins with \'{"error": "Repository not found"}\''),
}
READERS = {
    "clip": lambda path: load_clip(f"excel-tiny:{path}"),
    "dino": lambda path: load_dino(f"dino-tiny:{path}"),
    "segmenter": read_published,
    "exported segmenter": load_portable,
    "attributes": lambda path: load_attributes(path, 128),
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("kind", NOT_WEIGHTS)
@pytest.mark.parametrize("suffix", [".pt", ".safetensors", ".npy"])
def test_what_is_no_weights_is_named(tmp_path, reader, kind, suffix):
    path = tmp_path / f"weights{suffix}"
    content, what = NOT_WEIGHTS[kind]
    path.write_bytes(content)
    with pytest.raises((ModelError, SettingError)) as refused:
        READERS[reader](path)
    assert what in str(refused.value) and str(path) in str(refused.value) and "\n" not in str(refused.value)


class Code:
    def __reduce__(self):
        return print, ("code ran",)


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize("how", ["zip", "legacy", "pickle", "cut off"])
def test_nobody_is_told_to_unpickle(tmp_path, reader, suffix, how, capsys):
    path = tmp_path / f"weights{suffix}"
    if how == "pickle":
        path.write_bytes(pickle.dumps({"state_dict": Code()}, protocol=4))
    else:
        torch.save({"state_dict": Code()}, path, _use_new_zipfile_serialization=how != "legacy")
    if how == "cut off":
        path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises((ModelError, SettingError)) as refused:
        READERS[reader](path)
    message = str(refused.value)
    assert "weights_only" not in message and "torch.load" not in message and "\n" not in message
    assert "code ran" not in capsys.readouterr().out


@pytest.mark.parametrize(
    "wrapped", ["module.{}", "_orig_mod.{}", "_orig_mod.module.{}", "module._orig_mod.{}", "_fsdp_wrapped_module.{}"]
)
@pytest.mark.parametrize("suffix", [".pt", ".safetensors", ".bin", ""])
def test_wrapped_weights_load_under_any_suffix(tmp_path, wrapped, suffix):
    """Both formats under each name: the content tells which it is."""
    clip, dino = load_file(TINY), load_file(TINY_DINO_FILE)
    for name, state in (("clip", clip), ("dino", dino)):
        wrapped_state = {wrapped.format(key): value for key, value in state.items()}
        torch.save({"state_dict": wrapped_state}, tmp_path / f"torch-{name}{suffix}")
        save_file(wrapped_state, tmp_path / f"safe-{name}{suffix}")
        for kind in ("torch", "safe"):
            loaded = load_state(tmp_path / f"{kind}-{name}{suffix}", "")
            assert loaded.keys() == state.keys() and all(torch.equal(loaded[key], state[key]) for key in state)
    image = torch.zeros(1, 3, 48, 48)
    expected = load_dino("dino-tiny").features(image)
    assert torch.equal(load_dino(f"dino-tiny:{tmp_path / f'torch-dino{suffix}'}").features(image), expected)


def test_a_compiled_part_of_a_model_loads(tmp_path):
    state = load_file(TINY)
    compiled = {key.replace("visual.", "visual._orig_mod.", 1): value for key, value in state.items()}
    save_file(compiled, tmp_path / "compiled.safetensors")
    ours, plain = load_clip(f"excel-tiny:{tmp_path / 'compiled.safetensors'}"), load_clip("excel-tiny")
    assert all(torch.equal(value, plain.model.state_dict()[key]) for key, value in ours.model.state_dict().items())


def test_weights_that_are_there_twice_are_not_chosen_from(tmp_path):
    save_file({"a.b": torch.zeros(1), "_orig_mod.a.b": torch.ones(1)}, tmp_path / "twice.safetensors")
    with pytest.raises(ModelError, match="has some weights twice"):
        load_state(tmp_path / "twice.safetensors", "")


@pytest.mark.parametrize("filler", range(0, 256, 8))
def test_safetensors_are_known_by_any_length_of_their_header(tmp_path, filler):
    """Of one whose lowest byte is 0x80, the first bytes are those of a pickle."""
    save_file({"a": torch.ones(1)}, tmp_path / "a.pt", {"note": "x" * filler})
    assert load_state(tmp_path / "a.pt", "").keys() == {"a"}


def test_a_clip_that_is_no_weights_is_refused_by_its_name(tmp_path):
    """Before work starts: parsing the name reads the first bytes."""
    path = tmp_path / "weights.pt"
    path.write_bytes(POINTER)
    for name in (f"excel-tiny:{path}", f"ViT-B-16:{path}"):
        with pytest.raises(ModelError, match="a pointer of git-lfs"):
            parse_clip_name(name)
    with pytest.raises(ModelError, match="'/nowhere/x.pt' do not exist"):
        parse_clip_name("excel-tiny:/nowhere/x.pt")


def test_a_folder_and_a_missing_file(tmp_path):
    with pytest.raises(ModelError, match="is not a file; give it"):
        require_weights(tmp_path, "give it")
    with pytest.raises(ModelError, match="there is no such file; give it"):
        require_weights(tmp_path / "none", "give it")
