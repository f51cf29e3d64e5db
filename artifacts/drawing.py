"""Drawing on pictures: overlays of CAMs and label maps, tags, legends and paragraphs, and pictures as data URIs."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib import colormaps
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from scipy.ndimage import distance_transform_edt

from artifacts.view import Cam, Labels, Pixels
from excel_core.datasets.palette import IGNORE, VOC_PALETTE

__all__ = [
    "FAINT", "INK", "PAPER", "PNG_URI", "STEP_NAMES", "Colour", "LegendEntry", "bounded_data_uri", "class_mask",
    "deepest_point", "draw_caption", "draw_legend", "draw_paragraph", "draw_tag", "fit_image", "fit_labels", "jpeg_data_uri",
    "load_font", "overlay_cam", "overlay_labels", "png_data_uri", "webp_data_uri", "wrapped_lines",
]  # fmt: skip

# Of refinement, below pictures.
STEP_NAMES = {"raw": "raw", "affinity": "+ affinity", "par": "+ PAR", "crf": "+ CRF", "votes": "+ mask votes (+SAM)"}
CAM_WEIGHT = 0.65  # of the colour map over the grey image
LABEL_WEIGHT = 0.55  # of the palette colour over the image
MIN_NUMBER_DEPTH = 6.0  # pixels from a region's deepest point to its edge, below which no number fits

Colour = tuple[int, int, int]
PAPER, INK, FAINT = (252, 252, 250), (24, 26, 30), (104, 108, 116)  # RGB: ground, letters, letters of remarks
PNG_URI = "data:image/png;base64,"
SUPERSAMPLING = 4  # shapes are drawn so many times larger and then shrunk: Pillow draws their edges with stairs
FONTS = Path(matplotlib.get_data_path()) / "fonts" / "ttf"  # DejaVu Sans: it has Latin, Greek, Cyrillic and more


def overlay_cam(image: Pixels, cam: Cam, colour_map: str = "inferno") -> Pixels:
    """image (H, W, 3) uint8 RGB, cam (h, w) float in [0, 1], resized bilinearly → (H, W, 3) uint8: the CAM in one of
    matplotlib's colour maps over the greyed image."""
    height, width = image.shape[:2]
    values = np.nan_to_num(np.asarray(cam, dtype=np.float32), nan=0.0, posinf=1.0, neginf=0.0)
    full = np.asarray(Image.fromarray(values).resize((width, height), Image.Resampling.BILINEAR))
    colours = colormaps[colour_map](np.clip(full, 0, 1))[..., :3] * 255
    # Over the image's own colours the even steps of the colour map would not read as even.
    grey = np.asarray(Image.fromarray(image).convert("L"), dtype=np.float32)[..., None]
    return _to_uint8(CAM_WEIGHT * colours + (1 - CAM_WEIGHT) * grey)


def overlay_labels(image: Pixels, labels: Labels) -> Pixels:
    """image (H, W, 3) uint8 RGB, labels (H, W) uint8 → (H, W, 3) uint8.

    Classes in their VOC colours, outlined in white with black outside, and numbered (the label value) where a
    number fits, so that neither class nor outline depends on colour alone. Background stays as it is.
    """
    colours = VOC_PALETTE[labels].astype(np.float32)
    weight = np.where(labels == 0, 0.0, LABEL_WEIGHT)[..., None]
    result = _to_uint8(weight * colours + (1 - weight) * image)
    classes = class_mask(labels)
    edge = _contour(labels, classes)
    # White on the class's side of its edge and black outside: visible on any colour.
    result[edge & classes] = 255
    result[edge & ~classes] = 0
    return _numbered(result, labels)


def fit_image(image: Pixels, side: int) -> Pixels:
    """image (H, W, 3) → longer side `side` when larger, enlarged by a whole factor up to `side` when smaller."""
    return np.asarray(Image.fromarray(image).resize(_fitted_size(image.shape, side), Image.Resampling.BICUBIC))


def fit_labels(labels: Labels, side: int) -> Labels:
    """labels (H, W) → the size `fit_image` gives an image of that size, by nearest value."""
    return np.asarray(Image.fromarray(labels).resize(_fitted_size(labels.shape, side), Image.Resampling.NEAREST))


def jpeg_data_uri(image: Pixels, max_side: int = 256, quality: int = 80) -> str:
    """image (H, W, 3) uint8 RGB, shrunk to `max_side` where larger → `data:image/jpeg;base64,…`."""
    picture = Image.fromarray(image)
    picture.thumbnail((max_side, max_side))
    buffer = io.BytesIO()
    picture.save(buffer, format="JPEG", quality=quality, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def png_data_uri(png: bytes) -> str:
    """The bytes of a PNG file → `data:image/png;base64,…`."""
    return PNG_URI + base64.b64encode(png).decode("ascii")


def webp_data_uri(image: Pixels, max_side: int, quality: int | None) -> str:
    """image (H, W, 3) uint8 RGB, shrunk to `max_side` where larger → `data:image/webp;base64,…`; quality None: without loss.
    It takes two thirds of the bytes of a JPEG that looks the same, and a chart without loss a third of its PNG's."""
    picture = Image.fromarray(image)
    picture.thumbnail((max_side, max_side))
    buffer = io.BytesIO()
    picture.save(buffer, format="WEBP", lossless=quality is None, quality=100 if quality is None else quality, method=6)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def bounded_data_uri(png: bytes, max_length: int) -> str:
    """The bytes of a PNG file → a WebP data URI of at most `max_length` characters: without loss, else of lower quality, then
    of smaller size. ValueError where even a thumbnail does not fit."""
    with Image.open(io.BytesIO(png), formats=["PNG"]) as file:
        picture = np.asarray(file.convert("RGB"))
    side = max(picture.shape[:2])
    # Worse quality is less of a loss than fewer pixels, so it comes first.
    attempts = [(side, None), (side, 90), (side, 80), (side, 70), *((side * eighths // 8, 70) for eighths in (6, 4, 3, 2, 1))]
    for size, quality in attempts:
        uri = webp_data_uri(picture, size, quality)
        if len(uri) <= max_length:
            return uri
    raise ValueError(f"a picture of {picture.shape[1]} x {picture.shape[0]} pixels does not fit {max_length} characters")


def _fitted_size(shape: tuple[int, ...], side: int) -> tuple[int, int]:
    """(H, W, …) → (width, height) as Pillow expects it."""
    longest = max(shape[:2])
    factor = side / longest if longest > side else side // longest  # whole, so that pixels of small images stay square
    return max(1, round(shape[1] * factor)), max(1, round(shape[0] * factor))


def class_mask(labels: Labels) -> NDArray[np.bool_]:
    """labels (H, W) → where they are a class, neither background nor ignored."""
    mask: NDArray[np.bool_] = (labels > 0) & (labels != IGNORE)
    return mask


def deepest_point(area: NDArray[np.bool_]) -> tuple[int, int, float]:
    """Row and column of the point of an area (H, W) that is farthest from its edge, and that distance in pixels."""
    depth = distance_transform_edt(np.pad(area, 1))[1:-1, 1:-1]  # the picture's border is an edge too
    row, column = np.unravel_index(int(depth.argmax()), depth.shape)
    return int(row), int(column), float(depth[row, column])


def _contour(labels: Labels, classes: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Pixels (H, W) on both sides of a change of label, where at least one side is a class."""
    edge = np.zeros(labels.shape, dtype=bool)
    across = (labels[:, 1:] != labels[:, :-1]) & (classes[:, 1:] | classes[:, :-1])
    down = (labels[1:] != labels[:-1]) & (classes[1:] | classes[:-1])
    edge[:, 1:] |= across
    edge[:, :-1] |= across
    edge[1:] |= down
    edge[:-1] |= down
    return edge


def _numbered(image: Pixels, labels: Labels) -> Pixels:
    """Write each class's label value at the point of its region that is farthest from the region's edge."""
    picture = Image.fromarray(image)
    draw = ImageDraw.Draw(picture)
    size = max(10, max(labels.shape) // 12)
    font = ImageFont.load_default(size=size)
    for value in np.unique(labels[class_mask(labels)]):
        row, column, depth = deepest_point(labels == value)
        if depth >= MIN_NUMBER_DEPTH:
            position = (_inside(column, picture.width, size), _inside(row, picture.height, size))
            draw.text(position, str(value), font=font, anchor="mm", fill="white", stroke_width=2, stroke_fill="black")
    return np.asarray(picture)


def _inside(position: int, extent: int, size: int) -> int:
    """`position` moved so that a number of height `size` is not cut by the border, where the picture is that large."""
    room = min(size, extent // 2)
    return min(max(position, room), extent - room)


def _to_uint8(values: NDArray[np.floating]) -> Pixels:
    result: Pixels = np.clip(np.rint(values), 0, 255).astype(np.uint8)
    return result


@dataclass(frozen=True)
class LegendEntry:
    """An entry of a legend: a tag's text in its colour, a name, and a remark in a fainter colour."""

    tag: str
    colour: Colour
    name: str
    remark: str = ""


@lru_cache(maxsize=16)
def load_font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(str(FONTS / ("DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf")), size)


def draw_tag(text: str, colour: Colour, size: int) -> Image.Image:
    """A rounded plate of `colour` with `text` in black or white, whichever has more contrast; letters `size` pixels high
    → RGBA."""
    font = load_font(size, bold=True)
    width = round(max(font.getlength(text) + size * 0.9, size * 1.6))
    height = round(size * 1.6)
    large_width, large_height = width * SUPERSAMPLING, height * SUPERSAMPLING
    large = Image.new("RGBA", (large_width, large_height), (0, 0, 0, 0))
    radius, rim = large_height * 0.3, max(1, size // 10) * SUPERSAMPLING
    outer = (0, 0, large_width - 1, large_height - 1)
    ImageDraw.Draw(large).rounded_rectangle(outer, radius=radius, fill=(255, 255, 255, 255))
    inner = (rim, rim, large_width - 1 - rim, large_height - 1 - rim)
    ImageDraw.Draw(large).rounded_rectangle(inner, radius=radius - rim, fill=(*colour, 255))
    tag = large.resize((width, height), Image.Resampling.LANCZOS)
    ImageDraw.Draw(tag).text((width / 2, height * 0.5), text, font=font, anchor="mm", fill=(*_readable_on(colour), 255))
    return tag


def _readable_on(colour: Colour) -> Colour:
    """Black or white, by the colour's relative luminance (WCAG)."""
    linear = (np.array(colour) / 255) ** 2.2
    return INK if float(linear @ (0.2126, 0.7152, 0.0722)) > 0.179 else (255, 255, 255)


def draw_legend(entries: Sequence[LegendEntry], width: int, size: int) -> Pixels:
    """Entries side by side, in as many lines as they need, on their own ground → (h, width, 3) uint8 RGB."""
    gap, line = round(size * 1.6), round(size * 2.2)
    placed: list[tuple[int, int, LegendEntry, str]] = []
    x, y = gap, round(size * 0.7)
    for entry in entries:
        name = _shortened(entry, width - 2 * gap, size)
        needed = _extent(entry, name, size)
        if x > gap and x + needed > width - gap:
            x, y = gap, y + line
        placed.append((x, y, entry, name))
        x += needed + gap
    sheet = Image.new("RGB", (width, y + line + round(size * 0.7)), PAPER)
    for x, y, entry, name in placed:
        _draw_entry(sheet, x, y + line // 2, entry, name, size)
    return np.asarray(sheet)


def _draw_entry(sheet: Image.Image, x: int, middle: int, entry: LegendEntry, name: str, size: int) -> None:
    draw, font = ImageDraw.Draw(sheet), load_font(size)
    if entry.tag:
        tag = draw_tag(entry.tag, entry.colour, round(size * 0.85))
        sheet.paste(tag, (x, middle - tag.height // 2), tag)
        x += tag.width + round(size * 0.5)
    draw.text((x, middle), name, font=font, anchor="lm", fill=INK)
    draw.text((x + font.getlength(f"{name} "), middle), entry.remark, font=font, anchor="lm", fill=FAINT)


def _extent(entry: LegendEntry, name: str, size: int) -> int:
    """Width of an entry in pixels."""
    tag = draw_tag(entry.tag, entry.colour, round(size * 0.85)).width + round(size * 0.5) if entry.tag else 0
    return tag + round(load_font(size).getlength(f"{name} {entry.remark}"))


def _shortened(entry: LegendEntry, max_width: int, size: int) -> str:
    """The entry's name, cut with … where the entry alone would not fit."""
    name = entry.name
    while len(name) > 1 and _extent(entry, name, size) > max_width:
        name = name[:-2].rstrip() + "…" if name.endswith("…") else name[:-1].rstrip() + "…"
    return name


def draw_caption(text: str, width: int, size: int) -> Pixels:
    """One centred line on its own ground → (h, width, 3) uint8 RGB."""
    sheet = Image.new("RGB", (width, round(size * 2.2)), PAPER)
    ImageDraw.Draw(sheet).text((width / 2, sheet.height / 2), text, font=load_font(size), anchor="mm", fill=INK)
    return np.asarray(sheet)


def draw_paragraph(text: str, width: int, size: int, bold: bool = False, colour: Colour = INK, max_lines: int = 12) -> Pixels:
    """Text from the left, wrapped at spaces and inside words longer than a line, in at most `max_lines` lines on its own ground
    → (h, width, 3) uint8 RGB; h is 0 without text."""
    font = load_font(size, bold)
    lines = wrapped_lines(text, width, font)
    if len(lines) > max_lines:
        last = lines[max_lines - 1]
        while last and font.getlength(f"{last} …") > width:
            last = last[:-1]
        lines = [*lines[: max_lines - 1], f"{last} …"]
    step = round(size * 1.3)
    if not lines:
        return np.zeros((0, width, 3), dtype=np.uint8)
    sheet = Image.new("RGB", (width, step * len(lines)), PAPER)
    for number, line in enumerate(lines):
        ImageDraw.Draw(sheet).text((0, step * (number + 0.5)), line, font=font, anchor="lm", fill=colour)
    return np.asarray(sheet)


def wrapped_lines(text: str, width: int, font: ImageFont.FreeTypeFont) -> list[str]:
    """Text split at spaces, and inside words that alone are wider than `width` pixels."""
    lines: list[str] = []
    for word in text.split():
        extended = f"{lines[-1]} {word}" if lines else word
        if lines and font.getlength(extended) <= width:
            lines[-1] = extended
            continue
        while len(word) > 1 and font.getlength(word) > width:
            fits = next(n for n in range(len(word) - 1, 0, -1) if n == 1 or font.getlength(word[:n]) <= width)
            lines.append(word[:fits])
            word = word[fits:]
        lines.append(word)
    return lines
