"""`excel paper`: a table of the paper, ours beside the published figures, or the paper's figures 4 to 6."""

import shutil
from pathlib import Path
from typing import Annotated, Any

import typer

from flows.cli.options import Clip, Device, Gpus, Method, Runner, Sets, Store, console, text

__all__ = ["paper"]

WIDE = 150  # columns of a file or pipe, so that protocols are not cut too short


def paper(
    table: Annotated[str, typer.Argument(help="table-1 … table-7, or figures")],
    data: Annotated[Path | None, typer.Option(help="PASCAL VOC 2012, as downloaded", show_default=False)] = None,
    coco: Annotated[Path | None, typer.Option(help="MS COCO 2014, for its rows in tables 1 and 7", show_default=False)] = None,
    checkpoint: Annotated[
        Path | None, typer.Option(help="a segmenter of the published code, instead of training", show_default=False)
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="so many images a split, to try it: no reproduction", show_default=False)
    ] = None,
    clip: Clip = None,
    store: Store = None,
    device: Device = "cpu",
    gpus: Gpus = 1,
    method: Method = "reference",
    runner: Runner = "sequential",
    settings: Sets = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="also write the table here", show_default=False)] = None,
) -> None:
    """Run what a table of the paper needs, and print ours beside the published figures; what is complete is not run again.
    With two data sets, `--set voc.stage.field=value` or `coco.…` is of one of them."""
    from flows.cli.run import call_flow, prefect_environment
    from flows.settings import check_runner

    name = f"table-{table}" if table.isdigit() else table
    places = [text(path) for path in (data, coco, checkpoint)]
    check_runner(runner)
    _check(name, places, limit, method, text(store), clip, device, gpus, settings or [])
    ui = prefect_environment(_store(store))
    from flows.paper import paper as paper_flow  # imports Prefect, which reads its environment then

    path = Path(
        call_flow(paper_flow, name, *places, limit, method, str(_store(store)), clip, device, gpus, runner, settings or [])
    )
    _show(name, path)
    if json_file is not None:
        json_file.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, json_file)
    print(f"{'figures' if name == 'figures' else 'table'}: {path.parent if name == 'figures' else path}")
    print(f"Prefect UI: {ui}")


def _check(name: str, places: list[str | None], *rest: Any) -> None:
    """Refuse what is wrong before a server is started for it."""
    from typing import get_args

    from excel_core.errors import SettingError
    from flows.paper_runs import Paper, paper_runs

    if name not in get_args(Paper):
        raise SettingError(f"unknown table {name!r}; valid: {', '.join(get_args(Paper))}")
    paper_runs(name, *places, *rest)


def _store(store: Path | None) -> Path:
    from flows.local.state import store_folder

    return store_folder(store)


def _show(name: str, path: Path) -> None:
    from artifacts.paper_table import print_paper
    from excel_core.files import read_json

    if name == "figures":
        for picture in sorted(path.parent.glob("figure_*.png")):
            print(picture)
    else:
        print_paper(read_json(path), console(WIDE))
