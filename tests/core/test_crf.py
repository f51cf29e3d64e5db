"""The dense CRF: the compiled lattice against pydensecrf and a Gaussian written out, and what follows from the formulas."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from excel_core.cams.crf import dense_crf
from excel_core.config import CrfSpec
from excel_core.datasets.images import read_image
from excel_core.kernels.lattice import build_lattice
from excel_core.kernels.mean_field import pixel_rows, softmax
from excel_core.world.scenes import render_scene
from tests.conftest import VOC, needs_photos


def _probabilities(labels, size, seed=0, sharpness=3.0):
    logits = sharpness * torch.randn(1, labels, 5, 5, generator=torch.Generator().manual_seed(seed))
    return F.interpolate(logits, size=size, mode="bilinear").softmax(1)[0].numpy()


def _both(image, probabilities, **spec):
    return [dense_crf(image, probabilities, CrfSpec(engine=engine, **spec)) for engine in ("lattice", "pydensecrf")]


def test_crf_follows_the_image_edge():
    image = np.zeros((32, 32, 3), dtype=np.uint8)
    image[:, 16:] = 250
    probability = np.where(np.arange(32) < 13, 0.9, 0.1)[None].repeat(32, 0).astype(np.float32)  # edge 3 pixels off
    refined = dense_crf(image, np.stack([probability, 1 - probability]), CrfSpec()).argmax(0)
    before = ((probability < 0.5) != (np.arange(32) >= 16)).sum()
    after = (refined != (np.arange(32) >= 16)).sum()
    assert before == 96 and after < before / 2


def test_crf_of_one_label_changes_nothing():
    only = np.ones((1, 9, 9), dtype=np.float32)
    assert dense_crf(np.zeros((9, 9, 3), dtype=np.uint8), only, CrfSpec()) is only


def test_crf_probabilities_sum_to_one():
    rng = np.random.default_rng(0)
    scores = rng.random((4, 20, 25)).astype(np.float32)
    image = rng.integers(0, 255, (20, 25, 3), dtype=np.uint8)
    refined = dense_crf(image, scores / scores.sum(0), CrfSpec())
    assert refined.shape == (4, 20, 25) and refined.sum(0) == pytest.approx(1.0, abs=1e-4)


@settings(max_examples=25)
@given(st.integers(0, 2**32 - 1), st.integers(2, 9), st.tuples(st.integers(1, 40), st.integers(1, 40)))
def test_the_lattice_is_pydensecrf(seed, labels, size):
    rng = np.random.default_rng(seed)
    image = np.clip(rng.normal(rng.integers(0, 255, (1, 1, 3)), rng.uniform(0, 40), (*size, 3)), 0, 255).astype(np.uint8)
    ours, theirs = _both(image, _probabilities(labels, size, seed), least_probability=0.0)
    # Ten mean-field steps make much of a last bit where two labels are nearly even: a pixel in fifty may.
    difference = np.abs(ours - theirs).max(axis=0)
    assert np.quantile(difference, 0.98) < 2e-3 and difference.max() < 5e-2


@pytest.mark.parametrize("labels", [2, 3, 21])
def test_the_lattice_labels_pictures_as_pydensecrf_does(labels):
    _check_pictures([render_scene(seed, 240).image[:200] for seed in (1, 2)], labels)


@needs_photos
def test_the_lattice_labels_photos_as_pydensecrf_does():
    for labels in (2, 3, 21):
        _check_pictures([read_image(path) for path in sorted((VOC / "JPEGImages").glob("*.jpg"))[:2]], labels)


def _check_pictures(images, labels):
    for image in images:
        ours, theirs = _both(image, _probabilities(labels, image.shape[:2]), least_probability=0.0)
        assert (ours.argmax(0) == theirs.argmax(0)).mean() > 0.9999


def _filtered(features, values, factor=1.0):
    return build_lattice(features).filtered(values, factor, np.zeros_like(values))


@pytest.mark.parametrize("dimensions", [2, 5])
def test_filtering_is_nearly_that_of_a_gaussian(dimensions):
    features = np.random.default_rng(0).uniform(0, 2.5, (dimensions, 300)).astype(np.float32)
    kernel = np.exp(-0.5 * ((features[:, :, None] - features[:, None]) ** 2).sum(0))
    share = 1 / np.sqrt(kernel.sum(0))
    values = np.random.default_rng(1).random((300, 4), dtype=np.float32)
    result = _filtered(features, values)
    expected = share[:, None] * (kernel @ (share[:, None] * values))
    assert np.abs(result - expected).max() < 0.12 * expected.max()
    assert np.corrcoef(result.ravel(), expected.ravel())[0, 1] > 0.9


def test_pixels_of_one_feature_are_averaged():
    """All in one corner's reach: nothing but the mean is left, whatever the lattice's size."""
    values = np.arange(30, dtype=np.float32).reshape(10, 3)
    result = _filtered(np.zeros((5, 10), np.float32), values, factor=2.0)
    np.testing.assert_allclose(result, np.broadcast_to(2 * values.mean(0), values.shape), rtol=1e-4)


def test_what_filtering_makes_of_ones_is_known():
    features = np.random.default_rng(0).uniform(0, 20, (5, 1000)).astype(np.float32)
    ones = np.ones((1000, 2), np.float32)
    np.testing.assert_allclose(_filtered(features, ones), build_lattice(features).of_ones[:, None] * ones, rtol=1e-5)


@given(st.floats(-100, 0, width=32), st.integers(1, 9))
def test_a_softmax_is_exact_to_float32(logit, others):
    unary = np.full((1 + others, 1, 3), -logit, np.float32)
    unary[0] = 0
    logits, sums = pixel_rows(unary)
    probabilities = softmax(logits, others, sums)
    share = np.exp(np.float64(logit)) if logit >= -46 else 0
    # The first label's logit is what is left of a sum, so it is as exact as the sum is.
    rounding = 4 * float(np.finfo(np.float32).eps) * (1 + others * abs(logit))
    assert probabilities[0] == pytest.approx(1 / (1 + others * share), rel=rounding)
    assert probabilities[1:] == pytest.approx(share / (1 + others * share), rel=rounding)


@pytest.mark.parametrize("engine", ["lattice", "pydensecrf"])
def test_labels_without_a_chance_take_no_part(engine):
    image = np.random.default_rng(0).integers(0, 255, (20, 25, 3), dtype=np.uint8)
    two = _probabilities(2, (20, 25))
    four = np.stack([0.999 * two[0], np.full((20, 25), 1e-3), 0.999 * two[1], np.zeros((20, 25))]).astype(np.float32)
    refined = dense_crf(image, four, CrfSpec(engine=engine))
    assert not refined[[1, 3]].any()
    np.testing.assert_allclose(refined[[0, 2]], dense_crf(image, 0.999 * two, CrfSpec(engine=engine)), atol=1e-5)
    assert dense_crf(image, four, CrfSpec(engine=engine, least_probability=0.0))[1].any()


def test_a_bound_that_no_label_reaches_drops_all_but_the_most_likely():
    even = np.full((3, 4, 4), 1 / 3, dtype=np.float32)
    even[0] += 1e-3
    assert dense_crf(np.zeros((4, 4, 3), dtype=np.uint8), even, CrfSpec(least_probability=1.0)) is even


def test_threads_refine_an_image_each():
    rng = np.random.default_rng(0)
    work = [(rng.integers(0, 255, (30, 40, 3), dtype=np.uint8), _probabilities(3, (30, 40), seed)) for seed in range(8)]
    alone = [dense_crf(*one, CrfSpec()) for one in work]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda one: dense_crf(*one, CrfSpec()), work))
    assert all(np.array_equal(one, other) for one, other in zip(alone, together, strict=True))
