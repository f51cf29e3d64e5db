"""The trackers there are. Each holds one run open, is told points of it, and is closed with what the run came to."""

from collections.abc import Callable, Mapping, Sequence
from typing import Literal, Protocol

from excel_core.evaluation.protocols import Protocol as ScoreProtocol
from tasks.trackers.target import LogTarget, check_target
from tasks.trackers.to_mlflow import MlflowRun
from tasks.trackers.to_tensorboard import TensorBoardRun
from tasks.trackers.to_wandb import OfflineWandbRun, WandbRun
from tasks.trackers.tracked_run import Point, RunInfo, TrackedRun

__all__ = ["LIVE_TRACKERS", "TRACKERS", "Ending", "Tracker", "tell", "track_run"]

Ending = Literal["complete", "failed", "stopped"]


class Tracker(Protocol):
    """A run that is open in a tool. `last`: by a value's name, the iteration that the tool has it of."""

    last: dict[str, int]

    def write(self, points: Sequence[Point]) -> None:
        """Add points, in their order."""

    def close(self, protocols: Mapping[str, ScoreProtocol], ending: Ending) -> str:
        """→ the command or address that shows it."""


Open = Callable[[RunInfo, str], Tracker]  # of a run, at a folder, address or project
TRACKERS: dict[str, Open] = {"tensorboard": TensorBoardRun, "mlflow": MlflowRun, "wandb": OfflineWandbRun}
LIVE_TRACKERS: dict[str, Open] = TRACKERS | {"wandb": WandbRun}


def tell(tracker: Tracker, points: Sequence[Point]) -> None:
    """Tell what the tracker does not have yet: a training that goes on computes some iterations again."""
    new_points = []
    for point in points:
        values = {name: value for name, value in point.values.items() if point.iteration > tracker.last.get(name, -1)}
        if values:
            new_points.append(Point(point.iteration, values))
    if not new_points:
        return
    tracker.write(new_points)
    tracker.last |= {name: point.iteration for point in new_points for name in point.values}


def track_run(run: TrackedRun, tool: str, place: str) -> str:
    """Write a finished run for `tool` to `place` → where to look at it. SettingError as `check_target` raises it."""
    check_target(LogTarget(tool, place, is_live=False))
    tracker = TRACKERS[tool](run.info, place)
    tell(tracker, run.points)
    return tracker.close(run.protocols, "complete")
