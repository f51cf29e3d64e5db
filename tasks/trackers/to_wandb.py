"""A run in Weights & Biases: offline, where nothing leaves this machine before `wandb sync`, or live in a project."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from excel_core.evaluation.protocols import Protocol
from tasks.trackers.target import OFFLINE
from tasks.trackers.tracked_run import Point, RunInfo

__all__ = ["OfflineWandbRun", "WandbRun"]

PROJECT, STEP = "excel", "iteration"


class WandbRun:
    """Settings as the config, numbers by iteration, protocols in the summary. `place`: PROJECT or ENTITY/PROJECT. Online it
    goes on with the oldest of the runs that `info` goes on with; offline W&B cannot, and begins another one."""

    def __init__(self, info: RunInfo, place: str) -> None:
        entity, _, project = place.rpartition("/")
        is_offline = os.environ.get("WANDB_MODE") in OFFLINE
        id = info.id if is_offline else (*info.goes_on, info.id)[0]
        self._open(info, id=id, entity=entity or None, project=project, resume=None if is_offline else "allow")

    def _open(self, info: RunInfo, **options: Any) -> None:
        import wandb

        settings = wandb.Settings(console="off", silent=True, disable_git=True, disable_code=True, x_disable_stats=True)
        self._run = wandb.init(name=info.name, config=dict(info.settings), settings=settings, **options)
        self._run.define_metric(STEP)
        self._run.define_metric("*", step_metric=STEP)  # a learning curve comes after the losses, with earlier iterations
        told = dict(self._run.summary) if self._run.resumed else {}
        self.last = dict.fromkeys(told, int(told[STEP])) if STEP in told else {}

    def write(self, points: Sequence[Point]) -> None:
        """Add points, in their order."""
        for point in points:
            self._run.log({STEP: point.iteration, **point.values})

    def close(self, protocols: Mapping[str, Protocol], ending: str) -> str:
        """→ the command that sends it, or the address that shows it."""
        self._run.summary.update({f"protocol/{name}": "; ".join(protocol.values()) for name, protocol in protocols.items()})
        shown_by = self._run.url or f"wandb sync {Path(self._run.dir).parent}"
        self._run.finish(exit_code=0 if ending == "complete" else 1)
        return str(shown_by)


class OfflineWandbRun(WandbRun):
    """The same in the files below the folder `place`."""

    def __init__(self, info: RunInfo, place: str) -> None:
        folder = Path(place).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        self._open(info, project=PROJECT, dir=folder, mode="offline")
