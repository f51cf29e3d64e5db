"""`excel prompts new`, `check` and `diff`: a prompt set of one's own, whether a file is in order, what an edit moved."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from flows.cli.options import FILE_COLUMNS, console, takes_request
from flows.cli.output import give
from flows.request import RunRequest

__all__ = ["prompts"]

Side = Annotated[str, typer.Argument(help="a description file (.json), or a run: its id or beginning, its name, `latest`")]
Classes = Annotated[str | None, typer.Option(help="class set of the files: voc, coco, world or FILE.yaml", show_default=False)]

prompts = typer.Typer(no_args_is_help=True, help="Prompt sets of your own: begin one, check its files, see what an edit moved.")


@prompts.command()
def new(
    name: Annotated[
        str, typer.Argument(help="of the new set: writes NAME.yaml and NAME.json; perhaps with a folder before it")
    ],
    source: Annotated[str, typer.Option("--from", help="the set to copy: voc, coco, world or FILE.yaml")] = "voc",
) -> None:
    """Begin a prompt set of your own as a copy of another one. Nothing is overwritten."""
    from excel_core.text.new_prompts import new_prompts

    new_files = new_prompts(name, source)
    print(f"{new_files.classes}: classes with their prompts, and background prompts, as in {new_files.source}")
    if new_files.descriptions is None:
        print(f"{new_files.source} has no descriptions beside it: none were copied")
    else:
        print(f"{new_files.descriptions}: the descriptions of each class")
    files = " ".join(str(path) for path in (new_files.classes, new_files.descriptions) if path)
    print(f"edit them, then: excel prompts check {files}")
    print(f"a run takes them with: --set dataset.prompts={new_files.classes}")


@prompts.command()
@takes_request(RunRequest, "device settings store")
def diff(
    a: Side,
    b: Side,
    request: RunRequest,
    classes: Classes = None,
    clip: Annotated[str, typer.Option(help="that files are looked at through; runs have their own")] = "excel-tiny",
    texts: Annotated[bool, typer.Option("--texts", "-v", help="print the texts that came and went")] = False,
) -> None:
    """Show which classes' descriptions changed from A to B, how far each T_c moved, and which attributes came and went."""
    from artifacts.history import print_prompts_diff
    from flows.settings import environment_to_look
    from tasks.history.prompts_diff import diff_prompts

    settings = ["knowledge.attributes=null", *request.settings]  # every text on its own, unless the user asks for clusters
    run = request.model_copy(update={"settings": settings, "clip": clip}).spec()
    changes = diff_prompts(a, b, run, environment_to_look(request), classes)
    print_prompts_diff(console(FILE_COLUMNS), changes.a, changes.b, changes.clip, changes.classes, texts)
    give(asdict(changes))


@prompts.command()
def check(
    files: Annotated[list[Path], typer.Argument(help="class files (.yaml) and description files (.json)")],
    classes: Classes = None,
) -> None:
    """Read class and description files strictly, CLIP's text length included; exit 1 where one is not in order."""
    from excel_core.errors import PromptError
    from excel_core.text.descriptions import description_problem, length_problem
    from tasks.history.prompts_diff import check_prompts

    problems: dict[str, str | None] = {}
    for path in files:
        try:
            problem = description_problem if path.suffix == ".json" else lambda filled, prefix: length_problem(filled)
            print(f"{path}: {check_prompts(path, classes, problem)}")
            problems[str(path)] = None
        except PromptError as error:
            print(error)
            problems[str(path)] = str(error)
    give({"problems": problems})
    raise typer.Exit(1 if any(problems.values()) else 0)
