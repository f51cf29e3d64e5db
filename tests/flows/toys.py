"""A stage whose parts do what a test asks of them, and a flow that builds it. Dask's workers import this module."""

import os
import signal
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any

from prefect import flow

from excel_core.config.presets import preset
from excel_core.errors import DataError
from flows.runners import parts_builder
from tasks.engine.build import part_works, run_stage
from tasks.engine.outputs import StageOutput, read_marker
from tasks.engine.prefect_task import work_task
from tasks.engine.stage import Part, RunEnvironment, Stage, Work

__all__ = ["build_toys", "pids_of", "toys"]


def toys(place: RunEnvironment, **deeds: str) -> Work:
    """The work of a stage with a part a deed: {part's name: what it does}."""
    stage = Stage("toys", (), _spec, _join, parts=partial(_parts, deeds), build_part=_build, on_device=True)
    return Work(stage, preset("demo"), place, {})


@flow(name="toys", persist_result=False)
def build_toys(work: Work, runner: str) -> StageOutput:
    """As flows/chain_run.py builds a stage."""
    with parts_builder(runner, work.place) as build_parts:
        return run_stage(work, lambda piece: work_task(piece)(piece), build_parts)


def pids_of(work: Work) -> dict[str, int]:
    """Which process built each of the parts that are complete."""
    folder = work.place.store / "toys-parts"
    found = {piece.this_part.name: folder / piece.identity() for piece in part_works(work)}
    return {name: read_marker(path)["origin"]["pid"] for name, path in found.items() if path.is_dir()}


def _spec(run: Any) -> dict[str, Any]:
    return {}


def _parts(deeds: dict[str, str], work: Work) -> list[Part]:
    return [Part(name=name, items=1, key={"name": name, "deed": deed}, about={"deed": deed}) for name, deed in deeds.items()]


def _build(work: Work) -> dict[str, Any]:
    store, deed = work.place.store, work.this_part.about["deed"]
    (store / "tries").mkdir(exist_ok=True)
    mark = store / "tries" / f"{work.this_part.name}-{time.monotonic_ns()}"
    mark.write_text(f"{os.getpid()} {threading.get_ident()}")
    tries = len(list(mark.parent.glob(f"{work.this_part.name}-*")))
    if deed == "die" or (deed == "die once" and tries == 1):
        os.kill(os.getpid(), signal.SIGKILL)
    if deed == "fail":
        raise DataError(f"{work.name} fails for good")
    if deed == "open a mask":
        (store / "SegmentationClass" / "a.png").read_bytes()
    if deed == "meet":
        _meet(mark.parent)
    if deed == "be alone":
        _be_alone(store / "inside" / work.this_part.name)
    (work.folder / "part.txt").write_text(work.this_part.name)
    return {}


def _meet(folder: Path) -> None:
    """Wait until another process or thread is here."""
    until = time.monotonic() + 60
    while len({mark.read_text() for mark in folder.glob("*")}) < 2:
        assert time.monotonic() < until, "no other process came"
        time.sleep(0.01)


def _be_alone(mark: Path) -> None:
    """Fail when another part comes in meanwhile."""
    mark.parent.mkdir(exist_ok=True)
    mark.touch()
    time.sleep(0.3)
    assert list(mark.parent.iterdir()) == [mark]
    mark.unlink()


def _join(work: Work) -> dict[str, Any]:
    (work.folder / "all.txt").write_text("".join((part.folder / "part.txt").read_text() for part in work.parts.values()))
    return {}
