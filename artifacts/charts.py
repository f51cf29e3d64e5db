"""What charts share, and the loss curve of training: PNG bytes, the same for the same numbers.

Training imports this file, so its code is part of a trained model's identity: other charts have files of their own.
"""

import io
from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from excel_core.files import written_then_renamed

__all__ = ["COLOURS", "draw_losses", "empty_figure", "losses_png", "png_bytes", "tidy"]

# Okabe-Ito without its yellow, which is too pale on white: told apart by most people, and always paired with a shape.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000", "#7f4f24")
# Column, what a person calls it, colour, dash: told apart without colour too.
LINES = (
    ("loss", "total loss", "#000000", "-"),
    ("segmentation", "segmentation", "#0072b2", "--"),
    ("diversity", "diversity (unweighted)", "#d55e00", ":"),
)


def empty_figure(width: float, height: float) -> Figure:
    """A white figure of so many inches. The object API: pyplot would keep it in a global list and pick a backend for
    the whole process."""
    return Figure(figsize=(width, height), dpi=110, layout="constrained", facecolor="white")


def png_bytes(figure: Figure) -> bytes:
    """The figure as PNG without matplotlib's version or a date in it."""
    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer, metadata={"Software": None})
    return buffer.getvalue()


def tidy(axes: Axes, grid: str = "both") -> None:
    """A pale grid behind the data, and no frame above or to the right."""
    axes.grid(axis=grid, color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def draw_losses(path: Path, losses: pd.DataFrame) -> None:
    """Write losses (iteration, loss, segmentation, diversity, learning_rate; one row an iteration) as a PNG curve."""
    png = losses_png(losses)
    with written_then_renamed(path) as temporary:
        temporary.write_bytes(png)


def losses_png(losses: pd.DataFrame) -> bytes:
    """The chart of `draw_losses` as PNG bytes: each loss faint with its running mean on top, learning rate below."""
    figure = empty_figure(8, 4.5)
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
        tidy(axes)
    upper.legend(frameon=False, ncols=len(LINES), loc="lower right", bbox_to_anchor=(1, 1), borderaxespad=0.2)
    return png_bytes(figure)


def _draw_line(axes: Axes, iteration: pd.Series, values: pd.Series, window: int, label: str, colour: str, dash: str) -> None:
    """One loss (T,) float over its iteration (T,) int: raw values faint, a running mean of `window` in front."""
    mean = values.rolling(window, min_periods=1).mean()
    if window > 1:
        axes.plot(iteration, values, color=colour, alpha=0.18, linewidth=0.8)
    marker = "o" if len(values) == 1 else None  # a line of one point is invisible
    axes.plot(iteration, mean, color=colour, linestyle=dash, linewidth=1.8, label=label, marker=marker)
