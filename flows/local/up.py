"""A local Prefect installation in a store: server, pool, GPU limit, deployments, zombie watch and worker.

`bring_up` and `take_down` are what `excel up` and `excel down` do (flows/cli/local.py prints it). Server and worker are
detached; STORE/prefect/up.json names them. A database's password goes to the server's environment and nowhere else. All of
them hold the store's key (flows/local/access.py), and nobody else on this machine.
"""

import hashlib
import json
import re
import secrets
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import yaml

from excel_core.errors import ServerError, SettingError
from flows.local.access import (
    client_settings,
    make_credential,
    server_settings,
    without_foreign_settings,
    without_secrets,
    write_profile,
)
from flows.local.private import private_folder
from flows.local.processes import MARK, Process, end, is_running, marked, start_detached
from flows.local.serve import listening_socket, serve_command
from flows.local.state import DEFAULT_PORT, Installation, alone, call_api, read_state, write_state

__all__ = ["UpRequest", "bring_up", "setup_commands", "take_down"]

ROOT = Path(__file__).resolve().parent.parent.parent
POOL = "excel"
POOL_TEMPLATE = "flows/local/pool.json"  # below ROOT
ZOMBIE_WATCH = "excel-zombies"
EARLIER_NAMES = ("voc", "coco", "demo")  # of deployments, when a name told the data set alone
RUN_ID = "PREFECT__FLOW_RUN_ID"  # which Prefect puts into the environment of a run's process
MAX_START_SECONDS = 600  # a busy machine; one that ends is seen at once
Notify = Callable[[str], None]


@dataclass(frozen=True)
class UpRequest:
    """What `excel up` is asked for. None: as it runs already, else the default."""

    store: Path
    port: int | None = None
    database: str | None = field(default=None, repr=False)  # may hold a password
    gpus: int | None = None
    worker: bool = True

    @property
    def home(self) -> Path:
        return self.store / "prefect"


def bring_up(request: UpRequest, notify: Notify) -> Installation:
    """Start what does not run and repair what is missing; a second call changes nothing."""
    if not (ROOT / "prefect.yaml").is_file():
        raise SettingError(f"{ROOT} holds no prefect.yaml: install from the repository, pip install --editable .")
    _check(request, read_state(request.store))  # refuses before even a folder is made
    private_folder(request.home, notify)
    (request.home / "logs").mkdir(exist_ok=True, mode=0o700)
    with alone(request.home):
        installation = replace(_check(request, read_state(request.store)), credential=make_credential(request.home))
        write_state(request.home, installation)
        write_profile(request.home, _settings(installation))
        if installation.server is None:
            installation = _start_server(request, installation, notify)
        else:
            server = f"pid {installation.server.pid}, {installation.database}"
            notify(f"server: runs already on {installation.ui} ({server})")
        installation = _set_up(request, installation, notify)
        if installation.worker is not None:
            notify(f"worker: runs already (pid {installation.worker.pid})")
        elif request.worker:
            installation = _start_worker(request, installation, notify)
    return installation


def take_down(store: Path, notify: Notify, seconds: float = 30) -> None:
    """End the worker, then its runs, then the server, and forget them; what is gone already is no error."""
    home = store / "prefect"
    if not (home / "up.json").is_file():
        notify(f"nothing of `excel up` runs in {store}")
        return
    with alone(home):
        installation = read_state(store)
        if installation is None:
            raise ServerError(f"{home / 'up.json'} cannot be read: end Prefect's server and worker by hand, then delete it")
        server, worker = installation.server, installation.worker
        flow_runs = _running_flow_runs(installation)
        end([worker] if worker else [], seconds)
        flow_runs |= _running_flow_runs(installation)  # the worker may have started one meanwhile
        end(marked(f"{installation.mark}/worker"), seconds)  # flow runs, even where their worker died before them
        for flow_run in sorted(flow_runs) if server else ():  # who else may listen there is not to be asked
            with suppress(ServerError):  # its key was exchanged
                _report_ended(installation, flow_run, notify)
        notify(f"worker: ended (pid {worker.pid})" if worker else "worker: none")
        end([server] if server else [], seconds)
        end(marked(f"{installation.mark}/server"), seconds)
        notify(f"server: ended (pid {server.pid})" if server else "server: was gone already")
        (home / "up.json").unlink()
        settings = _settings(replace(installation, credential=make_credential(home)))
        del settings["PREFECT_API_URL"]  # whoever takes the port next is not to be asked, with our key
        write_profile(home, settings)


def setup_commands(gpus: int | None) -> list[list[str]]:
    """Prefect's own commands that make a bare server one for excel: pool, GPU limit, zombie watch, deployments."""
    return [
        ["work-pool", "create", POOL, "--type", "process", "--base-job-template", POOL_TEMPLATE],
        ["concurrency-limit", "create", "gpu", str(max(1, gpus or 1))],
        ["automation", "create", "--from-file", "flows/local/zombies.yaml"],
        ["--no-prompt", "deploy", "--all"],
    ]


def _check(request: UpRequest, current: Installation | None) -> Installation:
    """The installation to bring up, with what runs of it already. SettingError before anything starts."""
    database = _without_password(request.database)
    if current and (current.server or current.worker) and request.port not in (None, current.port):
        raise SettingError(f"--port {request.port}: this store's server or worker uses port {current.port}; first `excel down`")
    if current and (current.server or current.worker) and not current.credential:
        raise SettingError("this store's server and worker were started without a key or with another one; first `excel down`")
    if current and current.server:
        if request.database is not None and database != current.database:
            raise SettingError(f"--database: this store's server runs with {current.database}; first `excel down`")
        return current
    if current and request.database is None and current.database != database:
        raise SettingError(
            f"the server ran with {current.database}: give --database or EXCEL_DATABASE_URL again, or `excel down`"
        )
    port = request.port or (current.port if current else DEFAULT_PORT)
    _check_port(port)
    mark = current.mark if current else secrets.token_hex(8)
    return Installation(mark, port, database, worker=current.worker if current else None)


def _check_port(port: int) -> None:
    try:
        listening_socket(port).close()
    except OSError as error:
        raise SettingError(f"--port {port}: {error.strerror}; nothing was started, choose another --port") from None


def _without_password(database: str | None) -> str:
    """The database as it may be shown. SettingError, which does not show it, for a form that Prefect has no driver for."""
    if database is None:
        return "SQLite"
    if not re.match(r"postgresql\+asyncpg://.|sqlite\+aiosqlite:///.", database):
        raise SettingError("--database: expected postgresql+asyncpg://USER:PASSWORD@HOST:PORT/NAME")
    return re.sub(r"//.*@", lambda login: login[0].partition(":")[0].rstrip("@") + "@", database).partition("?")[0]


def _settings(installation: Installation) -> dict[str, str]:
    """Prefect's settings of server and clients, as STORE/prefect/profiles.toml has them for commands given by hand."""
    credential, port = installation.credential, installation.port
    heartbeat = {"PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30"}
    return server_settings(credential, port) | client_settings(credential, port) | heartbeat


def _environment(request: UpRequest, installation: Installation, role: str) -> dict[str, str]:
    """A user's environment without their Prefect's connection, and with ours; the database for the server alone, the
    language model's key for the worker alone."""
    env = without_foreign_settings() | _settings(installation)
    env.pop("EXCEL_DATABASE_URL", None)
    if role != "worker":
        env = without_secrets(env)
    env |= {
        MARK: f"{installation.mark}/{role}",
        "EXCEL_STORE": str(request.store),
        "PREFECT_HOME": str(request.home),
        "DO_NOT_TRACK": "1",
        "PWD": str(ROOT),  # what prefect.yaml's pull step names
    }
    if role == "server" and request.database is not None:
        env["PREFECT_API_DATABASE_CONNECTION_URL"] = request.database
    return env


def _start_server(request: UpRequest, installation: Installation, notify: Notify) -> Installation:
    try:
        listening = listening_socket(installation.port)
    except OSError as error:
        raise SettingError(f"--port {installation.port}: {error.strerror}; choose another --port") from None
    with listening:
        # What the server writes, its database above all, is for this user alone.
        options = {"pass_fds": [listening.fileno()], "umask": 0o077}
        installation, process = _start(request, installation, "server", serve_command(listening), **options)
    _wait(request, "server", process, lambda: call_api(installation, "health") is True)
    notify(f"server: started on {installation.ui} (pid {process.pid}, {installation.database})")
    return installation


def _start_worker(request: UpRequest, installation: Installation, notify: Notify) -> Installation:
    earlier = _heartbeats(installation)
    command = ["worker", "start", "--pool", POOL, "--name", POOL, "--install-policy", "never"]
    installation, process = _start(request, installation, "worker", _prefect(*command))
    _wait(request, "worker", process, lambda: _heartbeats(installation) != earlier)
    notify(f"worker: started (pid {process.pid})")
    return installation


def _start(
    request: UpRequest, installation: Installation, role: Literal["server", "worker"], command: list[str], **options: Any
) -> tuple[Installation, Process]:
    """Start a process and note it at once. `options` are Popen's."""
    process = start_detached(command, _environment(request, installation, role), ROOT, _log(request, role), **options)
    installation = replace(installation, server=process) if role == "server" else replace(installation, worker=process)
    write_state(request.home, installation)
    return installation, process


def _wait(request: UpRequest, role: str, process: Process, is_ready: Callable[[], bool]) -> None:
    """Wait until a process is ready. ServerError where it does not get so."""
    deadline = time.monotonic() + MAX_START_SECONDS
    while not is_ready():
        if not is_running(process):
            raise ServerError(f"the {role} ended as it started; its log: {_log(request, role)}")
        if time.monotonic() > deadline:
            late = f"the {role} is not ready after {MAX_START_SECONDS} s; its log: {_log(request, role)}; `excel down` ends it"
            raise ServerError(late)
        time.sleep(0.3)


def _log(request: UpRequest, role: str) -> Path:
    return request.home / "logs" / f"{role}.log"


def _heartbeats(installation: Installation) -> list[str]:
    workers = call_api(installation, f"work_pools/{POOL}/workers/filter", {}) or []
    return [worker["last_heartbeat_time"] for worker in workers]


def _set_up(request: UpRequest, installation: Installation, notify: Notify) -> Installation:
    """Make pool, GPU limit, zombie watch and deployments where they are missing or come from other files. What the user
    changed about the others stays."""
    digest = _sources_digest()
    changed = digest != installation.deployed
    pool, limit, watch, deploy = setup_commands(request.gpus)
    watches = [one for one in call_api(installation, "automations/filter", {}) or [] if one["name"] == ZOMBIE_WATCH]
    if watches:  # a second `create` would make a second one
        watch = ["automation", "update", "--id", watches[0]["id"], *watch[2:]]
    found = call_api(installation, f"work_pools/{POOL}")
    if found:  # with Prefect's own template a run may bring a command of its own
        pool = ["work-pool", "update", POOL, "--base-job-template", POOL_TEMPLATE]
    has_pool = found and found["base_job_template"] == json.loads((ROOT / POOL_TEMPLATE).read_text(encoding="utf-8"))
    has_limit = request.gpus is None and call_api(installation, "concurrency_limits/tag/gpu")
    has_deployments = not changed and _declared_deployments() <= _existing_deployments(installation)
    steps = {
        "pool": (has_pool, pool),
        "gpu limit": (has_limit, limit),
        "zombie watch": (watches and not changed, watch),
        "deployments": (has_deployments, deploy),
    }
    for name, (is_there, command) in steps.items():
        if not is_there:
            _run_prefect(command, _environment(request, installation, "setup"))
        notify(f"{name}: {'is there already' if is_there else 'made'}")
    _drop_renamed(installation)
    installation = replace(installation, deployed=digest)
    write_state(request.home, installation)
    return installation


def _declared_deployments() -> set[tuple[str, str]]:
    """(entrypoint, name) of every deployment in prefect.yaml."""
    deployments = yaml.safe_load((ROOT / "prefect.yaml").read_text(encoding="utf-8"))["deployments"]
    return {(deployment["entrypoint"], deployment["name"]) for deployment in deployments}


def _existing_deployments(installation: Installation) -> set[tuple[str, str]]:
    deployments = call_api(installation, "deployments/filter", {}) or []
    return {(deployment["entrypoint"], deployment["name"]) for deployment in deployments}


def _drop_renamed(installation: Installation) -> None:
    """Delete deployments under the names that an earlier excel gave them; their runs stay."""
    declared = _declared_deployments()
    entrypoints = {entrypoint for entrypoint, _ in declared}
    known = call_api(installation, "deployments/filter", {}) or []
    earlier = [one for one in known if one["entrypoint"] in entrypoints and one["name"] in EARLIER_NAMES]
    ids = [one["id"] for one in earlier if (one["entrypoint"], one["name"]) not in declared]
    if ids:
        call_api(installation, "deployments/bulk_delete", {"deployments": {"id": {"any_": ids}}})


def _sources_digest() -> str:
    """Of the files that deployments and their forms are made from."""
    folders = (ROOT / "excel_core" / "config", ROOT / "flows")
    files = [ROOT / "prefect.yaml", *(file for folder in folders for file in sorted(folder.glob("[!.]*.*")))]
    return hashlib.sha256(str(ROOT).encode() + b"".join(file.read_bytes() for file in files)).hexdigest()


def _run_prefect(command: list[str], env: dict[str, str]) -> None:
    ended = subprocess.run(  # noqa: S603  this Python with Prefect's modules; no shell
        _prefect(*command), env=env, cwd=ROOT, capture_output=True, text=True, stdin=subprocess.DEVNULL,
        encoding="utf-8",
    )  # fmt: skip
    if ended.returncode:
        raise ServerError(f"`prefect {' '.join(command)}` failed: {(ended.stderr or ended.stdout).strip()[-2000:]}")


def _prefect(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "prefect", *arguments]


def _running_flow_runs(installation: Installation) -> set[str]:
    """Ids of the flow runs that the worker's processes are running."""
    return {env[RUN_ID] for env in marked(f"{installation.mark}/worker").values() if RUN_ID in env}


def _report_ended(installation: Installation, flow_run: str, notify: Notify) -> None:
    """Tell the server that a run was ended: without its worker nobody else does, and it would stay Running for ever."""
    known = call_api(installation, f"flow_runs/{flow_run}")
    if not known or known["state_type"] in ("COMPLETED", "FAILED", "CANCELLED"):
        return
    if known["state_type"] != "CRASHED":  # it may have said so itself as it ended
        state = {"type": "CRASHED", "name": "Crashed", "message": "ended by `excel down`; run it again to go on"}
        call_api(installation, f"flow_runs/{flow_run}/set_state", {"state": state, "force": True})
    notify(f"run {known['name']}: ended; finished stages are kept, run it again to go on")
