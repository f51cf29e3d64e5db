"""The command line `excel`: the same flows, with progress bars and errors a person can act on."""

import sys

import typer
from rich.console import Console

from flows.cli.doctor import doctor
from flows.cli.history import compare, gc, plan, runs, verify
from flows.cli.local import down, up
from flows.cli.prompts import prompts
from flows.cli.results import evaluate, export, figures, parity, parity_peers
from flows.cli.run import ablation, benchmark, demo, paper, run, score
from flows.cli.segment import segment
from tasks.engine.failures import in_one_line

__all__ = ["app", "main"]

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)
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
    export,
    doctor,
):
    app.command()(command)
app.add_typer(prompts, name="prompts")


def main() -> None:
    """Entry point: errors excel raises on purpose, and what disk or memory refuse, are one message and exit status 2."""
    try:
        app()
    except Exception as error:
        message = in_one_line(error)
        if message is None:
            raise
        Console(stderr=True).print(f"error: {message}", style="red", markup=False, highlight=False, soft_wrap=True)
        sys.exit(2)
