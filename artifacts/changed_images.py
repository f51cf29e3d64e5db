"""Images that changed most between two results, as one picture: photo, truth, both label maps, and where they differ."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.colors import to_rgb

from artifacts.charts import COLOURS
from artifacts.drawing import class_mask, fit_image, fit_labels, overlay_labels
from artifacts.drawing.sheet import Panel, Paragraph, SheetRow, draw_sheet
from artifacts.view import Labels, Pixels
from excel_core.datasets.palette import IGNORE

__all__ = ["ChangedImage", "draw_changed_images", "overlay_difference"]

SIDE = 300  # pixels, of a picture before it is drawn in its column
WEIGHT = 0.75  # of a difference's colour over the photo
GAINED, LOST, NEITHER = COLOURS[0], COLOURS[5], COLOURS[3]  # blue, orange, pink, as on the page


@dataclass(frozen=True, eq=False)
class ChangedImage:
    """An image (H, W, 3) with its label maps (H, W) before and after, its truth, and its own score before and after."""

    id: str
    split: str
    image: Pixels
    before: Labels
    after: Labels
    truth: Labels
    score_before: float
    score_after: float


def draw_changed_images(
    images: Sequence[ChangedImage],
    class_names: Sequence[str],
    names: tuple[str, str] = ("before", "after"),
    score: str = "mIoU",
) -> bytes:
    """A row an image: photo, truth, the label maps called `names`, and their difference → PNG. `score`: what the images' own
    scores are."""
    rows = [
        SheetRow(
            f"{image.id}: {score} {image.score_before:.2f} → {image.score_after:.2f}",
            f"{image.split}; {'worse' if image.score_after < image.score_before else 'better'} {_than(names)}",
            (
                Panel(fit_image(image.image, SIDE)),
                _panel(image, image.truth, ""),
                _panel(image, image.before, f"{score} {image.score_before:.2f}"),
                _panel(image, image.after, f"{score} {image.score_after:.2f}"),
                Panel(overlay_difference(image, SIDE)),
            ),
        )
        for image in images
    ]
    legend = f"difference: blue, only “{names[1]}” is right; orange, only “{names[0]}” is right; pink, neither"
    return draw_sheet(["photo", "truth", *names, "difference"], rows, [], [_numbers(images, class_names), legend])


def _than(names: tuple[str, str]) -> str:
    return "than before" if names == ("before", "after") else f"in {names[1]} than in {names[0]}"


def overlay_difference(image: ChangedImage, side: int) -> Pixels:
    """Where the two label maps differ → (h, w, 3) uint8, longer side `side`: GAINED, LOST and NEITHER over the greyed photo.
    What no score counts is left out."""
    before, after, truth = (fit_labels(labels, side) for labels in (image.before, image.after, image.truth))
    picture = fit_image(image.image, side).mean(axis=2, keepdims=True).repeat(3, axis=2)
    differ = (before != after) & (truth != IGNORE)
    for colour, where in (
        (GAINED, differ & (after == truth)),
        (LOST, differ & (before == truth)),
        (NEITHER, differ & (after != truth) & (before != truth)),
    ):
        picture[where] = WEIGHT * 255 * np.asarray(to_rgb(colour)) + (1 - WEIGHT) * picture[where]
    marked: Pixels = np.rint(picture).astype(np.uint8)
    return marked


def _panel(image: ChangedImage, labels: Labels, words: str) -> Panel:
    picture = overlay_labels(fit_image(image.image, SIDE), fit_labels(labels, SIDE))
    return Panel(picture, (Paragraph(words, faint=True),) if words else ())


def _numbers(images: Sequence[ChangedImage], class_names: Sequence[str]) -> str:
    """`1 house, 3 car`: the classes that the label maps hold."""
    maps = [labels for image in images for labels in (image.before, image.after, image.truth)]
    values = sorted({int(value) for labels in maps for value in np.unique(labels[class_mask(labels)])})
    return ", ".join(f"{value} {class_names[value - 1]}" for value in values if value <= len(class_names))
