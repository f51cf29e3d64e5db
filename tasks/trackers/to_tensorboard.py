"""A run as TensorBoard's event files: FOLDER/RUN."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from artifacts.rows import markdown_table
from excel_core.evaluation.protocols import Protocol
from tasks.trackers.tracked_run import Point, RunInfo

__all__ = ["TensorBoardRun"]


class TensorBoardRun:
    """Scalars by iteration; settings, and the protocol of each score, as text. `place`: the folder of all runs."""

    def __init__(self, info: RunInfo, place: str) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._place = place
        folders = [Path(place) / id for id in (*info.goes_on, info.id)]
        folder = next((folder for folder in folders if folder.is_dir()), folders[-1])
        self.last = _last_steps(folder)
        self._writer = SummaryWriter(str(folder))
        if not self.last:
            self._writer.add_text("settings", markdown_table([{"setting": n, "value": v} for n, v in info.settings.items()]))

    def write(self, points: Sequence[Point]) -> None:
        """Add points, in their order; a TensorBoard that looks at the folder sees them."""
        for point in points:
            for name, value in point.values.items():
                self._writer.add_scalar(name, value, point.iteration)
        self._writer.flush()

    def close(self, protocols: Mapping[str, Protocol], ending: str) -> str:
        """→ the command that shows it."""
        if protocols:
            rows = [{"score": name, **protocol} for name, protocol in protocols.items()]
            self._writer.add_text("protocols", markdown_table(rows))
        self._writer.close()
        return f"tensorboard --logdir {self._place}"


def _last_steps(folder: Path) -> dict[str, int]:
    """The last iteration of each scalar in the folder's files, also where the last of them was cut off."""
    if not folder.is_dir():
        return {}
    from tensorboard.backend.event_processing.event_accumulator import SCALARS, EventAccumulator

    events = EventAccumulator(str(folder), size_guidance={SCALARS: 1})  # of each, the last alone
    events.Reload()
    return {name: events.Scalars(name)[-1].step for name in events.Tags()[SCALARS]}
