"""The command line `excel`: the same flows, with progress bars and errors a person can act on."""

import json
import os
import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from excel_core.errors import ExcelError, SettingError
from flows.history_cli import compare, gc, plan, runs, verify
from flows.local_cli import down, up
from flows.local_state import api_url

__all__ = ["app", "main"]

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)

for command in (up, down, plan, runs, compare, gc, verify):
    app.command()(command)

Store = Annotated[Path | None, typer.Option(help="where outputs go; default $EXCEL_STORE or runs/", show_default=False)]
Sets = Annotated[list[str] | None, typer.Option("--set", help="stage.field=value, repeatable", show_default=False)]
Method = Annotated[str, typer.Option(help="reference, paper or clean")]
Device = Annotated[str, typer.Option(help="cpu, cuda or mps")]
Gpus = Annotated[int, typer.Option(help="GPUs that train together, or processes with cpu; they share the batch")]
Runner = Annotated[str, typer.Option(help="sequential, dask or dask:tcp://HOST:PORT")]


@app.command()
def run(
    preset: Annotated[str, typer.Argument(help="voc, coco or demo")],
    data: Annotated[Path | None, typer.Option(help="data folder in the preset's layout", show_default=False)] = None,
    store: Store = None,
    clip: Annotated[str | None, typer.Option(help="excel-tiny, MODEL:TAG or MODEL:FILE", show_default=False)] = None,
    device: Device = "cpu",
    gpus: Gpus = 1,
    method: Method = "reference",
    runner: Runner = "sequential",
    settings: Sets = None,
) -> None:
    """Run the whole pipeline of PRESET; stages that are complete are not run again."""
    _run(preset, method, settings or [], data, store, clip, device, gpus, runner)


@app.command()
def demo(
    store: Store = None,
    device: Device = "cpu",
    gpus: Gpus = 1,
    method: Method = "reference",
    runner: Runner = "sequential",
    settings: Sets = None,
) -> None:
    """Run the whole pipeline on the built-in picture-book world with the built-in tiny CLIP."""
    metrics = _run("demo", method, settings or [], None, store, None, device, gpus, runner)
    print(f"metrics: {metrics}")


@app.command()
def ablation(
    preset: Annotated[str, typer.Argument(help="voc, coco or demo")],
    data: Annotated[Path | None, typer.Option(help="data folder in the preset's layout", show_default=False)] = None,
    store: Store = None,
    clip: Annotated[str | None, typer.Option(help="excel-tiny, MODEL:TAG or MODEL:FILE", show_default=False)] = None,
    device: Device = "cpu",
    method: Method = "reference",
    runner: Runner = "sequential",
    settings: Sets = None,
) -> None:
    """Score raw CAMs of every row of the paper's tables 3, 4 and 5 and of the methods, over seeds."""
    from artifacts.tables import print_tables
    from flows.settings import check_runner, make_place, make_run
    from tasks.chain import complete_outputs

    spec = make_run(preset, method, settings or [], clip)
    place = make_place(spec, _text(data), _text(store), device)
    check_runner(runner)
    _prefect_environment(place.store)
    if "ablation" not in complete_outputs(spec, place, "ablation"):
        from flows.ablation import ablation as flow

        flow(preset, method, _text(place.data), str(place.store), clip, device, runner, settings or [])
    path = complete_outputs(spec, place, "ablation")["ablation"].folder / "ablation.json"
    print_tables({"ablation": json.loads(path.read_text())}, _console())
    print(f"ablation: {path}")


@app.command()
def parity(prefix: Annotated[Path, typer.Argument(help="PREFIX of PREFIX.npz, PREFIX_clip.npz, PREFIX_head.npz")]) -> None:
    """Compare the core with golden arrays of the published implementation; exit 1 on any failure."""
    from excel_core.parity import compare_with_goldens

    results = compare_with_goldens(prefix)
    width = max(len(result.key) for result in results)
    for result in results:
        print(f"{result.key:<{width}}  error {result.error:.2e}  tolerance {result.tolerance:.0e}  {_verdict(result.ok)}")
    failed = sum(not result.ok for result in results)
    print(f"{len(results) - failed} ok, {failed} failed")
    raise typer.Exit(1 if failed else 0)


@app.command()
def evaluate(
    pred: Annotated[Path, typer.Option(help="folder of predicted palette PNGs")],
    truth: Annotated[Path, typer.Option(help="folder of true palette PNGs")],
    classes: Annotated[str, typer.Option(help="voc, coco, world or a class FILE (.yaml)")],
    json_file: Annotated[Path | None, typer.Option("--json", help="also write the scores here")] = None,
    split: Annotated[Path | None, typer.Option(help="score only the ids listed in this file, one a line")] = None,
) -> None:
    """Score predicted label maps against true ones, file by file of the same name."""
    from artifacts.tables import print_scores
    from excel_core.metrics import evaluate_folders
    from excel_core.prompts import load_prompts
    from excel_core.stores import write_json
    from tasks.prompt_files import prompts_file

    names = ("background", *load_prompts(prompts_file(classes)).class_names)
    if split is not None and not split.is_file():
        raise SettingError(f"--split {split}: there is no such file")
    ids = None if split is None else split.read_text().split()
    scores = evaluate_folders(pred, truth, names, ids=ids)
    print_scores(scores.to_json(), _console())
    if json_file is not None:
        write_json(json_file, scores.to_json())


@app.command()
def figures(
    folder: Annotated[Path, typer.Argument(help="where to write PRESET_gallery.png and PRESET_results.md")],
    preset: Annotated[str, typer.Option(help="voc or demo")] = "demo",
    data: Annotated[Path | None, typer.Option(help="data folder of that run", show_default=False)] = None,
    store: Store = None,
    clip: Annotated[str | None, typer.Option(help="CLIP of that run", show_default=False)] = None,
    method: Method = "reference",
    settings: Sets = None,
) -> None:
    """Write a finished run's pictures and tables, as README shows them."""
    from artifacts.readme_figures import write_figures
    from flows.settings import make_place, make_run
    from tasks.chain import complete_outputs, report_work
    from tasks.report import build_view

    spec = make_run(preset, method, settings or [], clip)
    place = make_place(spec, _text(data), _text(store), "cpu")
    outputs = complete_outputs(spec, place, "report")
    if "report" not in outputs:
        raise SettingError(f"{place.store} holds no finished run of these settings; run it first")
    for path in write_figures(folder, build_view(report_work(spec, place, outputs))):
        print(path)


def _run(
    preset: str,
    method: str,
    settings: list[str],
    data: Path | None,
    store: Path | None,
    clip: str | None,
    device: str,
    gpus: int,
    runner: str,
) -> Path:
    """Run the flow, or only show the results where every stage is complete; returns the path of metrics.json."""
    from flows.settings import check_runner, make_place, make_run
    from tasks.chain import complete_outputs

    check_runner(runner)
    spec = make_run(preset, method, settings, clip)
    place = make_place(spec, _text(data), _text(store), device, gpus)
    ui = _prefect_environment(place.store)
    if "report" not in complete_outputs(spec, place, "report"):
        from flows.excel import excel

        if "PREFECT_API_URL" not in os.environ:
            print("starting a local Prefect server (about 20 s)", flush=True)
        excel(preset, method, _text(place.data), str(place.store), clip, device, gpus, runner, settings)
    else:
        print("every stage is complete; nothing to run")
    outputs = complete_outputs(spec, place, "report")
    metrics = outputs["evaluate"].folder / "metrics.json"
    _show(metrics, outputs["report"].folder / "index.html", outputs["dataset"].summary["bad"], ui)
    return metrics


def _show(metrics: Path, page: Path, bad: dict[str, str], ui: str) -> None:
    from artifacts.tables import print_tables

    print_tables(json.loads(metrics.read_text()), _console())
    for image, reason in bad.items():
        print(f"skipped {image}: {reason}")
    print(f"report: {page}")
    print(f"Prefect UI: {ui}")


def _prefect_environment(store: Path) -> str:
    """Quiet, patient, local Prefect whose database is in the store; returns how to open its UI."""
    home = os.environ.setdefault("PREFECT_HOME", str(store / "prefect"))
    Path(home).mkdir(parents=True, exist_ok=True)  # Prefect's server never starts without it
    running = api_url(store)
    if running:  # by `excel up`; a second server on its database would lock it
        os.environ.setdefault("PREFECT_API_URL", running)
    quiet = {
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
    }
    for name, value in quiet.items():
        os.environ.setdefault(name, value)
    if running:
        return running.removesuffix("/api")
    command = f"PREFECT_HOME={shlex.quote(home)} {shlex.quote(str(Path(sys.executable).with_name('prefect')))} server start"
    return f"run `{command}` and open http://127.0.0.1:4200"


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)


def _console() -> Console:
    """A file or pipe gets 100 columns, enough for every table."""
    return Console(width=None if sys.stdout.isatty() else 100)


def _verdict(ok: bool) -> str:
    return "ok" if ok else "FAIL"


def main() -> None:
    """Entry point: errors excel raises on purpose are one message and exit status 2."""
    try:
        app()
    except ExcelError as error:
        Console(stderr=True).print(f"error: {error}", style="red", markup=False, highlight=False, soft_wrap=True)
        sys.exit(2)
