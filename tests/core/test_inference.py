"""Segmentation at several scales: which sides are seen, and that flips and averages are what they say."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from excel_core.config import PredictSpec
from excel_core.config.presets import preset
from excel_core.models.clip import normalise_pixels
from excel_core.prediction.inference import network_logits, scale_plan, segment_multi_scale, segment_single_scale


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(0, 255, (40, 56, 3), dtype=np.uint8)


def test_scales_do_not_compound():
    plan = scale_plan(320, 16, PredictSpec(scales=(0.7, 1.0, 1.2, 1.5)))
    assert plan == [(224, True), (320, False), (384, True), (480, True)]  # the published VOC forgets one flip
    assert scale_plan(320, 16, PredictSpec(flip="all"))[1] == (320, True)


def test_sides_of_scales_are_the_published_ones_unless_whole_patches_are_asked_for():
    sides = [[side for side, _ in scale_plan(224, 16, PredictSpec(sides=kind))] for kind in ("published", "whole_patches")]
    assert sides == [[156, 224, 268, 336], [160, 224, 272, 336]]
    assert [preset(*of).predict.sides for of in (("voc",), ("coco",), ("voc", "clean"), ("demo",))] == [
        *("published", "published", "whole_patches", "whole_patches")
    ]


@torch.inference_mode()
def test_what_is_left_over_of_a_patch_is_cut_off(cam_model, segmenter, image):
    """48 · 0.9 = 43 pixels: the photo at that side, its last pixels unseen, the logits over the whole photo."""
    (logits,) = segment_multi_scale(cam_model, segmenter, [image], PredictSpec(scales=(0.9,), flip="not_at_1"))
    whole = 43 // cam_model.clip.patch * cam_model.clip.patch
    seen = cam_model.prepare_image(image, 43)[..., :whole, :whole]
    straight, mirrored = (
        network_logits(cam_model, segmenter, view)[0] for view in (seen, cam_model.prepare_image(image, 43).flip(-1))
    )
    grids = torch.stack([straight, mirrored.flip(-1)])
    torch.testing.assert_close(logits, F.interpolate(grids, size=(40, 56), mode="bilinear").mean(dim=0))


@torch.inference_mode()
def test_one_scale_without_flip_is_single_scale(cam_model, segmenter, image):
    (multi,) = segment_multi_scale(cam_model, segmenter, [image], PredictSpec(scales=(1.0,)))
    (single,) = segment_single_scale(cam_model, segmenter, [image])
    assert single.shape == (4, 40, 56)
    torch.testing.assert_close(multi, single)


@torch.inference_mode()
def test_flip_averaging_makes_mirrored_images_agree(cam_model, segmenter, image):
    spec = PredictSpec(scales=(0.7, 1.0), flip="all")
    mirror = np.ascontiguousarray(image[:, ::-1])
    straight, mirrored = segment_multi_scale(cam_model, segmenter, [image, mirror], spec)
    torch.testing.assert_close(straight, mirrored.flip(-1), atol=1e-4, rtol=1e-3)


@torch.inference_mode()
def test_scales_and_flips_are_averaged_on_logits(cam_model, segmenter, image):
    alone = [segment_multi_scale(cam_model, segmenter, [image], PredictSpec(scales=(s,), flip="all"))[0] for s in (0.5, 1.5)]
    (both,) = segment_multi_scale(cam_model, segmenter, [image], PredictSpec(scales=(0.5, 1.5), flip="all"))
    torch.testing.assert_close(both, (alone[0] + alone[1]) / 2)


@torch.inference_mode()
def test_every_scale_is_resized_from_the_photo(cam_model, segmenter, image):
    """A scale twice as large sees what the photo shows, not an enlarged 48 x 48."""
    seen = []
    original = cam_model.clip.tokens
    cam_model.clip.tokens = lambda batch: seen.append(batch) or original(batch)
    try:
        segment_multi_scale(cam_model, segmenter, [image], PredictSpec(scales=(1.0, 2.0)))
    finally:
        cam_model.clip.tokens = original
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255
    for batch, side in zip(seen, (48, 96), strict=True):
        expected = normalise_pixels(F.interpolate(pixels, size=(side, side), mode="bilinear"), "imagenet")
        torch.testing.assert_close(batch[:1], expected)


@torch.inference_mode()
def test_flips_are_averaged_before_scales(cam_model, segmenter, image):
    """Each scale weighs the same, whether it is flipped or not: not a mean over all views."""
    one, other = (
        segment_multi_scale(cam_model, segmenter, [image], PredictSpec(scales=(scale,), flip="not_at_1"))[0]
        for scale in (1.0, 1.5)
    )
    (both,) = segment_multi_scale(cam_model, segmenter, [image], PredictSpec(scales=(1.0, 1.5), flip="not_at_1"))
    torch.testing.assert_close(both, (one + other) / 2)


@torch.inference_mode()
def test_logits_are_averaged_small_as_for_coco(cam_model, segmenter, image):
    spec = PredictSpec(scales=(1.0,), flip="not_at_1", average_at=0.2)
    grid = segmenter(cam_model.layers(encoded := cam_model.encode(cam_model.prepare([image]))), encoded.activations.grid).logits
    small = F.interpolate(grid, size=(8, 11), mode="bilinear")  # int(0.2 * 40), int(0.2 * 56)
    expected = F.interpolate(small, size=(40, 56), mode="bilinear")[0]
    torch.testing.assert_close(segment_multi_scale(cam_model, segmenter, [image], spec)[0], expected)
    assert (preset("coco").predict.average_at, preset("voc").predict.average_at) == (0.2, 1.0)


@torch.inference_mode()
@pytest.mark.parametrize("tokens_at_once", [1, 2**14])
def test_images_of_different_sizes_are_segmented_together(cam_model, segmenter, image, monkeypatch, tokens_at_once):
    monkeypatch.setattr("excel_core.prediction.inference.MAX_TOKENS", tokens_at_once)
    images, spec = [image, image[:30], image[:, ::2]], PredictSpec(scales=(1.0, 1.5), flip="not_at_1")
    for together, alone in (
        (
            segment_multi_scale(cam_model, segmenter, images, spec),
            lambda one: segment_multi_scale(cam_model, segmenter, [one], spec),
        ),
        (segment_single_scale(cam_model, segmenter, images), lambda one: segment_single_scale(cam_model, segmenter, [one])),
    ):
        for logits, one in zip(together, images, strict=True):
            assert logits.shape[1:] == one.shape[:2]
            torch.testing.assert_close(logits, alone(np.ascontiguousarray(one))[0], atol=1e-4, rtol=1e-3)
