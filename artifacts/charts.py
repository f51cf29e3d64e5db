"""The loss curve of training as a PNG: the same losses give the same bytes."""

import io
from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from excel_core.stores import written_then_renamed

__all__ = ["draw_losses", "losses_png"]

# Column, what a person calls it, colour (Okabe-Ito), dash: told apart without colour too.
LINES = (
    ("loss", "total loss", "#000000", "-"),
    ("segmentation", "segmentation", "#0072b2", "--"),
    ("diversity", "diversity (unweighted)", "#d55e00", ":"),
)


def draw_losses(path: Path, losses: pd.DataFrame) -> None:
    """Write losses (iteration, loss, segmentation, diversity, learning_rate; one row an iteration) as a PNG curve."""
    png = losses_png(losses)
    with written_then_renamed(path) as temporary:
        temporary.write_bytes(png)


def losses_png(losses: pd.DataFrame) -> bytes:
    """The chart of `draw_losses` as PNG bytes: each loss faint with its running mean on top, learning rate below."""
    # The object API: pyplot would keep the figure in a global list and pick a backend for the whole process.
    figure = Figure(figsize=(8, 4.5), dpi=110, layout="constrained", facecolor="white")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(4, 1))
    window = max(1, len(losses) // 30)
    for column, label, colour, dash in LINES:
        _draw_line(upper, losses["iteration"], losses[column], window, label, colour, dash)
    lower.plot(losses["iteration"], losses["learning_rate"], color="#444444", linewidth=1.5)
    upper.set_ylabel(f"loss, mean of {window}" if window > 1 else "loss")
    lower.set_ylabel("learning\nrate")
    lower.set_xlabel("iteration")
    lower.ticklabel_format(axis="y", style="sci", scilimits=(0, 0))
    for axes in (upper, lower):
        axes.grid(color="#dddddd", linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
    upper.legend(frameon=False, ncols=len(LINES), loc="lower right", bbox_to_anchor=(1, 1), borderaxespad=0.2)
    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer, metadata={"Software": None})  # else matplotlib's version is in the bytes
    return buffer.getvalue()


def _draw_line(axes: Axes, iteration: pd.Series, values: pd.Series, window: int, label: str, colour: str, dash: str) -> None:
    """One loss (T,) float over its iteration (T,) int: raw values faint, a running mean of `window` in front."""
    mean = values.rolling(window, min_periods=1).mean()
    if window > 1:
        axes.plot(iteration, values, color=colour, alpha=0.18, linewidth=0.8)
    marker = "o" if len(values) == 1 else None  # a line of one point is invisible
    axes.plot(iteration, mean, color=colour, linestyle=dash, linewidth=1.8, label=label, marker=marker)
