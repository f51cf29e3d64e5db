"""The paper's figures 4 to 6 of a run's own images, laid out on a sheet: the same PNG bytes for the same contents."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from artifacts.drawing import fit_image, overlay_cam
from artifacts.drawing.sheet import ColourScale, Panel, Paragraph, SheetRow, draw_sheet
from artifacts.view import Cam, Pixels
from excel_core.config import RunSpec
from excel_core.paper.figures import AttributeResponses, CamColumns, QueryMaps

__all__ = [
    "PaperImage", "cam_titles", "draw_cams", "draw_query", "draw_responses", "figures_document", "mark_patch",
]  # fmt: skip

FIGURES = {
    "4": "CAMs as q-k attention, SVC, TSE and LVC follow each other",
    "5": "responses of the top attributes of a class",
    "6": "attention and relations of one patch",
}
PHOTO_SIDE = 320  # longer side of a photo before it is laid out, pixels
ORDINALS = ("1st", "2nd", "3rd", "4th", "5th", "6th")
HEAT, SIGNED = "inferno", "RdBu_r"  # colour maps: from the least value on; above and below 0


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
        response = responses.maps[rank]
        low, high = float(response.min()), float(response.max())
        words = (
            Paragraph(f"attribute {responses.numbers[rank]}", bold=True),
            Paragraph(f"weight {responses.weights[rank]:.4f}", faint=True),
            Paragraph(f"cosine {_digits(low, 'f')} to {_digits(high, 'f')}", faint=True),
            Paragraph(description),
        )
        panels.append(Panel(overlay_cam(photo, _stretched(response, low, high), HEAT), words))
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
    itself, other_patches = float(values[query]), np.delete(values.ravel(), query[0] * values.shape[1] + query[1])
    low, high = (float(other_patches.min()), float(other_patches.max())) if len(other_patches) else (itself, itself)
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


def figures_document(run: RunSpec, images: Sequence[PaperImage], notes: Sequence[str]) -> dict[str, Any]:
    """What the three figures show, as figures.json holds it (excel-figures/1)."""
    return {
        "format": "excel-figures/1",
        "preset": run.preset,
        "method": run.method,
        "clip": run.clip.model,
        "calibration": run.cams.calibration.model_dump(mode="json"),
        "knowledge": run.knowledge.mode,
        "figures": FIGURES,
        "notes": list(notes),
        "images": [_image_document(image) for image in images],
    }


def _image_document(image: PaperImage) -> dict[str, Any]:
    responses = image.responses
    attributes = [
        {
            "number": int(responses.numbers[place]),
            "weight": float(responses.weights[place]),
            "cosine": [float(responses.maps[place].min()), float(responses.maps[place].max())],
            "description": description,
        }
        for place, description in enumerate(image.descriptions)
    ]
    steps = ("original", "calibrated", "enriched", "learnt")
    return {
        "id": image.id,
        "class": image.class_name,
        "cams": [step for step in steps if getattr(image.cams, step) is not None],
        "attributes": attributes,
        "query": list(image.query.query),
        "grid": list(image.query.relation.shape),
    }
