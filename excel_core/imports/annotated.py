"""An image as a labelling tool describes it: its labels, its shapes from back to front, and the label map that they make."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from excel_core.class_names import canonical_name
from excel_core.errors import DataError

__all__ = ["BACKGROUND", "Annotated", "Draw", "Reader", "Shape", "as_label", "paint"]

BACKGROUND = "background"  # no class: its shapes take pixels away from those below
Draw = Callable[[int, int], NDArray[np.bool_]]  # height, width → the shape's pixels (height, width); DataError where damaged


def as_label(text: str) -> str:
    """A label as people type it → with single white space and composed accents, BACKGROUND in one spelling."""
    label = canonical_name(text)
    return BACKGROUND if label.casefold() == BACKGROUND else label


@dataclass(frozen=True)
class Shape:
    """A labelled shape. `draw`: its pixels; None for a kind that outlines none, such as a box."""

    label: str
    kind: str
    draw: Draw | None


@dataclass(frozen=True)
class Annotated:
    """An image's annotation.

    name: of its photo in the tool, perhaps with folders or without suffix; height, width: what it was annotated at, 0 unknown
    labels: of the image as a whole; shapes: from back to front
    left_out: why the image cannot be used; no_mask: why its shapes are no mask; "" for neither
    """

    name: str
    height: int = 0
    width: int = 0
    labels: tuple[str, ...] = ()
    shapes: tuple[Shape, ...] = ()
    left_out: str = ""
    no_mask: str = ""

    @property
    def classes(self) -> frozenset[str]:
        """The classes that the image has, by its labels and its shapes."""
        return frozenset({*self.labels, *(shape.label for shape in self.shapes)} - {BACKGROUND})

    @property
    def why_no_mask(self) -> str:
        """Why the shapes do not tell every pixel's class; "" where they do."""
        if self.no_mask:
            return self.no_mask
        kinds = sorted({shape.kind for shape in self.shapes if shape.draw is None})
        if kinds:
            return f"has a {kinds[0]}, which outlines no object; draw a polygon or a mask"
        drawn = {shape.label for shape in self.shapes}
        missing = sorted(self.classes - drawn)
        if missing:
            return f"has the label {missing[0]!r}, but no shape of it" if drawn else "has labels, but no shapes"
        return "" if self.height and self.width else "its size is not told"


Reader = Callable[[], Iterator[Annotated]]


def paint(image: Annotated, class_names: Sequence[str]) -> NDArray[np.uint8]:
    """The label map (height, width) uint8: 0 background, i + 1 class i. A later shape lies above. DataError for a damaged
    shape; `image.why_no_mask` must be ""."""
    labels = np.zeros((image.height, image.width), dtype=np.uint8)
    for shape in image.shapes:
        if shape.draw is None:
            raise DataError(image.why_no_mask)
        label = 0 if shape.label == BACKGROUND else class_names.index(shape.label) + 1
        labels[shape.draw(image.height, image.width)] = label
    return labels
