"""Large photos: window by window, in little memory, to the labels that whole ones have."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from excel_core import disk_maps
from excel_core.cams import crf_tiles, large_photos
from excel_core.cams.crf import dense_crf
from excel_core.cams.crf_tiles import crf_labels
from excel_core.cams.large_photos import large_label_steps, par_by_tiles
from excel_core.cams.par import pixel_adaptive_refinement
from excel_core.cams.pseudo_labels import refine_labels
from excel_core.config import CrfSpec, ParSpec, RefineSpec
from excel_core.datasets.images import read_image
from excel_core.disk_maps import DiskMaps, tiles
from excel_core.errors import ImageError
from excel_core.evaluation import ablation
from excel_core.evaluation.metrics import confusion_matrix
from excel_core.kernels.resize import axis_of, resized_window
from excel_core.models.clip import as_pixels, resize_pixels, shrunk_pixels
from excel_core.world.scenes import render_scene
from tests.core.trained_toys import toy_segmenter

WHOLE = slice(None)
CPU = torch.device("cpu")
SMALL_CRF = {"bilateral_sigma": 4.0, "iterations": 2}  # margins of 18 pixels


def _scene(height, width, seed=1):
    picture = Image.fromarray(render_scene(seed, 128).image).resize((width, height))
    noise = np.random.default_rng(seed).normal(0, 3, (height, width, 3))
    return np.clip(np.asarray(picture) + noise, 0, 255).astype(np.uint8)


def _maps(labels, size, seed=0):
    logits = torch.randn(1, labels, 5, 5, generator=torch.Generator().manual_seed(seed))
    return F.interpolate(3 * logits, size=size, mode="bilinear").softmax(1)[0]


def _on_disk(maps):
    result = DiskMaps(tuple(maps.shape))
    result.write(WHOLE, WHOLE, np.asarray(maps))
    return result


def _at_once(monkeypatch, megabytes, tile_side=1024):
    """Let a window's arrays take so much, and the CRF's tiles have at most this side."""
    for module in (disk_maps, large_photos, crf_tiles):
        monkeypatch.setattr(module, "MAX_BYTES_AT_ONCE", int(megabytes * 1e6))
    monkeypatch.setattr(crf_tiles, "MAX_SIDE", tile_side)


def test_windows_are_read_as_they_were_written(tmp_path):
    values = np.random.default_rng(0).random((3, 7, 5), dtype=np.float32)
    maps = DiskMaps(values.shape, tmp_path)
    assert not maps.read().any() and list(tmp_path.iterdir()) == []
    maps.write(slice(0, 7), slice(0, 5), values)
    assert np.array_equal(maps.read(slice(2, 6), slice(1, 4), slice(1, 3)), values[1:3, 2:6, 1:4])
    maps.write(slice(2, 3), slice(1, 4), values[:1, :1, :3], slice(2, 3))
    values[2, 2, 1:4] = values[0, 0, :3]
    assert np.array_equal(maps.read(), values) and np.array_equal(maps.highest(), values.argmax(axis=0))
    with pytest.raises(ValueError, match="a window of maps must be"):
        maps.write(slice(0, 2), WHOLE, values)


@pytest.mark.parametrize("size", [(1, 1), (7, 30), (33, 20)])
def test_tiles_cover_a_picture_once_with_margins_cut_at_its_edges(size):
    seen = np.zeros(size, int)
    for tile in tiles(size, 9, (4, 2)):
        seen[tile.rows, tile.columns] += 1
        assert seen[tile.region_rows, tile.region_columns][tile.inner].shape == tile.shape
        assert tile.region_rows.start == max(0, tile.rows.start - 4)
        assert tile.region_columns.stop == min(size[1], tile.columns.stop + 2)
    assert (seen == 1).all()


@pytest.mark.parametrize("size", [(1, 1), (9, 70), (141, 67), (130, 131)])
@pytest.mark.parametrize("dilations", [(1, 2, 4, 8, 12, 24), (1, 3), (40,)])
def test_par_by_tiles_is_par(size, dilations, monkeypatch):
    _at_once(monkeypatch, 0.5)  # regions of some 40 pixels' side: smaller than the larger dilations
    spec = ParSpec(dilations=dilations, iterations=5)
    image, maps = torch.from_numpy(_scene(*size)).permute(2, 0, 1)[None].float(), _maps(3, size)
    disk = _on_disk(maps)
    tiled = par_by_tiles(lambda rows, columns: image[..., rows, columns], disk, spec, CPU)
    assert np.array_equal(tiled.read(), pixel_adaptive_refinement(image, maps[None], spec)[0].numpy())
    assert np.array_equal(disk.read(), maps.numpy())  # the caller's maps stay


def test_par_without_iterations_changes_nothing():
    disk = _on_disk(_maps(2, (9, 8)))
    assert par_by_tiles(lambda rows, columns: torch.zeros(1, 3, 9, 8), disk, ParSpec(iterations=0), CPU) is disk


@pytest.mark.parametrize("labels", [2, 3, 7])
@pytest.mark.parametrize("size", [(5, 9), (97, 121)])
def test_crf_by_tiles_is_the_crf(labels, size, monkeypatch):
    _at_once(monkeypatch, 20, tile_side=64)
    spec = CrfSpec(least_probability=0.0, **SMALL_CRF)
    image, maps = _scene(*size), _maps(labels, size).numpy()
    assert np.array_equal(crf_labels(image, _on_disk(maps), spec), dense_crf(image, maps, spec).argmax(axis=0))


def test_crf_tiles_split_where_their_lattice_does_not_fit(monkeypatch):
    _at_once(monkeypatch, 3.5, tile_side=128)
    size, spec = (150, 140), CrfSpec(**SMALL_CRF)
    image, maps = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8), _maps(2, size).numpy()
    sides = []
    step = crf_tiles._MeanField._step
    monkeypatch.setattr(crf_tiles._MeanField, "_step", lambda self, tile: (sides.append(max(tile.shape)), step(self, tile))[1])
    assert np.array_equal(crf_labels(image, _on_disk(maps), spec), dense_crf(image, maps, spec).argmax(axis=0))
    assert max(sides) < 70
    with pytest.raises(ImageError, match=r"bilateral_sigma=40; lower it, or shrink the photo"):
        crf_labels(image, _on_disk(maps), CrfSpec(bilateral_sigma=40))


def test_crf_by_tiles_leaves_out_labels_without_a_chance_and_a_single_one_alone():
    image, maps = _scene(20, 25), np.full((3, 20, 25), 1e-3, np.float32)
    maps[2] = 0.998
    assert (crf_labels(image, _on_disk(maps), CrfSpec()) == 2).all()
    maps[2, :, :12], maps[0, :, :12] = 1e-3, 0.998
    expected = dense_crf(image, maps, CrfSpec()).argmax(axis=0)
    assert np.array_equal(crf_labels(image, _on_disk(maps), CrfSpec()), expected) and set(np.unique(expected)) == {0, 2}
    unchanged = CrfSpec(iterations=0)
    assert np.array_equal(crf_labels(image, _on_disk(maps), unchanged), dense_crf(image, maps, unchanged).argmax(axis=0))


@pytest.mark.parametrize("image_source", ["network_input", "photo"])
@pytest.mark.parametrize(("of", "normalised"), [("par", True), ("affinity", False)])
def test_all_steps_are_those_of_a_whole_photo(image_source, of, normalised, monkeypatch, tmp_path):
    _at_once(monkeypatch, 4, tile_side=64)
    image = _scene(131, 101)
    network_input, cams = torch.randn(3, 32, 32), _maps(2, (4, 4), seed=3)
    attention = torch.rand(16, 16, generator=torch.Generator().manual_seed(0))
    spec = RefineSpec(
        par=ParSpec(image=image_source, iterations=4),
        crf=CrfSpec(of=of, normalised=normalised, **SMALL_CRF),
        background_power=1.5,
    )
    whole = refine_labels(image, network_input, [4, 1], cams, attention, spec)
    steps = dict(large_label_steps(image, network_input, [4, 1], cams, attention, spec, tmp_path))
    assert list(steps) == list(whole) == ["raw", "affinity", "par", "crf"]
    for step, labels in whole.items():
        assert np.array_equal(steps[step], labels), step
    monkeypatch.setattr(disk_maps, "MAX_PIXELS_AT_ONCE", 1000)
    for step, labels in refine_labels(image, network_input, [4, 1], cams, attention, spec).items():
        assert np.array_equal(steps[step], labels), step


@pytest.mark.parametrize("align_corners", [True, False])
def test_windows_are_resized_as_torch_resizes_the_whole(align_corners):
    source = torch.randn(1, 3, 31, 40)
    whole = F.interpolate(source, size=(201, 77), mode="bilinear", align_corners=align_corners)[0].numpy()
    rows, columns = axis_of(31, 201, align_corners), axis_of(40, 77, align_corners)
    arrays = np.ascontiguousarray(source[0].permute(1, 2, 0).numpy())
    window = resized_window(arrays, rows.part(slice(50, 90)), columns.part(slice(3, 70)))
    np.testing.assert_allclose(window, whole[:, 50:90, 3:70], atol=1e-6)


@pytest.mark.parametrize("antialias", [True, False])
def test_a_large_photo_is_shrunk_to_the_same_network_input(antialias):
    image = _scene(203, 150)
    expected = resize_pixels(as_pixels(image, CPU), 32, antialias)
    torch.testing.assert_close(shrunk_pixels(image, 32, antialias), expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("multi_scale", [False, True])
@pytest.mark.parametrize("average_at", [1.0, 0.3])
def test_a_large_photo_is_segmented_alike(multi_scale, average_at, monkeypatch, tmp_path):
    image, trained = _scene(90, 121), toy_segmenter()
    crf = trained.crf.model_copy(update=SMALL_CRF)
    spec = trained.predict_spec.model_copy(update={"scales": (0.5, 1.0), "average_at": average_at})
    trained = replace(trained, predict_spec=spec, crf=crf)
    whole = trained.label_steps(image, multi_scale=multi_scale, crf=True)
    monkeypatch.setattr(disk_maps, "MAX_PIXELS_AT_ONCE", 1000)
    _at_once(monkeypatch, 4, tile_side=64)
    large = trained.label_steps(image, multi_scale=multi_scale, crf=True, folder=tmp_path)
    assert list(whole) == list(large) and all((whole[step] == large[step]).mean() > 0.9999 for step in whole)
    alone = trained.label_steps(image, multi_scale=multi_scale)["segmenter"]
    assert np.array_equal(alone, large["segmenter"]) and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "CMYK", "RGBA", "LA"])
def test_strips_are_decoded_as_whole_pictures(mode, tmp_path):
    picture = Image.fromarray(_scene(300, 20)).convert("RGBA" if mode in ("RGBA", "LA") else mode)
    if "A" in mode:
        picture.putalpha(Image.linear_gradient("L").resize(picture.size))
        picture = picture.convert(mode)
    path = tmp_path / ("a.jpg" if mode == "CMYK" else "a.png")
    picture.save(path)
    with Image.open(path) as image:
        whole = image.convert("RGBA") if "A" in mode else image.convert("RGB")
        if "A" in mode:
            whole = Image.alpha_composite(Image.new("RGBA", image.size, (255, 255, 255, 255)), whole).convert("RGB")
        assert np.array_equal(read_image(path), np.asarray(whole))


def test_pixels_are_counted_in_pieces(monkeypatch):
    truth, prediction = np.random.default_rng(0).integers(0, 5, (2, 50, 41), dtype=np.uint8)
    truth[:3] = 255
    whole = confusion_matrix(truth, prediction, 5)
    monkeypatch.setattr("excel_core.evaluation.metrics.PIXELS_AT_ONCE", 64)
    assert np.array_equal(confusion_matrix(truth, prediction, 5), whole)
    cams = torch.rand(5, 4, 4)
    levels = ablation.level_counts(cams, [1, 3], truth)
    monkeypatch.setattr(disk_maps, "MAX_PIXELS_AT_ONCE", 100)
    _at_once(monkeypatch, 1e-3)
    assert ablation.level_counts(cams, [1, 3], truth).equals(levels)
