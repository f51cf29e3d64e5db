"""The paper's figures 4 to 6 of a run's own images, as PNG bytes."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from artifacts.paper_sheet import Line, Panel, Row, Scale, draw_sheet, mark_patch
from artifacts.pictures import fit_image, overlay_cam
from artifacts.view import Cam, Pixels
from excel_core.paper.attribute_responses import AttributeResponses
from excel_core.paper.cam_columns import CamColumns
from excel_core.paper.query_patch import QueryMaps

__all__ = ["PaperImage", "cam_titles", "draw_cams", "draw_query", "draw_responses"]

SIDE = 320  # longer side of a photo before it is laid out, pixels
ORDER = ("1st", "2nd", "3rd", "4th", "5th", "6th")
HEAT, SIGNED = "inferno", "RdBu_r"  # colour maps: from the least value on; above and below 0


@dataclass(frozen=True, eq=False)
class PaperImage:
    """A photo (H, W, 3) with what the figures show of one of its classes. descriptions: the nearest of each attribute."""

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
    """Figure 4: a row a photo: its class's CAM as the steps are added; steps that the run lacks are left out."""
    titles = {
        name: title
        for name, title in cam_titles(attention).items()
        if any(getattr(image.cams, name) is not None for image in images)
    }
    rows = []
    for image in images:
        photo = fit_image(image.photo, SIDE)
        cams = (getattr(image.cams, name) for name in titles)
        rows.append(_row(image, [Panel(photo), *(Panel(overlay_cam(photo, cam, HEAT)) for cam in cams)]))
    return draw_sheet(["photo", *titles.values()], rows, [Scale(HEAT, "CAM from 0 to 1; nothing is refined")], notes)


def draw_responses(images: Sequence[PaperImage], notes: Sequence[str] = ()) -> bytes:
    """Figure 5: a row a photo: its responses to the top attributes of its class, each with the description nearest to it.
    Without attributes it says so in their place."""
    rows = []
    for image in images:
        photo = fit_image(image.photo, SIDE)
        rows.append(_row(image, [Panel(photo), *_responses(image, photo)]))
    most = max(len(image.descriptions) for image in images)
    titles = [f"{ORDER[place]} by weight" for place in range(most)] or ["no attributes"]
    scale = Scale(HEAT, "cosine of a patch with the attribute, each map from its least to its greatest value")
    return draw_sheet(["photo", *titles], rows, [scale] if most else [], notes)


def _responses(image: PaperImage, photo: Pixels) -> list[Panel]:
    """A panel an attribute: response, number, weight, range of the cosine, description."""
    responses = image.responses
    if not image.descriptions:
        return [Panel(None, (Line("The class's text is made without attributes.", faint=True),))]
    panels = []
    for place, description in enumerate(image.descriptions):
        values = responses.maps[place]
        low, high = float(values.min()), float(values.max())
        words = (
            Line(f"attribute {responses.numbers[place]}", bold=True),
            Line(f"weight {responses.weights[place]:.4f}", faint=True),
            Line(f"cosine {_words(low, 'f')} to {_words(high, 'f')}", faint=True),
            Line(description),
        )
        panels.append(Panel(overlay_cam(photo, _stretched(values, low, high), HEAT), words))
    return panels


def draw_query(images: Sequence[PaperImage], notes: Sequence[str] = ()) -> bytes:
    """Figure 6: a row a photo: one marked patch and its attention. The colours of a map end at the greatest value of the other
    patches, since most patches attend to themselves above all."""
    titles = {
        "original": f"q-k attention, mean of {images[0].query.blocks} blocks",
        "calibrated": "SVC attention of the last block",
        "relation": "learnt relation r of the neck",
        "learnt": "LVC: SVC + relation",
    }
    titles = {n: title for n, title in titles.items() if any(getattr(image.query, n) is not None for image in images)}
    rows = []
    for image in images:
        photo = fit_image(image.photo, SIDE)
        shown = [(getattr(image.query, name), name == "relation") for name in titles]
        panels = [_attention(photo, values, image.query.query, signed) for values, signed in shown]
        row, column = image.query.query
        marked = mark_patch(photo, image.query.query, image.query.relation.shape)
        rows.append(_row(image, [Panel(marked, (Line(f"patch in row {row}, column {column}"),)), *panels]))
    scales = [
        Scale(HEAT, "attention of the marked patch, mean over heads, from the least to the greatest of the other patches"),
        Scale(SIGNED, "relation r with the marked patch (eq. 8): red above 0; blue below, which LVC leaves out"),
    ]
    sums = ["LVC adds the softmax over the patches with r ≥ 0 to the SVC attention (eqs. 9, 10)."] if "learnt" in titles else []
    return draw_sheet(["query patch", *titles.values()], rows, scales, [*sums, *notes])


def _attention(photo: Pixels, values: Cam, query: tuple[int, int], signed: bool) -> Panel:
    """values (h, w) of all patches, drawn patch by patch over the photo, with their range in words."""
    itself, others = float(values[query]), np.delete(values.ravel(), query[0] * values.shape[1] + query[1])
    low, high = (float(others.min()), float(others.max())) if len(others) else (itself, itself)
    if signed:
        edge = max(abs(low), abs(high))
        scaled = _stretched(values, -edge, edge)
    else:
        scaled = _stretched(values, low, high)
    size = (photo.shape[1], photo.shape[0])
    patches = np.asarray(Image.fromarray(scaled).resize(size, Image.Resampling.NEAREST))
    picture = mark_patch(overlay_cam(photo, patches, SIGNED if signed else HEAT), query, values.shape)
    kind = "f" if signed else "g"
    return Panel(picture, (Line(f"{_words(low, kind)} to {_words(high, kind)}; itself {_words(itself, kind)}", faint=True),))


def _row(image: PaperImage, panels: Sequence[Panel]) -> Row:
    return Row(image.class_name, image.id, tuple(panels))


def _stretched(values: Cam, low: float, high: float) -> Cam:
    """values → float32 in [0, 1] from low to high; all 0 where these are one."""
    return np.clip((values - low) / (high - low), 0, 1).astype(np.float32) if high > low else np.zeros_like(values, np.float32)


def _words(value: float, kind: str) -> str:
    """Two decimals ("f") or two digits that count ("g"), with a minus that is as wide as a digit."""
    return f"{value:.2{kind}}".replace("-", "−") if abs(value) >= 1e-4 else f"{value:.1e}" if kind == "g" else "0.00"
