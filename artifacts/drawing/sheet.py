"""A sheet of pictures in columns, with headings, paragraphs and colour scales: the same PNG bytes for the same contents."""

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib import colormaps
from PIL import Image

from artifacts.drawing.lettering import FAINT, INK, PAPER, draw_paragraph
from artifacts.view import Pixels

__all__ = ["ColourScale", "Panel", "Paragraph", "SheetRow", "draw_sheet"]

SHEET_WIDTH, MARGIN, GAP = 1200, 20, 12  # pixels
TITLE_HEIGHT, TEXT_HEIGHT = 16, 13  # of letters, pixels
MAX_COLUMN_WIDTH = 300  # pixels, where there are few columns
MAX_PICTURE_HEIGHT = 1.3  # in widths of its column; taller photos are drawn narrower


@dataclass(frozen=True)
class Paragraph:
    """A paragraph below a picture."""

    text: str
    bold: bool = False
    faint: bool = False


@dataclass(frozen=True, eq=False)
class Panel:
    """A picture (H, W, 3) with paragraphs below it; None: words alone."""

    picture: Pixels | None
    paragraphs: tuple[Paragraph, ...] = ()


@dataclass(frozen=True, eq=False)
class SheetRow:
    """A heading, with a remark in a fainter colour, over panels from the left."""

    heading: str
    remark: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True)
class ColourScale:
    """One of matplotlib's colour maps, and what it goes from and to."""

    colour_map: str
    words: str


def draw_sheet(titles: Sequence[str], rows: Sequence[SheetRow], scales: Sequence[ColourScale], notes: Sequence[str]) -> bytes:
    """Column titles, rows, colour scales and notes from top to bottom → PNG bytes without a date, SHEET_WIDTH pixels wide."""
    inner, columns = SHEET_WIDTH - 2 * MARGIN, max(1, len(titles))
    cell = min(MAX_COLUMN_WIDTH, (inner - (columns - 1) * GAP) // columns)
    # From top to bottom: the columns' titles, a block per row, the colour scales, the notes.
    blocks = [_beside([draw_paragraph(title, cell, TITLE_HEIGHT, bold=True) for title in titles], cell)]
    for row in rows:
        panels = _beside([_panel(panel, cell) for panel in row.panels], cell)
        blocks.append(_below([_ground(GAP // 2, inner), _heading(row, inner), panels], inner, GAP // 3))
    blocks.append(_ground(GAP // 2, inner))
    blocks += [_scale(scale, inner) for scale in scales]
    blocks += [draw_paragraph(note, inner, TEXT_HEIGHT, colour=FAINT) for note in notes]
    sheet = _below(blocks, inner, GAP)
    framed = _ground(sheet.shape[0] + 2 * MARGIN, SHEET_WIDTH)
    framed[MARGIN:-MARGIN, MARGIN:-MARGIN] = sheet
    buffer = io.BytesIO()
    Image.fromarray(framed).save(buffer, format="PNG")
    return buffer.getvalue()


def _heading(row: SheetRow, width: int) -> Pixels:
    """The heading with the remark below."""
    heading = draw_paragraph(row.heading, width, TITLE_HEIGHT, bold=True, max_lines=2)
    remark = draw_paragraph(row.remark, width, TEXT_HEIGHT, colour=FAINT, max_lines=2)
    return _below([heading, remark], width, 0)


def _panel(panel: Panel, cell: int) -> Pixels:
    """The picture in the width of its column, and its paragraphs."""
    blocks = [] if panel.picture is None else [_fitted(panel.picture, cell)]
    for paragraph in panel.paragraphs:
        colour = FAINT if paragraph.faint else INK
        blocks.append(draw_paragraph(paragraph.text, cell, TEXT_HEIGHT, bold=paragraph.bold, colour=colour))
    return _below(blocks, cell, 4)


def _fitted(picture: Pixels, cell: int) -> Pixels:
    """picture (H, W, 3) as wide as its column, or as high as is allowed → (h, w, 3), w at most `cell`."""
    height, width = picture.shape[:2]
    factor = min(cell / width, MAX_PICTURE_HEIGHT * cell / height)
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    return np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BICUBIC))


def _scale(scale: ColourScale, width: int) -> Pixels:
    """A strip of the colour map with its words beside it."""
    length = width // 6
    words = draw_paragraph(scale.words, width - length - GAP, TEXT_HEIGHT)
    strip = (colormaps[scale.colour_map](np.linspace(0, 1, length))[None, :, :3] * 255).round().astype(np.uint8)
    line = _ground(max(len(words), TEXT_HEIGHT), width)
    line[:TEXT_HEIGHT, :length] = strip
    line[: len(words), length + GAP :] = words
    return line


def _below(blocks: Sequence[Pixels], width: int, gap: int) -> Pixels:
    """Blocks (h, w, 3) under each other from the left; empty ones leave no gap."""
    filled = [block for block in blocks if len(block)]
    sheet = _ground(sum(len(block) + gap for block in filled), width)
    y = 0
    for block in filled:
        sheet[y : y + len(block), : block.shape[1]] = block
        y += len(block) + gap
    return sheet[: max(0, y - gap)]


def _beside(blocks: Sequence[Pixels], cell: int) -> Pixels:
    """Blocks (h, w, 3) in columns of width `cell`, their tops in a line."""
    sheet = _ground(max((len(block) for block in blocks), default=0), len(blocks) * (cell + GAP) - GAP)
    for column, block in enumerate(blocks):
        x = column * (cell + GAP)
        sheet[: len(block), x : x + block.shape[1]] = block
    return sheet


def _ground(height: int, width: int) -> Pixels:
    return np.full((height, max(0, width), 3), PAPER, dtype=np.uint8)
