"""A run in MLflow, through its client: a folder's database, or a tracking server."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from tasks.trackers.tracked_run import TrackedRun

__all__ = ["to_mlflow"]

T = TypeVar("T")
EXPERIMENT = "excel"
MAX_BATCH = {"metrics": 1000, "params": 100}  # what MLflow takes at once
MAX_PARAM = 500  # characters of a parameter's value that every version keeps


def to_mlflow(run: TrackedRun, place: str) -> str:
    """Settings as parameters, numbers as metrics by iteration, protocols as tags. → the command or address that shows it."""
    from mlflow.entities import Metric, Param
    from mlflow.tracking import MlflowClient

    address = place if "://" in place else f"sqlite:///{_folder(place) / 'mlflow.db'}"
    client = MlflowClient(tracking_uri=address)
    found = client.get_experiment_by_name(EXPERIMENT)
    artifacts = None if "://" in place else (_folder(place) / "artifacts").as_uri()
    experiment = found.experiment_id if found else client.create_experiment(EXPERIMENT, artifact_location=artifacts)
    tags = {"excel.run": run.id, **{f"protocol.{k.replace('/', '.')}": "; ".join(v.values()) for k, v in run.protocols.items()}}
    created = client.create_run(experiment, run_name=run.name, tags=tags)
    params = [Param(name, value[:MAX_PARAM]) for name, value in run.settings.items()]
    metrics = [Metric(name, value, 0, point.iteration) for point in run.points for name, value in point.values.items()]
    for some in _batches(params, MAX_BATCH["params"]):
        client.log_batch(created.info.run_id, params=some)
    for numbers in _batches(metrics, MAX_BATCH["metrics"]):
        client.log_batch(created.info.run_id, metrics=numbers)
    client.set_terminated(created.info.run_id)
    return place if "://" in place else f"mlflow ui --backend-store-uri {address}"


def _batches(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    return (items[start : start + size] for start in range(0, len(items), size))


def _folder(place: str) -> Path:
    folder = Path(place).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    return folder
