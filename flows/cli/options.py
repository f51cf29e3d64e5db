"""Options that several commands take, and what they print to."""

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

__all__ = ["Clip", "Data", "Device", "Gpus", "Method", "Preset", "Runner", "Sets", "Store", "console", "text"]

Preset = Annotated[str, typer.Argument(help="voc, coco, photos or demo")]
Data = Annotated[Path | None, typer.Option(help="data folder in the preset's layout", show_default=False)]
Store = Annotated[Path | None, typer.Option(help="where outputs go; default $EXCEL_STORE or runs/", show_default=False)]
Clip = Annotated[str | None, typer.Option(help="excel-tiny, MODEL:TAG or MODEL:FILE", show_default=False)]
Sets = Annotated[list[str] | None, typer.Option("--set", help="stage.field=value, repeatable", show_default=False)]
Method = Annotated[str, typer.Option(help="reference, paper or clean")]
Device = Annotated[str, typer.Option(help="cpu, cuda or mps")]
Gpus = Annotated[int, typer.Option(help="GPUs that train together, or processes with cpu; they share the batch")]
Runner = Annotated[str, typer.Option(help="sequential, dask or dask:tcp://HOST:PORT")]


def text(path: Path | None) -> str | None:
    """A path as flows take it."""
    return None if path is None else str(path)


def console(width: int = 100) -> Console:
    """Standard output; a file or pipe gets `width` columns."""
    return Console(width=None if sys.stdout.isatty() else width)
