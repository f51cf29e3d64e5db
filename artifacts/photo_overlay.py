"""A photo with its masks: translucent class colours, outlines, name tags in the areas, and a legend below the picture."""

from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import distance_transform_edt

from artifacts.lettering import PAPER, Colour, Entry, caption, draw_legend, draw_tag
from artifacts.view import Labels, Pixels
from excel_core.datasets.palette import IGNORE, VOC_PALETTE
from excel_core.prediction.photos import enlarge_labels

__all__ = ["class_shares", "draw_overlay", "draw_steps", "share_text"]

LEAST, MOST = 960, 1600  # pixels of the longer side: smaller photos are enlarged so that words are sharp, larger ones shrunk
PANEL, COLUMNS = 480, 3  # of the steps: longer side in pixels, panels a row
WEIGHT = 0.5  # of the class colour over the photo
STEP_NAMES = {"raw": "CAMs", "affinity": "+ affinity", "par": "+ PAR", "crf": "+ CRF", "segmenter": "segmenter"}


def draw_overlay(photo: Pixels, labels: Labels, class_names: Sequence[str]) -> Pixels:
    """photo (H, W, 3) uint8 RGB, labels (H, W), 0 background, i + 1 class i → (h, w, 3) uint8: the photo at a size to look at
    and a strip with the legend, each class with its label value and its share of the photo."""
    longest = max(labels.shape)
    factor = min(MOST / longest, max(1.0, LEAST / longest))
    picture = _coloured(*_resized(photo, labels, factor), class_names)
    legend = draw_legend(_entries(labels, class_names), picture.shape[1], _letters(picture))
    return np.concatenate([picture, legend])


def draw_steps(photo: Pixels, steps: dict[str, Labels], class_names: Sequence[str]) -> Pixels:
    """photo (H, W, 3), its label maps (H, W) by step → the photo and every step side by side, and the
    legend with the last one's shares."""
    factor = PANEL / max(photo.shape[:2])
    last = list(steps.values())[-1]
    small, _ = _resized(photo, last, factor)
    panels = [_captioned(small, "photo")]
    for name, labels in steps.items():
        picture = _coloured(*_resized(photo, labels, factor), class_names, tags=False)
        panels.append(_captioned(picture, STEP_NAMES.get(name, name)))
    columns = min(COLUMNS, len(panels))
    panels += [np.full_like(panels[0], PAPER)] * (-len(panels) % columns)
    rows = [np.concatenate(panels[start : start + columns], axis=1) for start in range(0, len(panels), columns)]
    sheet = np.concatenate(rows)
    seen = set[int]().union(*(np.unique(labels).tolist() for labels in steps.values())) - {0, IGNORE}
    return np.concatenate([sheet, draw_legend(_entries(last, class_names, seen), sheet.shape[1], 17)])


def class_shares(labels: Labels, class_names: Sequence[str]) -> dict[str, float]:
    """Share of all pixels of each class in labels (H, W), largest first; classes without a pixel are left out."""
    counts = np.bincount(labels[(labels > 0) & (labels != IGNORE)], minlength=1)
    order = [value for value in np.argsort(-counts, kind="stable").tolist() if counts[value]]
    return {class_names[value - 1]: counts[value] / labels.size for value in order}


def share_text(share: float) -> str:
    """A share of the pixels in [0, 1] as a person says it: 12 %, < 1 %."""
    return f"{100 * share:.0f} %" if share >= 0.01 else "< 1 %" if share else "0 %"


def _entries(labels: Labels, class_names: Sequence[str], also: Collection[int] = ()) -> list[Entry]:
    """The legend of labels (H, W), largest first; label values `also` to be named, though labels have none of them."""
    shares = class_shares(labels, class_names)
    shares |= {class_names[value - 1]: 0.0 for value in sorted(also) if class_names[value - 1] not in shares}
    values = {name: class_names.index(name) + 1 for name in shares}
    entries = [Entry(str(values[name]), _colour(values[name]), name, share_text(share)) for name, share in shares.items()]
    return entries or [Entry("", PAPER, "nothing found: all of it is background")]


def _resized(photo: Pixels, labels: Labels, factor: float) -> tuple[Pixels, Labels]:
    height, width = (max(1, round(side * factor)) for side in labels.shape)
    picture = np.asarray(Image.fromarray(photo).resize((width, height), Image.Resampling.BICUBIC))
    return picture, enlarge_labels(labels, (height, width))


def _coloured(picture: Pixels, labels: Labels, class_names: Sequence[str], tags: bool = True) -> Pixels:
    """Classes in their colours, a white line inside and a dark one outside of each area, and names where they fit."""
    shown = (labels > 0) & (labels != IGNORE)
    weight = np.where(shown, WEIGHT, 0.0)[..., None]
    result = np.rint(weight * VOC_PALETTE[labels] + (1 - weight) * picture).astype(np.uint8)
    line = max(1.5, max(labels.shape) / 480)
    for value in np.unique(labels[shown]):
        inside = distance_transform_edt(np.pad(labels == value, 1, mode="edge"))[1:-1, 1:-1]
        result[(inside > 0) & (inside <= line)] = 255
    if shown.any():
        outside = distance_transform_edt(~shown)
        result[(outside > 0) & (outside <= line * 0.7)] = (20, 20, 20)
    return _tagged(result, labels, class_names) if tags else result


def _tagged(picture: Pixels, labels: Labels, class_names: Sequence[str]) -> Pixels:
    """Each class's name on the deepest point of its area; a name that would cover another, or does not fit, is left to the
    legend."""
    sheet = Image.fromarray(picture)
    taken = np.zeros(labels.shape, dtype=bool)
    for name in class_shares(labels, class_names):
        value = class_names.index(name) + 1
        tag = draw_tag(name, _colour(value), _letters(picture))
        row, column, depth = _deepest(labels == value)
        top = min(max(row - tag.height // 2, 4), labels.shape[0] - tag.height - 4)
        left = min(max(column - tag.width // 2, 4), labels.shape[1] - tag.width - 4)
        place = (slice(top, top + tag.height), slice(left, left + tag.width))
        if depth < tag.height / 2 or min(top, left) < 0 or taken[place].any():
            continue
        sheet.paste(tag, (left, top), tag)
        taken[place] = True
    return np.asarray(sheet)


def _deepest(area: NDArray[np.bool_]) -> tuple[int, int, float]:
    """Row and column of the point of an area (H, W) that is farthest from its edge, and how far."""
    depth = distance_transform_edt(np.pad(area, 1))[1:-1, 1:-1]
    row, column = np.unravel_index(int(depth.argmax()), depth.shape)
    return int(row), int(column), float(depth[row, column])


def _captioned(picture: Pixels, text: str) -> Pixels:
    framed = np.pad(picture, ((8, 0), (8, 8), (0, 0)), constant_values=PAPER[0])
    return np.concatenate([framed, caption(text, framed.shape[1], 17)])


def _letters(picture: Pixels) -> int:
    """Height of letters that suits a picture, in pixels."""
    return max(15, round(max(picture.shape[:2]) / 52))


def _colour(value: int) -> Colour:
    red, green, blue = VOC_PALETTE[value].tolist()
    return red, green, blue
