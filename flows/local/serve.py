"""The process of a Prefect server: `python -P -m flows.local.serve SOCKET PARENT`.

SOCKET is the descriptor of a socket on which the starter listens, so that no other process can take the port meanwhile. With
PARENT, the starter's pid, the server is a temporary one without UI, and ends when that process has ended, however it did; 0
is none. Everything else, the key too, comes through the environment (flows/local/access.py); of a lasting server also the
store, EXCEL_STORE, whose reports it serves.
"""

import os
import signal
import socket
import sys
import threading
import time
from pathlib import Path

__all__ = ["listening_socket", "main", "serve_command"]

LOOK_SECONDS = 0.2  # between two looks for the parent
END_SECONDS = 5.0  # to end well once it is gone
DID_NOT_START = 3


def listening_socket(port: int) -> socket.socket:
    """A socket that listens on 127.0.0.1; port 0: any free one. OSError where the port is in use. Whoever connects waits until
    the server is there."""
    listening = socket.socket()
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a port is not held by closed connections
        listening.bind(("127.0.0.1", port))
        listening.listen(128)
    except OSError:
        listening.close()
        raise
    return listening


def serve_command(listening: socket.socket, parent: int = 0) -> list[str]:
    """The command of such a process; `listening.fileno()` has to be passed on to it."""
    # -P: what the current folder holds is not imported
    return [sys.executable, "-P", "-m", "flows.local.serve", str(listening.fileno()), str(parent)]


def main(socket_number: int, parent: int) -> None:
    """Serve until SIGTERM, or until the parent is gone."""
    if parent:
        threading.Thread(target=_end_after, args=(parent,), daemon=True).start()  # before seconds of imports

    import uvicorn
    from prefect.server.api.server import create_app
    from prefect.settings import get_current_settings

    from flows.local.guard import guarded
    from flows.local.reports import report_app

    settings = get_current_settings().server
    store, key = os.environ.get("EXCEL_STORE"), settings.api.auth_string
    reports = report_app(Path(store), key.get_secret_value()) if store and key and not parent else None
    app = guarded(create_app(ephemeral=bool(parent), final=True), reports)
    config = uvicorn.Config(
        app,
        log_level="error" if parent else settings.logging_level.lower(),
        timeout_keep_alive=settings.api.keepalive_timeout,
        ws_ping_interval=settings.api.websocket_ping_interval,
        ws_ping_timeout=settings.api.websocket_ping_timeout,
        proxy_headers=False,
        lifespan="on",
    )
    server = uvicorn.Server(config)
    server.run(sockets=[socket.socket(fileno=socket_number)])
    if not server.started:
        sys.exit(DID_NOT_START)


def _end_after(parent: int) -> None:
    """End this process once it has another parent than `parent`: the system gives one to those whose own has ended."""
    while os.getppid() == parent:
        time.sleep(LOOK_SECONDS)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(END_SECONDS)
    os._exit(1)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
