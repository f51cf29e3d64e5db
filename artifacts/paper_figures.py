"""The paper's figures 4 to 6 of a run's own images, laid out on a sheet: the same PNG bytes for the same contents."""

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib import colormaps
from PIL import Image, ImageDraw

from artifacts.drawing import FAINT, INK, PAPER, draw_paragraph, fit_image, overlay_cam
from artifacts.view import Cam, Pixels
from excel_core.paper.figures import AttributeResponses, CamColumns, QueryMaps

__all__ = ["PaperImage", "cam_titles", "draw_cams", "draw_query", "draw_responses", "draw_sheet", "mark_patch"]

PHOTO_SIDE = 320  # longer side of a photo before it is laid out, pixels
ORDINALS = ("1st", "2nd", "3rd", "4th", "5th", "6th")
HEAT, SIGNED = "inferno", "RdBu_r"  # colour maps: from the least value on; above and below 0
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


@dataclass(frozen=True, eq=False)
class PaperImage:
    """A photo (H, W, 3) and the maps of one of its classes; descriptions: the nearest one to each attribute."""

    id: str
    class_name: str
    photo: Pixels
    cams: CamColumns
    responses: AttributeResponses
    descriptions: tuple[str, ...]
    query: QueryMaps


def cam_titles(attention: str) -> dict[str, str]:
    """What figure 4 calls each field of CamColumns, for a run's `cams.calibration.attention`."""
    calibrated = {"svc": "SVC", "v": "value only"}.get(attention, attention)
    return {"original": "q-k CAM", "calibrated": f"{calibrated} CAM", "enriched": "+ TSE", "learnt": "+ LVC"}


def draw_cams(images: Sequence[PaperImage], attention: str, notes: Sequence[str] = ()) -> bytes:
    """Figure 4, a row per photo: its class's CAM as the steps are added; steps that the run lacks are left out."""
    titles = _of_any(cam_titles(attention), [image.cams for image in images])
    rows = []
    for image in images:
        photo = fit_image(image.photo, PHOTO_SIDE)
        cams = (getattr(image.cams, name) for name in titles)
        rows.append(_row(image, [Panel(photo), *(Panel(overlay_cam(photo, cam, HEAT)) for cam in cams)]))
    return draw_sheet(["photo", *titles.values()], rows, [ColourScale(HEAT, "CAM from 0 to 1; nothing is refined")], notes)


def draw_responses(images: Sequence[PaperImage], notes: Sequence[str] = ()) -> bytes:
    """Figure 5, a row per photo: its responses to the top attributes of its class, each with the description nearest to it.
    Where there are no attributes, a sentence stands in their place."""
    rows = []
    for image in images:
        photo = fit_image(image.photo, PHOTO_SIDE)
        rows.append(_row(image, [Panel(photo), *_response_panels(image, photo)]))
    most_attributes = max(len(image.descriptions) for image in images)
    titles = [f"{ORDINALS[rank]} by weight" for rank in range(most_attributes)] or ["no attributes"]
    scale = ColourScale(HEAT, "cosine of a patch with the attribute, each map from its least to its greatest value")
    return draw_sheet(["photo", *titles], rows, [scale] if most_attributes else [], notes)


def _response_panels(image: PaperImage, photo: Pixels) -> list[Panel]:
    """A panel per attribute: response, number, weight, range of the cosine, description."""
    responses = image.responses
    if not image.descriptions:
        return [Panel(None, (Paragraph("The class's text is made without attributes.", faint=True),))]
    panels = []
    for rank, description in enumerate(image.descriptions):
        values = responses.maps[rank]
        low, high = float(values.min()), float(values.max())
        words = (
            Paragraph(f"attribute {responses.numbers[rank]}", bold=True),
            Paragraph(f"weight {responses.weights[rank]:.4f}", faint=True),
            Paragraph(f"cosine {_digits(low, 'f')} to {_digits(high, 'f')}", faint=True),
            Paragraph(description),
        )
        panels.append(Panel(overlay_cam(photo, _stretched(values, low, high), HEAT), words))
    return panels


def draw_query(images: Sequence[PaperImage], notes: Sequence[str] = ()) -> bytes:
    """Figure 6, a row per photo: one marked patch and its attention."""
    all_titles = {
        "original": f"q-k attention, mean of {images[0].query.blocks} blocks",
        "calibrated": "SVC attention of the last block",
        "relation": "learnt relation r of the neck",
        "learnt": "LVC: SVC + relation",
    }
    titles = _of_any(all_titles, [image.query for image in images])
    rows = []
    for image in images:
        photo = fit_image(image.photo, PHOTO_SIDE)
        maps = [(getattr(image.query, name), name == "relation") for name in titles]
        panels = [_attention_panel(photo, values, image.query.query, signed) for values, signed in maps]
        row, column = image.query.query
        marked = mark_patch(photo, image.query.query, image.query.relation.shape)
        rows.append(_row(image, [Panel(marked, (Paragraph(f"patch in row {row}, column {column}"),)), *panels]))
    attention = "attention of the marked patch, mean over heads, from the least to the greatest of the other patches"
    scales = [
        ColourScale(HEAT, attention),
        ColourScale(SIGNED, "relation r with the marked patch (eq. 8): red above 0; blue below, which LVC leaves out"),
    ]
    sums = ["LVC adds the softmax over the patches with r ≥ 0 to the SVC attention (eqs. 9, 10)."] if "learnt" in titles else []
    return draw_sheet(["query patch", *titles.values()], rows, scales, [*sums, *notes])


def _attention_panel(photo: Pixels, values: Cam, query: tuple[int, int], signed: bool) -> Panel:
    """values (h, w) of all patches drawn over the photo, one square per patch, with their range in words."""
    # Colours end at the greatest value of the other patches, since most patches attend to themselves above all.
    itself, others = float(values[query]), np.delete(values.ravel(), query[0] * values.shape[1] + query[1])
    low, high = (float(others.min()), float(others.max())) if len(others) else (itself, itself)
    if signed:
        edge = max(abs(low), abs(high))  # 0 is the white middle of the colour map
        scaled = _stretched(values, -edge, edge)
    else:
        scaled = _stretched(values, low, high)
    size = (int(photo.shape[1]), int(photo.shape[0]))
    patches = np.asarray(Image.fromarray(scaled).resize(size, Image.Resampling.NEAREST))
    picture = mark_patch(overlay_cam(photo, patches, SIGNED if signed else HEAT), query, values.shape)
    kind = "f" if signed else "g"
    text = f"{_digits(low, kind)} to {_digits(high, kind)}; itself {_digits(itself, kind)}"
    return Panel(picture, (Paragraph(text, faint=True),))


def _of_any(titles: dict[str, str], maps: Sequence[CamColumns | QueryMaps]) -> dict[str, str]:
    """The titles of the fields that any image has."""
    return {name: title for name, title in titles.items() if any(getattr(fields, name) is not None for fields in maps)}


def _row(image: PaperImage, panels: Sequence[Panel]) -> SheetRow:
    return SheetRow(image.class_name, image.id, tuple(panels))


def _stretched(values: Cam, low: float, high: float) -> Cam:
    """values → float32 in [0, 1] from low to high; all 0 where these are one."""
    return np.clip((values - low) / (high - low), 0, 1).astype(np.float32) if high > low else np.zeros_like(values, np.float32)


def _digits(value: float, kind: str) -> str:
    """Two decimals ("f") or two significant digits ("g"), with a minus that is as wide as a digit."""
    return f"{value:.2{kind}}".replace("-", "−") if abs(value) >= 1e-4 else f"{value:.1e}" if kind == "g" else "0.00"


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


def mark_patch(picture: Pixels, query: tuple[int, int], grid: tuple[int, int]) -> Pixels:
    """picture (H, W, 3) with a frame, white amid black, around the patch at `query` (row, column) of `grid`."""
    (height, width), (row, column) = picture.shape[:2], query
    line = max(2, int(max(height, width)) // 110)
    left, right = round(column * width / grid[1]), round((column + 1) * width / grid[1])
    top, bottom = round(row * height / grid[0]), round((row + 1) * height / grid[0])
    sheet = Image.fromarray(picture)
    # The frame lies outside of the patch, which it must not cover: a thick black one, then a white one in its middle.
    for grow, colour, thickness in ((2 * line, (0, 0, 0), 3 * line), (line, (255, 255, 255), line)):
        box = (left - grow, top - grow, right - 1 + grow, bottom - 1 + grow)
        ImageDraw.Draw(sheet).rectangle(box, outline=colour, width=thickness)
    return np.asarray(sheet)


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
