"""`excel plan`, `compare`, `gc`, `verify`: what a run would do, how two runs differ, what of the store can go."""

import sys
from dataclasses import asdict
from typing import Annotated

import typer

from flows.cli.complete import run_names
from flows.cli.options import FILE_COLUMNS, Store, console, takes_request
from flows.cli.output import give, is_silent
from flows.cli.runs import RUN_HELP
from flows.local.state import store_folder
from flows.request import RunRequest

__all__ = ["compare", "gc", "plan", "verify"]

Run = Annotated[str, typer.Argument(help=RUN_HELP, autocompletion=run_names)]


@takes_request(RunRequest, "preset data store clip method settings")
def plan(request: RunRequest, last: Annotated[str, typer.Option("--stage", help="plan up to this stage")] = "report") -> None:
    """Show what `excel run PRESET` would run and why, with the time and disk that earlier runs lead to expect."""
    from artifacts.history import print_plan
    from excel_core.datasets.left_out import left_out_lines
    from excel_core.errors import SettingError
    from tasks.history.plan import plan_run
    from tasks.pipeline import STAGES, pipeline
    from tasks.stages.dataset import left_out_things

    if last not in STAGES:
        raise SettingError(f"--stage {last!r}: valid stages: {', '.join(STAGES)}")
    run, environment = request.resolve()
    steps, left_out = plan_run(pipeline(run, environment, last)), left_out_lines(left_out_things(run, environment))
    give({
        "stages": [asdict(step) for step in steps],
        "to_run": [step.name for step in steps if step.runs],
        "left_out": left_out,
    })  # fmt: skip
    print_plan(steps, console(FILE_COLUMNS))
    for line in left_out:
        print(line)


def compare(
    a: Run,
    b: Run,
    result: Annotated[str | None, typer.Option(help="result key, e.g. seeds.lvc.train.crf", show_default=False)] = None,
    page: Annotated[bool, typer.Option("--page", help="also write a page, with the images that changed most")] = False,
    store: Store = None,
) -> None:
    """Show how run B differs from run A: settings, classes with 95 % intervals, and the images that changed most."""
    from artifacts.comparison.tables import print_comparison
    from tasks.engine.executor import build_stage
    from tasks.engine.lock import store_in_use
    from tasks.history.compare import NEEDED, compare_runs, comparison_job
    from tasks.history.find_run import find_record

    folder = store_folder(store)
    with store_in_use(folder):
        run_a, run_b = (find_record(folder, name, NEEDED) for name in (a, b))
        comparison = compare_runs(run_a, run_b, result)
        written = build_stage(comparison_job(run_a, run_b, comparison)).folder / "index.html" if page else None
    give(comparison | ({"page": str(written)} if written else {}))
    print_comparison(console(FILE_COLUMNS), comparison)
    if written:
        print(f"page: {written}")


def gc(
    keep: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="keep the newest N complete runs of each flow, data and method, and pinned ones; default: all",
            show_default=False,
        ),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="remove without asking")] = False,
    ignore_run: Annotated[
        list[str] | None,
        typer.Option(help="id of a run that is dead whatever its record says, or whose record is damaged", show_default=False),
    ] = None,
    store: Store = None,
) -> None:
    """Remove outputs that no kept run refers to, after showing what and how much."""
    from artifacts.rows import print_rows, size
    from tasks.history.garbage import find_garbage
    from tasks.history.garbage_removal import remove_garbage

    folder, ignored = store_folder(store), tuple(ignore_run or ())
    garbage = find_garbage(folder, keep, ignored)
    rows = [{"what": f"{item.kind}/{item.path.name}", "size": size(item.bytes), "why": item.why} for item in garbage]
    listed = [{"what": row["what"], "bytes": item.bytes, "why": item.why} for row, item in zip(rows, garbage, strict=True)]
    give({"garbage": listed, "removed": []})
    if not garbage:
        print(f"{folder}: every output belongs to a kept run; nothing to remove")
        return
    print_rows(console(FILE_COLUMNS), "To remove", rows, [], ["what"])
    print(f"{len(garbage)} outputs, {size(sum(item.bytes for item in garbage))}")
    if not yes and (is_silent() or not sys.stdin.isatty() or not typer.confirm("remove them?")):
        print("nothing was removed; pass --yes to remove them")
        return
    removed = remove_garbage(folder, garbage, keep, ignored)
    give({"garbage": listed, "removed": [f"{item.kind}/{item.path.name}" for item in removed]})
    stayed = len(garbage) - len(removed)
    print("removed" + (f", but for {stayed} that are used since, or are being built" if stayed else ""))


def verify(store: Store = None) -> None:
    """Read every byte below the store; exit 1 if any was damaged. What can be made again is, by the next run."""
    from tasks.history.verify import verify_store

    check = verify_store(store_folder(store))
    damaged = len(check.damaged) + len(check.lost)
    give(
        {
            "read": check.checked,
            "damaged": {str(path): names for path, names in check.damaged.items()},
            "lost": {str(path): names for path, names in check.lost.items()},
            "half_written": list(map(str, check.left)),
            "unknown": list(map(str, check.unknown)),
        }
    )
    for path, names in check.damaged.items():
        print(f"damaged: {path}{': ' if names else ''}{', '.join(names)}")
    for path, names in check.lost.items():
        print(f"lost where {path} is shared: {', '.join(names)}")
    for path in check.left:
        print(f"half-written, or of an earlier version: {path}")
    for path in check.unknown:
        print(f"not written by excel: {path}")
    for path in check.undropped:
        print(f"cannot be marked as damaged from here: {path}")
    print(
        f"{check.checked} outputs and files read, {damaged} damaged" + ("; the next run builds them again" if damaged else "")
    )
    raise typer.Exit(1 if damaged else 0)
