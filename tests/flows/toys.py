"""A stage whose parts do what a test asks of them, and a flow that builds it. Dask's workers import this module."""

import os
import signal
import threading
import time
from functools import partial
from pathlib import Path

from prefect import flow

from excel_core.config import RunSpec
from excel_core.config.presets import preset
from excel_core.errors import DataError
from flows.runners import parts_builder
from tasks.engine.executor import build_stage, part_steps
from tasks.engine.output import StageOutput, StageResult, read_marker
from tasks.engine.prefect_task import run_step
from tasks.engine.stage import Job, KeyParts, Part, RunEnvironment, Sharded, Stage

__all__ = ["build_toys", "pids_of", "toys"]


def toys(environment: RunEnvironment, **deeds: str) -> Job:
    """The job of a stage with a part for each deed: {part's name: what it does}."""
    work = Sharded(partial(_parts, deeds), _build, _join)
    stage = Stage("toys", (), "all.txt", work, KeyParts(_settings), on_device=True)
    return Job(stage, preset("demo"), environment, {})


@flow(name="toys", persist_result=False)
def build_toys(job: Job, runner: str) -> StageOutput:
    """As flows/chain_run.py builds a stage."""
    with parts_builder(runner, job.environment) as build_parts:
        return build_stage(job, run_step, build_parts)


def pids_of(job: Job) -> dict[str, int]:
    """Which process built each of the parts that are complete."""
    folders = {step.part.name: step.folder for step in part_steps(job) if step.part}
    return {name: read_marker(folder).origin.pid for name, folder in folders.items() if folder.is_dir()}


def _settings(run: RunSpec) -> dict[str, str]:
    return {}


def _parts(deeds: dict[str, str], job: Job) -> list[Part]:
    return [Part(name, items=1, key={"name": name, "deed": deed}, kind=deed) for name, deed in deeds.items()]


def _build(job: Job, part: Part, folder: Path) -> StageResult:
    store, deed = job.environment.store, part.kind
    (store / "tries").mkdir(exist_ok=True)
    mark = store / "tries" / f"{part.name}-{time.monotonic_ns()}"
    mark.write_text(f"{os.getpid()} {threading.get_ident()}")
    tries = len(list(mark.parent.glob(f"{part.name}-*")))
    if deed == "die" or (deed == "die once" and tries == 1):
        os.kill(os.getpid(), signal.SIGKILL)
    if deed == "fail":
        raise DataError(f"toys {part.name} fails for good")
    if deed == "open a mask":
        (store / "SegmentationClass" / "a.png").read_bytes()
    if deed == "meet":
        _meet(mark.parent)
    if deed == "be alone":
        _be_alone(store / "inside" / part.name)
    (folder / "part.txt").write_text(part.name)
    return StageResult()


def _meet(folder: Path) -> None:
    """Wait until another process or thread is here."""
    deadline = time.monotonic() + 60
    while len({mark.read_text() for mark in folder.glob("*")}) < 2:
        assert time.monotonic() < deadline, "no other process came"
        time.sleep(0.01)


def _be_alone(mark: Path) -> None:
    """Fail when another part comes in meanwhile."""
    mark.parent.mkdir(exist_ok=True)
    mark.touch()
    time.sleep(0.3)
    assert list(mark.parent.iterdir()) == [mark]
    mark.unlink()


def _join(job: Job, parts: dict[str, StageOutput], folder: Path) -> StageResult:
    (folder / "all.txt").write_text("".join((part.folder / "part.txt").read_text() for part in parts.values()))
    return StageResult()
