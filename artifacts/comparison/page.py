"""Two runs side by side as files: comparison.json, classes.png, images.png, and one self-contained page, index.html.

The page's explorer is that of the report, with both runs in it: A's label maps beside B's, over the same photos.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from artifacts.changed_images import ChangedImage, draw_changed_images
from artifacts.charts import COLOURS, intervals_png
from artifacts.comparison.tables import (
    VERDICTS,
    class_difference_rows,
    comparison_note,
    result_rows,
    runs_text,
    spec_difference_rows,
)
from artifacts.drawing import bounded_data_uri, png_data_uri
from artifacts.explorer import write_explorer
from artifacts.gallery import Picture
from artifacts.page import Tile, class_colours, write_page
from artifacts.rows import ABSENT, defined, number
from artifacts.score_change import FEW_IMAGES, MIN_IMAGES, verdict
from artifacts.tables import protocol_text
from artifacts.view import Comparison, ExploredRun
from excel_core.files import write_json, written_then_renamed

__all__ = ["ComparedRuns", "class_differences_png", "write_comparison"]

MAX_SHEET_BYTES = 400_000  # of the picture that a page without scripts shows
A_BETTER, B_BETTER, UNCLEAR = VERDICTS
# Groups of the chart by class, from top to bottom. These colours are bright enough when a dark page inverts them.
GROUPS = {B_BETTER: COLOURS[0], UNCLEAR: "#555555", FEW_IMAGES: "#555555", ABSENT: "#555555", A_BETTER: COLOURS[1]}
READING = (
    f"B − A: the difference of the IoU with its 95 % bootstrap interval over the same images. {B_BETTER} or {A_BETTER}: the "
    f"interval leaves out 0; {FEW_IMAGES}: fewer than {MIN_IMAGES} hold the class"
)


@dataclass(frozen=True)
class ComparedRuns:
    """What the page shows: the comparison; both runs' explored images, the same ones in the same order; `note`: which they are,
    and why others are left out; `drawn`: the first of them; the run's class names (C), without background."""

    comparison: Comparison
    a: ExploredRun
    b: ExploredRun
    note: str
    drawn: Sequence[ChangedImage]
    class_names: Sequence[str]


def write_comparison(folder: Path, runs: ComparedRuns) -> None:
    """Write every file."""
    comparison = runs.comparison
    write_json(folder / "comparison.json", comparison)
    chart = class_differences_png(comparison["classes"])
    _write(folder / "classes.png", chart)
    sheet = None
    if runs.drawn:
        sheet = draw_changed_images(runs.drawn, runs.class_names, ("A", "B"), "foreground IoU")
        _write(folder / "images.png", sheet)
    context = {
        "title": f"excel compare {comparison['preset']}",
        "runs": runs_text(comparison),
        "comparison": comparison,
        "tiles": _tiles(comparison),
        "note": comparison_note(comparison),
        "reading": READING,
        "results": result_rows(comparison["results"]),
        "settings": spec_difference_rows(comparison["spec"]),
        "classes": class_difference_rows(comparison["classes"]),
        "chart": Picture(
            png_data_uri(chart), f"IoU of B − A by class, with intervals: {_extremes(comparison)}", "IoU by class"
        ),
        "explorer": write_explorer(folder, runs.b),
        "paired": write_explorer(folder, runs.a),
        "images_note": runs.note,
        "sheet": sheet and Picture(bounded_data_uri(sheet, MAX_SHEET_BYTES), "images that changed most", ""),
        "legend": class_colours(runs.class_names),
    }
    write_page(folder / "index.html", "comparison", context)


def class_differences_png(classes: Sequence[Mapping[str, Any]]) -> bytes:
    """{class, a, b, difference, low, high, images} → a dot a class at B − A with its interval, in panels by verdict, the
    largest gain on top."""
    groups: dict[str, list[Mapping[str, Any]]] = {group: [] for group in GROUPS}
    for entry in sorted(filter(_has_difference, classes), key=lambda entry: -entry["difference"]):
        groups[verdict(entry, VERDICTS)].append(entry)
    rows = [
        {"group": group, "name": entry["class"], "miou": entry["difference"], "low": entry["low"], "high": entry["high"]}
        for group, entries in groups.items()
        for entry in entries
    ]
    colours = [colour for group, colour in GROUPS.items() if groups[group]]
    return intervals_png(rows, "IoU of B − A; whiskers: 95 % interval over images", colours or COLOURS, zero=True)


def _has_difference(entry: Mapping[str, Any]) -> bool:
    """Not where only one run's truth holds the class."""
    return defined(entry["difference"])


def _tiles(comparison: Comparison) -> list[Tile]:
    miou, images = comparison["miou"], comparison["images_shared"]
    low, high = (number(miou[end], sign="+") for end in ("low", "high"))
    protocol_a, protocol_b = (protocol_text(comparison[name]) for name in ("protocol_a", "protocol"))
    verdict_text = verdict(miou | {"images": images}, VERDICTS)
    return [
        Tile(f"A: {comparison['a']}", number(miou["a"]), "", protocol_a),
        Tile(f"B: {comparison['b']}", number(miou["b"]), "", protocol_b),
        Tile(
            f"B − A: {verdict_text}",
            number(miou["difference"], sign="+"),
            f"95 % interval {low} to {high}",
            f"over {images:,} images that both runs scored",
        ),
    ]


def _extremes(comparison: Comparison) -> str:
    """The classes that gained and lost most, in words."""
    rows = class_difference_rows(comparison["classes"])
    ends = [rows[0], rows[-1]] if len(rows) > 1 else rows
    return "; ".join(f"{row['class']} {row['B − A']}" for row in ends) or "none"


def _write(path: Path, content: bytes) -> None:
    with written_then_renamed(path) as temporary:
        temporary.write_bytes(content)
