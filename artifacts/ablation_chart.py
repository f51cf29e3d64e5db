"""The ablation's variants against each other: a dot each, with its intervals, as PNG bytes."""

from collections.abc import Mapping
from typing import Any

from matplotlib.axes import Axes

from artifacts.charts import COLOURS, empty_figure, png_bytes, tidy
from artifacts.rows import defined

__all__ = ["ablation_png"]

ROW_INCHES = 0.27  # height of a row


def ablation_png(metrics: Mapping[str, Any]) -> bytes:
    """metrics["ablation"]["rows"], as of `tables.ablation_rows`, best read against each other: a dot a variant with
    whiskers over its 95 % interval and a thick bar over ± its deviation over seeds, in panels by group."""
    rows = [row for row in metrics["ablation"]["rows"] if defined(row.get("miou"))]
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault(str(row.get("group", "")), []).append(row)
    figure = empty_figure(8, 0.9 + sum(ROW_INCHES * len(found) + 0.35 for found in groups.values()))
    panels = figure.subplots(
        max(1, len(groups)), 1, sharex=True, squeeze=False, height_ratios=[len(found) for found in groups.values()] or [1]
    )[:, 0]
    for axes, (group, found), colour in zip(panels, groups.items(), COLOURS, strict=False):
        _draw_group(axes, group, found, colour)
    panels[-1].set_xlabel("mean mIoU" + "".join(_ablation_legend(rows)))
    return png_bytes(figure)


def _draw_group(axes: Axes, group: str, rows: list[Mapping[str, Any]], colour: str) -> None:
    for place, row in enumerate(rows):
        if defined(row.get("low")) and defined(row.get("high")):
            axes.plot([row["low"], row["high"]], [place, place], "|-", color=colour, linewidth=1.2, markersize=8)
        if defined(row.get("std")):
            ends = [row["miou"] - row["std"], row["miou"] + row["std"]]
            axes.plot(ends, [place, place], color=colour, linewidth=4.5, alpha=0.45, solid_capstyle="butt")
        axes.plot(row["miou"], place, "o", color=colour, markersize=5.5)
    # Names are a person's text: a dollar sign would begin a formula.
    axes.set_yticks(range(len(rows)), [str(row.get("name", "")) for row in rows], parse_math=False)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_title(group, loc="left", fontsize=10, fontweight="bold", pad=4, parse_math=False)
    axes.tick_params(axis="y", length=0)
    tidy(axes, "x")


def _ablation_legend(rows: list[Mapping[str, Any]]) -> list[str]:
    """What is drawn beside the dots, in words."""
    shown = {"low": "whiskers: 95 % interval over images", "std": "thick bar: ± deviation over seeds"}
    return [f"; {text}" for field, text in shown.items() if any(defined(row.get(field)) for row in rows)]
