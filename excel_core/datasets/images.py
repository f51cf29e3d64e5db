"""One image file → RGB pixels, whatever it was saved as; or ImageError with a reason a person understands."""

import os
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from threading import Lock
from typing import IO

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from excel_core.datasets.jpeg import decoded_jpeg
from excel_core.datasets.photo_files import HEIC_ADVICE, open_photo, picture_kind, reads_heic
from excel_core.disk_maps import is_large
from excel_core.errors import DataError, ImageError

__all__ = [
    "AS_STORED", "MIN_SIDE", "UPRIGHT", "DecodeOptions", "ImageSource", "image_formats", "load_image", "orientation_of",
    "read_header", "read_image", "shrink_image", "shrunk_size", "size_tells_turn",
]  # fmt: skip

NO_FILE = Path("image")  # in messages about an image that comes from no file
_one_large_photo = Lock()


def _after_fork() -> None:
    """Another thread of the parent may have held the lock at the fork."""
    global _one_large_photo
    _one_large_photo = Lock()


os.register_at_fork(after_in_child=_after_fork)
MIN_SIDE = 8  # pixels; below this an image has not one patch of the smallest model
ImageSource = str | Path | Image.Image | NDArray[np.uint8]
STRIP_ROWS = 256  # of an image, that are converted at once
# Told by content, not by suffix. Pillow's further ones are left out: some start programs (EPS: ghostscript).
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "TIFF", "WEBP", "PPM")


@cache
def image_formats() -> tuple[str, ...]:
    """Names, as Pillow has them, of the formats that are read here: HEIF too, where pillow-heif is installed."""
    if not reads_heic():
        return FORMATS
    from pillow_heif import register_heif_opener  # an extra, `heic`

    register_heif_opener(thumbnails=False)
    return (*FORMATS, "HEIF")


@dataclass(frozen=True)
class DecodeOptions:
    """How a file becomes pixels. `upright`: turned as its EXIF orientation says, since cameras store a portrait lying on its
    side. `max_side`: shrunk so that no side is longer, pixels; None: not shrunk."""

    upright: bool = False
    max_side: int | None = None

    def read(self, path: Path, by_torchvision: bool = False) -> NDArray[np.uint8]:
        """`read_image`, then turned, then shrunk → (H, W, 3) uint8 RGB."""
        image = read_image(path, by_torchvision)
        if self.upright:
            image = _turn_upright(image, orientation_of(path))
        return image if self.max_side is None else shrink_image(image, self.max_side)


AS_STORED = DecodeOptions()  # data sets with masks: these fit the pixels as they are stored
UPRIGHT = DecodeOptions(upright=True)  # a user's own photos


def load_image(source: ImageSource) -> NDArray[np.uint8]:
    """A photo as (H, W, 3) uint8 RGB: a file or a PIL image, turned upright as its EXIF orientation says, or such an array.

    ImageError for what `read_image` refuses, and for an array of another shape or type.
    """
    if isinstance(source, str | Path):
        return UPRIGHT.read(Path(source))
    if isinstance(source, Image.Image):
        _check_size(NO_FILE, source)
        return _turn_upright(_to_rgb(NO_FILE, source), source.getexif().get(ExifTags.Base.Orientation, 1))
    if source.dtype != np.uint8 or source.ndim != 3 or source.shape[2] != 3 or min(source.shape[:2]) < MIN_SIDE:
        raise ImageError(
            f"array: expected (H, W, 3) uint8 RGB with sides of at least {MIN_SIDE} pixels, got {source.shape} {source.dtype}; "
            "convert it first"
        )
    return np.ascontiguousarray(source)


def shrink_image(image: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """image (H, W, 3) → the same where no side is longer than `side`, else shrunk to that longer side."""
    height, width = shrunk_size(image.shape[0], image.shape[1], side)
    if (height, width) == image.shape[:2]:
        return image
    return np.array(Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC))


def shrunk_size(height: int, width: int, side: int) -> tuple[int, int]:
    """Height and width of an image whose longer side is at most `side`, in its proportions."""
    longest = max(height, width)
    if longest <= side:
        return height, width
    return max(1, round(height * side / longest)), max(1, round(width * side / longest))


def _turn_upright(image: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """image (H, W, 3) as stored → upright, for an EXIF orientation of 1 to 8; others leave it as it is."""
    # Not exif_transpose of the file itself: it also writes the file's EXIF anew, which fails where other tags are damaged.
    picture = Image.fromarray(image)
    picture.getexif()[ExifTags.Base.Orientation] = orientation
    return np.array(ImageOps.exif_transpose(picture))


def orientation_of(path: Path) -> int:
    """The file's EXIF orientation, 1 (upright) where it has none: how a viewer turns the pixels that `read_image` gives. Of a
    TIFF, which Pillow turns upright while it decodes it, always 1."""
    try:
        with open_photo(path) as file, Image.open(file, formats=image_formats()) as image:
            return 1 if image.format == "TIFF" else int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # damaged EXIF may raise almost anything; the pixels were read
        return 1


def size_tells_turn(orientation: int, height: int, width: int) -> bool:
    """Whether a photo as stored (height, width) and as its EXIF orientation turns it differ in size. Only then the size of a
    mask tells for which of the two it was drawn."""
    return orientation > 4 and height != width


def read_image(path: Path, by_torchvision: bool = False) -> NDArray[np.uint8]:
    """Decode the whole file → (H, W, 3) uint8 RGB in [0, 255], row 0 at the top.

    * Greyscale, palette and CMYK images are converted to RGB.
    * 16-bit values are scaled by their range: 0…65535 becomes 0…255, nothing is clipped.
    * Transparent pixels are laid over white.
    * EXIF orientation is ignored, as VOC's own tools do: its masks fit the pixels as they are stored. Only a TIFF is turned.
    * Of an animation, the first frame.

    The file is opened by Python, so that the guard of `forbid_mask_access` sees it. `by_torchvision`: to the same pixels, on
    threads beside a GPU, where `torchvision_decodes_alike`.
    Raises ImageError, starting with the file's name, where the file is missing, empty, truncated or
    cannot be decoded, is larger than Pillow's limit (Image.MAX_IMAGE_PIXELS), has a side below MIN_SIDE
    pixels, or holds pixels of unknown range (32-bit).
    """
    try:
        with open_photo(path) as file:
            if not file.read(1):
                raise ImageError(f"{path.name}: the file is empty")
            file.seek(0)
            return _decode(path, file, by_torchvision)
    except FileNotFoundError as error:
        raise ImageError(f"{path.name}: no such file") from error
    except OSError as error:
        raise ImageError(f"{path.name}: cannot be opened ({error.strerror or error})") from error


@dataclass(frozen=True)
class Header:
    """What a file says of its image before it is decoded: Pillow's mode, and height and width in pixels."""

    mode: str
    height: int
    width: int


def read_header(path: Path) -> Header:
    """The file's header alone, which tells of no damage further on. ImageError as `read_image` raises it for a header."""
    try:
        with open_photo(path) as file, Image.open(file, formats=image_formats()) as image:
            _check_size(path, image)
            return Header(image.mode, image.height, image.width)
    except DataError:  # a MaskLeakError is one
        raise
    except Exception as error:
        raise _why(path, error) from error


def _decode(path: Path, file: IO[bytes], by_torchvision: bool) -> NDArray[np.uint8]:
    """Decode an open image file; any failure of a decoder becomes an ImageError."""
    try:
        with Image.open(file, formats=image_formats()) as image:
            _check_size(path, image)
            if by_torchvision and (image.format, image.mode) == ("JPEG", "RGB") and not is_large(image.size):
                file.seek(0)
                if (pixels := decoded_jpeg(file.read())) is not None:
                    return pixels
            # Decoding takes 8 to 14 bytes a pixel, so that threads which read ahead decode large photos in turn.
            with _one_large_photo if is_large(image.size) else nullcontext():
                image.load()
                return _to_rgb(path, image)
    except ImageError:
        raise
    except Exception as error:  # a damaged file may raise almost anything inside its decoder
        raise _why(path, error) from error


def _why(path: Path, error: Exception) -> ImageError:
    """A decoder's error as the reason that a person reads."""
    if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
        return ImageError(f"{path.name}: too large to decode safely ({error})")
    if isinstance(error, UnidentifiedImageError):
        kind = picture_kind(path)
        if kind == "AVIF" or (kind == "HEIC" and not reads_heic()):
            return ImageError(f"{path.name}: {HEIC_ADVICE if kind == 'HEIC' else 'AVIF is not read; save it as JPEG or PNG'}")
        return ImageError(f"{path.name}: not an image in one of the formats {', '.join(image_formats())}")
    if isinstance(error, MemoryError):
        return ImageError(f"{path.name}: decoding it takes more memory than there is")
    return ImageError(f"{path.name}: truncated or damaged ({error})")


def _check_size(path: Path, image: Image.Image) -> None:
    """Refuse, from the header alone, what is too large to decode or too small to use."""
    width, height = image.size
    limit = Image.MAX_IMAGE_PIXELS  # Pillow itself only warns between one and two times its limit
    if limit is not None and width * height > limit:
        raise ImageError(f"{path.name}: {width}×{height} pixels are over the limit of {limit}")
    if min(width, height) < MIN_SIDE:
        raise ImageError(f"{path.name}: {width} wide and {height} high; both sides must have at least {MIN_SIDE} pixels")


def _to_rgb(path: Path, image: Image.Image) -> NDArray[np.uint8]:
    """Convert a decoded image of any Pillow mode → (H, W, 3) uint8 RGB."""
    if image.mode == "F":
        raise ImageError(f"{path.name}: float pixels have no known range; save the image with 8 bits")
    if image.mode == "I" and image.format == "TIFF":  # 16 bits without a sign are another mode
        raise ImageError(f"{path.name}: 32-bit pixels have no known range; save the image with 8 bits")
    width, height = image.size
    rgb = np.empty((height, width, 3), dtype=np.uint8)
    # Strip by strip, since Pillow's copies of a whole photo take 4 bytes a pixel each, and 16-bit values 24.
    for top in range(0, height, STRIP_ROWS):
        strip = image.crop((0, top, width, min(top + STRIP_ROWS, height)))
        rgb[top : top + STRIP_ROWS] = _grey16(path, strip) if image.mode.startswith("I") else _over_white(strip)
    return rgb


def _grey16(path: Path, strip: Image.Image) -> NDArray[np.uint8]:
    """16-bit greyscale, which some formats hand out as 32-bit integers → (h, W, 1), scaled by its range."""
    values = np.asarray(strip).astype(np.int64)
    if values.min() < 0 or values.max() > 65535:
        raise ImageError(f"{path.name}: 32-bit pixels have no known range; save the image with 8 bits")
    return ((values * 255 + 32767) // 65535).astype(np.uint8)[:, :, None]


def _over_white(strip: Image.Image) -> NDArray[np.uint8]:
    """Any 8-bit mode → (h, W, 3), transparent pixels over white."""
    if strip.has_transparency_data:
        white = Image.new("RGBA", strip.size, (255, 255, 255, 255))
        strip = Image.alpha_composite(white, strip.convert("RGBA"))
    return np.asarray(strip.convert("RGB"), dtype=np.uint8)
