"""The two pictures of docs/architecture.md: python docs/diagrams.py writes layers.svg and data_flow.svg beside this file.

The layers' folders are read from the repository. The data flow is the table STAGES below; tests/core/test_docs.py compares both
pictures with the repository. Only the standard library is used, so that the site builds without the rest of excel.
"""

from dataclasses import dataclass
from html import escape
from pathlib import Path

__all__ = ["EDGES", "STAGES", "data_flow_svg", "layers_svg", "write_diagrams"]

DOCS = Path(__file__).parent
ROOT = DOCS.parent

STYLE = (
    "text{font-family:system-ui,'Segoe UI',Helvetica,Arial,sans-serif;fill:#1b2430}"
    ".name{font-size:15px;font-weight:600}.note{font-size:12px;fill:#4a5666}.code{font-family:ui-monospace,Menlo,Consolas,"
    "monospace;font-size:12px}"
)
FILLS = {"flows": "#e8eefc", "tasks": "#e6f4ea", "artifacts": "#fdf1dc", "excel_core": "#f3e9f9", "source": "#f4f5f7"}
INK, MASK_INK = "#5b6675", "#b3261e"

# What a layer is for; its folders are read from the disk.
LAYERS = {
    "flows": "Prefect flows, command line, local server",
    "tasks": "the pipeline: stages, cache, parts, history",
    "artifacts": "tables, charts, report",
    "excel_core": "the method: arrays in, arrays out; no Prefect, no command line",
}


@dataclass(frozen=True)
class Box:
    """A box of the data flow: its place in a grid of columns and rows, and what the stage makes."""

    column: int
    row: int
    makes: str
    layer: str = "tasks"


SOURCES = {
    "class names, synonyms": Box(0, 0, "prompts/*.yaml, or your data folder", "source"),
    "photos, image-level labels": Box(1, 0, "your data folder", "source"),
    "true masks": Box(2, 0, "for scores alone, behind a guard", "source"),
}
STAGES = {
    "describe": Box(0, 1, "descriptions.json"),
    "dataset": Box(1, 1, "manifest.parquet"),
    "knowledge": Box(0, 2, "knowledge.zarr: texts T_c, attributes"),
    "cams": Box(1, 3, "cams.zarr: static CAMs, attention"),
    "refine": Box(1, 4, "pseudo labels: affinity, PAR, CRF"),
    "train": Box(1, 5, "segmenter.safetensors, losses"),
    "dynamic": Box(0, 6, "CAMs and labels with LVC"),
    "predict": Box(1, 6, "the segmenter's label maps"),
    "evaluate": Box(1, 7, "metrics.json, confusion.parquet"),
    "report": Box(1, 8, "index.html"),
}
# What a stage reads, (from, to). Every stage from cams on also reads dataset and knowledge, which the picture says in words.
EDGES = (
    ("describe", "knowledge"), ("knowledge", "cams"), ("dataset", "cams"), ("cams", "refine"), ("refine", "train"),
    ("train", "dynamic"), ("train", "predict"), ("refine", "evaluate"), ("dynamic", "evaluate"), ("predict", "evaluate"),
    ("evaluate", "report"),
)  # fmt: skip
SOURCE_EDGES = (
    ("class names, synonyms", "describe"),
    ("photos, image-level labels", "dataset"),
    ("true masks", "evaluate"),
)
SIDE = {("refine", "evaluate"), ("true masks", "evaluate")}  # arrows that reach evaluate from its right
WIDTH, HEIGHT, COLUMN, ROW, MARGIN = 250, 54, 290, 90, 20  # pixels: of a box, and from one box to the next


def data_flow_svg() -> str:
    """Which stage reads what which stage makes, and what comes from outside."""
    boxes = SOURCES | STAGES
    parts = [_arrow(boxes[a], boxes[b], (a, b)) for a, b in (*SOURCE_EDGES, *EDGES)]
    for name, box in boxes.items():
        x, y = _corner(box)
        dash = ' stroke-dasharray="5 3"' if box.layer == "source" else ""
        parts.append(_rectangle(x, y, WIDTH, HEIGHT, FILLS[box.layer], dash))
        parts.append(_text(x + 12, y + 23, name, "name"))
        parts.append(_text(x + 12, y + 42, box.makes, "note"))
    left, top = _corner(Box(2, 2, ""))
    notes = (
        "Every stage from cams on also",
        "reads dataset and knowledge.",
        "train makes its targets from",
        "the CAMs of each crop; refine's",
        "labels choose the crops.",
    )
    parts += [_text(left + 12, top + 18 * line, note, "note") for line, note in enumerate(notes)]
    return _svg(3 * COLUMN + MARGIN - (COLUMN - WIDTH) + MARGIN, 9 * ROW + MARGIN, "Data flow of a run", parts)


def layers_svg(root: Path = ROOT) -> str:
    """The four layers and their folders; arrows are imports, which go down alone."""
    # Left, top, width, and how many lines of folders fit.
    places = {
        "flows": (20, 20, 860, 1),
        "tasks": (20, 150, 560, 3),
        "artifacts": (620, 150, 260, 3),
        "excel_core": (20, 352, 860, 2),
    }
    arrows = [(300, 110, 150), (750, 110, 150), (300, 312, 352), (750, 312, 352)]
    parts = [_line([(x, y), (x, end)], INK) for x, y, end in arrows]
    parts.append(_line([(580, 231), (620, 231)], INK))
    for name, (x, y, width, lines) in places.items():
        folders = tuple(sorted(path.parent.name for path in (root / name).glob("*/__init__.py")))
        parts.append(_rectangle(x, y, width, 54 + 36 * lines, FILLS[name]))
        parts.append(_text(x + 14, y + 25, f"{name}/", "name"))
        parts.append(_text(x + 14 + 9 * len(name) + 22, y + 25, LAYERS[name], "note"))
        parts += _chips(folders, x + 14, y + 42, width - 28)
    return _svg(900, 498, "Layers and imports", parts)


def write_diagrams(folder: Path = DOCS) -> None:
    """Write both pictures into folder."""
    (folder / "layers.svg").write_text(layers_svg(), encoding="utf-8")
    (folder / "data_flow.svg").write_text(data_flow_svg(), encoding="utf-8")


def _corner(box: Box) -> tuple[int, int]:
    return MARGIN + COLUMN * box.column, MARGIN + ROW * box.row


def _arrow(start: Box, end: Box, names: tuple[str, str]) -> str:
    """From the bottom of a box to the top of another, or round the right side where others are between."""
    (x1, y1), (x2, y2) = _corner(start), _corner(end)
    ink = MASK_INK if names[0] == "true masks" else INK
    if names == ("true masks", "evaluate"):
        down = x1 + WIDTH - 20
        return _line([(down, y1 + HEIGHT), (down, y2 + 36), (x2 + WIDTH, y2 + 36)], ink)
    if names in SIDE:
        gap = x1 + WIDTH + (COLUMN - WIDTH) // 2
        return _line([(x1 + WIDTH, y1 + HEIGHT // 2), (gap, y1 + HEIGHT // 2), (gap, y2 + 18), (x2 + WIDTH, y2 + 18)], ink)
    bend = y2 - (ROW - HEIGHT) // 2
    middle1, middle2 = x1 + WIDTH // 2, x2 + WIDTH // 2
    if middle1 == middle2:
        return _line([(middle1, y1 + HEIGHT), (middle2, y2)], ink)
    return _line([(middle1, y1 + HEIGHT), (middle1, bend), (middle2, bend), (middle2, y2)], ink)


def _line(points: list[tuple[int, int]], ink: str) -> str:
    path = " ".join(f"{x},{y}" for x, y in points)
    head = "mask-head" if ink == MASK_INK else "head"
    return f'<polyline points="{path}" fill="none" stroke="{ink}" stroke-width="1.5" marker-end="url(#{head})"/>'


def _rectangle(x: int, y: int, width: int, height: int, fill: str, extra: str = "") -> str:
    return f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="6" fill="{fill}" stroke="#c3cad4"{extra}/>'


def _text(x: int, y: int, text: str, style: str) -> str:
    return f'<text x="{x}" y="{y}" class="{style}">{escape(text)}</text>'


def _chips(names: tuple[str, ...], left: int, top: int, width: int) -> list[str]:
    """Folder names in small boxes, as many a line as fit."""
    parts, x, y = [], left, top
    for name in names:
        wide = 8 * len(name) + 22
        if x + wide > left + width:
            x, y = left, y + 36
        parts.append(_rectangle(x, y, wide, 26, "#ffffff"))
        parts.append(_text(x + 10, y + 18, f"{name}/", "code"))
        x += wide + 10
    return parts


def _svg(width: int, height: int, title: str, parts: list[str]) -> str:
    heads = "".join(
        f'<marker id="{name}" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="8" markerHeight="8" orient="auto">'
        f'<path d="M0,0 L8,4 L0,8 z" fill="{ink}"/></marker>'
        for name, ink in (("head", INK), ("mask-head", MASK_INK))
    )
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img">\n<title>{escape(title)}</title>\n'
        f"<style>{STYLE}</style>\n<defs>{heads}</defs>\n"
        f'<rect width="{width}" height="{height}" rx="8" fill="#ffffff"/>\n{body}\n</svg>\n'
    )


if __name__ == "__main__":
    write_diagrams()
