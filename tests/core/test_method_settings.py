"""Options of another method are refused before work starts, with the valid ones."""

from typing import get_args

import pytest

from excel_core.config.methods import METHODS
from excel_core.errors import ModelError, SettingError
from flows.request import RunRequest
from flows.request_fields import MethodName


def _spec(method, *settings, preset="demo", **fields):
    return RunRequest.checked(preset=preset, method=method, settings=list(settings), **fields).spec()


def test_the_form_offers_every_method():
    names = {f"{name}:{variant}" for name, variants in METHODS.items() for variant in variants}
    assert set(get_args(MethodName)) == {*METHODS, *names, *METHODS["excel"]}


@pytest.mark.parametrize("preset", ["voc", "coco", "photos", "demo"])
@pytest.mark.parametrize("method", ["clip_es", "clip_es:clean", "maskclip", "maskclip:clean", "excel:paper", "clean"])
def test_methods_as_they_are_pass(preset, method):
    clip = {} if preset == "demo" else {"clip": "ViT-B-16:openai"}
    assert _spec(method, preset=preset, **clip).preset == preset


@pytest.mark.parametrize(
    ("method", "settings", "message"),
    [
        (
            "clip_es",
            ["cams.surgery=false"],
            r"cams.surgery: method clip_es:reference \(cams.producer=gradcam\) does not use it; ",
        ),
        ("clip_es", ["cams.surgery=false"], "its settings of cams: cams.producer, cams.input"),
        ("clip_es", ["cams.calibration.depth=3"], "cams.calibration.depth: method clip_es"),
        ("clip_es", ["cams.image_size=64"], r"cams.image_size: .*\(cams.input=native\) does not use it"),
        ("clip_es", ["train.iterations=3"], r"train.iterations: .*\(train.enabled=false\) does not use it"),
        ("maskclip", ["predict.scales=[1.0]"], "predict.scales: method maskclip:reference"),
        ("clip_es", ["knowledge.attributes=3"], r"knowledge.attributes: .*\(describe.provider=none\)"),
        ("clip_es", ["knowledge.mode=attributes"], "knowledge.mode: method clip_es"),
        (
            "clip_es",
            ["train.enabled=true"],
            "train.enabled: method clip_es:reference trains no segmenter; methods that do: excel",
        ),
        ("clip_es", ["cams.window=64"], "cams.window: views are of a square input .* cams.producer=gradcam, cams.input=native"),
        ("weclip", ["cams.scales=[0.5,1.0]"], "cams.scales: views are of a square input .* got cams.producer=gradcam"),
        ("excel", ["cams.input=longest_side", "cams.window=64"], "cams.window: views .* cams.input=longest_side; leave cams.w"),
        ("clip_es", ["cams.calibration.attention=kk"], "cams.calibration.attention: method clip_es"),
        ("clip_es", ["cams.calibration.middle_share=0.3"], "cams.calibration.middle_share: method clip_es"),
        ("clip_es", ["cams.precision=bf16"], "cams.precision=bf16: GradCAM is computed in fp32 alone"),
        ("excel", ["describe.provider=none"], "knowledge.mode=attributes needs descriptions, and describe.provider is none"),
        ("clip_es:paper", [], r"unknown method 'clip_es:paper'; valid methods: excel\[:reference\|paper\|clean\]"),
    ],
)
def test_an_option_of_another_method_is_refused(method, settings, message):
    with pytest.raises(SettingError, match=message):
        _spec(method, *settings)


def test_what_a_method_uses_may_be_set():
    run = _spec("clip_es", "refine.background_power=2", "refine.affinity.threshold=0.5", "refine.crf.confidence=0.9")
    assert run.refine.background_power == 2
    trained = _spec("maskclip", "train.enabled=true", "train.iterations=3", "evaluate.kinds=[static,lvc,segmentation]")
    assert trained.train.iterations == 3 and trained.cams.calibration.attention == "v"
    assert _spec("excel", "knowledge.mode=none", "describe.provider=none").describe.provider == "none"


def test_a_clip_of_another_patch_fits_native_sizes():
    """Of sides, only those that the method uses must be whole patches."""
    assert _spec("clip_es", preset="voc", clip="ViT-L-14:openai").clip.model == "ViT-L-14:openai"
    with pytest.raises(SettingError, match="cams.image_size=320: expected a multiple of 14"):
        _spec("maskclip", preset="voc", clip="ViT-L-14:openai")


def test_weights_without_a_logit_scale_are_refused_before_work(tmp_path):
    from safetensors.torch import load_file, save_file

    from excel_core.models.clip_names import BUILT_IN_FOLDER

    state = load_file(BUILT_IN_FOLDER / "tiny_clip.safetensors")
    state.pop("logit_scale")
    save_file(state, tmp_path / "c.safetensors")
    request = RunRequest.checked(
        preset="demo", method="clip_es", clip=f"excel-tiny:{tmp_path / 'c.safetensors'}", store=str(tmp_path)
    )
    with pytest.raises(ModelError, match="hold no logit_scale, which GradCAM needs"):
        request.resolve()
    assert not (tmp_path / "records").exists()
