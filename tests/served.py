"""An ASGI application on a free port of this machine, as the server of `excel up` runs one: behind the guard."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvicorn

from flows.local.guard import guarded
from flows.local.reports import report_app
from flows.local.serve import listening_socket

__all__ = ["served_reports"]


async def _prefect(scope: Any, receive: Any, send: Any) -> None:
    """Stands where Prefect does: says so to whoever is let through."""
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/html")]})
    await send({"type": "http.response.body", "body": b"prefect"})


@contextmanager
def served_reports(store: Path, credential: str) -> Iterator[int]:
    """The port on which the store's reports are served."""
    listening = listening_socket(0)
    app = guarded(_prefect, report_app(store, credential))
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="off"))  # type: ignore[arg-type]
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        while not server.started:
            time.sleep(0.01)
        yield listening.getsockname()[1]
    finally:
        server.should_exit = True
        thread.join()
