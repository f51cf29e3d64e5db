"""WeCLIP's way of looking at a photo: sizes, the sampling grid of scales, flips, and what is cut off (peers.md 3.8)."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from excel_core.cams.cam_model import CamModel
from excel_core.config import CamSpec, PredictSpec, SegmenterSpec
from excel_core.models.photo_input import longest_side_size, photo_grid
from excel_core.models.segmenter import Segmenter
from excel_core.prediction.longest_side import (
    grid_logits,
    longest_side_input,
    photo_logits,
    scaled_input,
    segment_longest_side,
)

SPEC = PredictSpec.model_validate({"protocol": "longest_side", "image_size": 64, "scales": (1.0, 0.75), "flip": "all"})


@pytest.fixture
def model(small_clip):
    """The small CLIP as WeCLIP uses it; texts do not matter here."""
    text = F.normalize(torch.randn(5, 16, generator=torch.Generator().manual_seed(0)), dim=1)
    return CamModel(small_clip, text, 3, CamSpec(producer="gradcam", input="longest_side", image_size=64))


@pytest.fixture
def segmenter():
    torch.manual_seed(0)
    return Segmenter(4, 32, 3, SegmenterSpec(width=16, layers=1, heads=2, blocks="before_last")).eval()


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(0, 255, (50, 71, 3), dtype=np.uint8)


def test_sides_are_truncated_in_double_precision():
    short = [side for side in range(100, 641) if longest_side_size((side, 90), 512, 16, False)[0] == 511]
    assert len(short) == 35 and {322, 428, 498, 499, 501} <= set(short)
    assert all(longest_side_size((side, 90), 512, 16, False)[0] in (511, 512) for side in range(100, 641))
    assert longest_side_size((112, 150), 224, 16, False) == (167, 224)
    assert longest_side_size((110, 150), 224, 16, False) == (164, 224)


def test_sides_of_whole_patches_and_thin_photos():
    assert longest_side_size((112, 150), 224, 16, True) == (160, 224)
    assert longest_side_size((322, 500), 512, 16, True) == (336, 512)
    assert longest_side_size((3, 1000), 512, 16, False) == (16, 512)
    assert longest_side_size((3, 1000), 512, 16, True, least=22) == (22, 512)


def test_the_grid_of_cams_follows_the_input():
    assert photo_grid((112, 150), 16, CamSpec(input="longest_side", image_size=224)) == (10, 14)
    assert photo_grid((112, 150), 16, CamSpec()) is None


def test_a_scale_sets_the_sampling_grid():
    """At 0.75, output 1 is read at (1 + 0.5) / 0.75 - 0.5 = 1.5 of the input, whatever the ratio of sizes."""
    ramp = torch.arange(11.0).expand(1, 3, 11, 11)
    view = scaled_input(ramp, 0.75, 8, whole_patches=False)
    assert view.shape == (1, 3, 8, 8)
    assert torch.allclose(view[0, 0, 0], torch.tensor([(i + 0.5) / 0.75 - 0.5 for i in range(8)]), atol=1e-5)
    whole = scaled_input(torch.zeros(1, 3, 64, 48), 0.75, 8, whole_patches=True)
    assert whole.shape == (1, 3, 48, 32)


def _logits(model, segmenter, view):
    h, w = (side // 8 * 8 for side in view.shape[-2:])
    encoded = model.encode(view[..., :h, :w])
    return segmenter(*model.segmenter_input(encoded)).logits


def test_logits_are_means_of_flips_then_of_scales(model, segmenter, image):
    network_input = longest_side_input(model, image, SPEC)
    assert network_input.shape == (1, 3, 45, 64)
    small = F.interpolate(network_input, scale_factor=0.75, mode="bilinear", align_corners=False)
    by_scale = []
    with torch.no_grad():
        found = grid_logits(model, segmenter, network_input, SPEC)
        for view in (network_input, small):
            pair = [_logits(model, segmenter, each) for each in (view, view.flip(-1))]
            straight, mirrored = (F.interpolate(each, size=(5, 8), mode="bilinear", align_corners=False) for each in pair)
            by_scale.append((straight[0] + mirrored[0].flip(-1)) / 2)
        single = _logits(model, segmenter, network_input)[0]
    assert torch.allclose(found.by_scale, torch.stack(by_scale), atol=1e-5)
    assert torch.allclose(found.mean, (by_scale[0] + by_scale[1]) / 2, atol=1e-5)
    assert torch.allclose(found.single, single, atol=1e-5)


@torch.no_grad()
def test_the_remainder_is_cut_and_the_rest_is_stretched(model, segmenter, image):
    """The last rows, less than a patch, change nothing; logits of the others cover the whole photo."""
    network_input = longest_side_input(model, image, SPEC)
    other = network_input.clone()
    other[..., 40:, :] = 9
    views = (network_input, other)
    one, two = (grid_logits(model, segmenter, view, SPEC.model_copy(update={"scales": (1.0,)})).mean for view in views)
    assert torch.equal(one, two)
    (full,) = segment_longest_side(model, segmenter, [image], SPEC, multi_scale=False)
    assert full.shape == (4, 50, 71)
    small = photo_logits(model, segmenter, image, SPEC, multi_scale=False)
    assert torch.equal(full, F.interpolate(small[None], size=(50, 71), mode="bilinear", align_corners=False)[0])


def test_an_input_never_becomes_smaller_than_a_patch(model):
    thin = np.zeros((2, 90, 3), dtype=np.uint8)
    network_input = longest_side_input(model, thin, SPEC)
    assert min(scaled_input(network_input, 0.75, 8, whole_patches=False).shape[-2:]) >= 8
