"""A run told to a tracker while it is at work: losses as they are fetched, all that is missing when the run is complete.

Whatever the tracker does wrong, the run goes on: it is said once, and tried once more at the end of the run, from the store.
A training that goes on where another run was stopped goes on in that run's place in the tracker, and no step is told twice.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress

from excel_core.files import first_sentence
from excel_core.training.loop import LossRow
from tasks.engine.losses import hearing_losses
from tasks.engine.progress import say
from tasks.history.run_record import RunRecord, read_records
from tasks.trackers.target import LogTarget
from tasks.trackers.tracked_run import loss_points, run_info, tracked_run
from tasks.trackers.tracker import LIVE_TRACKERS, Ending, Tracker, tell

__all__ = ["logged_live"]

TRAINING = "train"  # the run's own; those of its variants are not told


@contextmanager
def logged_live(target: LogTarget | None, record: RunRecord, say_line: Callable[[str], None] = say) -> Iterator[None]:
    """Around the stages of a run, until its record has the outputs of its own stages. `say_line` gets what a person should
    know: where the run is to be seen, or why it is not."""
    if target is None:
        yield
        return
    log = _LiveLog(target, record, say_line)
    with hearing_losses(log.losses):
        try:
            yield
        except BaseException as error:
            log.broken_off("failed" if isinstance(error, Exception) else "stopped")
            raise
    log.complete()


class _LiveLog:
    """The tracker is opened with the first losses, since only then it shows which training goes on."""

    def __init__(self, target: LogTarget, record: RunRecord, say_line: Callable[[str], None]) -> None:
        self._target, self._record, self._say = target, record, say_line
        self._goes_on: tuple[str, ...] = ()
        self._tracker: Tracker | None = None
        self._is_broken = False

    def losses(self, work: str, rows: Sequence[LossRow]) -> None:
        """Tell new losses of the run's own training."""
        if work == TRAINING and not self._is_broken:
            with self._faults_said():
                if self._tracker is None:
                    self._goes_on = _stopped_in_training(self._record)
                tell(self._opened(), loss_points(rows, LossRow.columns(self._record.run.train)))

    def complete(self) -> None:
        """Tell the rest of a complete run."""
        if self._is_broken:
            if self._tracker is not None:
                with suppress(Exception):  # what it holds is read again from where it is
                    self._tracker.close({}, "stopped")
            self._tracker, self._goes_on = None, (*self._goes_on, self._record.id)
        with self._faults_said():
            run = tracked_run(self._record)
            tracker = self._opened()
            tell(tracker, run.points)
            self._say(f"logged: {tracker.close(run.protocols, 'complete')}")

    def broken_off(self, ending: Ending) -> None:
        """Close what was begun."""
        if self._tracker is not None and not self._is_broken:
            with self._faults_said():
                self._tracker.close({}, ending)

    def _opened(self) -> Tracker:
        if self._tracker is None:
            self._tracker = LIVE_TRACKERS[self._target.tool](run_info(self._record, self._goes_on), self._target.place)
        return self._tracker

    @contextmanager
    def _faults_said(self) -> Iterator[None]:
        """A tracker's clients raise dozens of kinds of errors; none of them is worth a run."""
        try:
            yield
        except Exception as error:
            self._is_broken = True
            self._say(f"warning: {self._target}: {first_sentence(error)}; the run goes on without it")


def _stopped_in_training(record: RunRecord) -> tuple[str, ...]:
    """Ids of the runs that ended in the training that `record` is at, oldest first."""
    at = {output for output in record.building if output.startswith(f"{TRAINING}/")}
    ended = (other for other in read_records(record.store) if other.ended_as not in ("complete", "running"))
    return tuple(other.id for other in ended if at & set(other.building))
