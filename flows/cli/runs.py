"""`excel runs`: the store's runs, and which of them `excel gc` always keeps."""

from typing import Annotated

import typer

from excel_core.errors import SettingError
from flows.cli.complete import run_names
from flows.cli.options import FILE_COLUMNS, Store, console
from flows.cli.output import give
from flows.local.state import store_folder

__all__ = ["RUN_HELP", "runs"]

RUN_HELP = "a run's name, its id or the beginning of it, or `latest`"
ACTIONS = ("pin", "unpin")


def runs(
    action: Annotated[
        str | None,
        typer.Argument(
            help="pin: `excel gc` keeps RUN whatever happens; unpin: no longer; without it: list all runs",
            autocompletion=lambda incomplete: [action for action in ACTIONS if action.startswith(incomplete)],
            show_default=False,
        ),
    ] = None,
    run: Annotated[str | None, typer.Argument(help=RUN_HELP, autocompletion=run_names, show_default=False)] = None,
    store: Store = None,
) -> None:
    """List the store's runs, oldest first: names, settings that are not the preset's, cost and headline score. Or pin one."""
    if action is not None:
        _pin(action, run, store)
        return
    from artifacts.history import run_rows
    from artifacts.rows import print_rows
    from tasks.history.run_record import read_records
    from tasks.history.run_summary import run_summary

    folder = store_folder(store)
    records = read_records(folder)
    summaries = [run_summary(record) for record in records]
    give({"store": str(folder), "runs": summaries, "unreadable": [str(path) for path in records.unreadable]})
    for path in records.unreadable:
        print(f"cannot be read: {path}")
    if not records:
        print(f"{folder} holds no runs")
        return
    note = "mIoU: the headline of the report; built: outputs of this run; to build: seconds that building its stages took"
    print_rows(console(FILE_COLUMNS), "Runs", run_rows(summaries), [note], ["run", "flow", "of"])


def _pin(action: str, name: str | None, store: str | None) -> None:
    from tasks.engine.lock import store_in_use
    from tasks.history.find_run import find_any
    from tasks.history.kept_runs import pin

    if action not in ACTIONS:
        raise SettingError(f"excel runs {action}: valid: {', '.join(ACTIONS)}, or nothing to list the runs")
    if name is None:
        raise SettingError(f"excel runs {action}: name the run; `excel runs` lists them")
    folder = store_folder(store)
    with store_in_use(folder):  # `excel gc` does not remove it meanwhile
        record = find_any(folder, name)
        pin(record, action == "pin")
    give({"id": record.id, "name": record.flow_run_name, "pinned": record.pinned})
    print(f"run {record.title} is pinned: `excel gc` keeps it" if record.pinned else f"run {record.title} is not pinned")
