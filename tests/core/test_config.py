"""Specs refuse what is wrong and say what is right; presets carry the published numbers."""

import pytest

from excel_core.config.methods import METHODS
from excel_core.config.presets import PRESETS, preset, with_method, with_settings
from excel_core.errors import SettingError


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("method", [f"{name}:{variant}" for name, variants in METHODS.items() for variant in variants])
def test_every_preset_and_method_is_valid(name, method):
    run = preset(name, method)
    assert (run.preset, run.method) == (name, method)
    assert type(run).model_validate_json(run.model_dump_json()) == run


def test_published_numbers():
    voc, coco = preset("voc"), preset("coco")
    assert (voc.knowledge.attributes, coco.knowledge.attributes) == (112, 224)
    assert (voc.refine.affinity.threshold, coco.refine.affinity.threshold) == (0.79, 0.88)
    assert (voc.train.iterations, voc.train.dynamic_from, voc.train.own_argmax_from) == (30_000, 14_000, 24_000)
    assert (coco.train.iterations, coco.train.dynamic_from, coco.train.own_argmax_from) == (100_000, 30_000, None)
    assert (voc.train.warmup, coco.train.warmup) == (50, 200)
    assert voc.predict.scales == (0.7, 1.0, 1.2, 1.5)
    assert preset("voc", "clean").train.padding == "ignored" and voc.train.padding == "labelled"


def test_the_paper_as_printed():
    """Method 8: what sections 3.2 to 3.4 and 4.1 print; the rest is as in reference."""
    run, reference = preset("voc", "paper"), preset("voc")
    assert not run.knowledge.normalise and run.knowledge.weight == 1
    cams, calibration = run.cams, run.cams.calibration
    assert (cams.features, cams.minmax, cams.surgery) == ("over_channels", "patches", False)
    assert (calibration.depth, calibration.heads, calibration.layers) == (5, "each", "true")
    assert (calibration.relation_mean, calibration.probability) == ("image", "cosine")
    train = run.train
    assert (train.learning_rate, train.weight_decay, train.iterations) == (1e-4, 1e-2, 30_000)
    assert (train.dynamic_from, train.own_argmax_from, train.pair_targets) == (0, None, "static")
    assert (train.segmentation_loss, train.diversity_loss, train.radius) == ("mean", "printed", None)
    assert train.diversity_weight == 0.1 and train.segmenter.dropout == 0
    assert (run.refine, run.predict, run.dynamic) == (reference.refine, reference.predict, reference.dynamic)
    assert preset("coco", "paper").train.iterations == 100_000


def test_what_is_published_for_each_data_set():
    voc, coco = preset("voc"), preset("coco")
    assert (voc.dataset.train_split, voc.dataset.seed_splits) == ("train_aug", ("train",))
    assert (voc.train.crop_rule, coco.train.crop_rule) == ("pseudo", "random")
    assert (voc.train.order_seed, coco.train.order_seed) == (2732, 68268)
    assert voc.train.precision == coco.train.precision == "fp32"
    assert voc.knowledge.n_init == coco.knowledge.n_init == 10


def test_settings_reach_nested_fields():
    run = with_settings(preset("voc"), ["refine.par.iterations=3", "predict.scales=[1.0]", "train.own_argmax_from=null"])
    assert run.refine.par.iterations == 3 and run.predict.scales == (1.0,) and run.train.own_argmax_from is None


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("refine.par.iteration=3", r"unknown field 'refine.par.iteration'; valid fields: .*refine.par.iterations"),
        ("refined.par=3", "unknown field 'refined'; valid fields: dataset, describe"),
        ("preset.x=1", "unknown field 'preset'"),
        ("refine.par=3", "'refine.par' is a group; set one of its fields: refine.par.enabled"),
        ("train.iterations", "expected stage.field=value"),
        ("train.iterations=-1", "train.iterations: .*greater than or equal to 1; got -1"),
        ("cams.normalisation=voc", "cams.normalisation: .*'imagenet' or 'clip'"),
        ("train.iterations=[1", "not readable"),
        ("figures.images=[2007_000033]", "figures.images: an id must be text, got the number 2007000033; quote ids"),
        ("figures.images=[000000000127]", "got the number 87"),  # octal to YAML
    ],
)
def test_wrong_settings_name_the_field(setting, message):
    with pytest.raises(SettingError, match=message):
        with_settings(preset("voc"), [setting])


def test_ids_of_digits_are_quoted():
    run = with_settings(preset("voc"), ['figures.images=["2007_000033", aeroplane]'])
    assert run.figures.images == ("2007_000033", "aeroplane")


def test_the_word_true_needs_no_quotes():
    assert with_settings(preset("voc"), ["cams.calibration.layers=true"]).cams.calibration.layers == "true"


def test_unknown_preset_and_method():
    with pytest.raises(SettingError, match="unknown preset 'vco'; valid presets: voc, coco, photos, demo"):
        preset("vco")
    with pytest.raises(
        SettingError, match=r"unknown method 'best'; valid methods: excel\[:reference\|paper\|clean\], maskclip"
    ):
        preset("voc", "best")
    for wrong in ("clip_es:paper", "clip_es:", ":clean", "excel:best", "clean:clean", ""):
        with pytest.raises(SettingError, match="valid methods"):
            preset("voc", wrong)


def test_a_method_may_be_written_short():
    assert preset("voc", "clean") == preset("voc", "excel:clean") and preset("voc", "excel") == preset("voc")
    assert preset("voc").method == "excel:reference" and preset("coco", "clip_es").method == "clip_es:reference"
    for name, variants in METHODS.items():
        assert preset("demo", name).method == f"{name}:reference"
        assert [preset("demo", f"{name}:{variant}").method for variant in variants] == [f"{name}:{v}" for v in variants]


def test_what_is_published_of_clip_es():
    """peers.md 2: boxes, blocks, the CRF's parameters and limit."""
    voc, coco, clean = preset("voc", "clip_es"), preset("coco", "clip_es"), preset("voc", "clip_es:clean")
    assert (voc.refine.affinity.threshold, coco.refine.affinity.threshold) == (0.4, 0.7)
    assert (voc.refine.affinity.layers, voc.refine.affinity.scale, voc.refine.par.enabled) == (8, "mean", False)
    assert (voc.cams.producer, voc.cams.input, voc.cams.normalisation) == ("gradcam", "native", "clip")
    crf = voc.refine.crf
    assert (crf.iterations, crf.gaussian_sigma, crf.gaussian_weight) == (10, 1, 3)
    assert (crf.bilateral_sigma, crf.bilateral_colour_sigma, crf.bilateral_weight) == (67, 3, 4)
    assert (crf.normalised, crf.image, crf.confidence, voc.refine.precision) == (False, "wrapped_bgr", 0.95, "fp16")
    assert (clean.refine.crf.normalised, clean.refine.crf.image, clean.refine.precision) == (True, "photo", "fp32")
    assert not voc.train.enabled and voc.evaluate.kinds == ("static",)


def test_from_one_method_to_another_and_back():
    own = with_settings(preset("coco"), ["refine.par.iterations=3"])
    peer = with_method(own, "clip_es")
    assert peer == with_settings(preset("coco", "clip_es"), ["refine.par.iterations=3"])
    assert with_method(peer, "excel") == own
