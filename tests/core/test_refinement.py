"""Affinity, PAR and CRF against plain loops and properties that follow from the formulas."""

import math
import multiprocessing

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from excel_core.cams.affinity import (
    _boxes_by_reachability,
    _boxes_by_region,
    affinity_cams,
    affinity_matrix,
    box_masks,
    dynamic_attention,
    scale_attention,
    upsample_with_background,
)
from excel_core.cams.large_photos import large_label_steps
from excel_core.cams.par import _refine_by_planes, pixel_adaptive_refinement
from excel_core.cams.pseudo_labels import refine_labels, refine_maps
from excel_core.config import AffinitySpec, CalibrationSpec, ParSpec
from excel_core.config.presets import preset


def _rand(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def test_affinity_steps_written_out():
    matrix = _rand(5, 5).numpy()
    expected = matrix.copy()
    for _ in range(3):
        expected = expected / expected.sum(0, keepdims=True)
        expected = expected / expected.sum(1, keepdims=True)
    expected = (expected + expected.T) / 2
    got = affinity_matrix(torch.from_numpy(matrix), AffinitySpec()).numpy()
    np.testing.assert_allclose(got, expected @ expected, rtol=1e-5)


def test_affinity_boxes_zero_columns_only():
    cams, attention = _rand(1, 4, 4), _rand(16, 16, seed=1)
    box = box_masks(cams[0], 0.5).reshape(-1)
    matrix = affinity_matrix(attention, AffinitySpec())
    expected = (matrix * box) @ cams.reshape(16)
    got = affinity_cams(cams, attention, AffinitySpec(threshold=0.5))
    torch.testing.assert_close(got.reshape(16), expected)


def test_box_mask_of_two_regions():
    cam = np.zeros((6, 7), dtype=np.float32)
    cam[0, 0] = cam[1, 1] = 1.0  # one region through the diagonal
    cam[4, 3] = 0.9
    cam[2, 6] = 0.5  # below the threshold
    expected = np.zeros((6, 7), dtype=bool)
    expected[0:2, 0:2] = True
    expected[4, 3] = True
    assert np.array_equal(box_masks(torch.from_numpy(cam), 0.79), expected)
    cam[5, 6] = 1.0  # exclusive ends are clipped: the last row and column stay out
    assert np.array_equal(box_masks(torch.from_numpy(cam), 0.79), expected)


@given(st.integers(0, 200), st.sampled_from([0.0, 0.4, 0.79]))
def test_box_mask_covers_what_exceeds_the_threshold(seed, threshold):
    cam = np.random.default_rng(seed).random((7, 9), dtype=np.float32)
    grey = (cam * 255).astype(np.uint8)
    inside = box_masks(torch.from_numpy(cam), threshold).numpy()
    above = grey > int(threshold * grey.max())
    assert inside[:-1, :-1][above[:-1, :-1]].all() and not inside[-1].any() and not inside[:, -1].any()


@given(st.integers(0, 2**32 - 1), st.floats(0.05, 0.95), st.sampled_from([(7, 9), (1, 5), (12, 3)]))
def test_boxes_on_a_device_are_those_of_the_regions(seed, share, shape):
    above = torch.rand(3, *shape, generator=torch.Generator().manual_seed(seed)) < share
    assert torch.equal(_boxes_by_reachability(above), _boxes_by_region(above))


def test_boxes_on_a_device_follow_a_region_to_its_end():
    snake = torch.zeros(1, 20, 20, dtype=torch.bool)
    snake[0, ::2] = True
    snake[0, 1::4, -1] = snake[0, 3::4, 0] = True  # one path through all patches but the gaps
    lone = snake.clone()
    lone[0, 3, 0] = False  # cut in two
    for above in (snake, lone):
        assert torch.equal(_boxes_by_reachability(above), _boxes_by_region(above))


@pytest.mark.parametrize("method", ["excel", "excel:clean", "maskclip", "clip_es", "weclip"])
def test_range_of_a_nearly_flat_refined_cam_includes_the_published_epsilon(method):
    refine = preset("voc", method).refine
    refine = refine.model_copy(update={"precision": "fp32", "par": ParSpec(enabled=False)})
    cams, attention = _rand(2, 5, 7), 1 + 0.1 * _rand(35, 35, seed=1)
    refined = affinity_cams(cams, attention, refine.affinity)
    shifted = refined - refined.amin(dim=(1, 2), keepdim=True)
    image = np.zeros((5, 7, 3), dtype=np.uint8)  # of the grid's size, so nothing is interpolated
    maps = refine_maps(image, _rand(3, 80, 112), cams, attention, refine)["affinity"]
    assert shifted.max() < 1e-4  # where 1e-7 tells
    torch.testing.assert_close(maps[1:], shifted / (shifted.amax(dim=(1, 2), keepdim=True) + 1e-7), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("method", ["excel", "clip_es", "weclip"])
def test_a_photo_without_a_class_is_background(method):
    image, refine = np.random.default_rng(0).integers(0, 256, (30, 41, 3), dtype=np.uint8), preset("voc", method).refine
    photo = (image, _rand(3, 80, 112), [], torch.zeros(0, 5, 7), _rand(35, 35), refine)
    for steps in (refine_labels(*photo), dict(large_label_steps(*photo))):
        assert {"raw", "affinity"} < steps.keys()
        assert all(labels.shape == (30, 41) and not labels.any() for labels in steps.values())


def test_published_scale_sums_heads_in_calibrated_blocks_only():
    attention = _rand(4, 2, 10, 10)
    scaled = scale_attention(attention, 3, CalibrationSpec(depth=2), AffinitySpec())
    torch.testing.assert_close(scaled[:2], attention[:2, :, 1:, 1:])
    torch.testing.assert_close(scaled[2:], 3 * attention[2:, :, 1:, 1:])
    mean = scale_attention(attention, 3, CalibrationSpec(depth=2), AffinitySpec(scale="mean"))
    torch.testing.assert_close(mean, attention[:, :, 1:, 1:])


def test_dynamic_attention_keeps_an_images_low_excess_layers():
    layers, probability = _rand(4, 2, 5, 5), _rand(2, 5, 5, seed=1)
    got = dynamic_attention(layers, probability, AffinitySpec(layers=3))
    for b in range(2):
        excess = [(probability[b] - layers[k, b]).sum().item() for k in (1, 2, 3)]
        kept = [layers[k, b] for k, e in zip((1, 2, 3), excess, strict=True) if e <= np.mean(excess)]
        torch.testing.assert_close(got[b], sum(kept) / (len(kept) + 1e-5) * probability[b])


def test_upsampling_adds_the_background_first():
    maps = upsample_with_background(_rand(2, 4, 4), (9, 13), power=2.0)
    assert maps.shape == (3, 9, 13)
    torch.testing.assert_close(maps[0], (1 - maps[1:].amax(0)) ** 2)


def _naive_par(image, maps, spec):
    """PAR by loops over pixels and neighbours."""
    _, H, W = maps.shape
    moves = [(dy * d, dx * d) for d in spec.dilations for dy in (-1, 0, 1) for dx in (-1, 0, 1) if dy or dx]
    lengths = np.array([max(abs(y), abs(x)) * (math.sqrt(2) if y and x else 1) for y, x in moves])
    position = np.exp(-((lengths / (lengths.std(ddof=1) + 1e-8) / 0.3) ** 2))
    position /= position.sum()

    def at(values, y, x):
        return values[:, min(max(y, 0), H - 1), min(max(x, 0), W - 1)]

    for _ in range(spec.iterations):
        result = np.zeros_like(maps)
        for y in range(H):
            for x in range(W):
                around = np.stack([at(image, y + dy, x + dx) for dy, dx in moves])
                scaled = np.abs(around - image[:, y, x]) / (around.std(0, ddof=1) + 1e-8) / 0.3
                logits = -(scaled**2).mean(1)
                weights = np.exp(logits - logits.max())
                weights = weights / weights.sum() + 0.01 * position
                result[:, y, x] = sum(w * at(maps, y + dy, x + dx) for w, (dy, dx) in zip(weights, moves, strict=True))
        maps = result
    return maps


def test_par_is_the_formula():
    image, maps = _rand(1, 3, 6, 7).double(), _rand(1, 2, 6, 7, seed=1).double()
    spec = ParSpec(dilations=(1, 3), iterations=2)
    expected = _naive_par(image[0].numpy(), maps[0].numpy(), spec)
    np.testing.assert_allclose(pixel_adaptive_refinement(image, maps, spec)[0].numpy(), expected, rtol=1e-9)


def test_par_does_not_care_for_the_colours_scale_or_batch():
    images, maps = _rand(2, 3, 12, 12) * 255, _rand(2, 2, 12, 12, seed=1)
    spec = ParSpec(iterations=3)
    both = pixel_adaptive_refinement(images, maps, spec)
    torch.testing.assert_close(both[1:], pixel_adaptive_refinement(images[1:], maps[1:], spec))
    torch.testing.assert_close(both, pixel_adaptive_refinement(images / 255 * 2 - 1, maps, spec), atol=1e-4, rtol=1e-4)


@given(st.integers(0, 1000), st.integers(1, 3), st.sampled_from([(9, 14), (30, 8), (1, 1)]), st.sampled_from([(1, 3), (2,)]))
def test_par_by_rows_is_par_by_planes(seed, labels, size, dilations):
    image, maps = _rand(2, 3, *size, seed=seed) * 255, _rand(2, labels, *size, seed=seed + 1)
    spec = ParSpec(dilations=dilations, iterations=3)
    torch.testing.assert_close(pixel_adaptive_refinement(image, maps, spec), _refine_by_planes(image, maps, spec))


def test_par_on_any_number_of_threads_is_the_same():
    image, maps, before = _rand(1, 3, 37, 20), _rand(1, 2, 37, 20, seed=1), torch.get_num_threads()
    try:
        found = []
        for threads in (1, 3):
            torch.set_num_threads(threads)
            found.append(pixel_adaptive_refinement(image, maps, ParSpec()))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(*found)


def test_a_forked_process_refines_too():
    """The threads that refined before the fork are not in the child."""
    image, maps, spec = _rand(1, 3, 9, 9), _rand(1, 2, 9, 9, seed=1), ParSpec(iterations=2)
    pixel_adaptive_refinement(image, maps, spec)
    child = multiprocessing.get_context("fork").Process(target=pixel_adaptive_refinement, args=(image, maps, spec))
    child.start()
    child.join(60)
    exit_code = child.exitcode
    child.kill()
    assert exit_code == 0
