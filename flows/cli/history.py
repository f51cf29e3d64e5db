"""`excel plan`, `runs`, `compare`, `gc`, `verify`: what a run would do, what runs there were, what of them can go."""

import sys
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from flows.cli.options import FILE_COLUMNS, Store, console, takes_request
from flows.local.state import store_folder
from flows.request import RunRequest

__all__ = ["compare", "gc", "plan", "runs", "verify"]

Run = Annotated[str, typer.Argument(help="a run's id or its beginning, its Prefect name, or `latest`")]


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
    print_plan(plan_run(pipeline(run, environment, last)), console(FILE_COLUMNS))
    for line in left_out_lines(left_out_things(run, environment)):
        print(line)


def runs(store: Store = None) -> None:
    """List the store's runs with their headline numbers, oldest first."""
    from artifacts.history import run_rows
    from artifacts.rows import print_rows
    from tasks.history.run_record import read_records

    folder = store_folder(store)
    records = read_records(folder)
    for path in records.unreadable:
        print(f"cannot be read: {path}")
    if not records:
        print(f"{folder} holds no runs")
        return
    print_rows(console(FILE_COLUMNS), "Runs", run_rows(_run_row(record) for record in records), [], ["run"])


def compare(
    a: Run,
    b: Run,
    result: Annotated[str | None, typer.Option(help="result key, e.g. seeds.lvc.train.crf", show_default=False)] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="also write the comparison here")] = None,
    store: Store = None,
) -> None:
    """Show how run B differs from run A: settings, classes with 95 % intervals, and the images that changed most."""
    from artifacts.history import print_comparison
    from artifacts.tables import protocol_text
    from excel_core.files import write_json
    from tasks.engine.lock import store_in_use
    from tasks.history.compare import compare_runs
    from tasks.history.run_record import find_record

    folder = store_folder(store)
    with store_in_use(folder):
        comparison = compare_runs(find_record(folder, a), find_record(folder, b), result)
    miou = comparison["miou"]
    note = (
        f"{comparison['result']}: mIoU {miou['a']:.3f} → {miou['b']:.3f}, difference {miou['difference']:+.3f} "
        f"[{miou['low']:+.3f}, {miou['high']:+.3f}] over {comparison['images_shared']} shared images; "
        + protocol_text(comparison["protocol"])
    )
    spec, classes, images = (comparison[key] for key in ("spec", "classes", "images"))
    print_comparison(console(FILE_COLUMNS), comparison["a"], comparison["b"], spec, classes, images, note)
    if json_file is not None:
        write_json(json_file, comparison)


def gc(
    keep: Annotated[int | None, typer.Option(min=1, help="keep the newest N runs; default: all", show_default=False)] = None,
    yes: Annotated[bool, typer.Option("--yes", help="remove without asking")] = False,
    ignore_run: Annotated[
        list[str] | None,
        typer.Option(help="id of a run that is dead whatever its record says, or whose record is damaged", show_default=False),
    ] = None,
    store: Store = None,
) -> None:
    """Remove outputs that no kept run refers to, after showing what and how much."""
    from artifacts.rows import print_rows, size
    from tasks.history.garbage import find_garbage, remove_garbage

    folder, ignored = store_folder(store), tuple(ignore_run or ())
    garbage = find_garbage(folder, keep, ignored)
    if not garbage:
        print(f"{folder}: every output belongs to a kept run; nothing to remove")
        return
    rows = [{"what": f"{item.kind}/{item.path.name}", "size": size(item.bytes), "why": item.why} for item in garbage]
    print_rows(console(FILE_COLUMNS), "To remove", rows, [], ["what"])
    print(f"{len(garbage)} outputs, {size(sum(item.bytes for item in garbage))}")
    if not yes and not (sys.stdin.isatty() and typer.confirm("remove them?")):
        print("nothing was removed; pass --yes to remove them")
        return
    removed = remove_garbage(folder, garbage, keep, ignored)
    stayed = len(garbage) - len(removed)
    print("removed" + (f", but for {stayed} that are used since, or are being built" if stayed else ""))


def verify(store: Store = None) -> None:
    """Read every byte below the store; exit 1 if any was damaged. What can be made again is, by the next run."""
    from tasks.history.verify import verify_store

    check = verify_store(store_folder(store))
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
    damaged = len(check.damaged) + len(check.lost)
    print(
        f"{check.checked} outputs and files read, {damaged} damaged" + ("; the next run builds them again" if damaged else "")
    )
    raise typer.Exit(1 if damaged else 0)


def _flow_and_data(record: Any) -> str:
    """Which flow ran on what, for example `paper voc, table-3` or `excel demo, clip_es:reference`; a run that learnt from true
    masks says so."""
    parts = [f"{record.flow} {record.spec.get('preset')}"]
    if record.flow == "paper" and "paper" in record.own:
        parts.append(record.spec["paper"]["table"])
    method = record.spec.get("method", "")
    if ":" in method and method != "excel:reference":  # what runs are of unless they say so
        parts.append(method)
    if record.spec.get("train", {}).get("supervision") == "masks":
        parts.append("fully supervised")
    if record.spec.get("refine", {}).get("votes", {}).get("enabled"):
        parts.append("+SAM")
    return ", ".join(parts)


def _run_row(record: Any) -> dict[str, Any]:
    """A record as the row that `artifacts.history.run_rows` shows. Scores: of the last step, mean over splits. `to build`:
    seconds that building its stages took, in this run or an earlier one. Memory: of the stage that took most."""
    from artifacts.rows import duration
    from artifacts.stages import cost_rows

    total = cost_rows(record.costs)[-1]
    seconds = None
    if record.finished:
        seconds = (datetime.fromisoformat(record.finished) - datetime.fromisoformat(record.started)).total_seconds()
    # Keys are step by step, `seeds.lvc.train.crf` the last of `seeds.lvc.train`: a later step replaces the one before.
    last_steps = {key.rpartition(".")[0]: miou for key, miou in record.headline.items()}
    segmented = [miou for family, miou in last_steps.items() if family.startswith("segmentation.")]
    seeds = [miou for family, miou in last_steps.items() if family.startswith("seeds.lvc.")]
    if not record.spec.get("train", {}).get("enabled", True):  # then the static seeds are the pseudo labels
        seeds = [miou for family, miou in last_steps.items() if family.startswith("seeds.static.")]
    return {
        "run": record.id,
        "flow": _flow_and_data(record),
        "state": "crashed" if record.dead else record.state,
        "seconds": seconds,
        "built": f"{len(record.outputs) - len(record.cached)} of {len(record.outputs)}",
        "to build": duration(sum(cost.seconds for cost in record.costs)) if record.costs else None,
        "host GiB": total["host GiB"],
        "GPU GiB": total["GPU GiB"],
        "pseudo labels": sum(seeds) / len(seeds) if seeds else None,
        "segmentation": sum(segmented) / len(segmented) if segmented else None,
    }
