"""What must hold of a store after any attempt, and at its end, beside the store of an undisturbed run."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from tasks.engine.output import damaged_files, read_marker, read_output
from tests.faults.file_layer import Change
from tests.flows.store_files import committed, contents, file_digests

__all__ = ["check_attempt", "check_end", "check_training", "lost_outputs", "wrong_outputs"]

OUTSIDE = ("records", "texts")  # half-written files there have names that nobody reads; `excel gc` removes them


def check_attempt(
    store: Path, whole: Path, finished: Mapping[str, tuple[int, int]], log: Sequence[Change]
) -> dict[str, tuple[int, int]]:
    """Every output that was finished is untouched and was not begun again; what is finished since is the undisturbed run's →
    all that is finished."""
    complete = committed(store)
    assert {name: complete.get(name) for name in finished} == finished, "a complete output was touched"
    begun = {change.path.removeprefix("work ") for change in log if change.word == "note" and change.path.startswith("work ")}
    assert not begun & finished.keys(), "a complete output was built again"
    new = [store / name for name in complete.keys() - finished.keys()]
    assert not wrong_outputs(store, whole, new)
    return complete


def check_training(log: Sequence[Change], done: int) -> int:
    """A training goes on from its newest checkpoint, after which `done` iterations were done → those of the newest now."""
    words = [change.path.split() for change in log if change.word == "note"]
    begun = [int(numbers[0]) for word, *numbers in words if word == "iteration"]
    assert not begun or begun[0] >= done, f"iteration {begun[0]} was trained again"
    saved = [change.place for change in log if change.word == "done" and change.second.endswith("/checkpoint.pt")]
    return max([done, *(int(place.split()[1]) + 1 for place in saved if place.startswith("iteration"))])


def wrong_outputs(store: Path, whole: Path, folders: Sequence[Path] | None = None) -> list[str]:
    """Outputs that count as complete and have other bytes than the undisturbed run's, or than they say."""
    wrong = []
    for folder in folders if folders is not None else sorted(store.glob("*/[!.]*")):
        is_final = folder.is_dir() and not folder.suffix and folder.parent.name not in OUTSIDE
        if is_final and read_output(folder) is not None:
            name = folder.relative_to(store).as_posix()
            ours, theirs = read_marker(folder), read_marker(whole / name)
            same = name.startswith("report/") or ours.output["content"] == theirs.output["content"]
            if damaged_files(folder) or not same or ours.files.keys() != theirs.files.keys():
                wrong.append(name)
    return wrong


def lost_outputs(store: Path, log: Iterable[Change]) -> list[str]:
    """Outputs that a run had left complete, by its log, and that do not count as complete."""
    left = {change.path.removeprefix("left ") for change in log if change.word == "note" and change.path.startswith("left ")}
    return [name for name in sorted(left) if read_output(store / name) is None]


def check_end(store: Path, whole: Path, texts: bool = True) -> None:
    """A run that came to its end left the very bytes of an undisturbed one, and nothing half-built. `texts`: and every text
    embedding."""
    ours, theirs = file_digests(store), file_digests(whole)
    if not texts:
        ours, theirs = (
            {name: digests[name] for name in digests if not name.startswith("texts/")} for digests in (ours, theirs)
        )
    assert contents(store) == contents(whole) and ours == theirs
    assert committed(store).keys() == committed(whole).keys()
    assert not wrong_outputs(store, whole)
    remains = [path for path in store.rglob("*") if path.name.endswith((".tmp", ".partial", ".resume"))]
    remains = [path for path in remains if path.relative_to(store).parts[0] not in OUTSIDE]
    assert not remains, f"left behind: {remains}"
