"""`excel prompts diff` and `check`: what an edit of descriptions moved, and whether a file is in order."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from flows.cli.options import Device, Sets, Store, console, text

__all__ = ["prompts"]

WIDE = 160  # columns of a file or pipe, so that descriptions are not cut short
Side = Annotated[str, typer.Argument(help="a description file (.json), or a run: its id or beginning, its name, `latest`")]
Classes = Annotated[str | None, typer.Option(help="class set of the files: voc, coco, world or FILE.yaml", show_default=False)]

prompts = typer.Typer(no_args_is_help=True, help="What an edit of descriptions moved, and whether a file is in order.")


@prompts.command()
def diff(
    a: Side,
    b: Side,
    classes: Classes = None,
    clip: Annotated[str, typer.Option(help="that files are looked at through; runs have their own")] = "excel-tiny",
    texts: Annotated[bool, typer.Option("--texts", "-v", help="print the texts that came and went")] = False,
    json_file: Annotated[Path | None, typer.Option("--json", help="also write the comparison here")] = None,
    device: Device = "cpu",
    settings: Sets = None,
    store: Store = None,
) -> None:
    """Show which classes' descriptions changed from A to B, how far each T_c moved, and which attributes came and went."""
    from artifacts.prompts_diff import print_prompts_diff
    from excel_core.files import write_json
    from flows.local.state import store_folder
    from flows.settings import check_device, make_run
    from tasks.engine.stage import RunEnvironment
    from tasks.history.prompts_diff import diff_prompts

    run = make_run("voc", "reference", ["knowledge.attributes=null", *(settings or [])], clip)
    place = RunEnvironment(store=store_folder(text(store)), device=check_device(device))
    found = diff_prompts(a, b, run, place, classes)
    print_prompts_diff(console(WIDE), found.a, found.b, found.clip, found.classes, texts)
    if json_file is not None:
        write_json(json_file, asdict(found))


@prompts.command()
def check(
    files: Annotated[list[Path], typer.Argument(help="class files (.yaml) and description files (.json)")],
    classes: Classes = None,
) -> None:
    """Read class and description files strictly, CLIP's text length included; exit 1 where one is not in order."""
    from excel_core.errors import PromptError
    from excel_core.text.description_form import length_problem, whole_problem
    from tasks.history.prompts_diff import check_prompts

    wrong = 0
    for path in files:
        try:
            problem = whole_problem if path.suffix == ".json" else lambda filled, prefix: length_problem(filled)
            print(f"{path}: {check_prompts(path, classes, problem)}")
        except PromptError as error:
            print(error)
            wrong += 1
    raise typer.Exit(1 if wrong else 0)
