"""One Prefect server for a whole test run, shared by the processes of pytest-xdist, and what it knows of a run.

The first test that needs it starts it; the process that pytest was started as stops it, after its last worker has ended. It
also ends when that process is killed.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil
from filelock import FileLock

from flows.local.server_settings import SERVER_SETTINGS

__all__ = ["PATIENCE_SECONDS", "Server", "connected", "make_folder", "own_server", "shared_server", "stop_shared_server"]

PATIENCE_SECONDS = 400  # until something that never comes is called missing; a slow machine is no failure
# Runs a command until process $0 is gone, then ends its own process group.
WATCH = '"$@" & while kill -0 "$0" 2>/dev/null && kill -0 $! 2>/dev/null; do sleep 1; done; kill -TERM 0'
FOLDER = "EXCEL_TEST_SERVER"  # environment variable: the folder that the processes of a run share


@dataclass(frozen=True)
class Server:
    """A running `prefect server`: its address, its folder with the database, and its process."""

    url: str
    home: Path
    pid: int

    @property
    def database(self) -> Path:
        """Its SQLite file."""
        return self.home / "prefect.db"

    def environment(self) -> dict[str, str]:
        """Variables for a process that is to use it, and nothing else of Prefect's."""
        own = {"PREFECT_HOME": str(self.home), "PREFECT_API_URL": f"{self.url}/api", "DO_NOT_TRACK": "1"}
        return {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")} | own


def shared_server() -> Server:
    """The run's server, started if no process of the run has done so."""
    folder = Path(os.environ[FOLDER])
    with FileLock(folder / "lock"):
        file = folder / "server.json"
        if not file.exists():
            file.write_text(json.dumps(asdict(_start(folder / "home")), default=str))
        found = json.loads(file.read_text())
    return Server(found["url"], Path(found["home"]), found["pid"])


def make_folder() -> None:
    """Make the folder that this process, as which pytest was started, shares with its workers."""
    folder = tempfile.mkdtemp(prefix="excel-tests-")
    (Path(folder) / "pid").write_text(str(os.getpid()))
    os.environ[FOLDER] = folder


def stop_shared_server() -> None:
    """End the server that a process of this run started, if one did, and remove the folder."""
    folder = Path(os.environ.pop(FOLDER))
    if (folder / "server.json").exists():
        pid = json.loads((folder / "server.json").read_text())["pid"]
        process = psutil.Process(pid)
        os.killpg(pid, signal.SIGTERM)  # of the session that it was started in: itself and its children
        process.wait(timeout=PATIENCE_SECONDS)
    shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def own_server(folder: Path) -> Iterator[Server]:
    """A server for one test alone, with its database in `folder`/home; it ends with the block, or with this process."""
    (folder / "pid").write_text(str(os.getpid()))
    server = _start(folder / "home")
    try:
        yield server
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        _STARTED.pop().wait(timeout=PATIENCE_SECONDS)


@contextmanager
def connected(server: Server) -> Iterator[None]:
    """Prefect in this process uses the server, in every thread; what is still to be sent is sent at the end."""
    from prefect import context, settings
    from prefect.events.worker import EventsWorker
    from prefect.logging.handlers import APILogWorker

    updates = {
        settings.PREFECT_API_URL: f"{server.url}/api",
        settings.PREFECT_HOME: server.home,
        settings.PREFECT_SERVER_DATABASE_CONNECTION_URL: f"sqlite+aiosqlite:///{server.database}",
    }
    with (
        settings.temporary_settings(updates),
        context._temporary_global_settings_context(context.get_settings_context()),
    ):
        yield
        APILogWorker.drain_all(timeout=5)
        EventsWorker.drain_all(timeout=5)


def _start(home: Path) -> Server:
    home.mkdir()
    url = f"http://127.0.0.1:{_free_port()}"
    server = Server(url, home, 0)
    settings = SERVER_SETTINGS | {"PREFECT_UI_API_URL": f"{url}/api", "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", url.rpartition(":")[2]]
    watched = ["sh", "-c", WATCH, (home.parent / "pid").read_text(), *command]
    with (home / "server.log").open("w") as log:
        process = subprocess.Popen(
            watched, env=server.environment() | settings, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
    _STARTED.append(process)
    deadline = time.monotonic() + PATIENCE_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(f"{url}/api/health", timeout=5):
                return Server(url, home, process.pid)
        except (urllib.error.URLError, TimeoutError):
            time.sleep(0.2)
    raise AssertionError(f"no Prefect server at {url}:\n{(home / 'server.log').read_text()[-2000:]}")


_STARTED: list[subprocess.Popen[bytes]] = []  # held, so that it is not said to be forgotten


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
