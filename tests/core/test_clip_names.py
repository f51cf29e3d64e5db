"""Settings that fit each other and the CLIP, and those that are told before work starts that they do not."""

import pytest

from excel_core.config.methods import METHODS
from excel_core.config.presets import PRESETS, preset, with_settings
from excel_core.errors import ModelError, SettingError
from excel_core.models.clip_names import check_settings_fit_clip


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("method", METHODS)
def test_presets_fit(name, method):
    check_settings_fit_clip(preset(name, method))
    check_settings_fit_clip(with_settings(preset(name, method), ["clip.model=excel-tiny"]))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["cams.image_size=129"], "cams.image_size=129: expected a multiple of 8, patch of excel-tiny; set 136"),
        (["train.crop=33"], "train.crop=33: expected a multiple of 8"),
        (["predict.image_size=50"], "predict.image_size=50: expected a multiple of 8"),
        (
            ["clip.model=ViT-L-14:openai"],
            "cams.image_size=128: expected a multiple of 14, patch of ViT-L-14:openai; set 140",
        ),
        (["cams.calibration.depth=9"], "cams.calibration.depth=9: expected at most 8, the blocks of excel-tiny"),
        (["refine.affinity.layers=9"], "refine.affinity.layers=9: expected at most 8"),
        (["train.segmenter.heads=7"], "train.segmenter.width=64: expected a multiple of train.segmenter.heads=7"),
        (["train.scale=[2, 0.5]"], r"train.scale=\[2.0, 0.5\]: expected the least first"),
    ],
)
def test_what_does_not_fit_is_named(settings, message):
    with pytest.raises(SettingError, match=message) as refused:
        check_settings_fit_clip(with_settings(preset("demo"), settings))
    assert "\n" not in str(refused.value)


def test_what_is_not_used_need_not_fit():
    check_settings_fit_clip(with_settings(preset("demo"), ["cams.calibration.attention=qk", "cams.calibration.depth=9"]))


def test_a_tower_that_is_no_transformer():
    with pytest.raises(ModelError, match="RN50 is not a plain CLIP: its vision tower is a ResNet"):
        check_settings_fit_clip(with_settings(preset("voc"), ["clip.model=RN50:openai"]))


@pytest.mark.parametrize(
    "setting",
    ["predict.scales=[]", "predict.scales=[.inf]", "predict.scales=[1e9]", "refine.par.dilations=[]", "train.scale=[1, .inf]",
     "knowledge.weight=.inf", "train.power=.inf", "train.learning_rate=.nan"],
)  # fmt: skip
def test_lists_of_nothing_and_numbers_that_are_none(setting):
    with pytest.raises(SettingError, match=setting.partition("=")[0]):
        with_settings(preset("demo"), [setting])
