"""What `excel up` runs in a store: STORE/prefect/up.json, and the server that it names, asked through Prefect's REST API."""

import base64
import json
import os
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from excel_core.errors import ServerError, SettingError
from flows.local.access import credential_of, make_credential, server_settings, write_profile
from flows.local.private import private_folder, write_private
from flows.local.processes import Process, is_running
from tasks.engine.object_store import cache_folder, is_address

__all__ = [
    "DEFAULT_PORT",
    "Installation",
    "alone",
    "call_api",
    "keep_private",
    "read_state",
    "running_server",
    "store_folder",
    "write_state",
]

FILE = "up.json"
FORMAT = "excel-up/2"  # 1: its server asks for no key
DEFAULT_PORT = 4200
MAX_TRIES = 60  # while the server's database is locked


@dataclass(frozen=True)
class Installation:
    """What runs, as up.json holds it.

    `database` is shown, never used: its password is left out. `mark` is in the environment of all its processes.
    `deployed` is a digest of the files that the deployments were made from. `credential`, the server's key, is not in up.json
    and not shown; it is empty for a server that asks for none, of an earlier excel.
    """

    mark: str
    port: int
    database: str
    server: Process | None = None
    worker: Process | None = None
    deployed: str = ""
    credential: str = field(default="", repr=False)

    @property
    def ui(self) -> str:
        return f"http://127.0.0.1:{self.port}"


def store_folder(store: str | Path | None) -> Path:
    """The store's folder, absolute: `store`, else $EXCEL_STORE, else runs/; of an address s3://…, this machine's copy.
    SettingError where that, or what it would be in, is a file."""
    name = str(store or os.environ.get("EXCEL_STORE") or "runs")
    return cache_folder(name) if is_address(name) else _folder(name, "--store" if store else "EXCEL_STORE")


def _folder(name: str, setting: str) -> Path:
    folder = Path(name).resolve()
    nearest = next(path for path in (folder, *folder.parents) if path.exists() or path.is_symlink())
    if not nearest.is_dir():
        raise SettingError(f"{setting} {name}: {nearest} is a file; name a folder, which is made where it is missing")
    return folder


def read_state(store: Path) -> Installation | None:
    """What up.json says, without the processes that are gone. None where it is missing or damaged."""
    try:
        home = store / "prefect"
        record = json.loads((home / FILE).read_text(encoding="utf-8"))
        processes = {name: Process(**record[name]) if record[name] else None for name in ("server", "worker")}
        running = {name: process if process and is_running(process) else None for name, process in processes.items()}
        credential = credential_of(home) if record["format"] == FORMAT else ""
        fields = (record["mark"], record["port"], record["database"], running["server"], running["worker"], record["deployed"])
        return Installation(*fields, credential=credential)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write_state(home: Path, installation: Installation) -> None:
    """Write up.json in `home`, STORE/prefect."""
    record = {"format": FORMAT, **asdict(installation)}
    del record["credential"]
    write_private(home / FILE, json.dumps(record, indent=2) + "\n")


def running_server(store: Path) -> Installation | None:
    """What `excel up` runs for this store, if its server lives."""
    installation = read_state(store)
    return installation if installation and installation.server else None


def keep_private(home: Path) -> None:
    """Make or repair `home`, STORE/prefect, for a command that needs no `excel up`: its key and its profile, which names no
    server unless one runs."""
    private_folder(home, lambda text: print(text, flush=True))
    with suppress(ServerError), alone(home):  # else `excel up` is at it
        if running_server(home.parent) is None:
            credential = make_credential(home)
            # for a server started by hand, and what is given its address
            write_profile(home, server_settings(credential, DEFAULT_PORT) | {"PREFECT_API_AUTH_STRING": credential})


def call_api(installation: Installation, path: str, body: Any = None) -> Any:
    """Ask Prefect's REST API: GET, or POST where there is a body. None where it does not answer or knows no such thing.
    ServerError where it does not take the store's key."""
    headers = {"Content-Type": "application/json"}
    if installation.credential:
        headers["Authorization"] = "Basic " + base64.b64encode(installation.credential.encode()).decode()
    if body is not None and installation.credential:
        client = str(uuid.uuid4())
        token = call_api(installation, f"csrf-token?client={client}") or {}
        headers |= {"Prefect-Csrf-Client": client, "Prefect-Csrf-Token": token.get("token", "")}
    content = None if body is None else json.dumps(body).encode()
    return _answer(urllib.request.Request(f"{installation.ui}/api/{path}", content, headers))  # noqa: S310  of our own server


def _answer(request: urllib.request.Request) -> Any:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # no proxy stands before this machine
    for _ in range(MAX_TRIES):
        try:
            with opener.open(request, timeout=30) as response:
                return json.load(response)
        except urllib.error.HTTPError as error:
            if error.code in (401, 403):
                address = request.full_url.partition("/api/")[0]
                raise ServerError(f"the server on {address} refuses this store's key: `excel down`, then `excel up`") from None
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
        lock = FileLock(home / "up.lock", mode=0o600).acquire(timeout=0)
    except Timeout:
        raise ServerError(f"another `excel up` or `excel down` is at work in {home}; wait for it") from None
    with lock:
        yield
