"""The dense CRF on a GPU against that on the CPU, and its lattice's corners by torch against those in C."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from excel_core.cams.crf import dense_crf
from excel_core.cams.crf_on_device import dense_crf_batch, runs_on_device
from excel_core.config import CrfSpec
from excel_core.kernels.lattice_corners import find_corners
from excel_core.kernels.lattice_corners_torch import MISSING, find_device_corners
from excel_core.world.scenes import render_scene

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
# Labels and sizes: odd ones, one pixel, a row, a column, more labels than a block, one label alone.
CASES = [(2, 41, 67), (3, 1, 1), (4, 120, 161), (5, 33, 90), (8, 1, 57), (9, 57, 1), (21, 75, 100), (81, 40, 30), (1, 9, 9)]


def _image(size, seed):
    rng = np.random.default_rng(seed)
    pixels = rng.normal(rng.integers(0, 255, (1, 1, 3)), rng.uniform(0, 40), (*size, 3))
    return np.clip(pixels, 0, 255).astype(np.uint8)


def _probabilities(labels, size, seed=0):
    logits = 3 * torch.randn(1, labels, 5, 5, generator=torch.Generator().manual_seed(seed))
    return F.interpolate(logits, size=size, mode="bilinear").softmax(1)[0].numpy()


def _on_gpu(images, probabilities, spec):
    images, probabilities = ([torch.from_numpy(array).cuda() for array in arrays] for arrays in (images, probabilities))
    return [refined.cpu().numpy() for refined in dense_crf_batch(images, probabilities, spec)]


@pytest.mark.parametrize("dimensions", [2, 5])
def test_corners_by_sorting_are_those_of_the_table(dimensions):
    features = np.random.default_rng(0).uniform(0, 20, (dimensions, 3000)).astype(np.float32)
    table = find_corners(features)
    found = find_device_corners(torch.from_numpy(features), torch.zeros(3000, dtype=torch.int64))
    np.testing.assert_allclose(found.weights.T, table.weights, rtol=0, atol=5e-6)
    number = np.full(table.neighbours.shape[1] + 1, MISSING)  # of each corner of the table among those found
    number[table.corners.ravel()] = found.corners.T.flatten()
    assert (number[table.corners] == found.corners.T.numpy()).all()
    neighbours = np.empty(found.neighbours.shape, np.int64)
    neighbours[:, :, number[:-1]] = number[table.neighbours].transpose(0, 2, 1)
    assert (neighbours == found.neighbours.numpy()).all()
    by_corner = found.corners.T.flatten()[found.order]
    lengths = found.ends - found.starts
    assert lengths.sum() == len(by_corner)
    assert all((by_corner[start:end] == i).all() for i, (start, end) in enumerate(zip(found.starts, found.ends, strict=True)))


def test_photos_share_no_corner():
    features, photos = torch.zeros(5, 4), torch.tensor([0, 0, 1, 1])
    corners = find_device_corners(features, photos).corners
    assert (corners[:, 0] == corners[:, 1]).all() and (corners[:, 2] == corners[:, 3]).all()
    assert not set(corners[:, 0].tolist()) & set(corners[:, 2].tolist())


def test_on_a_cpu_it_is_the_crf_of_each_photo():
    images = [_image((20, 25), 0), _image((9, 7), 1)]
    probabilities = [_probabilities(3, (20, 25)), _probabilities(1, (9, 7))]
    arguments = [[torch.from_numpy(array) for array in arrays] for arrays in (images, probabilities)]
    refined = dense_crf_batch(*arguments, CrfSpec())
    for image, scores, values in zip(images, probabilities, refined, strict=True):
        np.testing.assert_array_equal(values.numpy(), dense_crf(image, scores, CrfSpec()))


@needs_gpu
def test_triton_compiles():
    assert runs_on_device(torch.device("cuda"), CrfSpec())


@needs_gpu
@pytest.mark.parametrize("bound", [0.0, 0.01])
def test_photos_of_all_sizes_together_are_refined_as_on_the_cpu(bound):
    images = [_image((height, width), seed) for seed, (_, height, width) in enumerate(CASES)]
    probabilities = [_probabilities(labels, size, seed) for seed, (labels, *size) in enumerate(CASES)]
    spec = CrfSpec(least_probability=bound)
    for image, scores, values in zip(images, probabilities, _on_gpu(images, probabilities, spec), strict=True):
        expected = dense_crf(image, scores, spec)
        difference = np.abs(values - expected).max(axis=0)
        assert values.shape == expected.shape
        # Ten mean-field steps make much of a last bit where two labels are nearly even: a pixel in fifty may.
        assert np.quantile(difference, 0.98) < 2e-3 and difference.max() < 5e-2
        assert (values.argmax(0) == expected.argmax(0)).mean() > 0.995


@needs_gpu
@pytest.mark.parametrize("labels", [2, 4, 21, 81])
def test_labels_of_pictures_are_those_of_the_cpu(labels):
    images = [render_scene(seed, 240).image[:200] for seed in (1, 2)]
    probabilities = [_probabilities(labels, image.shape[:2], seed) for seed, image in enumerate(images)]
    spec = CrfSpec(least_probability=0.0)
    for image, scores, values in zip(images, probabilities, _on_gpu(images, probabilities, spec), strict=True):
        assert (values.argmax(0) == dense_crf(image, scores, spec).argmax(0)).mean() > 0.999


@needs_gpu
def test_one_colour_alone_puts_all_pixels_on_the_same_corners():
    image, scores = np.zeros((300, 400, 3), dtype=np.uint8), _probabilities(4, (300, 400))
    (values,) = _on_gpu([image], [scores], CrfSpec())
    assert (values.argmax(0) == dense_crf(image, scores, CrfSpec()).argmax(0)).mean() > 0.995


@needs_gpu
def test_a_photo_gets_the_same_bytes_each_time_and_beside_any_others():
    images = [_image((height, width), seed) for seed, (_, height, width) in enumerate(CASES)]
    probabilities = [_probabilities(labels, size, seed) for seed, (labels, *size) in enumerate(CASES)]
    together, again = _on_gpu(images, probabilities, CrfSpec()), _on_gpu(images, probabilities, CrfSpec())
    alone = [_on_gpu([image], [scores], CrfSpec())[0] for image, scores in zip(images, probabilities, strict=True)]
    for one, two, three in zip(together, again, alone, strict=True):
        assert np.array_equal(one, two) and np.array_equal(one, three)


@needs_gpu
def test_labels_without_a_chance_take_no_part():
    image, two = _image((20, 25), 0), _probabilities(2, (20, 25))
    four = np.stack([0.999 * two[0], np.full((20, 25), 1e-3), 0.999 * two[1], np.zeros((20, 25))]).astype(np.float32)
    (refined,) = _on_gpu([image], [four], CrfSpec())
    assert not refined[[1, 3]].any() and refined.sum(0) == pytest.approx(1, abs=1e-4)
