"""What `excel up` is asked for, and what it refuses before anything starts."""

import re
import secrets
from dataclasses import dataclass, field
from pathlib import Path

from excel_core.errors import SettingError
from flows.local.serve import listening_socket
from flows.local.state import DEFAULT_PORT, Installation

__all__ = ["UpRequest", "checked_installation", "without_password"]


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
        """Where the installation keeps its files."""
        return self.store / "prefect"


def checked_installation(request: UpRequest, current: Installation | None) -> Installation:
    """The installation to bring up, with what runs of it already. SettingError before anything starts."""
    database = without_password(request.database)
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


def without_password(database: str | None) -> str:
    """The database as it may be shown. SettingError, which does not show it, for a form that Prefect has no driver for."""
    if database is None:
        return "SQLite"
    if not re.match(r"postgresql\+asyncpg://.|sqlite\+aiosqlite:///.", database):
        raise SettingError("--database: expected postgresql+asyncpg://USER:PASSWORD@HOST:PORT/NAME")
    return re.sub(r"//.*@", lambda login: login[0].partition(":")[0].rstrip("@") + "@", database).partition("?")[0]
