"""The benchmark's files: data, tables, charts, galleries, and all of them as one self-contained page.

benchmark.json, benchmark.csv, benchmark.md, overview.png, classes_<kind>.png, gallery_<name>.png, index.html
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from artifacts.benchmark.charts import class_chart_png, overview_png
from artifacts.benchmark.tables import KINDS, benchmark_csv, benchmark_markdown, first_method, sections
from artifacts.compared import NOTHING, compared_rows, compared_sheet
from artifacts.drawing import png_data_uri
from artifacts.gallery import Picture, PictureSize
from artifacts.page import class_colours, write_page
from artifacts.view import Benchmark, ComparedItem
from excel_core.files import write_json, written_then_renamed

__all__ = ["GALLERY_NOTE", "write_benchmark"]

Galleries = Mapping[str, Sequence[ComparedItem]]
PICTURES = PictureSize(side=208, quality=74, webp=True)
GALLERY_NOTE = (
    "Images on which the methods' own mIoU lies farthest apart, the farthest first, among those whose truth evaluation copied: "
    "each method's best, median and worst."
)


def write_benchmark(folder: Path, document: Benchmark, galleries: Galleries, class_names: Sequence[str]) -> None:
    """Write every file. `galleries`: their images by name; class_names (C) without background."""
    write_json(folder / "benchmark.json", document)
    _write(folder / "benchmark.csv", benchmark_csv(document).encode())
    _write(folder / "benchmark.md", benchmark_markdown(document).encode())
    methods = [method["name"] for method in document["methods"]]
    charts = {}
    if document["numbers"]:
        charts["overview"] = overview_png(document)
    for kind, rows in document["classes"].items():
        charts[f"classes_{kind}"] = class_chart_png(rows, methods, f"{KINDS[kind]}, last step, by class")
    for name, png in charts.items():
        _write(folder / f"{name}.png", png)
    for name, items in galleries.items():
        if items:
            numbers = ", ".join(f"{value} {label}" for value, label in enumerate(class_names, start=1))
            _write(folder / f"gallery_{name}.png", compared_sheet(items, [GALLERY_NOTE, f"Classes: {numbers}"]))
    pictures = {name: Picture(png_data_uri(png), _alt(document, name), "") for name, png in charts.items()}
    context = {
        "document": document,
        "title": f"excel benchmark {document['preset']}",
        "first": first_method(document),
        "methods": methods,
        "sections": sections(document),
        "charts": pictures,
        "galleries": {name: compared_rows(items, class_names, PICTURES) for name, items in galleries.items() if items},
        "gallery_note": GALLERY_NOTE,
        "nothing": NOTHING,
        "legend": class_colours(class_names),
    }
    write_page(folder / "index.html", "benchmark", context)


def _alt(document: Benchmark, name: str) -> str:
    """A chart in words; its numbers stand in the tables."""
    methods = ", ".join(method["name"] for method in document["methods"])
    if name == "overview":
        return f"mIoU of {methods} as dots with intervals, one panel for each kind of label map"
    return f"IoU of each class by {methods}: {KINDS[name.removeprefix('classes_')]}"


def _write(path: Path, content: bytes) -> None:
    with written_then_renamed(path) as temporary:
        temporary.write_bytes(content)
