"""`excel up`: a local Prefect installation in a store. Server and worker are detached; STORE/prefect/up.json names them.

up_request.py     what is asked for, and what is refused
environment.py    Prefect's settings, and the environment of each process
deployments.py    pool, GPU limit, zombie watch and deployments
down.py           the end of all of it

All processes hold the store's key (access.py), and nobody else on this machine.
"""

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from excel_core.errors import ServerError, SettingError
from flows.local.access import make_credential, write_profile
from flows.local.deployments import POOL, prefect_command, set_up
from flows.local.environment import ROOT, environment, installation_settings
from flows.local.private import private_folder
from flows.local.processes import Process, is_running, start_detached
from flows.local.serve import listening_socket, serve_command
from flows.local.state import Installation, alone, call_api, read_state, write_state
from flows.local.up_request import UpRequest, checked_installation

__all__ = ["bring_up"]

MAX_START_SECONDS = 600  # a busy machine; one that ends is seen at once
Notify = Callable[[str], None]


def bring_up(request: UpRequest, notify: Notify) -> Installation:
    """Start what does not run and repair what is missing; a second call changes nothing."""
    if not (ROOT / "prefect.yaml").is_file():
        raise SettingError(f"{ROOT} holds no prefect.yaml: install from the repository, pip install --editable .")
    checked_installation(request, read_state(request.store))  # refuses before even a folder is made
    private_folder(request.home, notify)
    (request.home / "logs").mkdir(exist_ok=True, mode=0o700)
    with alone(request.home):
        installation = checked_installation(request, read_state(request.store))
        installation = replace(installation, credential=make_credential(request.home))
        write_state(request.home, installation)
        write_profile(request.home, installation_settings(installation))
        if installation.server is None:
            installation = _start_server(request, installation, notify)
        else:
            server = f"pid {installation.server.pid}, {installation.database}"
            notify(f"server: runs already on {installation.ui} ({server})")
        installation = set_up(request, installation, notify)
        if installation.worker is not None:
            notify(f"worker: runs already (pid {installation.worker.pid})")
        elif request.worker:
            installation = _start_worker(request, installation, notify)
    return installation


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
    installation, process = _start(request, installation, "worker", prefect_command(*command))
    _wait(request, "worker", process, lambda: _heartbeats(installation) != earlier)
    notify(f"worker: started (pid {process.pid})")
    return installation


def _start(
    request: UpRequest, installation: Installation, role: Literal["server", "worker"], command: list[str], **options: Any
) -> tuple[Installation, Process]:
    """Start a process and note it at once. `options` are Popen's."""
    process = start_detached(command, environment(request, installation, role), ROOT, _log(request, role), **options)
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
