"""Processes that outlive the command that started them, and how to end exactly those.

What they start in turn, flow runs also when their worker is dead, has a mark in its environment, which children inherit.
"""

import os
import subprocess
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from tasks.engine.process_start import start_ticks

__all__ = ["MARK", "Process", "end", "is_running", "marked", "start_detached"]

MARK = "EXCEL_UP"


@dataclass(frozen=True)
class Process:
    """One process for ever: its pid, and its start as `start_ticks` gives it."""

    pid: int
    start: int


def start_detached(command: list[str], env: dict[str, str], cwd: Path, log: Path, **options: Any) -> Process:
    """Start `command` in a session of its own, so that no terminal ends it. Its output is appended to `log`, mode 0600.
    `options` are Popen's."""
    with os.fdopen(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab") as output:
        started = subprocess.Popen(  # noqa: S603  this Python with Prefect's modules; no shell
            command, env=env, cwd=cwd, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True, **options
        )
    started.returncode = 0  # nobody waits for it here; without this, Popen warns when it is forgotten
    return Process(started.pid, start_ticks(started.pid) or 0)


def is_running(process: Process) -> bool:
    """Whether that very process lives. A zombie does not."""
    return start_ticks(process.pid) == process.start


def end(processes: Iterable[Process], seconds: float) -> None:
    """Ask all of them to end (SIGTERM); after `seconds`, kill those that have not."""
    running = [process for process in processes if is_running(process)]
    for process in running:
        with suppress(psutil.NoSuchProcess):
            psutil.Process(process.pid).terminate()
    # psutil.wait_procs would wait for ever for a zombie of a parent that never waits for it.
    running = _still_running(running, seconds)
    for process in running:
        with suppress(psutil.NoSuchProcess):
            psutil.Process(process.pid).kill()
    _still_running(running, float("inf"))


def marked(mark: str) -> dict[Process, dict[str, str]]:
    """Every other process of this user whose environment carries `mark` → that environment."""
    environments = {}
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):  # another user's, or gone by now
            environment = process.environ()
            start = start_ticks(process.pid)
            if environment.get(MARK) == mark and start is not None and process.pid != os.getpid():
                environments[Process(process.pid, start)] = environment
    return environments


def _still_running(processes: list[Process], seconds: float) -> list[Process]:
    """Wait up to `seconds` for all of them to end → those that have not."""
    deadline = time.monotonic() + seconds
    while (running := [process for process in processes if is_running(process)]) and time.monotonic() < deadline:
        time.sleep(0.05)
    return running
