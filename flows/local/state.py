"""What `excel up` runs in a store: STORE/prefect/up.json, and the server it names, asked through Prefect's REST API."""

import fcntl
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

from excel_core.errors import ServerError
from flows.local.processes import Process, is_running

__all__ = ["Installation", "alone", "api_url", "call", "read_state", "store_folder", "write_state"]

FILE = "up.json"


@dataclass(frozen=True)
class Installation:
    """What runs, as up.json holds it. `database` is shown, never used: its password is left out. `mark` is in the
    environment of all its processes; `deployed` is a digest of what the deployments were made from."""

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
    """The store that is meant, absolute: `store`, else $EXCEL_STORE, else runs/."""
    return Path(store or os.environ.get("EXCEL_STORE") or "runs").resolve()


def read_state(store: Path) -> Installation | None:
    """What up.json says, without the processes that are gone."""
    try:
        record = json.loads((store / "prefect" / FILE).read_text())
        found = {name: Process(**record[name]) if record[name] else None for name in ("server", "worker")}
        alive = {name: process if process and is_running(process) else None for name, process in found.items()}
        return Installation(record["mark"], record["port"], record["database"], **alive, deployed=record["deployed"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def api_url(store: Path) -> str | None:
    """The API of the server that `excel up` runs for this store, if it does."""
    now = read_state(store)
    return f"{now.ui}/api" if now and now.server else None


def call(now: Installation, path: str, body: Any = None) -> Any:
    """Prefect's REST API; None where it does not answer or knows no such thing."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"{now.ui}/api/{path}", data, {"Content-Type": "application/json"})
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # no proxy stands before this machine
    for _ in range(60):
        try:
            with opener.open(request, timeout=30) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            if error.code != 503:  # SQLite was locked by another request: Prefect's own client tries again too
                return None
            time.sleep(0.5)
        except (OSError, ValueError):
            return None
    return None


@contextmanager
def alone(home: Path) -> Iterator[None]:
    """One `excel up` or `excel down` at a time."""
    with (home / "up.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ServerError(f"another `excel up` or `excel down` is at work in {home}; wait for it") from None
        yield


def write_state(home: Path, now: Installation) -> None:
    new = home / f"{FILE}.new"
    new.write_text(json.dumps({"format": "excel-up/1", **asdict(now)}, indent=1) + "\n")
    os.replace(new, home / FILE)
