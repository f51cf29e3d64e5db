"""`train.from_checkpoint`, and weights of another architecture, are refused before work starts, one line each."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from excel_core.errors import ExcelError, ModelError, SettingError
from excel_core.models.clip_names import BUILT_IN_FOLDER
from excel_core.models.clip_weights import load_clip
from flows.request import RunRequest
from tests.core.published_toys import published_state, seeded_segmenter

NARROW = "train.segmenter.width=16"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """One that fits the demo with narrow segmenters."""
    clip = load_clip("excel-tiny")
    path = tmp_path_factory.mktemp("published") / "c.pth"
    torch.save(published_state(clip, seeded_segmenter(clip, classes=10, width=16)), path)
    return path


def _refused(tmp_path, *settings):
    """Why the request is refused, before there is a store."""
    request = RunRequest(preset="demo", store=str(tmp_path / "store"), settings=[*settings, NARROW])
    with pytest.raises(ExcelError) as error:
        request.resolve()
    assert not (tmp_path / "store").exists() and "\n" not in str(error.value)
    return error.value


def test_one_that_fits_passes(checkpoint, tmp_path):
    settings = [f"train.from_checkpoint={checkpoint}", NARROW]
    assert RunRequest(preset="demo", settings=settings, store=str(tmp_path)).resolve().environment.store == tmp_path


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["train.from_checkpoint=gone.pth"], "there is no file 'gone.pth'; give a .pth, .pt or .safetensors"),
        (
            ["train.from_checkpoint={}", "train.supervision=masks", "evaluate.ablation=false"],
            "leave out train.supervision=masks",
        ),
        (["train.from_checkpoint={}", "train.keep_every=100"], "leave out train.keep_every"),
    ],
)
def test_settings_that_exclude_it(checkpoint, tmp_path, settings, message):
    error = _refused(tmp_path, *(setting.format(checkpoint) for setting in settings))
    assert isinstance(error, SettingError) and message in str(error)


def _other_clip(state):
    state["module.encoder.visual.conv1.weight"][0, 0, 0, 0] += 0.5


def _other_classes(state):
    for end in ("weight", "bias"):
        state[f"module.decoder.linear_pred.{end}"] = state[f"module.decoder.linear_pred.{end}"][:6]


def _foreign(state):
    for key in [key for key in state if "decoder_fts_fuse" in key]:
        del state[key]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_other_clip, "another CLIP than excel-tiny: encoder.visual.conv1.weight differs by up to 0.5"),
        (_other_classes, "expected classes 10, got 5; change dataset.prompts"),
        (_foreign, "no segmenter of the published code"),
    ],
)
def test_files_that_do_not_fit(checkpoint, tmp_path, spoil, message):
    state = torch.load(checkpoint, weights_only=True)
    spoil(state)
    torch.save(state, tmp_path / "c.pth")
    error = _refused(tmp_path, f"train.from_checkpoint={tmp_path / 'c.pth'}")
    assert isinstance(error, ModelError) and message in str(error)


def test_weights_of_another_architecture(tmp_path):
    other = {}
    for model, name, weight in (
        ("excel-tiny", "tiny_clip", "visual.ln_post.weight"),
        ("dino-tiny", "tiny_dino", "norm.weight"),
    ):
        state = load_file(BUILT_IN_FOLDER / f"{name}.safetensors")
        save_file(state | {weight: state[weight][:-1].clone()}, file := tmp_path / f"{name}.safetensors")
        other[model] = f"{model}:{file}"
    for clip, dino in ((other["excel-tiny"], "dino-tiny"), ("excel-tiny", other["dino-tiny"])):
        settings = [f"clip.model={clip}", f"dino.model={dino}"]
        request = RunRequest(preset="demo", method="weclip_plus", store=str(tmp_path / "store"), settings=settings)
        with pytest.raises(ModelError, match="another architecture"):
            request.resolve()
        assert not (tmp_path / "store").exists()
