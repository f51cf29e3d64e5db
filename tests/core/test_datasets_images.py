"""read_image: one RGB array from every way of saving a picture, one plain reason from every broken file."""

import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from excel_core.datasets.images import MIN_SIDE, DecodeOptions, load_image, read_image
from excel_core.datasets.manifest import image_digest
from excel_core.datasets.photo_files import picture_kind
from excel_core.errors import ImageError
from tests.png_bytes import png

PIXELS = np.random.default_rng(0).integers(0, 256, (12, 17, 3), dtype=np.uint8)


def saved(folder: Path, image: Image.Image, name: str = "x.png", **options: object) -> Path:
    image.save(folder / name, **options)
    return folder / name


def noise_jpeg() -> bytes:
    buffer = io.BytesIO()
    noise = np.random.default_rng(1).integers(0, 256, (64, 48, 3), dtype=np.uint8)
    Image.fromarray(noise).save(buffer, "JPEG")
    return buffer.getvalue()


def test_rgb_comes_back_as_it_was_saved(tmp_path: Path) -> None:
    array = read_image(saved(tmp_path, Image.fromarray(PIXELS)))
    np.testing.assert_array_equal(array, PIXELS)
    assert array.dtype == np.uint8 and array.flags.writeable and array.flags.c_contiguous


def test_greyscale_has_three_equal_channels(tmp_path: Path) -> None:
    array = read_image(saved(tmp_path, Image.fromarray(PIXELS[..., 0])))
    np.testing.assert_array_equal(array, np.dstack([PIXELS[..., 0]] * 3))


def test_palette_is_looked_up(tmp_path: Path) -> None:
    indices = PIXELS[..., 0] % 4
    colours = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [9, 8, 7]], dtype=np.uint8)
    image = Image.fromarray(indices)
    image.putpalette(colours.tobytes())
    np.testing.assert_array_equal(read_image(saved(tmp_path, image)), colours[indices])


def test_cmyk_jpeg_has_its_colours(tmp_path: Path) -> None:
    image = Image.new("CMYK", (16, 16), (0, 255, 255, 0))  # no cyan, full magenta and yellow: red
    array = read_image(saved(tmp_path, image, "x.jpg", quality=95))
    assert array.shape == (16, 16, 3)
    np.testing.assert_allclose(array[8, 8], [255, 0, 0], atol=6)


def test_16_bit_is_scaled_by_its_range_not_clipped(tmp_path: Path) -> None:
    values = np.random.default_rng(2).integers(0, 65536, (64, 64), dtype=np.uint16)
    values[0, :2] = 0, 65535
    array = read_image(saved(tmp_path, Image.fromarray(values)))
    np.testing.assert_array_equal(array[..., 0], np.floor(values / 257 + 0.5))


def test_16_bit_tiff_of_either_byte_order(tmp_path: Path) -> None:
    ramp = np.linspace(0, 65535, 16 * 16).astype(np.uint16).reshape(16, 16)
    little = read_image(saved(tmp_path, Image.fromarray(ramp), "l.tif"))
    swapped = Image.frombytes("I;16B", (16, 16), ramp.astype(">u2").tobytes())
    big = read_image(saved(tmp_path, swapped, "b.tif"))
    np.testing.assert_array_equal(little, big)


@pytest.mark.parametrize(("value", "dtype"), [(1e6, np.int32), (200, np.int32), (0.5, np.float32)])
def test_pixels_of_unknown_range_are_refused(tmp_path: Path, value: float, dtype: type) -> None:
    path = saved(tmp_path, Image.fromarray(np.full((16, 16), value, dtype=dtype)), "x.tif")
    with pytest.raises(ImageError, match="no known range"):
        read_image(path)


def test_transparency_shows_white(tmp_path: Path) -> None:
    rgba = np.zeros((16, 16, 4), dtype=np.uint8)
    rgba[:8, :, 3] = 255
    rgba[12:, :, 3] = 51  # a fifth opaque black
    array = read_image(saved(tmp_path, Image.fromarray(rgba)))
    assert (array[:8] == 0).all() and (array[8:12] == 255).all() and (array[12:] == 204).all()


def test_a_transparent_palette_entry_shows_white(tmp_path: Path) -> None:
    image = Image.new("P", (16, 16), 1)
    image.putpalette([255, 0, 0, 0, 255, 0])
    assert (read_image(saved(tmp_path, image, transparency=1)) == 255).all()


def test_exif_orientation_is_ignored(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90°
    path = saved(tmp_path, Image.fromarray(PIXELS), "x.jpg", exif=exif)
    assert read_image(path).shape == PIXELS.shape


@pytest.mark.parametrize("suffix", [".png", ".tif", ".jpg", ".webp"])
@pytest.mark.parametrize(
    ("orientation", "turned"),
    [
        (1, lambda pixels: pixels),
        (2, np.fliplr),
        (3, lambda pixels: np.rot90(pixels, 2)),
        (4, np.flipud),
        (5, lambda pixels: pixels.transpose(1, 0, 2)),
        (6, lambda pixels: np.rot90(pixels, -1)),
        (7, lambda pixels: np.rot90(pixels, 2).transpose(1, 0, 2)),
        (8, np.rot90),
        (9, lambda pixels: pixels),
    ],
)
def test_upright_is_as_the_exif_orientation_says(
    tmp_path: Path, suffix: str, orientation: int, turned: Callable[[Any], Any]
) -> None:
    pixels = np.zeros((16, 32, 3), dtype=np.uint8)
    pixels[:8, :16] = 255  # one quarter, whole blocks of a JPEG
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = saved(tmp_path, Image.fromarray(pixels), f"x{suffix}", exif=exif)
    upright = DecodeOptions(upright=True).read(path).astype(int)
    assert upright.shape == turned(pixels).shape and np.abs(upright - turned(pixels)).max() < 60  # JPEG and WebP lose a little
    np.testing.assert_array_equal(load_image(path), upright)
    with Image.open(path) as image:
        np.testing.assert_array_equal(load_image(image), upright)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(share=st.floats(0, 0.98))
def test_a_truncated_jpeg_is_an_image_error_wherever_it_ends(tmp_path: Path, share: float) -> None:
    whole = noise_jpeg()
    path = tmp_path / "cut.jpg"
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(ImageError, match=r"^cut\.jpg: "):
        read_image(path)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(position=st.integers(0, 10_000), value=st.integers(0, 255))
def test_a_flipped_byte_gives_pixels_or_an_image_error(tmp_path: Path, position: int, value: int) -> None:
    buffer = io.BytesIO()
    Image.fromarray(PIXELS).save(buffer, "PNG")
    damaged = bytearray(buffer.getvalue())
    damaged[position % len(damaged)] = value
    path = tmp_path / "x.png"
    path.write_bytes(bytes(damaged))
    try:
        assert read_image(path).ndim == 3
    except ImageError as error:
        assert str(error).startswith("x.png: ")


@pytest.mark.parametrize("content", [b"", b"hello, this is no picture", b"%!PS-Adobe-3.0 EPSF-3.0\n"])
def test_what_is_no_image_is_an_image_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.jpg"
    path.write_bytes(content)
    with pytest.raises(ImageError, match=r"x\.jpg: (the file is empty|not an image)"):
        read_image(path)


def test_a_missing_file_and_a_folder_are_image_errors(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="no such file"):
        read_image(tmp_path / "x.jpg")
    with pytest.raises(ImageError, match="cannot be opened"):
        read_image(tmp_path)


def test_a_pipe_and_a_link_in_a_circle_are_image_errors(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")  # to open it would wait for ever
    (tmp_path / "circle.jpg").symlink_to("circle.jpg")
    for name, reason in (("pipe.jpg", "a pipe, a socket or a device"), ("circle.jpg", "Too many levels of symbolic links")):
        with pytest.raises(ImageError, match=rf"^{name}: cannot be opened .*{reason}"):
            read_image(tmp_path / name)
        assert image_digest(tmp_path / name) == picture_kind(tmp_path / name) == ""


@pytest.mark.parametrize("size", [(40, 1), (1, 40), (MIN_SIDE - 1, 40)])
def test_a_side_below_the_minimum_is_refused(tmp_path: Path, size: tuple[int, int]) -> None:
    with pytest.raises(ImageError, match=f"{size[0]} wide and {size[1]} high"):
        read_image(saved(tmp_path, Image.new("RGB", size)))
    smallest = saved(tmp_path, Image.new("RGB", (MIN_SIDE, MIN_SIDE)))
    assert read_image(smallest).shape == (MIN_SIDE, MIN_SIDE, 3)


@pytest.mark.parametrize("side", [10_000, 20_000])  # Pillow warns about the first and refuses the second
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_decompression_bomb_is_refused_from_its_header(tmp_path: Path, side: int) -> None:
    path = tmp_path / "bomb.png"
    path.write_bytes(png(side, side, 8, 2, rows=b""))
    with pytest.raises(ImageError, match="over the limit|too large"):
        read_image(path)


def test_pillows_limit_is_an_error_where_it_only_warns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(tmp_path, Image.fromarray(PIXELS))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", PIXELS.shape[0] * PIXELS.shape[1] - 1)
    with pytest.warns(Image.DecompressionBombWarning), pytest.raises(ImageError, match="over the limit"):
        read_image(path)
