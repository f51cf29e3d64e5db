"""A run as TensorBoard's event files: FOLDER/RUN.

The records are TensorBoard's own; the file is opened for each batch of them. Its `SummaryWriter` writes in a thread, whose
faults would be tracebacks in the terminal.
"""

import io
import socket
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from artifacts.rows import Row, markdown_table
from excel_core.evaluation.protocols import Protocol
from tasks.trackers.tracked_run import Point, RunInfo

__all__ = ["TensorBoardRun"]

FILE_VERSION = "brain.Event:2"


class TensorBoardRun:
    """Scalars by iteration; settings, and the protocol of each score, as text. `place`: the folder of all runs."""

    def __init__(self, info: RunInfo, place: str) -> None:
        self._place = place
        folders = [Path(place) / id for id in (*info.goes_on, info.id)]
        folder = next((folder for folder in folders if folder.is_dir()), folders[-1])
        self.last = _last_steps(folder)
        folder.mkdir(parents=True, exist_ok=True)
        self._file = folder / f"events.out.tfevents.{int(time.time()):010d}.{socket.gethostname()}.{uuid.uuid4().hex}"
        self._file.touch(exist_ok=False)
        _append(self._file, [{"file_version": FILE_VERSION}])
        if not self.last:
            self._add_text("settings", [{"setting": name, "value": value} for name, value in info.settings.items()])

    def write(self, points: Sequence[Point]) -> None:
        """Add points, in their order; a TensorBoard that looks at the folder sees them. OSError where the file is gone or the
        disk is full."""
        from torch.utils.tensorboard import summary

        scalar: Any = summary.scalar  # without types
        values = ((point.iteration, name, value) for point in points for name, value in point.values.items())
        _append(self._file, ({"step": step, "summary": scalar(name, value)} for step, name, value in values))

    def close(self, protocols: Mapping[str, Protocol], ending: str) -> str:
        """→ the command that shows it."""
        if protocols:
            self._add_text("protocols", [{"score": name, **protocol} for name, protocol in protocols.items()])
        return f"tensorboard --logdir {self._place}"

    def _add_text(self, name: str, rows: Sequence[Row]) -> None:
        from torch.utils.tensorboard import summary

        text: Any = summary.text  # without types
        _append(self._file, [{"summary": text(name, markdown_table(rows))}])


def _append(file: Path, events: Iterable[Mapping[str, Any]]) -> None:
    """Add events, each the fields of an `Event`. FileNotFoundError where the file is gone: a new one would lack its events."""
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.summary.writer.record_writer import RecordWriter

    records = io.BytesIO()
    writer = RecordWriter(records)
    for event in events:
        writer.write(Event(wall_time=time.time(), **event).SerializeToString())
    with file.open("r+b") as stream:
        stream.seek(0, io.SEEK_END)
        stream.write(records.getvalue())


def _last_steps(folder: Path) -> dict[str, int]:
    """The last iteration of each scalar in the folder's files, also where the last of them was cut off."""
    if not folder.is_dir():
        return {}
    from tensorboard.backend.event_processing.event_accumulator import SCALARS, EventAccumulator

    events = EventAccumulator(str(folder), size_guidance={SCALARS: 1})  # of each, the last alone
    events.Reload()
    return {name: events.Scalars(name)[-1].step for name in events.Tags()[SCALARS]}
