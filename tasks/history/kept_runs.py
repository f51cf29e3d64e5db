"""Which runs `excel gc` keeps: pinned ones, and the newest of each kind of work.

A run of one stage is another kind of work than a run of the whole chain, one on other data too. So neither a look at CAMs nor
a run of the demo pushes out the segmenter that was trained for days.
"""

from collections.abc import Hashable, Sequence

from excel_core.errors import SettingError
from tasks.engine.lock import locked
from tasks.history.run_record import RunRecord

__all__ = ["kept_runs", "pin"]


def kept_runs(records: Sequence[RunRecord], keep: int | None) -> list[RunRecord]:
    """Those of `records`, oldest first, that stay where the newest `keep` complete runs (None: all) of each kind of work stay.
    Pinned ones stay, and so do unfinished ones that no complete run of their kind followed: they can go on."""
    if keep is None:
        return list(records)
    complete: dict[Hashable, int] = {}  # how many newer ones there are of each kind
    newest_first = []
    for record in reversed(records):
        newer = complete.get(_kind(record), 0)
        if record.state == "complete":
            complete[_kind(record)] = newer + 1
            stays = newer < keep
        else:
            stays = newer == 0
        if stays or record.pinned:
            newest_first.append(record)
    return newest_first[::-1]


def _kind(record: RunRecord) -> Hashable:
    """What is compared: flow, data, method, the paper's table, and how many images a trial was cut to."""
    dataset, paper = record.spec.get("dataset", {}), record.spec.get("paper", {})
    table = paper.get("table") if record.flow == "paper" else None
    preset, method = record.spec.get("preset"), record.spec.get("method")
    return record.flow, preset, record.data, method, table, dataset.get("max_images")


def pin(record: RunRecord, pinned: bool) -> None:
    """Have `excel gc` keep the run whatever else it keeps, or no longer. SettingError for a run at work, which writes its
    record itself."""
    if record.state == "running" and not record.dead:
        raise SettingError(f"run {record.title} is at work; pin it when it has ended")
    with locked(record.path.parent / ".number.lock", f"another command writes the records of {record.store}; waiting for it"):
        record.pinned = pinned
        record.save()
