"""The learning curve: pseudo labels and segmentation by iteration, beside the published log's figures, as a PNG."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes

from artifacts.charts import empty_figure, png_bytes, tidy
from excel_core.files import written_then_renamed

__all__ = ["curve_png", "draw_curve"]

# Kind of label map, what a person calls it, colour, marker.
KINDS = (("pseudo_labels", "pseudo labels", "#009e73", "s"), ("segmentation", "segmentation", "#0072b2", "o"))


def draw_curve(path: Path, curve: Mapping[str, Any]) -> None:
    """Write the chart of a curve.json's content."""
    png = curve_png(curve)
    with written_then_renamed(path) as temporary:
        temporary.write_bytes(png)


def curve_png(curve: Mapping[str, Any]) -> bytes:
    """A panel a split: filled marks and lines are this run's, hollow marks what was published."""
    splits = list(dict.fromkeys(row["split"] for row in curve["rows"])) or [""]
    figure = empty_figure(8, 1.2 + 2.8 * len(splits))
    panels = figure.subplots(len(splits), 1, sharex=True, squeeze=False)[:, 0]
    for axes, split in zip(panels, splits, strict=True):
        _draw_split(axes, [row for row in curve["rows"] if row["split"] == split])
        axes.set_title(split, loc="left", fontsize=10, fontweight="bold", parse_math=False)
        axes.set_ylabel("mIoU")
        tidy(axes)
    panels[-1].set_xlabel("iteration")
    panels[-1].xaxis.get_major_locator().set_params(integer=True)
    handles, labels = panels[0].get_legend_handles_labels()
    if handles:
        panels[0].legend(handles, labels, frameon=False, ncols=len(handles), loc="lower right", bbox_to_anchor=(1, 1))
    return png_bytes(figure)


def _draw_split(axes: Axes, rows: list[Mapping[str, Any]]) -> None:
    for kind, name, colour, marker in KINDS:
        axes.plot([row["iteration"] for row in rows], [row[kind] for row in rows], f"{marker}-", color=colour, label=name)
        published = [(row["iteration"], row["published"][kind]) for row in rows if row["published"]]
        if published:
            x, y = zip(*published, strict=True)
            axes.plot(x, y, marker, color=colour, fillstyle="none", markersize=9, label=f"{name}, published")
