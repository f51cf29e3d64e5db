"""Processes that outlive the command that started them, and how to end exactly those.

A pid alone may have been given to another program meanwhile, so a process is named by its pid and its start time. What
they start in turn (flow runs, also those whose worker is dead) is found by a mark in the environment, which children
inherit. Linux only: both are read from /proc.
"""

import os
import signal
import subprocess
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

__all__ = ["MARK", "Process", "end", "is_running", "marked", "start_detached"]

MARK = "EXCEL_UP"
PROC = Path("/proc")


@dataclass(frozen=True)
class Process:
    """One process for ever: its pid, and its start in clock ticks since boot."""

    pid: int
    start: int


def start_detached(command: list[str], env: dict[str, str], cwd: Path, log: Path) -> Process:
    """Start `command` in a session of its own, so that no terminal ends it; output is appended to `log`."""
    with log.open("ab") as out:
        started = subprocess.Popen(
            command, env=env, cwd=cwd, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True
        )
    started.returncode = 0  # nobody waits for it here; without this, Popen warns when it is forgotten
    return Process(started.pid, _start(started.pid) or 0)


def is_running(process: Process) -> bool:
    """Whether that very process lives; a dead one that nobody has waited for (a zombie) does not."""
    return _start(process.pid) == process.start


def end(processes: Iterable[Process], seconds: float) -> None:
    """Ask all of them to end (SIGTERM); kill what is left after `seconds`."""
    waiting = [process for process in processes if is_running(process)]
    for process in waiting:
        _send(process, signal.SIGTERM)
    until = time.monotonic() + seconds
    while waiting and time.monotonic() < until:
        time.sleep(0.1)
        waiting = [process for process in waiting if is_running(process)]
    for process in waiting:
        _send(process, signal.SIGKILL)
    while any(is_running(process) for process in waiting):
        time.sleep(0.05)


def marked(mark: str) -> dict[Process, dict[str, str]]:
    """Every other process of this user whose environment carries `mark` → that environment."""
    found = {}
    for folder in PROC.glob("[0-9]*"):
        start = _start(int(folder.name))
        try:
            lines = (folder / "environ").read_bytes().decode(errors="replace").split("\0")
        except OSError:  # another user's, or gone by now
            continue
        environment = dict(line.partition("=")[::2] for line in lines)
        if environment.get(MARK) == mark and start is not None and int(folder.name) != os.getpid():
            found[Process(int(folder.name), start)] = environment
    return found


def _start(pid: int) -> int | None:
    """Start time of a living process: field 22 of /proc/PID/stat, counted after the name, which may hold spaces."""
    try:
        fields = (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else int(fields[19])


def _send(process: Process, sign: signal.Signals) -> None:
    if is_running(process):
        with suppress(ProcessLookupError):
            os.kill(process.pid, sign)
