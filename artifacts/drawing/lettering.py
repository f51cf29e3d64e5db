"""Words on pictures: tags, legends, captions and paragraphs, in DejaVu Sans."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from artifacts.view import Pixels

__all__ = [
    "FAINT", "INK", "PAPER", "Colour", "LegendEntry", "draw_caption", "draw_legend", "draw_paragraph", "draw_tag", "load_font",
    "wrapped_lines",
]  # fmt: skip

Colour = tuple[int, int, int]
PAPER, INK, FAINT = (252, 252, 250), (24, 26, 30), (104, 108, 116)  # RGB: ground, letters, letters of remarks
SUPERSAMPLING = 4  # shapes are drawn so many times larger and then shrunk: Pillow draws their edges with stairs
FONTS = Path(matplotlib.get_data_path()) / "fonts" / "ttf"  # DejaVu Sans: it has Latin, Greek, Cyrillic and more


@dataclass(frozen=True)
class LegendEntry:
    """An entry of a legend: a tag's text in its colour, a name, and a remark in a fainter colour."""

    tag: str
    colour: Colour
    name: str
    remark: str = ""


@lru_cache(maxsize=16)
def load_font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    """DejaVu Sans with letters of `size` pixels."""
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
        entry_width = _extent(entry, name, size)
        if x > gap and x + entry_width > width - gap:
            x, y = gap, y + line
        placed.append((x, y, entry, name))
        x += entry_width + gap
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
        last_line = lines[max_lines - 1]
        while last_line and font.getlength(f"{last_line} …") > width:
            last_line = last_line[:-1]
        lines = [*lines[: max_lines - 1], f"{last_line} …"]
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
