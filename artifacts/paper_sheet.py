"""A sheet of pictures in rows and columns with words around them, composed pixel by pixel: the same for the same contents."""

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib import colormaps
from PIL import Image, ImageDraw

from artifacts.lettering import FAINT, INK, PAPER, paragraph
from artifacts.view import Pixels

__all__ = ["Line", "Panel", "Row", "Scale", "draw_sheet", "mark_patch"]

WIDTH, MARGIN, GAP = 1200, 20, 12  # pixels
TITLE, BODY = 16, 13  # heights of letters, pixels
WIDEST = 300  # of a column, pixels, where there are few
TALLEST = 1.3  # of a picture, in widths of its column; taller photos are drawn narrower


@dataclass(frozen=True)
class Line:
    """A paragraph below a picture."""

    text: str
    bold: bool = False
    faint: bool = False


@dataclass(frozen=True, eq=False)
class Panel:
    """A picture (H, W, 3) with paragraphs below it; None: words alone."""

    picture: Pixels | None
    lines: tuple[Line, ...] = ()


@dataclass(frozen=True, eq=False)
class Row:
    """A heading, with a remark in a fainter colour, over panels from the left."""

    heading: str
    remark: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True)
class Scale:
    """One of matplotlib's colour maps, and what it goes from and to."""

    colour_map: str
    words: str


def draw_sheet(titles: Sequence[str], rows: Sequence[Row], scales: Sequence[Scale], notes: Sequence[str]) -> bytes:
    """Columns' titles, rows, colour scales and notes from top to bottom → PNG bytes, WIDTH pixels wide, without a date."""
    inner, columns = WIDTH - 2 * MARGIN, max(1, len(titles))
    cell = min(WIDEST, (inner - (columns - 1) * GAP) // columns)
    blocks = [_beside([paragraph(title, cell, TITLE, bold=True) for title in titles], cell)]
    for row in rows:
        panels = _beside([_panel(panel, cell) for panel in row.panels], cell)
        blocks.append(_below([_ground(GAP // 2, inner), _heading(row, inner), panels], inner, GAP // 3))
    blocks.append(_ground(GAP // 2, inner))
    blocks += [_scale(scale, inner) for scale in scales]
    blocks += [paragraph(note, inner, BODY, colour=FAINT) for note in notes]
    sheet = _below(blocks, inner, GAP)
    framed = _ground(sheet.shape[0] + 2 * MARGIN, WIDTH)
    framed[MARGIN:-MARGIN, MARGIN:-MARGIN] = sheet
    buffer = io.BytesIO()
    Image.fromarray(framed).save(buffer, format="PNG")
    return buffer.getvalue()


def mark_patch(picture: Pixels, query: tuple[int, int], grid: tuple[int, int]) -> Pixels:
    """picture (H, W, 3) with a frame, white amid black, around the patch at `query` (row, column) of `grid`."""
    (height, width), (row, column), (h, w) = picture.shape[:2], query, grid
    line = max(2, max(height, width) // 110)
    left, top, right, bottom = (
        round(edge) for edge in (column * width / w, row * height / h, (column + 1) * width / w, (row + 1) * height / h)
    )
    sheet = Image.fromarray(picture)
    for grow, colour, thick in ((2 * line, (0, 0, 0), 3 * line), (line, (255, 255, 255), line)):
        box = (left - grow, top - grow, right - 1 + grow, bottom - 1 + grow)
        ImageDraw.Draw(sheet).rectangle(box, outline=colour, width=thick)
    return np.asarray(sheet)


def _heading(row: Row, width: int) -> Pixels:
    """The heading with the remark below."""
    heading = paragraph(row.heading, width, TITLE, bold=True, most=2)
    return _below([heading, paragraph(row.remark, width, BODY, colour=FAINT, most=2)], width, 0)


def _panel(panel: Panel, cell: int) -> Pixels:
    """The picture in the width of its column, and its paragraphs."""
    blocks = [] if panel.picture is None else [_fitted(panel.picture, cell)]
    for line in panel.lines:
        blocks.append(paragraph(line.text, cell, BODY, bold=line.bold, colour=FAINT if line.faint else INK))
    return _below(blocks, cell, 4)


def _fitted(picture: Pixels, cell: int) -> Pixels:
    """picture (H, W, 3) as wide as its column, or as high as is allowed → (h, w, 3), w at most `cell`."""
    height, width = picture.shape[:2]
    factor = min(cell / width, TALLEST * cell / height)
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    return np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BICUBIC))


def _scale(scale: Scale, width: int) -> Pixels:
    """A strip of the colour map with its words beside it."""
    length = width // 6
    words = paragraph(scale.words, width - length - GAP, BODY)
    strip = (colormaps[scale.colour_map](np.linspace(0, 1, length))[None, :, :3] * 255).round().astype(np.uint8)
    line = _ground(max(len(words), BODY), width)
    line[:BODY, :length] = strip
    line[: len(words), length + GAP :] = words
    return line


def _below(blocks: Sequence[Pixels], width: int, gap: int) -> Pixels:
    """Blocks (h, w, 3) under each other from the left; empty ones leave no gap."""
    shown = [block for block in blocks if len(block)]
    sheet = _ground(sum(len(block) + gap for block in shown), width)
    y = 0
    for block in shown:
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
