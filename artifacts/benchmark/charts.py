"""The benchmark's charts as PNG bytes: all methods with their intervals, and the IoU of each class by method."""

from collections.abc import Mapping, Sequence
from typing import Any

from artifacts.benchmark.tables import KINDS, last_numbers, step_words
from artifacts.charts import COLOURS, SHAPES, ablation_png, empty_figure, png_bytes, tidy
from artifacts.view import Benchmark

__all__ = ["class_chart_png", "overview_png"]

CLASS_ROW_INCHES = 0.24


def overview_png(document: Benchmark) -> bytes:
    """A panel a kind: each method's last step as a dot, with whiskers over its 95 % interval and a bar over ± its deviation."""
    rows = [
        {"group": title, "name": f"{method}, {step_words(number['step'])}"}
        | {field: number[field] for field in ("miou", "std", "low", "high")}
        for kind, title in KINDS.items()
        for method, number in last_numbers(document, kind).items()
    ]
    return ablation_png({"ablation": {"rows": rows}})


def class_chart_png(rows: Sequence[Mapping[str, Any]], methods: Sequence[str], title: str) -> bytes:
    """rows {class, iou by method} → a line a class, a mark a method; the classes that the first one finds best on top.
    `methods`: all of the benchmark, so that each has its shape and colour in every chart; some may have no values here."""
    first = next(method for method in methods if method in rows[0]["iou"])
    ordered = sorted(rows, key=lambda row: -row["iou"].get(first, 0.0))
    figure = empty_figure(8, 1.3 + CLASS_ROW_INCHES * len(ordered))
    axes = figure.subplots()
    for y, row in enumerate(ordered):  # a pale line from the least to the greatest: how far methods lie apart
        axes.plot([min(row["iou"].values()), max(row["iou"].values())], [y, y], color="#999999", linewidth=1.2, zorder=1)
    for number, method in enumerate(methods):
        points = [(row["iou"][method], y) for y, row in enumerate(ordered) if method in row["iou"]]
        if points:
            style = {"color": COLOURS[number % len(COLOURS)], "markersize": 6.5, "alpha": 0.85}
            axes.plot(*zip(*points, strict=True), SHAPES[number % len(SHAPES)], label=method, **style)  # type: ignore[arg-type]
    axes.set_yticks(range(len(ordered)), [row["class"] for row in ordered], parse_math=False)
    axes.set_ylim(len(ordered) - 0.5, -0.5)
    axes.set_xlabel("IoU")
    axes.set_title(title, loc="left", fontsize=10, fontweight="bold", parse_math=False)
    tidy(axes, "x")
    figure.legend(frameon=False, ncols=min(4, len(rows[0]["iou"])), loc="outside lower center")
    return png_bytes(figure)
