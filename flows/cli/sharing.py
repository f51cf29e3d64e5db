"""`excel push`, `excel log`: a finished run in the places where others look at it."""

from typing import Annotated

import typer

from flows.cli.complete import run_names
from flows.cli.options import Store
from flows.cli.runs import RUN_HELP

__all__ = ["log", "push"]


def push(
    run: Annotated[str, typer.Argument(help=RUN_HELP, autocompletion=run_names)],
    repository: Annotated[str, typer.Argument(help="USER/NAME on the Hugging Face Hub; made where it is not there")],
    file_format: Annotated[str, typer.Option("--format", help="safetensors or onnx")] = "safetensors",
    licence: Annotated[
        str | None, typer.Option(help="of the weights, for the model card: an SPDX identifier", show_default=False)
    ] = None,
    public: Annotated[bool, typer.Option("--public", help="make a new repository public; else it is private")] = False,
    store: Store = None,
) -> None:
    """Commit a run's trained segmenter and its model card to the Hugging Face Hub. The token is that of HF_TOKEN or of the
    hub's own login."""
    from flows.local.state import store_folder
    from tasks.engine.lock import store_in_use
    from tasks.history.find_run import find_record
    from tasks.photos.push import push_run

    folder = store_folder(store)
    with store_in_use(folder):
        print(push_run(find_record(folder, run, ["train"]), repository, file_format, not public, licence))


def log(
    run: Annotated[str, typer.Argument(help=RUN_HELP, autocompletion=run_names)],
    tool: Annotated[str, typer.Option("--to", help="tensorboard, mlflow or wandb (offline)")],
    out: Annotated[str, typer.Option(help="folder to write to; of mlflow also a tracking server's http://…")],
    store: Store = None,
) -> None:
    """Write a run's settings, losses, learning curve and scores for TensorBoard, MLflow or Weights & Biases."""
    from flows.local.state import store_folder
    from tasks.engine.lock import store_in_use
    from tasks.history.find_run import find_record
    from tasks.trackers.tracked_run import tracked_run
    from tasks.trackers.tracker import track_run

    folder = store_folder(store)
    with store_in_use(folder):
        print(track_run(tracked_run(find_record(folder, run, ["train or evaluate"])), tool, out))
