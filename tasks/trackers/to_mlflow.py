"""A run in MLflow, through its client: a folder's database, or a tracking server."""

import logging
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from excel_core.evaluation.protocols import Protocol
from tasks.trackers.tracked_run import Point, RunInfo

__all__ = ["MlflowRun"]

T = TypeVar("T")
EXPERIMENT, RUN_TAG = "excel", "excel.run"
MAX_BATCH = {"metrics": 1000, "params": 100}  # what MLflow takes at once
MAX_PARAM = 500  # characters of a parameter's value that every version keeps
STATUS = {"complete": "FINISHED", "failed": "FAILED", "stopped": "KILLED"}
# Its own defaults, 7 retries of up to 2 minutes each, would hold a training up for as long.
PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10"}


class MlflowRun:
    """Settings as parameters, numbers as metrics by iteration, protocols as tags. `place`: a folder, or a server's address. One
    of the runs that `info` goes on with is opened again, unless it is finished."""

    def __init__(self, info: RunInfo, place: str) -> None:
        from mlflow.tracking import MlflowClient

        logging.getLogger("mlflow").setLevel(logging.WARNING)  # it tells of every table of a new database
        for name, value in PATIENCE.items():
            os.environ.setdefault(name, value)
        is_server = "://" in place
        self._address = place if is_server else f"sqlite:///{_folder(place) / 'mlflow.db'}"
        self._shown_by = place if is_server else f"mlflow ui --backend-store-uri {self._address}"
        self._client = MlflowClient(tracking_uri=self._address)
        stored = self._client.get_experiment_by_name(EXPERIMENT)
        artifacts = None if is_server else (_folder(place) / "artifacts").as_uri()
        experiment = stored.experiment_id if stored else self._client.create_experiment(EXPERIMENT, artifact_location=artifacts)
        self._run, self.last = self._open_again(experiment, info)
        if not self._run:
            self._run = self._client.create_run(experiment, run_name=info.name, tags={RUN_TAG: info.id}).info.run_id
            self._write_settings(info.settings)

    def write(self, points: Sequence[Point]) -> None:
        """Add points, in their order."""
        from mlflow.entities import Metric

        clock = time.time_ns() // 1_000_000
        metrics = [Metric(name, value, clock, point.iteration) for point in points for name, value in point.values.items()]
        for some in _batches(metrics, MAX_BATCH["metrics"]):
            self._client.log_batch(self._run, metrics=some)

    def close(self, protocols: Mapping[str, Protocol], ending: str) -> str:
        """→ the command or address that shows it."""
        for name, protocol in protocols.items():
            self._client.set_tag(self._run, f"protocol.{name.replace('/', '.')}", "; ".join(protocol.values()))
        self._client.set_terminated(self._run, status=STATUS[ending])
        return self._shown_by

    def _open_again(self, experiment: str, info: RunInfo) -> tuple[str, dict[str, int]]:
        """The run to go on with, and the last iteration of each of its metrics; "" where there is none."""
        for id in info.goes_on:
            for found in self._client.search_runs([experiment], filter_string=f"tags.`{RUN_TAG}` = '{id}'"):
                if found.info.status != STATUS["complete"]:
                    self._client.update_run(found.info.run_id, status="RUNNING")
                    self._client.set_tag(found.info.run_id, RUN_TAG, info.id)
                    return found.info.run_id, {name: self._last_step(found, name) for name in found.data.metrics}
        return "", {}

    def _last_step(self, found: Any, name: str) -> int:
        steps: list[int] = [metric.step for metric in self._client.get_metric_history(found.info.run_id, name)]
        return max(steps)

    def _write_settings(self, settings: Mapping[str, str]) -> None:
        from mlflow.entities import Param

        params = [Param(name, value[:MAX_PARAM]) for name, value in settings.items()]
        for some in _batches(params, MAX_BATCH["params"]):
            self._client.log_batch(self._run, params=some)


def _batches(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    return (items[start : start + size] for start in range(0, len(items), size))


def _folder(place: str) -> Path:
    folder = Path(place).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    return folder
