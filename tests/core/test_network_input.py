"""What the network sees of a photo, and PAR of it: as the published programs, by hand."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from excel_core.cams.cam_model import CamModel
from excel_core.cams.pseudo_labels import par_colours
from excel_core.config import CamSpec, ParSpec
from excel_core.config.presets import preset
from excel_core.models.clip import as_pixels, normalise_pixels, quantised_pixels, resize_pixels


def test_resizing_neither_smooths_nor_rounds():
    row = torch.tensor([0, 0, 0, 255, 0, 0, 0, 0.0]).expand(1, 3, 8, 8)
    assert resize_pixels(row, 4)[0, 0, 0].tolist() == [0, 127.5, 0, 0]
    assert resize_pixels(row, 4, antialias=True)[0, 0, 0, 2] > 0  # what the published code does not do


def test_the_photo_is_resized_as_if_it_were_normalised_first(small_clip):
    photos = [np.random.default_rng(i).integers(0, 256, (50 + i, 70, 3), dtype=np.uint8) for i in range(2)]
    cam_model = CamModel(small_clip, torch.empty(0, 16), 0, CamSpec(image_size=48))
    batch = cam_model.prepare(photos)
    assert batch.shape == (2, 3, 48, 48)
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    for photo, network_input in zip(photos, batch, strict=True):
        normalised = torch.from_numpy((photo / 255 - mean) / std).permute(2, 0, 1)[None]
        expected = F.interpolate(normalised, size=(48, 48), mode="bilinear", align_corners=False)[0]
        torch.testing.assert_close(network_input, expected.float(), atol=1e-4, rtol=0)


def test_only_clean_smooths():
    assert [preset("voc", method).cams.antialias for method in ("reference", "paper", "clean")] == [False, False, True]


def test_par_sees_the_network_input_or_the_photo():
    photo = np.random.default_rng(0).integers(0, 256, (30, 45, 3), dtype=np.uint8)
    square = torch.randn(3, 16, 16)
    colours = par_colours(photo, square, ParSpec())
    assert colours.shape == (1, 3, 30, 45)
    for corner in ((0, 0), (0, -1), (-1, 0), (-1, -1)):  # aligned corners
        torch.testing.assert_close(colours[0, :, corner[0], corner[1]], square[:, corner[0], corner[1]])
    own = par_colours(photo, square, ParSpec(image="photo"))
    assert torch.equal(own[0].permute(1, 2, 0), torch.from_numpy(photo).float())
    assert [preset("voc", method).refine.par.image for method in ("reference", "clean")] == ["network_input", "photo"]


def test_a_training_crop_comes_back_truncated():
    pixels = torch.arange(256.0).repeat(3, 1).view(1, 3, 16, 16)
    back = quantised_pixels(pixels, "imagenet")
    assert set((pixels - back).unique().tolist()) == {0.0, 1.0}
    assert 0 < (pixels != back).float().mean() < 0.1
    again = normalise_pixels(as_pixels(np.zeros((8, 8, 3), np.uint8), torch.device("cpu")), "imagenet")
    assert again[0, 0, 0, 0].item() == pytest.approx(-0.485 / 0.229)
