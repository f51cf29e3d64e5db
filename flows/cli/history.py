"""`excel plan`, `runs`, `compare`, `gc`, `verify`: what a run would do, what runs there were, what of them can go."""

import sys
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from flows.cli.options import Clip, Data, Method, Preset, Sets, Store, console, text

__all__ = ["compare", "gc", "plan", "runs", "verify"]

WIDE = 160  # columns of a file or pipe, so that nothing is cut
Run = Annotated[str, typer.Argument(help="a run's id or its beginning, its Prefect name, or `latest`")]


def plan(
    preset: Preset,
    last: Annotated[str, typer.Option("--stage", help="plan up to this stage")] = "report",
    data: Data = None,
    store: Store = None,
    clip: Clip = None,
    method: Method = "reference",
    settings: Sets = None,
) -> None:
    """Show what `excel run PRESET` would run and why, with the time and disk that earlier runs lead to expect."""
    from artifacts.plan import print_plan
    from excel_core.errors import SettingError
    from flows.settings import make_environment, make_run
    from tasks.chain import STAGES
    from tasks.history.plan import plan_run

    if last not in STAGES:
        raise SettingError(f"--stage {last!r}: valid stages: {', '.join(STAGES)}")
    run = make_run(preset, method, settings or [], clip)
    place = make_environment(run, text(data), text(store), "cpu")
    print_plan(plan_run(run, place, last), console(WIDE))


def runs(store: Store = None) -> None:
    """List the store's runs with their headline numbers, oldest first."""
    from artifacts.comparison import run_rows
    from artifacts.rows import print_rows
    from flows.local.state import store_folder
    from tasks.history.run_record import read_records

    records = read_records(store_folder(store))
    if not records:
        print(f"{store_folder(store)} holds no runs")
        return
    print_rows(console(WIDE), "Runs", run_rows(_listed(record) for record in records), [], ["run"])


def compare(
    a: Run,
    b: Run,
    result: Annotated[str | None, typer.Option(help="result key, e.g. seeds.lvc.train.crf", show_default=False)] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="also write the comparison here")] = None,
    store: Store = None,
) -> None:
    """Show how run B differs from run A: settings, classes with 95 % intervals, and the images that changed most."""
    from artifacts.comparison import print_comparison
    from artifacts.tables import protocol_text
    from excel_core.files import write_json
    from flows.local.state import store_folder
    from tasks.history.compare import compare_runs
    from tasks.history.run_record import find_record

    folder = store_folder(store)
    found = compare_runs(find_record(folder, a), find_record(folder, b), result)
    miou = found["miou"]
    note = (
        f"{found['result']}: mIoU {miou['a']:.3f} → {miou['b']:.3f}, difference {miou['difference']:+.3f} "
        f"[{miou['low']:+.3f}, {miou['high']:+.3f}] over {found['images_shared']} shared images; "
        + protocol_text(found["protocol"])
    )
    print_comparison(console(WIDE), found["a"], found["b"], found["spec"], found["classes"], found["images"], note)
    if json_file is not None:
        write_json(json_file, found)


def gc(
    keep: Annotated[int | None, typer.Option(min=1, help="keep the newest N runs; default: all", show_default=False)] = None,
    yes: Annotated[bool, typer.Option("--yes", help="remove without asking")] = False,
    store: Store = None,
) -> None:
    """Remove outputs that no kept run refers to, after showing what and how much."""
    from artifacts.rows import print_rows, size
    from flows.local.state import store_folder
    from tasks.history.garbage import find_garbage, remove_garbage

    folder = store_folder(store)
    garbage = find_garbage(folder, keep)
    if not garbage:
        print(f"{folder}: every output belongs to a kept run; nothing to remove")
        return
    rows = [{"what": f"{item.kind}/{item.path.name}", "size": size(item.bytes), "why": item.why} for item in garbage]
    print_rows(console(WIDE), "To remove", rows, [], ["what"])
    print(f"{len(garbage)} outputs, {size(sum(item.bytes for item in garbage))}")
    if not yes and not (sys.stdin.isatty() and typer.confirm("remove them?")):
        print("nothing was removed; pass --yes to remove them")
        return
    remove_garbage(folder, garbage)
    print("removed")


def verify(store: Store = None) -> None:
    """Read every byte of every output; exit 1 if any was damaged. Damaged ones are built again by the next run."""
    from flows.local.state import store_folder
    from tasks.history.verify import verify_store

    checked, damaged = verify_store(store_folder(store))
    for path, names in damaged.items():
        print(f"damaged: {path}: {', '.join(names)}")
    print(f"{checked} outputs read, {len(damaged)} damaged" + ("; they are built again by the next run" if damaged else ""))
    raise typer.Exit(1 if damaged else 0)


def _flow_words(record: Any) -> str:
    """Which flow ran on what: `paper voc, table-3`; what learnt from true masks says so."""
    words = [f"{record.flow} {record.spec.get('preset')}"]
    words += [record.spec["paper"]["table"]] if record.flow == "paper" and "paper" in record.own else []
    words += ["fully supervised"] if record.spec.get("train", {}).get("supervision") == "masks" else []
    return ", ".join(words)


def _listed(record: Any) -> dict[str, Any]:
    """A record as the row that `artifacts.comparison.run_rows` shows; scores are those of the last step, the mean over
    splits. `to build` is what building its stages took, whenever that was, memory the largest of them."""
    from artifacts.costs import cost_rows
    from artifacts.rows import duration

    total = cost_rows(record.costs)[-1]
    seconds = None
    if record.finished:
        seconds = (datetime.fromisoformat(record.finished) - datetime.fromisoformat(record.started)).total_seconds()
    last = {key.rpartition(".")[0]: miou for key, miou in record.headline.items()}  # of each family
    segmented = [miou for family, miou in last.items() if family.startswith("segmentation.")]
    seeds = [miou for family, miou in last.items() if family.startswith("seeds.lvc.")]
    return {
        "run": record.id,
        "flow": _flow_words(record),
        "state": "crashed" if record.dead else record.state,
        "seconds": seconds,
        "built": f"{len(record.outputs) - len(record.cached)} of {len(record.outputs)}",
        "to build": duration(sum(cost.seconds for cost in record.costs)) if record.costs else None,
        "host GiB": total["host GiB"],
        "GPU GiB": total["GPU GiB"],
        "pseudo labels": sum(seeds) / len(seeds) if seeds else None,
        "segmentation": sum(segmented) / len(segmented) if segmented else None,
    }
