"""A local Prefect installation in a store: server, pool, GPU limit, deployments, zombie watch and worker.

`bring_up` and `take_down` are what `excel up` and `excel down` do (flows/local_cli.py prints it). Server and worker are
detached; STORE/prefect/up.json names them. A database's password goes to the server's environment and nowhere else.
"""

import hashlib
import os
import re
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import yaml

from excel_core.errors import ServerError, SettingError
from flows.local.processes import MARK, Process, end, is_running, marked, start_detached
from flows.local.state import Installation, alone, call, read_state, write_state

__all__ = ["Wanted", "bring_up", "setup_commands", "take_down"]

ROOT = Path(__file__).resolve().parent.parent.parent
POOL = "excel"
WATCH = "excel-zombies"
RUN_ID = "PREFECT__FLOW_RUN_ID"  # which Prefect puts into the environment of a run's process
Say = Callable[[str], None]


@dataclass(frozen=True)
class Wanted:
    """What `excel up` was asked for; None: as it runs, else the default."""

    store: Path
    port: int | None = None
    database: str | None = field(default=None, repr=False)  # may hold a password
    gpus: int | None = None
    worker: bool = True


def bring_up(wanted: Wanted, say: Say) -> Installation:
    """Start what does not run and repair what is missing; a second call changes nothing."""
    if not (ROOT / "prefect.yaml").is_file():
        raise SettingError(f"{ROOT} holds no prefect.yaml: install from the repository, pip install --editable .")
    if not Path("/proc/self/stat").is_file():
        raise SettingError("`excel up` needs Linux, where /proc tells processes apart; see docs/prefect.md for the commands")
    home = wanted.store / "prefect"
    _check(wanted, read_state(wanted.store))  # refuses before even a folder is made
    (home / "logs").mkdir(parents=True, exist_ok=True)
    with alone(home):
        now = _check(wanted, read_state(wanted.store))
        write_state(home, now)
        if now.server is None:
            now = _start_server(wanted, now, say)
        else:
            say(f"server: runs already on {now.ui} (pid {now.server.pid}, {now.database})")
        now = _prepare(wanted, now, say)
        if now.worker is not None:
            say(f"worker: runs already (pid {now.worker.pid})")
        elif wanted.worker:
            now = _start_worker(wanted, now, say)
    return now


def take_down(store: Path, say: Say, seconds: float = 30) -> None:
    """End the worker, then its runs, then the server, and forget them; what is gone already is no error."""
    home = store / "prefect"
    if not (home / "up.json").is_file():
        say(f"nothing of `excel up` runs in {store}")
        return
    with alone(home):
        now = read_state(store)
        if now is None:
            raise ServerError(f"{home / 'up.json'} cannot be read: end Prefect's server and worker by hand, then delete it")
        runs = _runs(now)
        end([now.worker] if now.worker else [], seconds)
        runs |= _runs(now)
        end(marked(f"{now.mark}/worker"), seconds)  # flow runs, even where their worker died before them
        for run in sorted(runs):
            _crash(now, run, say)
        say(f"worker: ended (pid {now.worker.pid})" if now.worker else "worker: none")
        end([now.server] if now.server else [], seconds)
        end(marked(f"{now.mark}/server"), seconds)
        say(f"server: ended (pid {now.server.pid})" if now.server else "server: was gone already")
        (home / "up.json").unlink()


def _runs(now: Installation) -> set[str]:
    """Ids of the flow runs that the worker's processes are running."""
    return {env[RUN_ID] for env in marked(f"{now.mark}/worker").values() if RUN_ID in env}


def _crash(now: Installation, run: str, say: Say) -> None:
    """Tell the server that a run was ended: without its worker nobody else does, and it would stay Running for ever."""
    found = call(now, f"flow_runs/{run}")
    if not found or found["state_type"] in ("COMPLETED", "FAILED", "CANCELLED"):
        return
    if found["state_type"] != "CRASHED":  # it may have said so itself as it ended
        state = {"type": "CRASHED", "name": "Crashed", "message": "ended by `excel down`; run it again to go on"}
        call(now, f"flow_runs/{run}/set_state", {"state": state, "force": True})
    say(f"run {found['name']}: ended; finished stages are kept, run it again to go on")


def _check(wanted: Wanted, now: Installation | None) -> Installation:
    """The installation to bring up, with what lives already; refuses before anything starts."""
    shown = _shown(wanted.database)
    if now is not None and (now.server or now.worker) and wanted.port not in (None, now.port):
        raise SettingError(f"--port {wanted.port}: this store's server or worker uses port {now.port}; first `excel down`")
    if now is not None and now.server is not None:
        if wanted.database is not None and shown != now.database:
            raise SettingError(f"--database: this store's server runs with {now.database}; first `excel down`")
        return now
    if now is not None and wanted.database is None and now.database != shown:
        raise SettingError(f"the server ran with {now.database}: give --database or EXCEL_DATABASE_URL again, or `excel down`")
    port = wanted.port or (now.port if now else 4200)
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the server does: not held by closed connections
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise SettingError(f"--port {port}: {error.strerror}; nothing was started, choose another --port") from None
    return Installation(now.mark if now else secrets.token_hex(8), port, shown, None, now.worker if now else None)


def _shown(database: str | None) -> str:
    """The database without its password; a form that Prefect has no driver for is refused, unshown."""
    if database is None:
        return "SQLite"
    if not re.match(r"postgresql\+asyncpg://.|sqlite\+aiosqlite:///.", database):
        raise SettingError("--database: expected postgresql+asyncpg://USER:PASSWORD@HOST:PORT/NAME")
    return re.sub(r"//.*@", lambda found: found[0].partition(":")[0].rstrip("@") + "@", database).partition("?")[0]


def _environment(wanted: Wanted, now: Installation, role: str) -> dict[str, str]:
    """A user's environment without their Prefect's connection, and with ours; the database for the server alone."""
    dropped = ("PREFECT_API_", "PREFECT_SERVER_DATABASE", "PREFECT_PROFILE", "EXCEL_DATABASE_URL")
    env = {name: value for name, value in os.environ.items() if not name.startswith(dropped)}
    env |= {
        MARK: f"{now.mark}/{role}",
        "EXCEL_STORE": str(wanted.store),
        "PREFECT_HOME": str(wanted.store / "prefect"),
        "PREFECT_API_URL": f"{now.ui}/api",
        "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "PWD": str(ROOT),  # what prefect.yaml's pull step names
    }
    if role == "server" and wanted.database is not None:
        env["PREFECT_API_DATABASE_CONNECTION_URL"] = wanted.database
    return env


def _start_server(wanted: Wanted, now: Installation, say: Say) -> Installation:
    command = ["server", "start", "--host", "127.0.0.1", "--port", str(now.port)]
    log = wanted.store / "prefect" / "logs" / "server.log"
    now = replace(now, server=start_detached(_prefect(*command), _environment(wanted, now, "server"), ROOT, log))
    write_state(wanted.store / "prefect", now)
    _wait("server", now.server, log, lambda: call(now, "health") is True)
    say(f"server: started on {now.ui} (pid {now.server.pid}, {now.database})")
    return now


def _start_worker(wanted: Wanted, now: Installation, say: Say) -> Installation:
    log = wanted.store / "prefect" / "logs" / "worker.log"
    known = _heartbeats(now)
    command = _prefect("worker", "start", "--pool", POOL, "--name", POOL, "--install-policy", "never")
    now = replace(now, worker=start_detached(command, _environment(wanted, now, "worker"), ROOT, log))
    write_state(wanted.store / "prefect", now)
    _wait("worker", now.worker, log, lambda: _heartbeats(now) != known)
    say(f"worker: started (pid {now.worker.pid})")
    return now


def _prepare(wanted: Wanted, now: Installation, say: Say) -> Installation:
    """Pool, GPU limit, zombie watch and deployments: what is missing or made from other files; a user's changes stay."""
    digest = _sources_digest()
    pool, limit, watch, deploy = setup_commands(wanted.gpus)
    watches = [found for found in call(now, "automations/filter", {}) or [] if found["name"] == WATCH]
    if watches:  # a second `create` would make a second one
        watch = ["automation", "update", "--id", watches[0]["id"], *watch[2:]]
    changed = digest != now.deployed
    missing = {
        "pool": [] if call(now, f"work_pools/{POOL}") else pool,
        "gpu limit": [] if wanted.gpus is None and call(now, "concurrency_limits/tag/gpu") else limit,
        "zombie watch": [] if watches and not changed else watch,
        "deployments": [] if not changed and _deployed(now) >= _deployments() else deploy,
    }
    for name, command in missing.items():
        if command:
            _run(command, _environment(wanted, now, "setup"))
        say(f"{name}: {'made' if command else 'is there already'}")
    now = replace(now, deployed=digest)
    write_state(wanted.store / "prefect", now)
    return now


def setup_commands(gpus: int | None) -> list[list[str]]:
    """Prefect's own commands that make a bare server one for excel: pool, GPU limit, zombie watch, deployments."""
    return [
        ["work-pool", "create", POOL, "--type", "process"],
        ["concurrency-limit", "create", "gpu", str(max(1, gpus or 1))],
        ["automation", "create", "--from-file", "flows/local/zombies.yaml"],
        ["--no-prompt", "deploy", "--all"],
    ]


def _deployments() -> set[tuple[str, str]]:
    """(entrypoint, name) of every deployment in prefect.yaml."""
    wanted = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]
    return {(found["entrypoint"], found["name"]) for found in wanted}


def _deployed(now: Installation) -> set[tuple[str, str]]:
    return {(found["entrypoint"], found["name"]) for found in call(now, "deployments/filter", {}) or []}


def _sources_digest() -> str:
    """Of the files that deployments and their forms are made from."""
    rooms = (ROOT / "excel_core" / "config", ROOT / "flows")
    files = [ROOT / "prefect.yaml", *(file for room in rooms for file in sorted(room.glob("[!.]*.*")))]
    return hashlib.sha256(str(ROOT).encode() + b"".join(file.read_bytes() for file in files)).hexdigest()


def _run(command: list[str], env: dict[str, str]) -> None:
    ran = subprocess.run(_prefect(*command), env=env, cwd=ROOT, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if ran.returncode:
        raise ServerError(f"`prefect {' '.join(command)}` failed: {(ran.stderr or ran.stdout).strip()[-2000:]}")


def _prefect(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "prefect", *arguments]


def _heartbeats(now: Installation) -> list[str]:
    workers = call(now, f"work_pools/{POOL}/workers/filter", {}) or []
    return [worker["last_heartbeat_time"] for worker in workers]


def _wait(name: str, process: Process | None, log: Path, ready: Callable[[], bool], seconds: float = 180) -> None:
    until = time.monotonic() + seconds
    while not ready():
        if process is None or not is_running(process):
            raise ServerError(f"the {name} ended as it started; its log: {log}")
        if time.monotonic() > until:
            raise ServerError(f"the {name} is not ready after {seconds:.0f} s; its log: {log}; `excel down` ends it")
        time.sleep(0.3)
