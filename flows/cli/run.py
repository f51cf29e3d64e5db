"""`excel run`, `demo`, `ablation`: the flows from a terminal, with a Prefect of the store's own where none is given."""

import json
import os
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from flows.cli.options import Clip, Data, Device, Gpus, Method, Preset, Runner, Sets, Store, console, text
from flows.local.state import api_url

__all__ = ["ablation", "call_flow", "demo", "prefect_environment", "run"]


def run(
    preset: Preset,
    data: Data = None,
    store: Store = None,
    clip: Clip = None,
    device: Device = "cpu",
    gpus: Gpus = 1,
    method: Method = "reference",
    runner: Runner = "sequential",
    settings: Sets = None,
) -> None:
    """Run the whole pipeline of PRESET; stages that are complete are not run again."""
    _show_results(*_complete("report", preset, data, store, clip, device, gpus, method, runner, settings or []))


def demo(
    store: Store = None,
    device: Device = "cpu",
    gpus: Gpus = 1,
    method: Method = "reference",
    runner: Runner = "sequential",
    settings: Sets = None,
) -> None:
    """Run the whole pipeline on the built-in picture-book world with the built-in tiny CLIP."""
    outputs, ui = _complete("report", "demo", None, store, None, device, gpus, method, runner, settings or [])
    _show_results(outputs, ui)
    print(f"metrics: {outputs['evaluate'].folder / 'metrics.json'}")


def ablation(
    preset: Preset,
    data: Data = None,
    store: Store = None,
    clip: Clip = None,
    device: Device = "cpu",
    gpus: Gpus = 1,
    method: Method = "reference",
    runner: Runner = "sequential",
    settings: Sets = None,
) -> None:
    """Score raw CAMs of every row of the paper's tables 3, 4 and 5 and of the methods, over seeds."""
    from artifacts.tables import print_tables

    outputs, ui = _complete("ablation", preset, data, store, clip, device, gpus, method, runner, settings or [])
    path = outputs["ablation"].folder / "ablation.json"
    print_tables({"ablation": json.loads(path.read_text())}, console())
    print(f"Prefect UI: {ui}")
    print(f"ablation: {path}")


def _complete(
    last: str,
    preset: str,
    data: Path | None,
    store: Path | None,
    clip: str | None,
    device: str,
    gpus: int,
    method: str,
    runner: str,
    settings: list[str],
) -> tuple[dict[str, Any], str]:
    """The outputs up to `last`, by its flow unless all are complete, and how to open the UI."""
    from flows.settings import check_runner, make_environment, make_run
    from tasks.chain import complete_outputs

    check_runner(runner)
    spec = make_run(preset, method, settings, clip)
    place = make_environment(spec, text(data), text(store), device, gpus)
    ui = prefect_environment(place.store)
    if last in complete_outputs(spec, place, last):
        print("every stage is complete; nothing to run")
    else:
        arguments = (preset, method, text(place.data), str(place.store), clip, device, gpus, runner, settings)
        call_flow(_flow_of(last), *arguments)
    return complete_outputs(spec, place, last), ui


def call_flow(flow: Callable[..., str], *arguments: Any) -> str:
    """Run a flow from here, with a Prefect server of the store's own where none is named; Ctrl-C ends both."""
    from flows.interrupts import stoppable

    if "PREFECT_API_URL" not in os.environ:
        print("starting a local Prefect server (about 20 s)", flush=True)
    with stoppable():
        return flow(*arguments)


def _flow_of(last: str) -> Callable[..., str]:
    from flows.ablation import ablation as ablation_flow
    from flows.excel import excel

    return ablation_flow if last == "ablation" else excel


def _show_results(outputs: dict[str, Any], ui: str) -> None:
    from artifacts.tables import print_tables
    from tasks.history.spent import spent_line
    from tasks.inputs.given_segmenter import given_words
    from tasks.refine import PSEUDO_LABELS

    print_tables(json.loads((outputs["evaluate"].folder / "metrics.json").read_text()), console())
    for image, reason in outputs["dataset"].summary["bad"].items():
        print(f"skipped {image}: {reason}")
    for split, count in outputs["dataset"].summary["absent"].items():
        print(f"left out (dataset.partial): {count} images of {split} that are not in the data folder")
    if given := given_words(outputs["train"].summary):
        print(f"nothing was trained: the segmenter comes from {given}")
    if spent := spent_line(outputs["describe"]):
        print(spent)
    print(f"pseudo labels: {outputs['dynamic'].folder / PSEUDO_LABELS}")
    for split in outputs["predict"].summary["images"]:
        print(f"segmentation of {split}: {outputs['predict'].folder / outputs['predict'].summary['variants'][-1] / split}")
    print(f"report: {outputs['report'].folder / 'index.html'}")
    print(f"Prefect UI: {ui}")


def prefect_environment(store: Path) -> str:
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
