"""A photo with its masks: translucent class colours, outlines, name tags in the areas, and a legend below the picture."""

from collections.abc import Collection, Sequence

import numpy as np
from PIL import Image
from scipy.ndimage import distance_transform_edt

from artifacts.drawing.lettering import PAPER, Colour, LegendEntry, draw_caption, draw_legend, draw_tag
from artifacts.drawing.overlays import STEP_NAMES, class_mask, deepest_point
from artifacts.view import Labels, Pixels
from excel_core.datasets.palette import IGNORE, VOC_PALETTE
from excel_core.prediction.photos import enlarge_labels

__all__ = ["class_shares", "draw_overlay", "draw_steps", "share_text"]

# Pixels of the longer side: smaller photos are enlarged so that words are sharp, larger ones shrunk.
MIN_SIDE, MAX_SIDE = 960, 1600
PANEL_SIDE, PANELS_PER_ROW = 480, 3  # of the steps: longer side in pixels
PANEL_LETTER_HEIGHT, MIN_LETTER_HEIGHT = 17, 15  # pixels: below the steps; on an overlay
CLASS_WEIGHT = 0.5  # of the class colour over the photo
PANEL_NAMES = STEP_NAMES | {"raw": "CAMs"}  # a panel of another step has the step's name


def draw_overlay(photo: Pixels, labels: Labels, class_names: Sequence[str]) -> Pixels:
    """photo (H, W, 3) uint8 RGB, labels (H, W), 0 background, i + 1 class i → (h, w, 3) uint8: the photo with its longer side
    from MIN_SIDE to MAX_SIDE, over a legend: each class with its label value and its share of the photo."""
    longest = max(labels.shape)
    factor = min(MAX_SIDE / longest, max(1.0, MIN_SIDE / longest))
    picture = _coloured(*_resized(photo, labels, factor), class_names)
    legend = draw_legend(_entries(labels, class_names), picture.shape[1], _letter_height(picture))
    return np.concatenate([picture, legend])


def draw_steps(photo: Pixels, steps: dict[str, Labels], class_names: Sequence[str]) -> Pixels:
    """photo (H, W, 3) and its label maps (H, W) by step → (h, w, 3) uint8: the photo and every step side by side, and a legend
    with the shares of the last step."""
    factor = PANEL_SIDE / max(photo.shape[:2])
    last_labels = list(steps.values())[-1]
    small, _ = _resized(photo, last_labels, factor)
    panels = [_captioned(small, "photo")]
    for name, labels in steps.items():
        picture = _coloured(*_resized(photo, labels, factor), class_names, tags=False)
        panels.append(_captioned(picture, PANEL_NAMES.get(name, name)))
    columns = min(PANELS_PER_ROW, len(panels))
    panels += [np.full_like(panels[0], PAPER)] * (-len(panels) % columns)
    rows = [np.concatenate(panels[start : start + columns], axis=1) for start in range(0, len(panels), columns)]
    sheet = np.concatenate(rows)
    # Classes that a later step removed are named too: their colours are in the pictures.
    used = set[int]().union(*(np.unique(labels).tolist() for labels in steps.values())) - {0, IGNORE}
    return np.concatenate([sheet, draw_legend(_entries(last_labels, class_names, used), sheet.shape[1], PANEL_LETTER_HEIGHT)])


def class_shares(labels: Labels, class_names: Sequence[str]) -> dict[str, float]:
    """Share of all pixels of each class in labels (H, W), largest first; classes without a pixel are left out."""
    counts = np.bincount(labels[class_mask(labels)], minlength=1)
    order = [value for value in np.argsort(-counts, kind="stable").tolist() if counts[value]]
    return {class_names[value - 1]: counts[value] / labels.size for value in order}


def share_text(share: float) -> str:
    """A share of the pixels in [0, 1] as text: 12 %, < 1 %."""
    return f"{100 * share:.0f} %" if share >= 0.01 else "< 1 %" if share else "0 %"


def _entries(labels: Labels, class_names: Sequence[str], also: Collection[int] = ()) -> list[LegendEntry]:
    """The legend of labels (H, W), largest share first; then the label values `also` that the labels lack, with 0 %."""
    shares = class_shares(labels, class_names)
    shares |= {class_names[value - 1]: 0.0 for value in sorted(also) if class_names[value - 1] not in shares}
    values = {name: class_names.index(name) + 1 for name in shares}
    entries = [LegendEntry(str(values[name]), _colour(values[name]), name, share_text(share)) for name, share in shares.items()]
    return entries or [LegendEntry("", PAPER, "nothing found: all of it is background")]


def _resized(photo: Pixels, labels: Labels, factor: float) -> tuple[Pixels, Labels]:
    height, width = (max(1, round(side * factor)) for side in labels.shape)
    picture = np.asarray(Image.fromarray(photo).resize((width, height), Image.Resampling.BICUBIC))
    return picture, enlarge_labels(labels, (height, width))


def _coloured(picture: Pixels, labels: Labels, class_names: Sequence[str], tags: bool = True) -> Pixels:
    """Classes in their colours, a white line inside and a dark one outside of each area, and names where they fit."""
    classes = class_mask(labels)
    weight = np.where(classes, CLASS_WEIGHT, 0.0)[..., None]
    coloured = np.rint(weight * VOC_PALETTE[labels] + (1 - weight) * picture).astype(np.uint8)
    line = max(1.5, max(labels.shape) / 480)
    for value in np.unique(labels[classes]):
        # Padded by its own values: along the picture's border there is no line.
        inside = distance_transform_edt(np.pad(labels == value, 1, mode="edge"))[1:-1, 1:-1]
        coloured[(inside > 0) & (inside <= line)] = 255
    if classes.any():
        outside = distance_transform_edt(~classes)
        coloured[(outside > 0) & (outside <= line * 0.7)] = (20, 20, 20)
    return _tagged(coloured, labels, class_names) if tags else coloured


def _tagged(picture: Pixels, labels: Labels, class_names: Sequence[str]) -> Pixels:
    """Each class's name on the deepest point of its area; a name that would cover another, or does not fit, is left to the
    legend."""
    sheet = Image.fromarray(picture)
    occupied = np.zeros(labels.shape, dtype=bool)
    for name in class_shares(labels, class_names):
        label = class_names.index(name) + 1
        tag = draw_tag(name, _colour(label), _letter_height(picture))
        row, column, depth = deepest_point(labels == label)
        top = min(max(row - tag.height // 2, 4), labels.shape[0] - tag.height - 4)
        left = min(max(column - tag.width // 2, 4), labels.shape[1] - tag.width - 4)
        region = (slice(top, top + tag.height), slice(left, left + tag.width))
        if depth < tag.height / 2 or min(top, left) < 0 or occupied[region].any():
            continue
        sheet.paste(tag, (left, top), tag)
        occupied[region] = True
    return np.asarray(sheet)


def _captioned(picture: Pixels, text: str) -> Pixels:
    framed = np.pad(picture, ((8, 0), (8, 8), (0, 0)), constant_values=PAPER[0])
    return np.concatenate([framed, draw_caption(text, framed.shape[1], PANEL_LETTER_HEIGHT)])


def _letter_height(picture: Pixels) -> int:
    """Height of letters that suits a picture, in pixels."""
    return max(MIN_LETTER_HEIGHT, round(int(max(picture.shape[:2])) / 52))


def _colour(value: int) -> Colour:
    red, green, blue = VOC_PALETTE[value].tolist()
    return red, green, blue
