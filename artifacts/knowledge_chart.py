"""Where the texts lie: descriptions, attributes and enriched classes on two principal components, as PNG bytes."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg, RendererAgg
from matplotlib.text import Annotation, Text
from matplotlib.transforms import Bbox

from artifacts.charts import COLOURS, empty_figure, png_bytes, tidy
from artifacts.view import KnowledgeMap

__all__ = ["knowledge_png"]

# Eleven shapes and eight colours: no two of 88 classes share both.
SHAPES = ("o", "s", "^", "D", "v", "P", "X", "p", "<", "h", ">")
# Where a name may stand: x, y from its centre in points, and which end of it is there; farther ones only where it is full.
RING = ((0, 11, "center"), (0, -11, "center"), (9, 0, "left"), (-9, 0, "right"), (8, 9, "left"), (-8, 9, "right"),
        (8, -9, "left"), (-8, -9, "right"))  # fmt: skip
PLACES = [(scale * x, scale * y, end) for scale in (1, 2, 3, 4.5) for x, y, end in RING]
MANY = 30  # classes, beyond which the map is larger


def knowledge_png(found: KnowledgeMap, class_names: Sequence[str]) -> bytes:
    """A map of the knowledge base: descriptions faint in their class's shape and colour, each T_c large with its name,
    attributes as small grey crosses."""
    figure = empty_figure(8.5, 6.5) if len(class_names) <= MANY else empty_figure(13, 10)
    axes = figure.subplots()
    axes.plot(*found.attributes.T, "x", color="#777777", markersize=4, markeredgewidth=0.9, linestyle="none", label="attribute")
    for number, centre in enumerate(found.classes):
        shape, colour = SHAPES[number % len(SHAPES)], COLOURS[number % len(COLOURS)]
        own = found.descriptions[found.description_class == number]
        axes.plot(*own.T, shape, color=colour, alpha=0.35, markersize=3.5, markeredgewidth=0, linestyle="none")
        axes.plot(*centre, shape, color=colour, markersize=10, markeredgecolor="white", markeredgewidth=1.2, zorder=3)
    x, y = (f"{100 * share:.0f} % of the descriptions' variance" for share in found.explained)
    axes.set_xlabel(f"first principal component, {x}")
    axes.set_ylabel(f"second principal component, {y}")
    axes.margins(0.09)
    tidy(axes)
    axes.plot([], [], "o", color="#555555", alpha=0.35, markersize=4, linestyle="none", label="description")
    axes.plot([], [], "o", color="#555555", markersize=9, linestyle="none", label="class, enriched ($T_c$)")
    axes.legend(frameon=False, ncols=3, loc="lower right", bbox_to_anchor=(1, 1), borderaxespad=0.2)
    figure.set_canvas(FigureCanvasAgg(figure))
    figure.draw_without_rendering()  # the layout must be settled before places of names are compared
    figure.set_layout_engine("none")
    _name_classes(axes, found.classes, class_names)
    return png_bytes(figure)


def _name_classes(axes: Axes, centres: np.ndarray, names: Sequence[str]) -> None:
    """Write each name beside its centre (C, 2), at the place where it covers least of other names and centres, near
    before far; a far one is tied to its centre by a line."""
    renderer = axes.figure.canvas.get_renderer()
    taken = [Bbox.from_extents(*(point - 6), *(point + 6)) for point in axes.transData.transform(centres)]
    for number, name in enumerate(names):
        note = axes.annotate(
            name, centres[number], textcoords="offset points", xytext=(0, 0), va="center", fontsize=9, zorder=4,
            parse_math=False, bbox={"boxstyle": "round,pad=0.1", "facecolor": "white", "alpha": 0.7, "edgecolor": "none"},
            arrowprops={"arrowstyle": "-", "color": "#888888", "linewidth": 0.7, "shrinkA": 0, "shrinkB": 5},
        )  # fmt: skip
        others = taken[:number] + taken[number + 1 :]
        best = min(PLACES, key=lambda place: _covered(_moved(note, place, renderer), others))
        taken.append(_moved(note, best, renderer))
        note.arrow_patch.set_visible(abs(best[0]) + abs(best[1]) > 20)


def _moved(note: Annotation, place: tuple[float, float, str], renderer: RendererAgg) -> Bbox:
    """Put the name there → the box of its text alone: an annotation's own box has the line in it."""
    note.set(position=place[:2], horizontalalignment=place[2])
    note.update_positions(renderer)
    return Text.get_window_extent(note, renderer).padded(2)


def _covered(box: Bbox, others: Sequence[Bbox]) -> float:
    """Square pixels of `others` below the box."""
    shared = (Bbox.intersection(box, other) for other in others)
    return sum(found.width * found.height for found in shared if found is not None)
