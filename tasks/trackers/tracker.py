"""The trackers there are. Each is a function that writes one run to a place."""

from collections.abc import Callable

from excel_core.errors import SettingError
from tasks.trackers.to_mlflow import to_mlflow
from tasks.trackers.to_tensorboard import to_tensorboard
from tasks.trackers.to_wandb import to_wandb
from tasks.trackers.tracked_run import TrackedRun

__all__ = ["TRACKERS", "Tracker", "track_run"]

Tracker = Callable[[TrackedRun, str], str]  # a run, and a folder or address → where it is now
TRACKERS: dict[str, Tracker] = {"tensorboard": to_tensorboard, "mlflow": to_mlflow, "wandb": to_wandb}


def track_run(run: TrackedRun, tool: str, place: str) -> str:
    """Write `run` for `tool` to `place` → where to look at it. SettingError for a tool that is unknown or not installed."""
    if tool not in TRACKERS:
        raise SettingError(f"--to {tool}: valid: {', '.join(TRACKERS)}")
    try:
        return TRACKERS[tool](run, place)
    except ImportError:
        raise SettingError(f"--to {tool} needs {tool}, which is not installed: pip install 'excel-wsss[trackers]'") from None
