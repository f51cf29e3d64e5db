"""`excel run`, `demo`, `score`, `ablation`, `benchmark`, `paper`: flows from a terminal, with the store's own Prefect."""

import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.cli.options import FILE_COLUMNS, Name, check_name, console, takes_request
from flows.cli.output import give
from flows.local.access import client_settings
from flows.local.state import keep_private, running_server, store_folder
from flows.request import BenchmarkRequest, LoggedRequest, PaperRequest, Request, RunRequest, ScoreRequest

if TYPE_CHECKING:
    from prefect import Flow

    from tasks.engine.output import StageOutput

__all__ = ["ablation", "benchmark", "demo", "paper", "run", "score"]

ALL_OPTIONS = "store clip device gpus runner settings"
RUN_OPTIONS = f"{ALL_OPTIONS} method"


@takes_request(LoggedRequest, f"preset data {RUN_OPTIONS} log")
def run(request: LoggedRequest, name: Name = None) -> None:
    """Run the whole pipeline of PRESET; stages that are complete are not run again."""
    _show_results(*_complete("report", request, name))


@takes_request(LoggedRequest, "store device gpus method runner settings log", fixed={"preset": "demo"})
def demo(request: LoggedRequest, name: Name = None) -> None:
    """Run the whole pipeline on the built-in picture-book world with the built-in tiny CLIP."""
    outputs, ui = _complete("report", request, name)
    _show_results(outputs, ui)
    print(f"metrics: {_by_name(outputs, 'evaluate', _run_of(outputs['report'])) / 'metrics.json'}")


@takes_request(ScoreRequest, f"preset data against {RUN_OPTIONS}")
def score(request: ScoreRequest) -> None:
    """Score the training-free label maps of PRESET, without any training, and show what an edit of prompts did to them."""
    from artifacts.score_change import print_change
    from artifacts.tables import print_tables
    from excel_core.files import read_json
    from tasks.history.score_change import read_change
    from tasks.pipeline import complete_outputs

    run, environment = request.resolve()  # refuses what is wrong before a server is started for it
    ui = _use_prefect_of(environment.store)
    from flows.score import score as score_flow  # imports Prefect, which reads its environment then

    data = str(environment.data) if environment.data else None
    path = Path(_call(score_flow, request.model_copy(update={"data": data})))
    print_tables(read_json(complete_outputs(run, environment, "score")["score"].folder / "score.json"), console())
    change = read_change(path)
    print_change(change, console(FILE_COLUMNS))
    print(f"comparison: {path}")
    if change["picture"]:
        print(f"images that changed most: {path.with_suffix('.png')}")
    print(f"Prefect UI: {ui}")
    give(change)


@takes_request(RunRequest, f"preset data {RUN_OPTIONS}")
def ablation(request: RunRequest, name: Name = None) -> None:
    """Score raw CAMs of every row of the paper's tables 3, 4 and 5 and of the methods, over seeds."""
    from artifacts.tables import print_tables
    from excel_core.files import read_json

    outputs, ui = _complete("ablation", request, name)
    path = outputs["ablation"].folder / "ablation.json"
    rows = read_json(path)
    give({"run": _run_of(outputs["ablation"]), "file": str(path), "ablation": rows})
    print_tables({"ablation": rows}, console())
    print(f"Prefect UI: {ui}")
    print(f"ablation: {path}")


@takes_request(BenchmarkRequest, f"preset data methods seeds limit {ALL_OPTIONS}", optional="preset")
def benchmark(request: BenchmarkRequest, name: Name = None) -> None:
    """Run several methods on the same images of PRESET and compare their scores, time and memory; stages that they share are
    built once. With `--set METHOD.stage.field=value` a setting is of one of them."""
    from artifacts.benchmark.tables import print_benchmark
    from excel_core.files import read_json
    from tasks.pipeline import complete_outputs

    check_name(name)
    run, environment = request.resolve()
    ui = _use_prefect_of(environment.store)
    if name is None and "benchmark" in complete_outputs(run, environment, "benchmark"):
        print("every stage is complete; nothing to run")
    else:
        from flows.benchmark import benchmark as benchmark_flow

        data = str(environment.data) if environment.data else None
        _call(benchmark_flow, request.model_copy(update={"data": data}), name)
    output = complete_outputs(run, environment, "benchmark")["benchmark"]
    compared = read_json(output.folder / "benchmark.json")
    give({"run": _run_of(output), "folder": str(output.folder), "benchmark": compared})
    print_benchmark(compared, console(FILE_COLUMNS))
    for file in ("index.html", "benchmark.json", "benchmark.csv", "benchmark.md"):
        print(output.folder / file)
    print(f"Prefect UI: {ui}")


@takes_request(PaperRequest, f"table data coco checkpoint limit {RUN_OPTIONS}")
def paper(request: PaperRequest, name: Name = None) -> None:
    """Run what a table of the paper needs, and print ours beside the published figures; what is complete is not run again.
    With two data sets, `--set voc.stage.field=value` or `coco.…` is of one of them."""
    from excel_core.files import read_json

    check_name(name)
    request.resolve()  # refuses what is wrong before a server is started for it
    ui = _use_prefect_of(store_folder(request.store))
    from flows.paper import paper as paper_flow  # imports Prefect, which reads its environment then

    path = Path(_call(paper_flow, request, name))
    give(read_json(path))
    _show_paper(request.table, path)
    print(f"figures: {path.parent}" if request.table == "figures" else f"table: {path}")
    print(f"Prefect UI: {ui}")


def _complete(last: str, request: RunRequest, name: str | None) -> "tuple[dict[str, StageOutput], str]":
    """The outputs up to stage `last`, by its flow unless all are complete, and how to open the UI. With a `name`, or a tracker
    to tell, a run is made in any case."""
    from tasks.pipeline import complete_outputs

    check_name(name)
    run, environment = request.resolve()
    ui = _use_prefect_of(environment.store)
    is_told = isinstance(request, LoggedRequest) and request.log is not None
    if name is None and not is_told and last in complete_outputs(run, environment, last):
        print("every stage is complete; nothing to run")
    else:
        data = str(environment.data) if environment.data else None
        _call(_flow_of(last), request.model_copy(update={"data": data}), name)
    return complete_outputs(run, environment, last), ui


def _flow_of(last: str) -> "Flow[..., str]":
    from flows.ablation import ablation as ablation_flow
    from flows.excel import excel

    return ablation_flow if last == "ablation" else excel


def _call(flow: "Flow[..., str]", request: Request, name: str | None = None) -> str:
    """Run a flow from here, with a Prefect server of the store's own where none is named; Ctrl-C ends both."""
    from flows.interrupts import stoppable
    from flows.server_faults import server_faults_named

    named = flow if name is None else flow.with_options(flow_run_name=name)
    with server_faults_named(), stoppable(Path(os.environ["PREFECT_HOME"])):
        output_path: str = named(**request.model_dump() | {"store": str(store_folder(request.store))})
    return output_path


def _use_prefect_of(store: Path) -> str:
    """Quiet, patient, local Prefect whose database is in the store; returns how to open its UI."""
    home = Path(os.environ.setdefault("PREFECT_HOME", str(store / "prefect")))
    is_own = home.resolve() == store / "prefect"
    if is_own:
        keep_private(home)
    else:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)  # Prefect's server never starts without it
    defaults = {
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
        "PREFECT_LOGGING_INTERNAL_LEVEL": "CRITICAL",  # of a server that is gone, it would show every event that waits for it
    }
    for name, value in defaults.items():
        os.environ.setdefault(name, value)
    if ui := _use_running_server(store):
        return ui
    prefect = shlex.quote(str(Path(sys.executable).with_name("prefect")))
    sign_in = f" and sign in with the line in {home / 'credential'}" if is_own else ""
    return f"run `PREFECT_HOME={shlex.quote(str(home))} {prefect} server start`, open http://127.0.0.1:4200{sign_in}"


def _use_running_server(store: Path) -> str | None:
    """Make the server that `excel up` runs for the store this command's, unless another one is named → its UI's address.
    A second server on its database would lock it."""
    installation, named = running_server(store), os.environ.get("PREFECT_API_URL")
    if installation and named in (None, f"{installation.ui}/api", f"http://localhost:{installation.port}/api"):
        os.environ |= client_settings(installation.credential, installation.port)
        return installation.ui
    if named:
        os.environ.setdefault("PREFECT_API_AUTH_STRING", "")  # the store's key, in its profile, is not for another's server
    return None


def _show_results(outputs: "dict[str, StageOutput]", ui: str) -> None:
    from artifacts.tables import print_tables
    from excel_core.files import read_json
    from tasks.history.llm_cost import llm_cost_line
    from tasks.stages.dataset import DatasetResult, left_out_told
    from tasks.stages.predict import PredictResult
    from tasks.stages.refine import PSEUDO_LABELS
    from tasks.stages.train import TrainResult

    metrics, run = read_json(outputs["evaluate"].folder / "metrics.json"), _run_of(outputs["report"])
    give(
        {
            "run": run,
            "metrics": metrics,
            "report": str(_by_name(outputs, "report", run) / "index.html"),
            "outputs": {stage: str(output.folder) for stage, output in outputs.items()},
            "prefect_ui": ui,
        }
    )
    print_tables(metrics, console())
    dataset = outputs["dataset"].result_as(DatasetResult)
    for image, reason in dataset.bad.items():
        print(f"skipped {image}: {reason}")
    for line in left_out_told(outputs["dataset"]):
        print(line)
    for split, count in dataset.absent.items():
        print(f"left out (dataset.partial): {count} images of {split} that are not in the data folder")
    if "train" in outputs and (source := outputs["train"].result_as(TrainResult).source):
        print(f"nothing was trained: the segmenter comes from {source}")
    if cost := llm_cost_line(outputs["describe"]):
        print(cost)
    print(f"pseudo labels: {_by_name(outputs, 'dynamic' if 'dynamic' in outputs else 'refine', run) / PSEUDO_LABELS}")
    if "predict" in outputs:
        predicted = outputs["predict"].result_as(PredictResult)
        for split in predicted.images:
            print(f"segmentation of {split}: {_by_name(outputs, 'predict', run) / predicted.variants[-1] / split}")
    print(f"report: {_by_name(outputs, 'report', run) / 'index.html'}")
    if run is not None:
        print(f"run: {run['name'] or run['id']}; again: excel run --config {shlex.quote(run['config'])}")
    print(f"Prefect UI: {ui}")


def _run_of(output: "StageOutput") -> dict[str, Any] | None:
    """The run that the store knows the output from: what it is called, and where it is by name."""
    from tasks.history.find_run import run_with
    from tasks.history.named_folder import CONFIG, folder_of

    record = run_with(output.place.parents[1], output.stage, output.key)
    folder = None if record is None else folder_of(record)
    if record is None or folder is None:
        return None
    return {"id": record.id, "name": record.flow_run_name, "folder": str(folder), "config": str(folder / CONFIG)}


def _by_name(outputs: "dict[str, StageOutput]", stage: str, run: dict[str, Any] | None) -> Path:
    """A stage's folder below the run's name, where it has one that can be followed; else where it is."""
    folder = outputs[stage].folder
    named = folder if run is None else Path(run["folder"]) / stage
    return named if named.exists() else folder


def _show_paper(table: str, path: Path) -> None:
    from artifacts.paper.table import print_paper
    from excel_core.files import read_json

    if table == "figures":
        for picture in sorted(path.parent.glob("figure_*.png")):
            print(picture)
    else:
        print_paper(read_json(path), console(FILE_COLUMNS))
