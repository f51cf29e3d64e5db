"""The store's memory of its runs: what was asked, which outputs it led to, how it ended.

    STORE/records/<id>.json     excel-run/1, with its digest; rewritten by every stage. <id> is the start (UTC) and a random end
    STORE/records/.<id>.alive   touched every half minute while the run is at work (tasks/history/heartbeat.py)
    STORE/runs/by-name/<folder> links to its outputs, and config.yaml, which repeats it (tasks/history/named_folder.py)

Of a store on S3-compatible storage, both are copies of what is there (tasks/history/shared_records.py).

Runs are in the order of their `number`, which goes up whatever the clock says. A record whose state is `running` while its
process is gone, or silent on another machine, belongs to a run that was killed.
"""

import os
import re
import secrets
import socket
from collections.abc import Collection, Iterable
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, Field, ValidationError

from excel_core.checked_files import checked_json, read_checked_json, write_checked_json
from excel_core.config import RunSpec
from excel_core.config.base import upgrade_run_fields
from excel_core.errors import SettingError, StoreError
from tasks.engine.lock import locked
from tasks.engine.process_start import machine, start_ticks
from tasks.engine.shared_outputs import bring_here
from tasks.history.heartbeat import MAX_SILENCE, beat_once, heartbeat, seconds_since_beat
from tasks.history.shared_records import receive_records, remove_shared, send_file

if TYPE_CHECKING:  # at run time they would load torch, for which `excel runs` need not wait
    from tasks.engine.output import StageOutput
    from tasks.engine.stage import RunEnvironment

__all__ = ["Process", "Records", "RunRecord", "StageCost", "read_records", "start_record"]

FORMAT = "excel-run/1"
State = Literal["running", "complete", "failed", "stopped", "crashed"]
MAX_NAME = 80  # characters of a folder that is named after a run


class Process(BaseModel):
    """The process that runs it. `started`, as `start_ticks` gives it, tells it from a later one with the same pid; `machine`
    tells apart machines, containers and boots that have the same `host` name ("": of an earlier version)."""

    host: str
    pid: int
    started: int
    machine: str = ""

    @classmethod
    def current(cls) -> "Process":
        """This process."""
        started = start_ticks(os.getpid()) or 0
        return cls(host=socket.gethostname(), pid=os.getpid(), started=started, machine=machine())

    def alive(self) -> bool | None:
        """Whether it still runs; None where it cannot be seen from here, since it is of another machine."""
        if self.host != socket.gethostname() or self.machine not in ("", machine()):
            return None
        return start_ticks(self.pid) == self.started


class StageCost(BaseModel):
    """What building one of a run's own stages took, whenever that was: seconds and bytes of peak memory, as its output has
    them. `cached`: the run found it complete."""

    stage: str
    seconds: float
    peak_host_bytes: int | None
    peak_gpu_bytes: int | None
    cached: bool


class RunRecord(BaseModel):
    """One run. `outputs` lists everything it used as kind/identity, `building` what it is at, parts included; `own` the outputs
    of its own stages by name, `costs` what they took, in the same order (none in records of versions that did not measure).
    `left_out`: in words, what of the data folder it did not use, and why; each by name in left_out.csv of its `dataset`.
    `number`: 0 in records of versions that ordered by `started`. `pinned`: `excel gc` keeps it. `config`: the file that repeats
    it, as text. `folder`: its name below STORE/runs/by-name, unique in the store ("": of a version that made none)."""

    format: Literal["excel-run/1"] = "excel-run/1"
    id: str
    number: int = 0
    flow: str
    flow_run_id: str = ""
    flow_run_name: str = ""
    process: Process
    state: State = "running"
    message: str = ""
    started: str
    finished: str = ""
    spec: dict[str, Any]
    data: str | None
    device: str
    outputs: list[str] = []
    building: list[str] = []
    own: dict[str, str] = {}
    costs: list[StageCost] = []
    cached: list[str] = []
    headline: dict[str, float] = {}
    pinned: bool = False
    config: str = ""
    folder: str = ""
    left_out: list[str] = []
    store: Path = Field(exclude=True)

    @property
    def title(self) -> str:
        """What people call it: Prefect's name, where it has one, and its id."""
        return f"{self.flow_run_name} ({self.id})" if self.flow_run_name else self.id

    @property
    def ended_as(self) -> str:
        """Its state, where it is dead the one that nobody wrote down."""
        return "crashed" if self.dead else self.state

    @property
    def dead(self) -> bool:
        """It says that it runs, but its process is gone or, on another machine, silent for MAX_SILENCE. There a run of an
        earlier version gives no sign, and is taken to live."""
        if self.state != "running":
            return False
        alive = self.process.alive()
        if alive is None:
            silence = seconds_since_beat(self.heartbeat_file)
            alive = silence is None or silence < MAX_SILENCE
        return not alive

    @property
    def path(self) -> Path:
        """Its file."""
        return self.store / "records" / f"{self.id}.json"

    @property
    def heartbeat_file(self) -> Path:
        """The file that it touches while it is at work."""
        return self.path.with_name(f".{self.id}.alive")

    def at_work(self) -> AbstractContextManager[None]:
        """Around the run's work: other machines see that it goes on."""
        return heartbeat(self.heartbeat_file)

    @property
    def run(self) -> RunSpec:
        """What was asked, as the version of excel that ran it meant it; StoreError where this one cannot tell."""
        try:
            return RunSpec.model_validate(upgrade_run_fields(self.spec, self.device))
        except ValidationError as error:
            problem = error.errors()[0]
            field = ".".join(str(part) for part in problem["loc"])
            raise StoreError(
                f"run {self.id} is of another version of excel, which set {field}={problem['input']!r}; run it again"
            ) from None

    def output(self, stage: str) -> Path:
        """Output folder of one of its own stages, its files brought here where only the storage behind the store has them."""
        if stage not in self.own:
            raise SettingError(f"run {self.id} has no {stage}; it has {', '.join(self.own) or 'no output'}")
        return bring_here(self.store / stage / self.own[stage])

    def begin(self, outputs: Iterable[str]) -> None:
        """Note what is built next: what a killed run leaves of it belongs to the run."""
        self.building = list(outputs)
        self.save()

    def use(self, output: "StageOutput", cached: bool) -> None:
        """Note an output that the run was led to."""
        self.outputs.append(f"{output.stage}/{output.key}")
        self.building = []
        if cached:
            self.cached.append(f"{output.stage}/{output.key}")
        self.save()

    def note_own(self, outputs: "dict[str, StageOutput]") -> None:
        """Note the outputs of its own stages by name, all of which it was led to by `use`."""
        self.own = {name: output.key for name, output in outputs.items()}
        self.costs = [
            StageCost(
                stage=name,
                seconds=output.seconds,
                peak_host_bytes=output.peak_host_bytes,
                peak_gpu_bytes=output.peak_gpu_bytes,
                cached=f"{output.stage}/{output.key}" in self.cached,
            )
            for name, output in outputs.items()
        ]

    def end(self, state: State, message: str = "") -> None:
        """Note how it ended."""
        self.state, self.message, self.finished = state, message, _now()
        self.save()
        self.heartbeat_file.unlink(missing_ok=True)
        remove_shared(self.heartbeat_file)

    def save(self) -> None:
        """Write the record. StoreError where the store was removed: a record alone would make another."""
        if not self.path.parent.is_dir():
            raise StoreError(f"run {self.id}: {self.store} was removed while it was in use; run again")
        value = self.model_dump(mode="json")
        send_file(self.path, checked_json(value))
        write_checked_json(self.path, value)


class Records(list[RunRecord]):
    """Every readable record, oldest first; `unreadable`: files of the others, which are damaged or of another version."""

    unreadable: list[Path]


def start_record(
    flow: str, run: RunSpec, place: "RunEnvironment", flow_run_id: str = "", flow_run_name: str = "", config: str = ""
) -> RunRecord:
    """The record of a run that begins now, the newest of the store."""
    record = RunRecord(
        id=f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(3)}",
        flow=flow,
        flow_run_id=flow_run_id,
        flow_run_name=flow_run_name,
        process=Process.current(),
        started=_now(),
        spec=run.model_dump(mode="json"),
        data=str(place.data) if place.data else None,
        device=place.device,
        config=config,
        store=place.store,
    )
    folder = record.path.parent
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder / ".number.lock", f"another run begins in {place.store}; waiting for it"):
        earlier = read_records(place.store)
        record.number = 1 + max((other.number for other in earlier), default=0)
        record.folder = _folder_name(record, {other.folder.casefold() for other in earlier})
        beat_once(record.heartbeat_file)
        record.save()
    return record


def read_records(store: Path) -> Records:
    """The store's records, as far as they are readable."""
    receive_records(store)
    records = Records()
    records.unreadable = []
    for path in sorted((store / "records").glob("*.json")):
        try:
            records.append(RunRecord(**read_checked_json(path, unchecked=(FORMAT,)), store=store))
        except (StoreError, ValidationError, TypeError):
            if path.exists():
                records.unreadable.append(path)
    records.sort(key=lambda record: (record.number, record.started))
    return records


def _readable_name(text: str) -> str:
    """`text` as the name of a file: letters, digits and . _ - of ASCII alone; "" where nothing of it is left."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-.")[:MAX_NAME]


def _folder_name(record: RunRecord, taken: Collection[str]) -> str:
    """Prefect's name of the run, with the end of its id where an earlier run has that name; else its id."""
    name = _readable_name(record.flow_run_name) or record.id
    is_taken = name.casefold() in taken or (record.store / "runs" / "by-name" / name).exists()
    return f"{name}-{record.id[-6:]}" if is_taken else name


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds")  # two runs may begin within a millisecond
