"""CLIP-ES's refinement, step by step, against what it says written out."""

import numpy as np
import torch

from excel_core.cams.affinity import rescaled, upsample_with_background, upsampled
from excel_core.cams.crf import appearance_colours, dense_crf
from excel_core.cams.crf_tiles import crf_labels_with_confidence
from excel_core.cams.large_photos import large_label_steps
from excel_core.cams.pseudo_labels import crf_source, crf_steps, label_steps, refine_maps, step_names
from excel_core.config import CrfSpec
from excel_core.config.presets import preset
from excel_core.disk_maps import DiskMaps

SPEC = preset("voc", "clip_es").refine
RANDOM = np.random.default_rng(0)
IMAGE = RANDOM.integers(0, 256, (40, 48, 3), dtype=np.uint8)
CAMS = torch.rand(2, 5, 6, generator=torch.Generator().manual_seed(1))
ATTENTION = torch.rand(30, 30, generator=torch.Generator().manual_seed(2)) / 30


def test_colours_wrap():
    """Blue 3 - 104.008 = -101.008 → -101 → 155; red 255 - 122.675 = 132.325 → 132."""
    image = np.array([[[255, 116, 3]]], np.uint8)
    assert appearance_colours(image, CrfSpec(image="wrapped_bgr")).tolist() == [[[155, 0, 132]]]
    assert appearance_colours(image, CrfSpec()) is image


def test_saved_cams_have_sixteen_bits():
    maps = upsample_with_background(CAMS, (40, 48), epsilon=1e-7, half=True)
    saved = upsampled(rescaled(CAMS, 1e-7), (40, 48)).numpy().astype(np.float16)
    np.testing.assert_array_equal(maps[1:].numpy(), saved.astype(np.float32))
    np.testing.assert_array_equal(maps[0].numpy(), (np.float16(1) - saved.max(axis=0)).astype(np.float32))


def test_epsilon_is_part_of_the_range():
    flat = torch.tensor([[[2.0, 2.0 + 1e-6]]])
    torch.testing.assert_close(rescaled(flat, 1e-6), torch.tensor([[[0.0, (flat[0, 0, 1] - 2) / (flat[0, 0, 1] - 2 + 1e-6)]]]))
    assert rescaled(torch.full((1, 2, 2), 3.0), 1e-7).eq(0).all()


def test_steps_and_what_is_sure():
    steps = label_steps(IMAGE, [4, 7], refine_maps(IMAGE, torch.zeros(3, 80, 96), CAMS, ATTENTION, SPEC), SPEC)
    assert list(steps) == step_names(SPEC) == ["raw", "affinity", "crf", "confident"]
    assert crf_source(SPEC) == "affinity"
    sure = steps["confident"] != 255
    assert (steps["confident"][sure] == steps["crf"][sure]).all()
    scores = RANDOM.random((3, 40, 48), dtype=np.float32)
    made = crf_steps(IMAGE, [4, 7], scores, SPEC)
    refined = dense_crf(appearance_colours(IMAGE, SPEC.crf), scores, SPEC.crf)
    assert ((made["confident"] == 255) == (refined.max(axis=0) < 0.95)).all()
    assert 0 < (made["confident"] == 255).mean() < 1


def test_a_large_photo_gets_the_same_steps():
    whole = label_steps(IMAGE, [4, 7], refine_maps(IMAGE, torch.zeros(3, 80, 96), CAMS, ATTENTION, SPEC), SPEC)
    tiled = dict(large_label_steps(IMAGE, torch.zeros(3, 80, 96), [4, 7], CAMS, ATTENTION, SPEC))
    assert list(tiled) == list(whole)
    for step in whole:
        assert (tiled[step] != whole[step]).mean() < 5e-3, step


def test_confidence_of_one_label_alone_is_its_own():
    maps = DiskMaps((2, 3, 4))
    maps.write(slice(None), slice(None), np.stack([np.full((3, 4), 0.7), np.zeros((3, 4))]).astype(np.float32))
    labels, confidence = crf_labels_with_confidence(IMAGE[:3, :4], maps, CrfSpec(confidence=0.5))
    assert (labels == 0).all() and np.allclose(confidence, 0.7)
