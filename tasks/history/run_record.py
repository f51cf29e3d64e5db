"""The store's memory of its runs: what was asked, which outputs it led to, how it ended.

    STORE/records/<id>.json     excel-run/1, rewritten after every stage; <id> is the start (UTC) and a random end

A record whose state is `running` while its process is gone belongs to a run that was killed.
"""

import os
import secrets
import socket
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, Field, ValidationError

from excel_core.config import RunSpec
from excel_core.config.base import upgrade_run_fields
from excel_core.errors import SettingError, StoreError
from excel_core.files import read_json, write_json
from tasks.engine.output import StageOutput
from tasks.engine.process_start import start_ticks
from tasks.engine.stage import RunEnvironment

__all__ = ["RunRecord", "StageCost", "find_record", "read_records", "start_record"]

State = Literal["running", "complete", "failed", "stopped", "crashed"]


class Process(BaseModel):
    """The process that runs it. `started`, as `start_ticks` gives it, tells it from a later one with the same pid."""

    host: str
    pid: int
    started: int

    @classmethod
    def current(cls) -> "Process":
        """This process."""
        return cls(host=socket.gethostname(), pid=os.getpid(), started=start_ticks(os.getpid()) or 0)

    def alive(self) -> bool:
        """Whether it still runs. A process on another host is taken to."""
        return self.host != socket.gethostname() or start_ticks(self.pid) == self.started


class StageCost(BaseModel):
    """What building one of a run's own stages took, whenever that was: seconds and bytes of peak memory, as its output has
    them. `cached`: the run found it complete."""

    stage: str
    seconds: float
    peak_host_bytes: int | None
    peak_gpu_bytes: int | None
    cached: bool


class RunRecord(BaseModel):
    """One run. `outputs` lists everything it used as kind/identity; `own` the outputs of its own stages by name, `costs`
    what they took, in the same order (none in records of versions that did not measure)."""

    format: Literal["excel-run/1"] = "excel-run/1"
    id: str
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
    own: dict[str, str] = {}
    costs: list[StageCost] = []
    cached: list[str] = []
    headline: dict[str, float] = {}
    store: Path = Field(exclude=True)

    @property
    def dead(self) -> bool:
        """It says that it runs, but its process is gone."""
        return self.state == "running" and not self.process.alive()

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
        """Output folder of one of its own stages."""
        if stage not in self.own:
            raise SettingError(f"run {self.id} has no {stage}; it has {', '.join(self.own) or 'no output'}")
        return self.store / stage / self.own[stage]

    def use(self, output: StageOutput, cached: bool) -> None:
        """Note an output that the run was led to."""
        self.outputs.append(f"{output.stage}/{output.key}")
        if cached:
            self.cached.append(f"{output.stage}/{output.key}")
        self.save()

    def note_own(self, outputs: dict[str, StageOutput]) -> None:
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

    def save(self) -> None:
        """Write the record."""
        write_json(self.store / "records" / f"{self.id}.json", self.model_dump(mode="json"))


def start_record(flow: str, run: RunSpec, place: RunEnvironment, flow_run_id: str = "", flow_run_name: str = "") -> RunRecord:
    """The record of a run that begins now."""
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
        store=place.store,
    )
    record.save()
    return record


def read_records(store: Path) -> list[RunRecord]:
    """Every readable record, oldest first."""
    records = []
    for path in (store / "records").glob("*.json"):
        try:
            records.append(RunRecord(**read_json(path), store=store))
        except (StoreError, ValidationError, TypeError):
            continue  # of another version, or damaged: it keeps nothing alive
    return sorted(records, key=lambda record: record.started)


def find_record(store: Path, name: str) -> RunRecord:
    """The run whose id, or flow run name, begins with `name`; `latest` is the newest. SettingError lists what there is."""
    records = read_records(store)
    if name == "latest" and records:
        return records[-1]
    found = [record for record in records if record.id.startswith(name) or record.flow_run_name == name]
    if len(found) != 1:
        what = "several runs" if found else "no run"
        listed = ", ".join(record.id for record in (found or records)[-10:]) or "none"
        raise SettingError(f"{store} has {what} named {name!r}; runs: {listed}")
    return found[0]


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds")  # two runs may begin within a millisecond
