"""Which run a user means: `latest`, a name of Prefect's, or an id. One answer for every command that takes a run.

`latest` is the newest complete run that holds what the command asks for: after a run of one stage, the segmenter of the full
run before it is still `latest` to `excel segment`.
"""

from collections.abc import Sequence
from pathlib import Path

from excel_core.errors import SettingError, StoreError
from tasks.engine.shared_outputs import known_marker
from tasks.history.run_record import RunRecord, read_records

__all__ = ["LATEST", "find_any", "find_record", "holds", "run_with"]

LATEST = "latest"
MAX_LISTED = 10  # runs that a refusal names


def find_record(store: Path, name: str, needs: Sequence[str] = ()) -> RunRecord:
    """The run called `name` that holds `needs`: stages by name, or several of which one is enough, as `dynamic or refine`.

    `name`: `latest`, a name that Prefect or `--name` gave, or an id or its beginning. SettingError where no complete run of
    that name holds them, or several different ones do; it lists the runs that would serve.
    """
    records = read_records(store)
    if name == LATEST:
        newest = next((record for record in reversed(records) if _lack(record, needs) is None), None)
        if newest is None:
            wanted_run = f"complete run{_with(needs)}" if records else f"run named {LATEST!r}"
            raise SettingError(f"{store} has no {wanted_run}; {_listed('runs', records)}")
        return newest
    named = _named(records, name)
    if not named:
        raise SettingError(f"{store} has no run named {name!r}; {_listed('runs', records)}")
    fitting = [record for record in named if _lack(record, needs) is None]
    if not fitting:
        serving = [record for record in records if _lack(record, needs) is None]
        listed = _listed(f"complete runs{_with(needs)}", serving)
        raise SettingError(f"run {named[-1].title} {_lack(named[-1], needs)}; {listed}")
    if any(record.own != fitting[-1].own for record in fitting):
        raise SettingError(f"{store} has several runs named {name!r}; {_listed('runs', fitting)}")
    return fitting[-1]


def find_any(store: Path, name: str) -> RunRecord:
    """The run called `name`, whatever it holds and however it ended; `latest` is the newest of all."""
    records = read_records(store)
    named = records if name == LATEST else _named(records, name)
    if not named:
        raise SettingError(f"{store} has no run named {name!r}; {_listed('runs', records)}")
    if len(named) > 1 and name != LATEST:
        raise SettingError(f"{store} has several runs named {name!r}; {_listed('runs', named)}")
    return named[-1]


def run_with(store: Path, stage: str, key: str) -> RunRecord | None:
    """The newest complete run whose own stage has this output."""
    records = reversed(read_records(store))
    return next((record for record in records if record.state == "complete" and record.own.get(stage) == key), None)


def holds(record: RunRecord, stage: str) -> bool:
    """Whether the run has that stage's output, and it is still there; its files are not read."""
    if stage not in record.own:
        return False
    try:
        known_marker(record.store / stage / record.own[stage])
    except StoreError:
        return False
    return True


def _named(records: Sequence[RunRecord], name: str) -> list[RunRecord]:
    """Runs with exactly that id, else that name, else whose id begins with it."""
    for fits in (
        lambda record: record.id == name,
        lambda record: name in (record.flow_run_name, record.folder),
        lambda record: bool(name) and record.id.startswith(name),
    ):
        if matching := [record for record in records if fits(record)]:
            return matching
    return []


def _lack(record: RunRecord, needs: Sequence[str]) -> str | None:
    """Why the run cannot serve, in words; None where it can."""
    if record.state != "complete":
        return f"is not complete: {record.ended_as}"
    for need in needs:
        stages = need.split(" or ")
        if not any(holds(record, stage) for stage in stages):
            gone = [stage for stage in stages if stage in record.own]
            if gone:
                return f"has lost its {gone[0]}, which is removed or damaged; run it again"
            return f"has no {need}; it has {', '.join(record.own) or 'no output'}"
    return None


def _with(needs: Sequence[str]) -> str:
    return f" with {' and '.join(needs)}" if needs else ""


def _listed(what: str, records: Sequence[RunRecord]) -> str:
    shown = [f"{record.title}: {record.flow} {record.ended_as}" for record in records[-MAX_LISTED:]]
    return f"{what}: {'; '.join(shown) or 'none'}"
