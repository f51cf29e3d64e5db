"""The Prefect server of one command, where none is named: it ends with the command, even with one that is killed.

Prefect would start one by itself, but without a key, and outliving a SIGKILL of the command for ever.
"""

import atexit
import os
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

from excel_core.errors import ServerError
from flows.local.access import client_settings, new_credential, server_settings, without_foreign_settings, without_secrets
from flows.local.serve import listening_socket, serve_command

__all__ = ["end_temporary_server", "start_temporary_server"]

MAX_START_SECONDS = 600  # a busy machine; one that ends is seen at once
END_SECONDS = 5.0
_started: list[subprocess.Popen[bytes]] = []


def start_temporary_server(home: Path) -> None:
    """Start it with its database in `home`, and make it the server of this process and those that it starts. Its key is new
    and in no file. ServerError where it does not come up."""
    print("starting a local Prefect server (about 20 s)", flush=True)
    key = new_credential()
    with listening_socket(0) as listening:
        port = listening.getsockname()[1]
        database = {name: value for name, value in os.environ.items() if "_DATABASE_" in name}
        env = without_secrets(without_foreign_settings()) | database | server_settings(key, port) | {"PREFECT_HOME": str(home)}
        server = subprocess.Popen(  # noqa: S603  this Python with our own module; no shell
            serve_command(listening, os.getpid()),
            env=env,
            stdin=subprocess.DEVNULL,
            pass_fds=[listening.fileno()],
            umask=0o077,  # its database is for this user alone
        )
    _started.append(server)
    # Run after what Prefect registers as it is used: that still sends the last lines of the log.
    atexit.register(end_temporary_server)
    _wait_until_ready(server, port)
    os.environ |= client_settings(key, port)
    from prefect.context import refresh_global_settings_context

    refresh_global_settings_context()  # Prefect reads the environment as it is imported, which it was


def end_temporary_server(wait: bool = True) -> None:
    """End the server that this process started, if it did."""
    while _started:
        server = _started.pop()
        server.terminate()
        if wait:
            try:
                server.wait(END_SECONDS)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()


def _wait_until_ready(server: "subprocess.Popen[bytes]", port: int) -> None:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # no proxy stands before this machine
    deadline = time.monotonic() + MAX_START_SECONDS
    while server.poll() is None and time.monotonic() < deadline:
        try:  # the socket listens already: this waits until it is answered
            with opener.open(f"http://127.0.0.1:{port}/api/health", timeout=10):
                return
        except (OSError, urllib.error.URLError):
            time.sleep(0.1)
    ended = f"ended with status {server.returncode}" if server.returncode is not None else "did not answer"
    end_temporary_server()
    raise ServerError(f"the local Prefect server {ended}; `excel up` starts one with a log, STORE/prefect/logs/server.log")
