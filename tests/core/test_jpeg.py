"""JPEG files by torchvision: Pillow's pixels, and Pillow's words about a damaged file."""

import io

import numpy as np
import pytest
from PIL import Image

from excel_core.datasets.images import read_image
from excel_core.datasets.jpeg import torchvision_decodes_alike
from excel_core.errors import ImageError

pytest.importorskip("torchvision")


def _photo(mode="RGB", size=(75, 41), **options):
    coarse = np.random.default_rng(size[0]).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).convert(mode).save(file, "JPEG", **options)
    return file.getvalue()


def test_torchvision_decodes_as_pillow_here():
    assert torchvision_decodes_alike()


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("options", [{}, {"subsampling": 0}, {"progressive": True, "quality": 30}])
@pytest.mark.parametrize("size", [(75, 41), (8, 9), (501, 333)])
def test_pixels_are_pillows(tmp_path, mode, options, size):
    (tmp_path / "x.jpg").write_bytes(_photo(mode, size, **options))
    got = read_image(tmp_path / "x.jpg", by_torchvision=True)
    np.testing.assert_array_equal(got, read_image(tmp_path / "x.jpg"))
    assert got.flags.writeable and got.flags.c_contiguous


def test_another_format_under_the_name_of_a_jpeg(tmp_path):
    Image.fromarray(np.full((9, 9, 3), 7, np.uint8)).save(tmp_path / "x.jpg", "PNG")
    assert (read_image(tmp_path / "x.jpg", by_torchvision=True) == 7).all()


@pytest.mark.parametrize("kept", [0, 1, 30, 300, -900, -2])
def test_a_cut_file_has_pillows_reason(tmp_path, kept):
    (tmp_path / "x.jpg").write_bytes(_photo(size=(301, 203), quality=95)[:kept])
    reasons = []
    for by_torchvision in (False, True):
        try:
            reasons.append(read_image(tmp_path / "x.jpg", by_torchvision).tobytes())
        except ImageError as error:
            reasons.append(str(error))
    assert reasons[0] == reasons[1]
