"""CAMs over several views: where windows lie, what is blended, and that one view is what it was."""

from itertools import pairwise

import numpy as np
import pytest
import torch

from excel_core.cams.affinity import affinity_cams, affinity_matrix, box_masks
from excel_core.cams.cam_model import CamModel
from excel_core.cams.pseudo_labels import refine_labels
from excel_core.cams.seeds import patch_attention, static_cams
from excel_core.cams.windows import blend_windows, cut_windows, window_corners, window_values
from excel_core.config import AffinitySpec, CamSpec, RefineSpec
from excel_core.config.presets import preset, with_settings
from excel_core.errors import SettingError
from excel_core.models.clip_names import check_settings_fit_clip

PATCH = 8  # of the small CLIP


def _spec(**fields):
    return CamSpec(image_size=64, calibration={"depth": 2}, **fields)


def _model(clip, **fields):
    text = torch.nn.functional.normalize(torch.randn(5, 16, generator=torch.Generator().manual_seed(2)), dim=1)
    return CamModel(clip, text, 3, _spec(**fields))


@pytest.fixture
def network_input():
    """Two photos of 8 x 8 patches."""
    return torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(5))


@pytest.mark.parametrize("grid,window", [((8, 8), 4), ((7, 5), 4), ((20, 13), 5), ((4, 4), 4), ((9, 9), 1)])
def test_windows_cover_the_grid_and_half_of_their_neighbours(grid, window):
    corners = window_corners(grid, window)
    seen = np.zeros(grid, dtype=int)
    for top, left in corners:
        assert top + window <= grid[0] and left + window <= grid[1]
        seen[top : top + window, left : left + window] += 1
    assert seen.min() >= 1 and len(set(corners)) == len(corners)
    rows = sorted({top for top, _ in corners})
    assert all(b - a <= max(1, -(-window // 2)) for a, b in pairwise(rows))


def test_cut_windows_are_the_pixels_of_their_patches(network_input):
    views = list(cut_windows(network_input, 32, PATCH, at_once=4))
    assert [len(view) for view in views] == [4, 4, 4, 4, 2]
    first = window_corners((8, 8), 4)
    for index, view in enumerate(torch.cat(views)):
        photo, (top, left) = index // len(first), first[index % len(first)]
        expected = network_input[photo, :, 8 * top : 8 * top + 32, 8 * left : 8 * left + 32]
        assert torch.equal(view, expected)


def test_blending_what_windows_hold_gives_the_map_back():
    maps = torch.rand(2, 3, 9, 7)
    torch.testing.assert_close(blend_windows(window_values(maps, 4), (9, 7)), maps)


def test_one_view_is_what_it_was(small_clip, network_input):
    with torch.no_grad():
        model = _model(small_clip)
        seeds = static_cams(model, network_input, RefineSpec())
        encoded = model.encode(network_input, 6, with_patch_tokens=False)
        assert torch.equal(seeds.cams, model.cams(encoded)) and seeds.attention.shape == (2, 64, 64)


def test_scales_are_averaged_on_the_grid(small_clip, network_input):
    with torch.no_grad():
        both = static_cams(_model(small_clip, scales=(0.5, 1.0)), network_input, RefineSpec())
        whole = static_cams(_model(small_clip), network_input, RefineSpec())
        half = torch.nn.functional.interpolate(network_input, size=(32, 32), mode="bilinear", antialias=True)
        small = static_cams(_model(small_clip), half).cams
        small = torch.nn.functional.interpolate(small, size=(8, 8), mode="bilinear")
    torch.testing.assert_close(both.cams, (small + whole.cams) / 2)
    torch.testing.assert_close(both.attention, whole.attention)


def test_a_window_counts_as_much_as_the_whole_photo_shows_there(small_clip, network_input):
    model = _model(small_clip, window=32)
    with torch.no_grad():
        seeds = static_cams(model, network_input, RefineSpec())
        shrunk = torch.nn.functional.interpolate(network_input, size=(32, 32), mode="bilinear", antialias=True)
        whole = static_cams(_model(small_clip), shrunk).cams
        whole = torch.nn.functional.interpolate(whole, size=(8, 8), mode="bilinear")
        total, weights = torch.zeros(3, 8, 8), torch.zeros(8, 8)
        tent = torch.tensor([1.0, 2.0, 2.0, 1.0])
        for top, left in window_corners((8, 8), 4):  # of the second photo, one by one
            part = (slice(top, top + 4), slice(left, left + 4))
            view = network_input[1:, :, 8 * top : 8 * top + 32, 8 * left : 8 * left + 32]
            cam = static_cams(_model(small_clip), view).cams[0]
            total[:, *part] += tent[:, None] * tent * cam * whole[1][:, *part].amax(dim=(1, 2), keepdim=True)
            weights[part] += tent[:, None] * tent
    torch.testing.assert_close(seeds.cams[1], (whole[1] + total / weights) / 2, atol=1e-5, rtol=1e-4)
    assert seeds.cams.min() >= 0 and seeds.cams.max() <= 1
    assert seeds.attention.shape == (2, 9, 16, 16)
    torch.testing.assert_close(patch_attention(model, network_input, RefineSpec()), seeds.attention)


def test_affinity_spreads_within_each_window():
    torch.manual_seed(0)
    cams, attention = torch.rand(2, 8, 8), torch.rand(9, 16, 16)
    spec = AffinitySpec()
    refined = affinity_cams(cams, attention, spec)
    masked = box_masks(cams, spec.threshold) * cams
    parts = []
    for (top, left), weights in zip(window_corners((8, 8), 4), attention, strict=True):
        part = masked[:, top : top + 4, left : left + 4].flatten(1)
        parts.append((part @ affinity_matrix(weights, spec).T).reshape(2, 4, 4))
    torch.testing.assert_close(refined, blend_windows(torch.stack(parts), (8, 8)))


def test_a_photo_is_refined_from_windows(small_clip):
    photo = np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)
    model = _model(small_clip, window=32, scales=(0.5, 1.0))
    spec = RefineSpec(crf={"enabled": False}, par={"iterations": 2})
    with torch.no_grad():
        seeds = static_cams(model, [photo], spec)
        steps = refine_labels(photo, seeds.network_input[0], (0, 2), seeds.cams[0, [0, 2]], seeds.attention[0], spec)
    assert list(steps) == ["raw", "affinity", "par"]
    assert all(labels.shape == (50, 70) and set(np.unique(labels)) <= {0, 1, 3} for labels in steps.values())


@pytest.mark.parametrize(
    "settings,message",
    [
        (["cams.window=128"], "cams.window=128: expected less than cams.image_size=128"),
        (["cams.window=50"], "cams.window=50: expected a multiple of 8"),
        (["cams.scales=[0.5]"], "1.0 must be among the scales"),
        (["cams.scales=[1.0, 1.0]"], "none of them twice"),
        (["cams.scales=[1.0, 2.0]"], "less than or equal to 1"),
    ],
)
def test_views_that_cannot_be_are_refused(settings, message):
    with pytest.raises(SettingError, match=message):
        check_settings_fit_clip(with_settings(preset("demo"), settings))
