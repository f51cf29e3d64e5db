"""The command line `excel`: the same flows, with progress bars and errors a person can act on."""

import sys
from importlib.metadata import version
from typing import Annotated

import typer
from rich.console import Console

from flows.any_locale import write_every_character
from flows.cli.corrections import import_labels
from flows.cli.doctor import doctor
from flows.cli.history import compare, gc, plan, verify
from flows.cli.local import down, up
from flows.cli.output import Command, with_output
from flows.cli.prompts import prompts
from flows.cli.results import evaluate, export, figures, parity, parity_peers
from flows.cli.run import ablation, benchmark, demo, paper, run, score
from flows.cli.runs import runs
from flows.cli.segment import segment
from flows.cli.serve import serve
from flows.cli.sharing import log, push
from tasks.engine.failures import in_one_line

__all__ = ["app", "main"]

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help=__doc__,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (
    run,
    demo,
    score,
    ablation,
    benchmark,
    paper,
    plan,
    runs,
    compare,
    gc,
    verify,
    up,
    down,
    evaluate,
    parity,
    parity_peers,
    figures,
    segment,
    serve,
    export,
    push,
    log,
    doctor,
):
    app.command()(command)
app.command("import")(import_labels)  # a word of Python's own
app.add_typer(prompts, name="prompts")
for each in (*app.registered_commands, *prompts.registered_commands):
    if each.callback is not None:
        each.cls, each.callback = Command, with_output(each.callback)


def _show_version(is_asked: bool) -> None:
    if is_asked:
        print(f"excel {version('excel-wsss')}")
        raise typer.Exit


@app.callback()
def _root(
    show_version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="print the version and end")
    ] = False,
) -> None:
    pass


def main() -> None:
    """Entry point: errors excel raises on purpose, and what disk or memory refuse, are one message and exit status 2."""
    write_every_character()
    try:
        app()
    except Exception as error:
        message = in_one_line(error)
        if message is None:
            raise
        Console(stderr=True).print(f"error: {message}", style="red", markup=False, highlight=False, soft_wrap=True)
        sys.exit(2)
