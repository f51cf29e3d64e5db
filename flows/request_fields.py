"""Types of a request's fields with their bounds and choices, and how a field becomes an option of the command line."""

from typing import Annotated, Any, Literal

import typer
from pydantic import AfterValidator, BeforeValidator, Field

__all__ = [
    "MAX_GPUS", "MAX_METHODS", "MAX_SEEDS", "MAX_SETTING", "MAX_SETTINGS", "METHOD_HELP", "STORE_HELP", "MethodName", "Preset",
    "Settings", "Table", "Text", "option", "path_option",
]  # fmt: skip

MAX_GPUS = 64  # of one machine
MAX_METHODS, MAX_SEEDS = 20, 20  # of a benchmark
STORE_HELP = "where outputs go, a folder or s3://BUCKET/PREFIX; default $EXCEL_STORE or runs/"
MAX_TEXT = 4096  # characters of a path or name
MAX_SETTING, MAX_SETTINGS = 20_000, 1000  # characters of one, and how many


def _without_nul(text: str) -> str:
    if "\0" in text:
        raise ValueError("a name or path has no NUL character")
    return text


Text = Annotated[str, Field(min_length=1, max_length=MAX_TEXT), AfterValidator(_without_nul)]
Setting = Annotated[str, Field(pattern=r"^\w+(\.\w+)+ *=", max_length=MAX_SETTING)]
# One string is short for a list of one.
Settings = Annotated[list[Setting], BeforeValidator(lambda given: [given] if isinstance(given, str) else given)]
Preset = Literal["voc", "coco", "photos", "demo"]
# As excel_core.config.methods has them, which takes too long to import for `excel --help`.
MethodName = Literal[
    "excel", "excel:reference", "excel:paper", "excel:clean", "maskclip", "maskclip:reference", "maskclip:clean",
    "clip_es", "clip_es:reference", "clip_es:clean", "weclip", "weclip:reference", "weclip:clean",
    "weclip_plus", "weclip_plus:reference", "weclip_plus:clean", "reference", "paper", "clean",
]  # fmt: skip
METHOD_HELP = "NAME[:VARIANT]: excel (reference, paper, clean), maskclip, clip_es, weclip or weclip_plus (reference, clean)"
Table = Literal["table-1", "table-2", "table-3", "table-4", "table-5", "table-6", "table-7", "figures"]


def option(help: str, *names: str, metavar: str | None = None) -> Any:
    """A command-line option without a default, or with one that its help text names."""
    return typer.Option(*names, help=help, metavar=metavar, show_default=False)


def path_option(help: str) -> Any:
    """The same for a path."""
    return option(help, metavar="<path>")
