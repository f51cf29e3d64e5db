"""A self-contained page from a template beside this file: style and script inside, no network, every value escaped."""

import base64
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from excel_core.datasets.palette import VOC_PALETTE
from excel_core.files import written_then_renamed

__all__ = ["ClassColour", "Filters", "class_colours", "template_files", "write_page"]

Filters = Mapping[str, Callable[..., Any]]  # of a template, by name
TEMPLATES = Path(__file__).parent
SHARED = ("macros.html.j2", "report.css")  # of every page


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
    """The files that a page is made from; it has a script of its own where there is one."""
    return sorted(path for file in (f"{name}.html.j2", f"{name}.js", *SHARED) if (path := TEMPLATES / file).is_file())


def write_page(path: Path, name: str, context: Mapping[str, object], filters: Filters | None = None) -> None:
    """Render NAME.html.j2 with `context` and write it to `path`."""
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
    file = TEMPLATES / f"{name}.js"
    script = file.read_text(encoding="utf-8") if file.is_file() else ""
    # The page's own script may run and nothing else, whatever a name in it looks like.
    script_hash = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    page = environment.get_template(f"{name}.html.j2").render(script=script, script_hash=script_hash, **context)
    with written_then_renamed(path) as temporary:
        temporary.write_text(page, encoding="utf-8")
