"""The curve of docs/reliability.md: python docs/soak_curve.py writes docs/faults/soak.svg from docs/faults/soak.json.

Three panels over the number of runs: database, resident memory, and what else is held. The picture has colours for light and
for dark surroundings. Only the standard library is used.
"""

import json
from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path
from typing import Any

__all__ = ["soak_svg", "write_curve"]

FAULTS = Path(__file__).parent / "faults"
STYLE = (
    "svg{--paper:#ffffff;--ink:#1b2430;--faint:#5b6675;--grid:#d9dee5;--a:#0072b2;--b:#c2410c;--c:#00795a;--d:#8a4f7d}"
    "@media(prefers-color-scheme:dark){svg{--paper:#10151c;--ink:#e6e9ee;--faint:#a3adba;--grid:#3a4350;--a:#56b4e9;--b:#f0a05a;--c:#3fc79a;"
    "--d:#d79ac6}}"
    "text{font-family:system-ui,'Segoe UI',Helvetica,Arial,sans-serif;font-size:12px;fill:var(--faint)}"
    ".title{font-size:14px;font-weight:600;fill:var(--ink)}"
    "rect{fill:var(--paper)}line{stroke:var(--grid)}polyline{fill:none;stroke-width:2}"
)
WIDTH, PANEL, LEFT, RIGHT, TOP, GAP = 760, 150, 64, 150, 44, 56  # pixels
Curve = tuple[str, str, str, Callable[[dict[str, Any]], float]]  # name, colour, dashes, value of a point
PANELS: tuple[tuple[str, tuple[Curve, ...]], ...] = (
    ("Prefect's database, MB", (("database", "a", "", lambda point: point["database_mb"]),)),
    (
        "resident memory, MB",
        (
            ("flow process", "b", "", lambda point: point["flow"]["rss_mb"]),
            ("server", "a", "6 3", lambda point: point["server"]["rss_mb"]),
        ),
    ),
    (
        "handles, threads, temporary files",
        (
            ("handles, flow", "b", "", lambda point: point["flow"]["handles"]),
            ("handles, server", "a", "6 3", lambda point: point["server"]["handles"]),
            ("threads, flow", "c", "2 2", lambda point: point["flow"]["threads"]),
            ("temporary files", "d", "8 2 2 2", lambda point: point["flow"]["temporary"]),
        ),
    ),
)


def soak_svg(figures: dict[str, Any]) -> str:
    """The picture of soak.json's content."""
    points, runs = figures["points"], figures["runs"]
    height = TOP + len(PANELS) * (PANEL + GAP)
    words = f"{runs} runs with settings of their own, then {figures['repeats']} that find everything complete"
    parts = [f'<rect width="{WIDTH}" height="{height}"/>', f'<text class="title" x="{LEFT}" y="20">{escape(words)}</text>']
    for number, (title, curves) in enumerate(PANELS):
        parts += _panel(points, runs, title, curves, TOP + number * (PANEL + GAP))
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(words)}">'
    return "\n".join([head, f"<style>{STYLE}</style>", *parts, "</svg>"]) + "\n"


def _panel(points: Sequence[dict[str, Any]], runs: int, title: str, curves: Sequence[Curve], top: int) -> list[str]:
    """A title, a grid from 0, the curves, and their names at their ends."""
    values = {name: [value(point) for point in points] for name, _, _, value in curves}
    most = _round_up(max(max(row) for row in values.values()))
    width = WIDTH - LEFT - RIGHT

    def place(index: float, value: float) -> tuple[float, float]:
        return LEFT + width * index / max(1, len(points) - 1), top + PANEL * (1 - value / most)

    parts = [f'<text class="title" x="{LEFT}" y="{top - 8}">{escape(title)}</text>']
    for share in (0, 0.5, 1):
        y = top + PANEL * (1 - share)
        parts.append(f'<line x1="{LEFT}" x2="{LEFT + width}" y1="{y}" y2="{y}"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y + 4}" text-anchor="end">{most * share:g}</text>')
    border = place(runs - 0.5, 0)[0]
    parts.append(f'<line x1="{border:.1f}" x2="{border:.1f}" y1="{top}" y2="{top + PANEL}" stroke-dasharray="3 3"/>')
    ends = _apart([place(len(points) - 1, row[-1])[1] for row in values.values()])
    for (name, colour, dashes, _), row, end in zip(curves, values.values(), ends, strict=True):
        line = " ".join("{:.1f},{:.1f}".format(*place(index, value)) for index, value in enumerate(row))
        parts.append(f'<polyline points="{line}" style="stroke:var(--{colour})" stroke-dasharray="{dashes}"/>')
        label = f"{name} {row[-1]:g}"
        parts.append(f'<text x="{LEFT + width + 8}" y="{end + 4:.1f}" style="fill:var(--{colour})">{escape(label)}</text>')
    for index in (0, len(points) - 1):
        parts.append(f'<text x="{place(index, 0)[0]:.1f}" y="{top + PANEL + 18}" text-anchor="middle">run {index + 1}</text>')
    return parts


def _round_up(value: float) -> float:
    """The least of 1, 2, 5, 10, 20, 50 … that is not below `value`."""
    step = 1.0
    while True:
        for factor in (1, 2, 5):
            if factor * step >= value:
                return factor * step
        step *= 10


def _apart(places: Sequence[float], least: float = 15) -> list[float]:
    """Heights of labels in pixels, moved down where they would overlap."""
    moved: dict[int, float] = {}
    last = float("-inf")
    for index in sorted(range(len(places)), key=places.__getitem__):
        last = moved[index] = max(places[index], last + least)
    return [moved[index] for index in range(len(places))]


def write_curve(folder: Path = FAULTS) -> Path:
    """Write soak.svg beside soak.json → its path."""
    picture = folder / "soak.svg"
    picture.write_text(soak_svg(json.loads((folder / "soak.json").read_text(encoding="utf-8"))), encoding="utf-8")
    return picture


if __name__ == "__main__":
    print(write_curve())
