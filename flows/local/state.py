"""What `excel up` runs in a store: STORE/prefect/up.json, and the server that it names, asked through Prefect's REST API."""

import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from excel_core.errors import ServerError
from flows.local.processes import Process, is_running

__all__ = ["Installation", "alone", "api_url", "call_api", "read_state", "store_folder", "write_state"]

FILE = "up.json"
MAX_TRIES = 60  # while the server's database is locked


@dataclass(frozen=True)
class Installation:
    """What runs, as up.json holds it.

    `database` is shown, never used: its password is left out. `mark` is in the environment of all its processes.
    `deployed` is a digest of the files that the deployments were made from.
    """

    mark: str
    port: int
    database: str
    server: Process | None = None
    worker: Process | None = None
    deployed: str = ""

    @property
    def ui(self) -> str:
        return f"http://127.0.0.1:{self.port}"


def store_folder(store: str | Path | None) -> Path:
    """The store, absolute: `store`, else $EXCEL_STORE, else runs/."""
    return Path(store or os.environ.get("EXCEL_STORE") or "runs").resolve()


def read_state(store: Path) -> Installation | None:
    """What up.json says, without the processes that are gone. None where it is missing or damaged."""
    try:
        record = json.loads((store / "prefect" / FILE).read_text())
        processes = {name: Process(**record[name]) if record[name] else None for name in ("server", "worker")}
        running = {name: process if process and is_running(process) else None for name, process in processes.items()}
        return Installation(record["mark"], record["port"], record["database"], **running, deployed=record["deployed"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write_state(home: Path, installation: Installation) -> None:
    """Write up.json in `home`, STORE/prefect."""
    from excel_core.files import write_json  # imports torch, which would slow down every `excel --help`

    write_json(home / FILE, {"format": "excel-up/1", **asdict(installation)})


def api_url(store: Path) -> str | None:
    """The API of the server that `excel up` runs for this store; None where it runs none."""
    installation = read_state(store)
    return f"{installation.ui}/api" if installation and installation.server else None


def call_api(installation: Installation, path: str, body: Any = None) -> Any:
    """Ask Prefect's REST API: GET, or POST where there is a body. None where it does not answer or knows no such thing."""
    data = None if body is None else json.dumps(body).encode()
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"{installation.ui}/api/{path}", data, headers)  # noqa: S310  of our own server
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # no proxy stands before this machine
    for _ in range(MAX_TRIES):
        try:
            with opener.open(request, timeout=30) as response:
                return json.load(response)
        except urllib.error.HTTPError as error:
            if error.code != 503:  # SQLite was locked by another request: Prefect's own client tries again too
                return None
            time.sleep(0.5)
        except (OSError, ValueError):
            return None
    return None


@contextmanager
def alone(home: Path) -> Iterator[None]:
    """One `excel up` or `excel down` at a time; ServerError while another is at work."""
    try:
        lock = FileLock(home / "up.lock").acquire(timeout=0)
    except Timeout:
        raise ServerError(f"another `excel up` or `excel down` is at work in {home}; wait for it") from None
    with lock:
        yield
