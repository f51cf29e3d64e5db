"""`excel demo` killed by SIGKILL: the Prefect server that it started ends, and so do the workers of its Dask cluster.

Only the command itself is killed, as the system's out-of-memory killer does it, at moments from its first on.
"""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tests.conftest import ROOT, SMALL_DEMO
from tests.faults.conftest import Record
from tests.up import PATIENCE

COMMAND = [sys.executable, "-c", "from flows.cli import main; main()", "demo"]
SERVER = "flows.local.serve"
LONG = [*SMALL_DEMO, "train.iterations=100000"]  # it ends by the kill alone


class Command:
    """A running `excel demo` in a session of its own."""

    def __init__(self, folder: Path, runner: str) -> None:
        options = ["--store", str(folder / "store"), "--runner", runner, *(part for one in LONG for part in ("--set", one))]
        self.log = folder / "log"
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT_API", "PREFECT_HOME", "EXCEL_"))}
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [*COMMAND, *options], stdout=log, stderr=log, cwd=ROOT, env=clean, start_new_session=True
            )

    def processes(self) -> list[psutil.Process]:
        """Those of its session that live: itself and what it started."""
        running = []
        for process in psutil.process_iter(["pid", "status"]):
            if process.info["status"] != psutil.STATUS_ZOMBIE:
                try:
                    if os.getsid(process.pid) == self.process.pid:
                        running.append(process)
                except ProcessLookupError:
                    pass
        return running

    def server(self) -> psutil.Process | None:
        return next((process for process in self.processes() if SERVER in _command_line(process)), None)

    def is_ready(self) -> bool:
        """Whether its server has answered, so that the flow runs."""
        return "dataset" in self.said()

    def said(self) -> str:
        return self.log.read_text(errors="replace")

    def until(self, condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert self.process.poll() is None and time.monotonic() < deadline, self.said()
            time.sleep(0.02)

    def kill(self) -> list[str]:
        """SIGKILL to the command alone → the command lines of what still lives PATIENCE later; usually nothing, at once."""
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait()
        deadline = time.monotonic() + PATIENCE
        while (left := self.processes()) and time.monotonic() < deadline:
            time.sleep(0.05)
        return [_command_line(process) for process in left]


def _command_line(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def _listening(server: psutil.Process) -> list[int]:
    return [one.laddr.port for one in server.net_connections("tcp") if one.status == psutil.CONN_LISTEN]


def test_a_killed_command_leaves_no_server(tmp_path: Path, soak: bool, figures: Record) -> None:
    """From the moment that the server's process begins, through its start, to well into the run."""
    seconds = [0.0, 0.1, 0.3, 1.0] + [random.Random(seed).uniform(0, 40) for seed in range(16)] if soak else [0.0, 3.0]
    took = []
    for number, wait in enumerate(seconds):
        (folder := tmp_path / str(number)).mkdir()
        command = Command(folder, "sequential")
        command.until(command.server)
        time.sleep(wait)
        began = time.monotonic()
        assert command.kill() == [], f"killed {wait} s after its server began"
        took.append(time.monotonic() - began)
    figures("killed_commands", kills=len(seconds), left=0, longest_seconds=round(max(took), 1))


@pytest.mark.parametrize("runner", ["sequential", "dask"])
def test_a_killed_run_leaves_no_process_and_no_listener(tmp_path: Path, runner: str) -> None:
    """In its flow, with the server up, and with the workers of a cluster."""
    command = Command(tmp_path, runner)
    command.until(command.server)
    server = command.server()
    assert server is not None
    (port,) = _listening(server)
    environment = server.environ()
    assert environment["PREFECT_SERVER_API_AUTH_STRING"] not in _command_line(server) + command.said()
    command.until(lambda: "refine: " in command.said())
    assert len(command.processes()) > (3 if runner == "dask" else 1)
    database = tmp_path / "store" / "prefect" / "prefect.db"
    assert database.stat().st_mode & 0o77 == 0 == database.parent.stat().st_mode & 0o77
    assert command.kill() == []
    with pytest.raises(ConnectionRefusedError):
        _connect(port)


def _connect(port: int) -> None:
    import socket

    socket.create_connection(("127.0.0.1", port), timeout=5).close()
