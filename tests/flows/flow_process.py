"""A flow in a process group of its own, to be stopped at any moment.

It is forked from a server that has imported everything, so that it starts within a second. What it begins to build, and
each iteration of training, goes into a log before it is done.
"""

import multiprocessing
import os
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import prefect.settings

from flows import stages

__all__ = ["FlowProcess", "builds", "iterations"]

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload([__name__])


@dataclass(frozen=True)
class FlowProcess:
    """A running flow; `log` is what it begins, a line each."""

    process: ForkServerProcess
    log: Path

    @classmethod
    def start(cls, log: Path, store: Path, settings: Sequence[str], stage: str, runner: str = "sequential") -> "FlowProcess":
        """Run `stage` of the demo, against this session's server."""
        current = prefect.settings.get_current_settings()
        server = {"PREFECT_API_URL": str(current.api.url), "PREFECT_HOME": str(current.home)}
        process = CONTEXT.Process(target=_run, args=(log, server, stage, str(store), list(settings), runner))
        process.start()
        return cls(process, log)

    @property
    def alive(self) -> bool:
        return self.process.is_alive()

    def kill(self) -> None:
        """SIGKILL to the flow and every process it started."""
        os.killpg(self.process.pid or 0, signal.SIGKILL)
        self.process.join()

    def begun(self) -> list[str]:
        """Lines of the log that are this process's own: "build KIND/KEY" and "iteration N"."""
        if not self.log.exists():
            return []
        lines = [line.split(" ", 1) for line in self.log.read_text().splitlines()]
        return [event for pid, event in lines if pid == str(self.process.pid)]


def builds(lines: Sequence[str]) -> list[str]:
    """What was begun to be built."""
    return [line.removeprefix("build ") for line in lines if line.startswith("build ")]


def iterations(lines: Sequence[str]) -> list[int]:
    """The iterations that were begun."""
    return [int(line.removeprefix("iteration ")) for line in lines if line.startswith("iteration ")]


def _run(log: Path, server: dict[str, str], stage: str, store: str, settings: list[str], runner: str) -> None:
    os.setsid()
    output = os.open(log.with_suffix(".out"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    _log_what_begins(log)
    updates = {getattr(prefect.settings, name): value for name, value in server.items()}
    with prefect.settings.temporary_settings(updates):
        getattr(stages, stage)("demo", settings=settings, store=store, runner=runner)


def _log_what_begins(log: Path) -> None:
    """One write a line, at the end of the file: whole lines, whoever else writes, up to the moment of a kill."""
    import excel_core.training.loop
    import tasks.engine.executor

    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def note(text: str) -> None:
        os.write(file, f"{os.getpid()} {text}\n".encode())

    build, train = tasks.engine.executor._build_guarded, excel_core.training.loop.training_step

    def noted_build(step):  # type: ignore[no-untyped-def]
        note(f"build {step.kind}/{step.key}")
        return build(step)

    def noted_step(cam_model, segmenter, optimiser, batch, iteration, *rest):  # type: ignore[no-untyped-def]
        note(f"iteration {iteration}")
        return train(cam_model, segmenter, optimiser, batch, iteration, *rest)

    tasks.engine.executor._build_guarded, excel_core.training.loop.training_step = noted_build, noted_step
