"""Charts as PNG bytes, the same for the same numbers: losses, learning curve, ablation, knowledge map, confusion matrix."""

import io
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg, RendererAgg
from matplotlib.figure import Figure
from matplotlib.text import Annotation, Text
from matplotlib.transforms import Bbox
from numpy.typing import NDArray

from artifacts.rows import defined
from artifacts.tables import confusion_shares
from artifacts.view import Counts, Curve, KnowledgeMap, Metrics
from excel_core.files import written_then_renamed

__all__ = [
    "COLOURS", "SHAPES", "ablation_png", "confusion_png", "curve_png", "draw_curve", "draw_losses", "empty_figure",
    "intervals_png", "knowledge_png", "losses_png", "png_bytes", "tidy",
]  # fmt: skip

# Okabe-Ito without its yellow, which is too pale on white: told apart by most people, and always paired with a shape.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000", "#7f4f24")
GRID_COLOUR = "#c0c0c0"  # seen on white, and inverted on a dark page
# Column, name in the legend, colour, dash: told apart without colour too.
LOSS_LINES = (
    ("loss", "total loss", "#000000", "-"),
    ("segmentation", "segmentation", "#0072b2", "--"),
    ("diversity", "diversity (unweighted)", "#d55e00", ":"),
)
# Kind of label map, name in the legend, colour, marker.
CURVE_LINES = (("pseudo_labels", "pseudo labels", "#009e73", "s"), ("segmentation", "segmentation", "#0072b2", "o"))
ABLATION_ROW_INCHES = 0.27
CONFUSION_ROW_INCHES = 0.15

MAX_SMALL_MAP_CLASSES = 30  # the knowledge map of more classes is larger
# Eleven shapes and eight colours: no two of 88 classes share both.
SHAPES = ("o", "s", "^", "D", "v", "P", "X", "p", "<", "h", ">")
# Where a name may stand: x, y from its centre in points, and its alignment there. Farther places are tried only where near
# ones are full.
NEAR_PLACES = ((0, 11, "center"), (0, -11, "center"), (9, 0, "left"), (-9, 0, "right"), (8, 9, "left"), (-8, 9, "right"),
               (8, -9, "left"), (-8, -9, "right"))  # fmt: skip
NAME_PLACES = [(scale * x, scale * y, alignment) for scale in (1, 2, 3, 4.5) for x, y, alignment in NEAR_PLACES]


def empty_figure(width: float, height: float) -> Figure:
    """A white figure; width and height in inches."""
    # The object API: pyplot would keep the figure in a global list and pick a backend for the whole process.
    return Figure(figsize=(width, height), dpi=110, layout="constrained", facecolor="white")


def png_bytes(figure: Figure) -> bytes:
    """The figure as PNG without matplotlib's version or a date in it."""
    buffer = io.BytesIO()
    with _boxes_for_signs():
        FigureCanvasAgg(figure).print_png(buffer, metadata={"Software": None})
    return buffer.getvalue()


@contextmanager
def _boxes_for_signs() -> Iterator[None]:
    """A sign of a class name that the font lacks, such as an emoji, is a box in a chart: matplotlib's warning tells no more."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font", category=UserWarning)
        yield


def tidy(axes: Axes, grid: Literal["both", "x", "y"] = "both") -> None:
    """A pale grid behind the data, and no frame above or to the right."""
    axes.grid(axis=grid, color=GRID_COLOUR, linewidth=0.7)  # one whole pixel
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def draw_losses(path: Path, losses: pd.DataFrame) -> None:
    """Write `losses_png` to `path`."""
    _write(path, losses_png(losses))


def draw_curve(path: Path, curve: Curve) -> None:
    """Write `curve_png` to `path`."""
    _write(path, curve_png(curve))


def _write(path: Path, png: bytes) -> None:
    with written_then_renamed(path) as temporary:
        temporary.write_bytes(png)


def losses_png(losses: pd.DataFrame) -> bytes:
    """losses (iteration, loss, segmentation, diversity, learning_rate; one row per iteration) → each loss faint with its
    running mean on top, learning rate below."""
    figure = empty_figure(8, 4.5)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(4, 1))
    window = max(1, len(losses) // 30)
    for column, label, colour, dash in LOSS_LINES:
        _draw_loss(upper, losses["iteration"], losses[column], window, label, colour, dash)
    lower.plot(losses["iteration"], losses["learning_rate"], color="#444444", linewidth=1.5)
    upper.set_ylabel(f"loss, mean of {window}" if window > 1 else "loss")
    lower.set_ylabel("learning\nrate")
    lower.set_xlabel("iteration")
    lower.ticklabel_format(axis="y", style="sci", scilimits=(0, 0))
    for axes in (upper, lower):
        tidy(axes)
    upper.legend(frameon=False, ncols=len(LOSS_LINES), loc="lower right", bbox_to_anchor=(1, 1), borderaxespad=0.2)
    return png_bytes(figure)


def _draw_loss(
    axes: Axes, iteration: "pd.Series[int]", values: "pd.Series[float]", window: int, label: str, colour: str, dash: str
) -> None:
    """One loss (T,) over its iteration (T,): raw values faint, a running mean over `window` iterations in front."""
    mean = values.rolling(window, min_periods=1).mean()
    if window > 1:
        axes.plot(iteration, values, color=colour, alpha=0.18, linewidth=0.8)
    marker = "o" if len(values) == 1 else None  # a line of one point is invisible
    axes.plot(iteration, mean, color=colour, linestyle=dash, linewidth=1.8, label=label, marker=marker)


def curve_png(curve: Curve) -> bytes:
    """A panel per split, mIoU of pseudo labels and segmentation by iteration: filled marks and lines are this run's, hollow
    marks are published."""
    splits = list(dict.fromkeys(row["split"] for row in curve["rows"])) or [""]
    figure = empty_figure(8, 1.2 + 2.8 * len(splits))
    panels = figure.subplots(len(splits), 1, sharex=True, squeeze=False)[:, 0]
    for axes, split in zip(panels, splits, strict=True):
        _draw_curve_split(axes, [row for row in curve["rows"] if row["split"] == split])
        axes.set_title(split, loc="left", fontsize=10, fontweight="bold", parse_math=False)
        axes.set_ylabel("mIoU")
        tidy(axes)
    panels[-1].set_xlabel("iteration")
    panels[-1].xaxis.get_major_locator().set_params(integer=True)
    handles, labels = panels[0].get_legend_handles_labels()
    if handles:
        panels[0].legend(handles, labels, frameon=False, ncols=len(handles), loc="lower right", bbox_to_anchor=(1, 1))
    return png_bytes(figure)


def _draw_curve_split(axes: Axes, rows: Sequence[Mapping[str, Any]]) -> None:
    for kind, name, colour, marker in CURVE_LINES:
        axes.plot([row["iteration"] for row in rows], [row[kind] for row in rows], f"{marker}-", color=colour, label=name)
        published = [(row["iteration"], row["published"][kind]) for row in rows if row["published"]]
        if published:
            x, y = zip(*published, strict=True)
            axes.plot(x, y, marker, color=colour, fillstyle="none", markersize=9, label=f"{name}, published")


def ablation_png(metrics: Metrics) -> bytes:
    """metrics["ablation"]["rows"] in panels by group: a dot per variant at its mIoU, with whiskers over its 95 % interval and
    a thick bar over ± its standard deviation over seeds."""
    rows = [row for row in metrics["ablation"]["rows"] if defined(row.get("miou"))]
    return intervals_png(rows, "mean mIoU" + _ablation_legend(rows))


def intervals_png(rows: Sequence[Mapping[str, Any]], label: str, colours: Sequence[str] = COLOURS, zero: bool = False) -> bytes:
    """rows {group, name, miou, low, high, std} in panels by group, a dot each with its whiskers and bar as in `ablation_png`.
    `label`: of the axis; `colours`: of the groups in order; `zero`: with a line there, of differences."""
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault(str(row.get("group", "")), []).append(row)
    sizes = [len(variants) for variants in groups.values()]
    figure = empty_figure(8, 0.9 + sum(ABLATION_ROW_INCHES * count + 0.35 for count in sizes))
    panels = figure.subplots(max(1, len(groups)), 1, sharex=True, squeeze=False, height_ratios=sizes or [1])[:, 0]
    for axes, (group, variants), colour in zip(panels, groups.items(), colours, strict=False):
        _draw_ablation_group(axes, group, variants, colour)
        if zero:
            axes.axvline(0, color="#777777", linewidth=1, zorder=0.5)
    panels[-1].set_xlabel(label)
    return png_bytes(figure)


def _draw_ablation_group(axes: Axes, group: str, rows: Sequence[Mapping[str, Any]], colour: str) -> None:
    for y, row in enumerate(rows):
        if defined(row.get("low")) and defined(row.get("high")):
            axes.plot([row["low"], row["high"]], [y, y], "|-", color=colour, linewidth=1.2, markersize=8)
        if defined(row.get("std")):
            ends = [row["miou"] - row["std"], row["miou"] + row["std"]]
            axes.plot(ends, [y, y], color=colour, linewidth=4.5, alpha=0.45, solid_capstyle="butt")
        axes.plot(row["miou"], y, "o", color=colour, markersize=5.5)
    # Names are a person's text: a dollar sign would begin a formula.
    axes.set_yticks(range(len(rows)), [str(row.get("name", "")) for row in rows], parse_math=False)
    axes.set_ylim(len(rows) - 0.5, -0.5)  # the first variant on top
    axes.set_title(group, loc="left", fontsize=10, fontweight="bold", pad=4, parse_math=False)
    axes.tick_params(axis="y", length=0)
    tidy(axes, "x")


def _ablation_legend(rows: Sequence[Mapping[str, Any]]) -> str:
    """What is drawn beside the dots, in words."""
    marks = {"low": "whiskers: 95 % interval over images", "std": "thick bar: ± deviation over seeds"}
    return "".join(f"; {text}" for field, text in marks.items() if any(defined(row.get(field)) for row in rows))


def confusion_png(counts: Counts, names: Sequence[str]) -> bytes:
    """counts (C+1, C+1), rows truth → shades of one colour, from white (0 % of the row) to dark (100 %); classes that are not
    in the truth hatched."""
    shares = confusion_shares(counts)
    side = max(8.0, CONFUSION_ROW_INCHES * len(names))  # names stay readable; the page scrolls a wide picture in its box
    figure = empty_figure(side + 1, side)
    axes = figure.subplots()
    axes.set_facecolor("#eeeeee")
    axes.patch.set_hatch("////")
    axes.patch.set_edgecolor("#bbbbbb")
    image = axes.imshow(np.ma.masked_invalid(shares * 100), cmap="Blues", vmin=0, vmax=100)
    figure.colorbar(image, ax=axes, label="% of the truth's pixels", shrink=0.5)
    axes.set_xticks(range(len(names)), names, rotation=90, fontsize=8, parse_math=False)
    axes.set_yticks(range(len(names)), names, fontsize=8, parse_math=False)
    axes.set_xlabel("predicted")
    axes.set_ylabel("truth")
    return png_bytes(figure)


def knowledge_png(texts: KnowledgeMap, class_names: Sequence[str]) -> bytes:
    """The texts on two principal components: descriptions faint in their class's shape and colour, each T_c large with its
    name, attributes as small grey crosses."""
    figure = empty_figure(8.5, 6.5) if len(class_names) <= MAX_SMALL_MAP_CLASSES else empty_figure(13, 10)
    axes = figure.subplots()
    axes.plot(*texts.attributes.T, "x", color="#777777", markersize=4, markeredgewidth=0.9, linestyle="none", label="attribute")
    for number, centre in enumerate(texts.classes):
        shape, colour = SHAPES[number % len(SHAPES)], COLOURS[number % len(COLOURS)]
        descriptions = texts.descriptions[texts.description_class == number]
        axes.plot(*descriptions.T, shape, color=colour, alpha=0.35, markersize=3.5, markeredgewidth=0, linestyle="none")
        axes.plot(*centre, shape, color=colour, markersize=10, markeredgecolor="white", markeredgewidth=1.2, zorder=3)
    x, y = (f"{100 * share:.0f} % of the descriptions' variance" for share in texts.explained)
    axes.set_xlabel(f"first principal component, {x}")
    axes.set_ylabel(f"second principal component, {y}")
    axes.margins(0.09)
    tidy(axes)
    axes.plot([], [], "o", color="#555555", alpha=0.35, markersize=4, linestyle="none", label="description")
    axes.plot([], [], "o", color="#555555", markersize=9, linestyle="none", label="class, enriched ($T_c$)")
    axes.legend(frameon=False, ncols=3, loc="lower right", bbox_to_anchor=(1, 1), borderaxespad=0.2)
    canvas = FigureCanvasAgg(figure)
    with _boxes_for_signs():
        figure.draw_without_rendering()  # the layout must be settled before places of names are compared
        figure.set_layout_engine("none")
        _name_classes(axes, canvas.get_renderer(), texts.classes, class_names)
    return png_bytes(figure)


def _name_classes(axes: Axes, renderer: RendererAgg, centres: NDArray[np.floating], names: Sequence[str]) -> None:
    """Write each name beside its centre (C, 2), at the place where it covers least of other names and centres, near before
    far; a far one is tied to its centre by a line."""
    occupied = [Bbox.from_extents(*(point - 6), *(point + 6)) for point in axes.transData.transform(centres)]
    for number, name in enumerate(names):
        note = axes.annotate(
            name, centres[number], textcoords="offset points", xytext=(0, 0), va="center", fontsize=9, zorder=4,
            parse_math=False, bbox={"boxstyle": "round,pad=0.1", "facecolor": "white", "alpha": 0.7, "edgecolor": "none"},
            arrowprops={"arrowstyle": "-", "color": "#888888", "linewidth": 0.7, "shrinkA": 0, "shrinkB": 5},
        )  # fmt: skip
        other_boxes = occupied[:number] + occupied[number + 1 :]
        best = min(NAME_PLACES, key=lambda place: _covered_area(_moved(note, place, renderer), other_boxes))
        occupied.append(_moved(note, best, renderer))
        if note.arrow_patch is not None:
            note.arrow_patch.set_visible(abs(best[0]) + abs(best[1]) > 20)


def _moved(note: Annotation, place: tuple[float, float, str], renderer: RendererAgg) -> Bbox:
    """Put the name there → the box of its text alone: an annotation's own box has the line in it."""
    note.set(position=place[:2], horizontalalignment=place[2])
    note.update_positions(renderer)
    return Text.get_window_extent(note, renderer).padded(2)


def _covered_area(box: Bbox, others: Sequence[Bbox]) -> float:
    """Square pixels of `others` below the box."""
    overlaps = (Bbox.intersection(box, other) for other in others)
    return sum(overlap.width * overlap.height for overlap in overlaps if overlap is not None)
