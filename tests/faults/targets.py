"""Which changes of a run are met: its places and the changes in each, as an undisturbed run's log has them."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path

from tasks.engine.output import MARKER
from tests.faults.file_layer import KILL_AFTER, KILL_BEFORE, Change

__all__ = ["Target", "is_completion", "kill_targets", "out_of_reach", "stage_of", "table", "targets"]


@dataclass(frozen=True)
class Target:
    """The `change`-th change (from 1) at a place of a run, what it is, and how it is met: with an action of the layer's, which
    may be to fail with the errno `error`."""

    place: str
    change: int
    kind: str
    path: str
    action: int = 0
    error: int = 0

    def met(self, action: int, error: int = 0) -> "Target":
        """The same change, met with an action."""
        return replace(self, action=action, error=error)


def targets(log: Iterable[Change]) -> list[Target]:
    """Every change of an undisturbed run, in order. What trains has a place for each iteration, which gets the step's name."""
    numbers: Counter[str] = Counter()
    changes = []
    for change in log:
        if change.word in ("done", "refused"):
            numbers[change.place] += 1
            changes.append(Target(change.place, numbers[change.place], change.kind, change.path))
    return changes


def kill_targets(changes: Sequence[Target]) -> list[Target]:
    """Before each of them, and after the last of each place: after any other is before the next, with the same disk."""
    kills = []
    for change, following in zip_longest(changes, changes[1:]):
        kills.append(change.met(KILL_BEFORE))
        if following is None or following.place != change.place:
            kills.append(change.met(KILL_AFTER))
    return kills


def is_completion(target: Target) -> bool:
    """Whether it is at a step's completion: from the end of its work to the end of its note in the run's record. All of a
    training is, since what a killed one leaves counts."""
    return target.place.split(" ")[0] in ("complete", "left", "record", "iteration")


def stage_of(place: str) -> str:
    """The stage of a place; "" where it is of the run as a whole."""
    step = place.partition(" ")[2]
    return "train" if place.startswith("iteration") else step.partition("/")[0].removesuffix("-parts")


def out_of_reach(target: Target, store: Path, last_log: Sequence[Change]) -> bool:
    """Whether the next run of the store does not come to the target any more: the step is complete, or the last run wrote all
    of it, or a checkpoint after that iteration."""
    word, _, rest = target.place.partition(" ")
    if word in ("begin", "record", "end", "left"):
        return False
    if word == "iteration":
        trained = any(not folder.suffix for folder in store.glob("train/[!.]*"))
        here = [change for change in last_log if change.place == target.place]
        was_saved = _renamed_to(here, "/checkpoint.pt") or _renamed_to(here, ".kept")
        return trained or was_saved or _renamed_to(last_log, f"/{MARKER}", "train/")
    if (store / rest).is_dir():
        return True
    return _renamed_to(last_log, f"/{MARKER}", rest)


def _renamed_to(log: Iterable[Change], end: str, inside: str = "") -> bool:
    names = [change.second for change in log if change.word == "done" and change.kind == "rename"]
    return any(name.endswith(end) and name.startswith(inside) for name in names)


def table(places: Iterable[tuple[str, str]]) -> dict[str, dict[str, int]]:
    """(place, kind) → numbers by stage and kind."""
    counts: dict[str, Counter[str]] = {}
    for place, kind in places:
        counts.setdefault(stage_of(place) or place, Counter())[kind] += 1
    return {stage: dict(kinds) for stage, kinds in counts.items()}
