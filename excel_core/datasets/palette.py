"""The VOC colour map, and label maps as palette PNGs that any viewer shows in colour."""

import math
import struct
import zlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from excel_core.errors import DataError
from excel_core.files import written_then_renamed

__all__ = ["IGNORE", "VOC_PALETTE", "LabelMapFile", "load_labels_png", "read_label_map", "save_labels_png", "values_used"]

IGNORE = 255  # the label of a pixel that no score counts
STRIP_ROWS = 1024  # of a label map, that are compressed at once
COLOUR_CODE = np.array([1 << 16, 1 << 8, 1])  # red, green, blue → 0xRRGGBB


def _voc_palette() -> NDArray[np.uint8]:
    """Spread the bits of each index over the three colours → (256, 3) uint8 RGB.

    Bits 0, 1, 2 of the index become the top bits of red, green and blue, bits 3, 4, 5 the next ones,
    and so on; no two indices share a colour, so the map can be read backwards.
    """
    index = np.arange(256)
    palette = np.zeros((256, 3), dtype=np.uint8)
    for bit in range(8):
        palette[:, bit % 3] |= (((index >> bit) & 1) << (7 - bit // 3)).astype(np.uint8)
    palette.flags.writeable = False
    return palette


VOC_PALETTE = _voc_palette()  # (256, 3) uint8 RGB, read-only; row 0 black, row 255 the VOC border colour


def save_labels_png(path: Path, labels: NDArray[np.uint8]) -> None:
    """Write labels (H, W) uint8 as a palette PNG in VOC colours, completely or not at all.

    The folder is made where it is missing. Not synced: whoever writes many of them syncs them together. Raises DataError for
    another shape or dtype, and OSError (full disk) as it comes; an older file of that name then stays as it was.
    """
    if labels.ndim != 2 or labels.dtype != np.uint8 or labels.size == 0:
        raise DataError(f"{path}: labels must be (H, W) uint8, got {labels.shape} {labels.dtype}")
    with written_then_renamed(path, sync=False) as temporary, temporary.open("wb") as file:
        height, width = labels.shape
        file.write(b"\x89PNG\r\n\x1a\n")
        file.write(_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)))  # 8 bits, palette
        file.write(_chunk(b"PLTE", VOC_PALETTE.tobytes()))
        file.write(_chunk(b"IDAT", _deflated(labels)))
        file.write(_chunk(b"IEND", b""))


def _deflated(labels: NDArray[np.uint8]) -> bytes:
    """labels (H, W) as a PNG has them, zlib's stream of lines without a filter.

    Label maps are runs. zlib's strategy for runs takes a tenth of its default's time and no more bytes, on threads beside
    each other.
    """
    deflate = zlib.compressobj(1, zlib.DEFLATED, zlib.MAX_WBITS, zlib.DEF_MEM_LEVEL, zlib.Z_RLE)
    chunks = []
    for top in range(0, len(labels), STRIP_ROWS):
        strip = labels[top : top + STRIP_ROWS]
        lines = np.zeros((len(strip), 1 + strip.shape[1]), np.uint8)  # each begins with its filter's number, 0
        lines[:, 1:] = strip
        chunks.append(deflate.compress(lines.data))
    return b"".join([*chunks, deflate.flush()])


def _chunk(kind: bytes, content: bytes) -> bytes:
    """A chunk of a PNG: length, kind, content, checksum."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


@dataclass(frozen=True)
class LabelMapFile:
    """A label map as it was read: labels (H, W) uint8, and whether they were told by colour, since the file's own values are
    others or it has none."""

    labels: NDArray[np.uint8]
    by_colour: bool


def load_labels_png(path: Path, classes: int | None = None) -> NDArray[np.uint8]:
    """`read_label_map` → its labels (H, W) uint8 alone."""
    return read_label_map(path, classes).labels


def read_label_map(path: Path, classes: int | None = None) -> LabelMapFile:
    """Read a label map, true or predicted → labels (H, W) uint8: the index of each pixel.

    A palette or greyscale PNG is read by value, one saved as RGB through VOC_PALETTE. So is a palette of VOC's colours in
    another order, and VOC's colours that became greyscale: a lossless optimiser renumbers a palette by what the image uses.
    Greys that are none of VOC's are values in RGB too, in 16 bits, and beside an alpha channel, as other programs save them.
    `classes`, where it is known, is how many classes there are: labels are then 0 … classes and 255, which tells more files
    with VOC's colours from those with others. Black and white alone (1 bit) are 0 and 255.

    Raises DataError where the file is missing, damaged, or holds a colour that is not in the palette.
    """
    try:
        with path.open("rb") as file, Image.open(file, formats=["PNG"]) as image:
            if image.width * image.height > (Image.MAX_IMAGE_PIXELS or math.inf):  # up to twice that, Pillow only warns
                raise DataError(f"{path}: {image.width}×{image.height} pixels are over the limit of {Image.MAX_IMAGE_PIXELS}")
            image.load()
            return _labels_of(image, classes, path)
    except DataError:  # a MaskLeakError is one
        raise
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such label file") from error
    except Exception as error:  # a damaged file may raise almost anything inside its decoder
        raise DataError(f"{path}: not a readable label PNG ({error})") from error


def _labels_of(image: Image.Image, classes: int | None, path: Path) -> LabelMapFile:
    if image.mode == "P":
        palette = np.array(image.getpalette("RGB"), dtype=np.uint8).reshape(-1, 3)
        return _renumbered(np.array(image, dtype=np.uint8), palette, classes)
    if image.mode in ("1", "L"):
        return _from_grey(np.array(image.convert("L"), dtype=np.uint8), classes)
    if image.mode == "LA":
        return _from_grey(np.array(image.getchannel("L"), dtype=np.uint8), classes)
    if image.mode.startswith("I"):
        grey = np.asarray(image)
        if grey.min() < 0 or grey.max() > IGNORE:
            raise DataError(f"{path}: labels are 0 to {IGNORE}, got {grey.max()} in 16 bits; save the labels themselves")
        return _from_grey(grey.astype(np.uint8), classes)
    if image.mode in ("RGB", "RGBA"):
        colours = np.asarray(image)[..., :3]
        if _is_grey_of_values(colours):
            return _from_grey(np.ascontiguousarray(colours[..., 0]), classes)
        return LabelMapFile(_decode_colours(colours, path), by_colour=True)
    raise DataError(f"{path}: a label PNG is palette, greyscale or RGB, got mode {image.mode}")


def _is_grey_of_values(colours: NDArray[np.uint8]) -> bool:
    """Whether colours (H, W, 3) are greys, of which one is neither VOC's nor white: labels that were saved as RGB."""
    if not all((row == row[:, :1]).all() for row in colours):  # row by row, in as little memory
        return False
    used = values_used(colours[..., 0])
    greys = used[used < IGNORE].astype(np.uint8)
    return bool((_voc_index(greys[:, None].repeat(3, axis=1)) < 0).any())


def values_used(labels: NDArray[np.uint8]) -> NDArray[np.intp]:
    """labels (H, W) → the values that occur, in order. Row by row: counting all at once takes eight bytes a pixel."""
    used = np.zeros(256, dtype=bool)
    for row in labels:
        used[row] = True
    return np.flatnonzero(used)


def _renumbered(values: NDArray[np.uint8], palette: NDArray[np.uint8], classes: int | None) -> LabelMapFile:
    """values (H, W) with their palette (N, 3): by colour where all colours are VOC's and those of the image stand elsewhere."""
    if np.array_equal(palette, VOC_PALETTE[: len(palette)]):  # as it is saved here and by VOC
        return LabelMapFile(values, by_colour=False)
    label_of_value = _voc_index(palette)
    used = values_used(values)
    # Unused entries count too: else one mask of another data set could be read by colour, and the next one by number. Only
    # what fills up a palette does not count: white, and Pillow's grey of the entry's own number.
    number = np.arange(len(palette))
    fills_up = (palette == 255).all(axis=1) | (palette == number[:, None]).all(axis=1)
    other = (label_of_value < 0) & ~(fills_up & ~np.isin(number, used))
    if other.any() or used[-1] >= len(palette):  # another palette: its numbers are the labels
        return LabelMapFile(values, by_colour=False)
    return _relabelled(values, used, label_of_value, classes)


def _from_grey(values: NDArray[np.uint8], classes: int | None) -> LabelMapFile:
    """values (H, W) greyscale: by colour where they are too large for labels, and all of them greys of VOC's palette."""
    used = values_used(values)
    if classes is None or not ((used > classes) & (used < IGNORE)).any():
        return LabelMapFile(values, by_colour=False)
    label_of_value = _voc_index(np.arange(256, dtype=np.uint8)[:, None].repeat(3, axis=1))
    return _relabelled(values, used, label_of_value, classes)


def _relabelled(
    values: NDArray[np.uint8], used: NDArray[np.intp], label_of_value: NDArray[np.int16], classes: int | None
) -> LabelMapFile:
    """values (H, W), of which those `used` occur, as `label_of_value` (N,) says, where all of these are labels."""
    labels = label_of_value[used]
    valid = (labels >= 0) & ((labels <= (IGNORE if classes is None else classes)) | (labels == IGNORE))
    if not valid.all() or np.array_equal(labels, used):
        return LabelMapFile(values, by_colour=False)
    table = np.zeros(256, dtype=np.uint8)
    table[used] = labels
    return LabelMapFile(table[values], by_colour=True)


def _voc_index(colours: NDArray[np.uint8]) -> NDArray[np.int16]:
    """Colours (N, 3) → the index of each in VOC_PALETTE (N,), -1 for others."""
    index_of = {code: index for index, code in enumerate((VOC_PALETTE.astype(np.int64) @ COLOUR_CODE).tolist())}
    codes = (colours.astype(np.int64) @ COLOUR_CODE).tolist()
    return np.array([index_of.get(code, -1) for code in codes], dtype=np.int16)


def _decode_colours(colours: NDArray[np.uint8], path: Path) -> NDArray[np.uint8]:
    """Colours (H, W, 3) uint8 RGB → the palette index of each pixel (H, W) uint8."""
    index_of = _index_of_colour()
    indices = np.empty(colours.shape[:2], dtype=np.uint8)
    for row, line in enumerate(colours):  # row by row, since the codes of a large label map take a gigabyte
        codes = line.astype(np.int64) @ COLOUR_CODE
        row_indices = index_of[codes]
        if (row_indices < 0).any():
            code = int(codes[row_indices < 0][0])
            colour = (code >> 16, code >> 8 & 255, code & 255)
            raise DataError(f"{path}: colour {colour} is not in the VOC palette; save labels as a palette PNG")
        indices[row] = row_indices
    return indices


@cache
def _index_of_colour() -> NDArray[np.int16]:
    """0xRRGGBB → the colour's index in the palette, -1 for any other colour: (2^24,), 32 MiB."""
    index_of = np.full(1 << 24, -1, dtype=np.int16)
    index_of[VOC_PALETTE.astype(np.int64) @ COLOUR_CODE] = np.arange(256)
    return index_of
