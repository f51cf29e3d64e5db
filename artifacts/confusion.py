"""What was taken for what: a confusion matrix as shares of the truth, its largest confusions, and its picture."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from artifacts.charts import empty_figure, png_bytes
from artifacts.rows import ABSENT

__all__ = ["TABLE_CLASSES", "Cell", "Counts", "confusion_png", "confusion_table", "largest_confusions"]

TABLE_CLASSES = 25  # a matrix of more classes is a picture and a list: nobody reads 6,561 numbers
LARGEST = 20
CLASS_INCHES = 0.15  # of a row of the picture

Counts = NDArray[np.int64]  # (C+1, C+1) pixels, rows truth, columns prediction, background first


@dataclass(frozen=True)
class Cell:
    """One share of a row, in [0, 1], None where the class is not in the truth; its text in per cent."""

    share: float | None
    text: str


def confusion_table(counts: Counts) -> list[list[Cell]]:
    """Rows of cells; each row's shares sum to 1."""
    return [[Cell(None, ABSENT) if np.isnan(v) else Cell(float(v), _percent(v)) for v in row] for row in _shares(counts)]


def largest_confusions(counts: Counts, names: Sequence[str], most: int = LARGEST) -> list[tuple[str, str, str]]:
    """(truth, predicted, per cent of the truth's pixels) of the largest shares off the diagonal, largest first."""
    wrong = np.nan_to_num(_shares(counts))
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind="stable")[:most]
    places = [divmod(int(place), len(wrong)) for place in order if wrong.flat[place] > 0]
    return [(names[truth], names[predicted], f"{_percent(wrong[truth, predicted])} %") for truth, predicted in places]


def confusion_png(counts: Counts, names: Sequence[str]) -> bytes:
    """The matrix as shades of one colour, from white (0 %) to dark (100 %); classes that are not in the truth hatched."""
    shares = _shares(counts)
    side = max(8.0, CLASS_INCHES * len(names))  # names stay readable; the page scrolls a wide picture in its box
    figure = empty_figure(side + 1, side)
    axes = figure.subplots()
    axes.set_facecolor("#eeeeee")
    axes.patch.set_hatch("////")
    axes.patch.set_edgecolor("#bbbbbb")
    image = axes.imshow(np.ma.masked_invalid(shares * 100), cmap="Blues", vmin=0, vmax=100)
    figure.colorbar(image, ax=axes, label="% of the truth's pixels", shrink=0.5)
    small = {"fontsize": 8, "parse_math": False}
    axes.set_xticks(range(len(names)), names, rotation=90, **small)
    axes.set_yticks(range(len(names)), names, **small)
    axes.set_xlabel("predicted")
    axes.set_ylabel("truth")
    return png_bytes(figure)


def _shares(counts: Counts) -> NDArray[np.floating]:
    """Each row over its sum, NaN for a row without pixels."""
    total = counts.sum(axis=1, keepdims=True)
    shares: NDArray[np.floating] = np.divide(counts, total, out=np.full(counts.shape, np.nan), where=total > 0)
    return shares


def _percent(share: float) -> str:
    """Whole per cent; a trace is not called nothing, and nearly all is not called all."""
    if 0 < share < 0.005:
        return "<1"
    return ">99" if 0.995 <= share < 1 else f"{100 * share:.0f}"
