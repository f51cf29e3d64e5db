"""Where the texts lie: descriptions, attributes and enriched classes on two principal components, as PNG bytes."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.transforms import Bbox

from artifacts.charts import COLOURS, empty_figure, png_bytes, tidy
from artifacts.view import KnowledgeMap

__all__ = ["knowledge_png"]

# Eleven shapes and eight colours: no two of 88 classes share both.
SHAPES = ("o", "s", "^", "D", "v", "P", "X", "p", "<", "h", ">")
# Where a name may stand, from its centre in points, and which of its ends is there.
PLACES = (
    (0, 11, "center"), (0, -11, "center"), (9, 0, "left"), (-9, 0, "right"), (8, 9, "left"), (-8, 9, "right"),
    (8, -9, "left"), (-8, -9, "right"), (0, 22, "center"), (0, -22, "center"),
)  # fmt: skip


def knowledge_png(found: KnowledgeMap, class_names: Sequence[str]) -> bytes:
    """A map of the knowledge base: descriptions faint in their class's shape and colour, each T_c large with its name,
    attributes as small grey crosses."""
    figure = empty_figure(8.5, 6.5)
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
    """Write each name beside its centre (C, 2), at the first place where it covers no other name or centre."""
    renderer = axes.figure.canvas.get_renderer()
    taken = [Bbox.from_extents(*(point - 7), *(point + 7)) for point in axes.transData.transform(centres)]
    for number, name in enumerate(names):
        note = axes.annotate(
            name, centres[number], textcoords="offset points", xytext=(0, 0), va="center", fontsize=9, zorder=4,
            parse_math=False, bbox={"boxstyle": "round,pad=0.12", "facecolor": "white", "alpha": 0.75, "edgecolor": "none"},
        )  # fmt: skip
        others = taken[:number] + taken[number + 1 :]
        for x, y, end in (*PLACES, PLACES[0]):  # where every place covers something, the first
            note.set(position=(x, y), horizontalalignment=end)
            box = note.get_window_extent(renderer).padded(3)
            if not box.count_overlaps(others):
                break
        taken.append(box)
