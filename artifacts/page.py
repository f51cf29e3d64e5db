"""A page from a template beside this file: style and script inside, no network, every value escaped."""

import base64
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from excel_core.datasets.palette import VOC_PALETTE
from excel_core.files import written_then_renamed

__all__ = ["ClassColour", "Filters", "Tile", "class_colours", "template_files", "write_page"]

Filters = Mapping[str, Callable[..., Any]]  # of a template, by name
ALONE, BESIDE = "img-src data:", "img-src data: 'self'; connect-src 'self'"  # of a page's content security policy
TEMPLATES = Path(__file__).parent
SHARED = ("macros.html.j2", "report.css")  # of every page
EXPLORER = (
    "explorer.html.j2", "explorer_data.js", "explorer_scores.js", "explorer_drawing.js", "explorer_difference.js",
    "explorer_cards.js", "explorer_dialog.js", "explorer.js",
)  # fmt: skip
PARTS = {
    "report": EXPLORER,
    "comparison": EXPLORER,
}  # of some pages: templates beside the first, and the script's files in order


@dataclass(frozen=True)
class Tile:
    """A headline number: what was scored, its mIoU or a difference of two, the interval, the rest of the protocol, and means of
    other scores."""

    title: str
    value: str
    interval: str
    note: str
    means: str = ""


@dataclass(frozen=True)
class ClassColour:
    """A class's label value, name and CSS colour."""

    value: int
    name: str
    colour: str


def class_colours(class_names: Sequence[str]) -> list[ClassColour]:
    """The legend of label maps: class_names (C) are the values from 1 on."""
    classes = enumerate(class_names, start=1)
    return [ClassColour(value, name, "rgb({}, {}, {})".format(*VOC_PALETTE[value])) for value, name in classes]


def template_files(name: str) -> list[Path]:
    """The files that a page is made from."""
    return [TEMPLATES / file for file in (f"{name}.html.j2", *SHARED, *PARTS.get(name, ()))]


def write_page(
    path: Path, name: str, context: Mapping[str, object], filters: Filters | None = None, beside: bool = False
) -> None:
    """Render NAME.html.j2 with `context` and write it to `path`. `beside`: the page may read files from its own place."""
    # Autoescape for every name, whatever its ending: ids and class names come from a person's files.
    from jinja2 import Environment, FileSystemLoader, StrictUndefined  # here: `excel plan` writes no page

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= filters or {}
    scripts = [path for path in template_files(name) if path.suffix == ".js"]
    script = "".join(path.read_text(encoding="utf-8") for path in scripts)
    # The page's own script may run and nothing else, whatever a name in it looks like.
    script_hash = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    page = environment.get_template(f"{name}.html.j2").render(
        script=script, script_hash=script_hash, may_read=BESIDE if beside else ALONE, **context
    )
    with written_then_renamed(path) as temporary:
        temporary.write_text(page, encoding="utf-8")
