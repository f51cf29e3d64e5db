"""Checkpoints of the published code: read to the last weight, held against the CLIP and the run, refused with a reason."""

import os

import pytest
import torch
from safetensors.torch import save_file

from excel_core.cams.cam_model import CamModel
from excel_core.config import CalibrationSpec, CamSpec, SegmenterSpec
from excel_core.errors import ModelError
from excel_core.models.clip import FrozenClip, VisionOnly
from excel_core.models.published_checkpoint import is_published, read_published
from excel_core.models.published_names import SegmenterSizes
from tests.core.published_toys import published_clip, published_names, published_state, seeded_segmenter

SPEC = SegmenterSpec(width=64)
QKV = "encoder.visual.transformer.resblocks.8.attn.qkv.weight"


@pytest.fixture(scope="module")
def clip():
    return published_clip()


@pytest.fixture(scope="module")
def segmenter(clip):
    return seeded_segmenter(clip)


@pytest.fixture
def state(clip, segmenter):
    return published_state(clip, segmenter)


@pytest.fixture
def fit(clip, tmp_path):
    """Save a state dict and fit it to the CLIP → the segmenter."""

    def fit(state, clip=clip, classes=20, spec=SPEC):
        torch.save(state, tmp_path / "c.pth")
        return read_published(tmp_path / "c.pth").fit(clip, classes, spec)

    return fit


def _logits(clip, segmenter):
    image = torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(3))
    cam_model = CamModel(clip, torch.empty(0, clip.joint_width), 20, CamSpec())
    encoded = cam_model.encode(image)
    return segmenter(cam_model.layers(encoded), encoded.activations.grid).logits


def _as_safetensors(state, path):
    save_file({key: value.contiguous() for key, value in state.items()}, path)


WRITERS = {
    "plain.pth": torch.save,
    "wrapped.pt": lambda state, path: torch.save({"epoch": 3, "state_dict": state}, path),
    "model.pth": lambda state, path: torch.save({"model": state, "args": {"lr": 1e-3}}, path),
    "old.pth": lambda state, path: torch.save(state, path, _use_new_zipfile_serialization=False),
    "unprefixed.pth": lambda state, path: torch.save({k.removeprefix("module."): v for k, v in state.items()}, path),
    "c.safetensors": _as_safetensors,
    "misnamed.pth": _as_safetensors,
    "misnamed.safetensors": torch.save,
}


@pytest.mark.parametrize("name", WRITERS)
def test_logits_are_those_of_the_segmenter_it_was_made_from(clip, segmenter, state, tmp_path, name):
    assert {key: tuple(value.shape) for key, value in state.items()} == published_names()
    WRITERS[name](state, tmp_path / name)
    assert is_published(tmp_path / name)
    checkpoint = read_published(tmp_path / name)
    assert checkpoint.sizes == SegmenterSizes(classes=20, blocks=12, token_width=128, width=64, layers=3)
    loaded = checkpoint.fit(clip, 20, SPEC)
    with torch.inference_mode():
        assert (_logits(clip, loaded) - _logits(clip, segmenter)).abs().max() <= 1e-5
    assert not loaded.training and all(parameter.requires_grad for parameter in loaded.parameters())


@pytest.mark.parametrize(
    ("layer", "named"),
    [
        ("visual.conv1.weight", "encoder.visual.conv1.weight"),
        ("visual.transformer.resblocks.3.attn.in_proj_bias", "encoder.visual.transformer.resblocks.3.attn.in_proj_bias"),
        ("visual.transformer.resblocks.8.attn.in_proj_weight", QKV),
        ("visual.transformer.resblocks.11.attn.out_proj.weight", "encoder.visual.transformer.resblocks.11.attn.proj.weight"),
        ("token_embedding.weight", "encoder.token_embedding.weight"),
    ],
)
def test_another_clip_is_refused_by_its_first_layer(state, fit, layer, named):
    other = published_clip()
    other.model.state_dict()[layer].view(-1)[5] += 0.01
    with pytest.raises(ModelError, match=rf"another CLIP than seed 0: {named} differs by up to 0\.01"):
        fit(state, other)
    with pytest.raises(ModelError, match=r"another CLIP than seed 2: encoder.visual.class_embedding differs"):
        fit(state, published_clip(seed=2))


def test_what_plays_no_part_is_not_compared(clip, state, fit):
    state["module.encoder.logit_scale"] += 1
    other = published_clip()
    other.model.visual.positional_embedding.data += 1
    fit(state, other)
    without_texts = {key: v for key, v in state.items() if "encoder.visual." in key or "decoder" in key}
    fit({key: v for key, v in without_texts.items() if "visual.attn." not in key})
    fit(state, FrozenClip(VisionOnly(clip.visual), None))


@pytest.mark.parametrize(("dtype", "same"), [(torch.float16, True), (torch.bfloat16, False)])
def test_weights_rounded_to_half_precision_are_the_same_clip(state, fit, dtype, same):
    rounded = {key: value.to(dtype).float() if "encoder" in key else value for key, value in state.items()}
    if same:
        fit(rounded)
    else:
        with pytest.raises(ModelError, match="another CLIP"):
            fit(rounded)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"classes": 80}, "expected classes 80, got 20; change dataset.prompts"),
        ({"spec": SegmenterSpec()}, "expected width 256, got 64; change train.segmenter.width"),
        ({"spec": SegmenterSpec(width=64, layers=2)}, "expected layers 2, got 3; change train.segmenter.layers"),
        ({"spec": SegmenterSpec(width=64, heads=4)}, "has 8 heads, train.segmenter.heads=4"),
    ],
)
def test_another_segmenter_is_refused_with_expected_and_got(state, fit, change, message):
    with pytest.raises(ModelError, match=message):
        fit(state, **change)


def test_another_tower_is_refused_with_expected_and_got(state, fit, small_clip):
    with pytest.raises(ModelError, match="expected blocks 4, got 12; token width 32, got 128; change --clip"):
        fit(state, small_clip)


@pytest.mark.parametrize(
    ("missing", "named"),
    [
        ("decoder_fts_fuse.linears_modulelist.4.proj_2.bias", "missing decoder_fts_fuse.linears_modulelist.4.proj_2.bias"),
        ("decoder.transformer.resblocks.1.ln_2.bias", "missing decoder.transformer.resblocks.1.ln_2.bias"),
        ("decoder.linear_pred.weight", "incomplete: decoder.linear_pred.weight missing"),
        ("decoder.linear_pred.bias", "missing decoder.linear_pred.bias"),
        (QKV, f"missing {QKV}"),
        ("encoder.visual.ln_post.bias", "missing encoder.visual.ln_post.bias"),
        ("encoder.ln_final.bias", "missing encoder.ln_final.bias"),
    ],
)
def test_missing_weights_are_named(state, fit, missing, named):
    del state[f"module.{missing}"]
    with pytest.raises(ModelError, match=named):
        fit(state)


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("encoder.visual.transformer.resblocks.2.attn.lora", "unknown encoder.visual.transformer.resblocks.2.attn.lora"),
        ("decoder.linear_aux.weight", "unknown decoder.linear_aux.weight"),
        ("ema.decay", "unknown ema.decay"),
        ("encoder.visual.transformer.resblocks.8.attn.in_proj_weight", "both attn.qkv and attn.in_proj"),
    ],
)
def test_unknown_weights_are_named(state, fit, key, message):
    with pytest.raises(ModelError, match=message):
        fit(state | {f"module.{key}": torch.zeros(2)})


def test_weights_that_are_there_twice_are_not_chosen_from(state, fit):
    with pytest.raises(ModelError, match=r"some weights twice, with and without `module\.`"):
        fit(state | {"decoder.linear_pred.bias": torch.ones(21)})


def test_weights_of_wrong_shape_and_no_numbers_are_named(state, fit):
    key = "module.decoder.linear_pred.bias"
    with pytest.raises(ModelError, match=r"decoder.linear_pred.bias must be \(21,\), got \(20,\)"):
        fit(state | {key: state[key][1:]})
    with pytest.raises(ModelError, match="decoder.linear_pred.bias has values that are no finite numbers"):
        fit(state | {key: state[key] * float("nan")})


class Code:
    """Unpickling it makes a folder."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_a_pickle_with_code_is_refused_unexecuted(state, tmp_path):
    torch.save(state | {"code": Code(tmp_path / "ran")}, tmp_path / "c.pth")
    with pytest.raises(ModelError, match="holds more than tensors, which is never run") as refused:
        read_published(tmp_path / "c.pth")
    assert not (tmp_path / "ran").exists() and "\n" not in str(refused.value)
    torch.load(tmp_path / "c.pth", weights_only=False)  # it would have run
    assert (tmp_path / "ran").is_dir()


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda path: None, "there is no such file; give a checkpoint of the published code"),
        (lambda path: path.write_text("a picture"), "neither a file of torch nor safetensors, and begins with 'a picture'"),
        (lambda path: path.write_bytes(b""), "the file is empty"),
        (lambda path: path.write_bytes(b"PK\x03\x04 and no more"), "not readable as weights"),
        (lambda path: torch.save([1, 2], path), "holds no state dict"),
        (lambda path: torch.save({"lr": 0.1}, path), "no state dict of dense tensors alone: lr"),
        (lambda path: torch.save({"a": torch.zeros(2, device="meta")}, path), "no state dict of dense tensors alone: a"),
        (lambda path: torch.save({"a": torch.eye(2).to_sparse()}, path), "no state dict of dense tensors alone: a"),
        (lambda path: torch.save({"visual.proj": torch.zeros(2)}, path), "no decoder_fts_fuse.* but visual.proj"),
    ],
)
def test_other_files_are_refused_with_a_reason(tmp_path, write, message):
    write(tmp_path / "c.pth")
    with pytest.raises(ModelError) as refused:
        read_published(tmp_path / "c.pth")
    assert message in str(refused.value) and "\n" not in str(refused.value)


def test_a_head_without_its_encoder_is_no_whole_checkpoint(state, fit):
    with pytest.raises(ModelError, match=r"no encoder\.\*"):
        fit({key: value for key, value in state.items() if "encoder" not in key})


def test_what_is_computed_otherwise_is_said(clip, state, tmp_path):
    torch.save(state, tmp_path / "c.pth")
    checkpoint = read_published(tmp_path / "c.pth")
    assert checkpoint.differences(clip, CamSpec()) == []
    other = CamSpec(normalisation="clip", calibration=CalibrationSpec(layers="true", depth=3))
    assert checkpoint.differences(published_clip(quick_gelu=False), other) == [
        "cams.normalisation is clip, not imagenet",
        "cams.calibration.layers is true, not published",
        "cams.calibration.depth is 3, not 5",
        "the CLIP's activation is GELU, not QuickGELU",
    ]


def test_files_of_other_kinds_are_not_taken_for_one(tmp_path):
    save_file({"segmenter.neck": torch.zeros(2)}, tmp_path / "own.safetensors")
    (tmp_path / "text.txt").write_text("words, more than eight bytes of them")
    for name in ("own.safetensors", "text.txt", "missing.safetensors", "."):
        assert not is_published(tmp_path / name)


def test_what_is_called_a_checkpoint_is_read_as_one_and_says_why_not(tmp_path):
    (tmp_path / "text.pth").write_text("<!DOCTYPE html>")
    (tmp_path / "folder.pth").mkdir()
    for name, why in (("text.pth", "it is a web page"), ("folder.pth", "is not a file"), ("gone.pt", "no such file")):
        assert is_published(tmp_path / name)
        with pytest.raises(ModelError, match=why):
            read_published(tmp_path / name)
