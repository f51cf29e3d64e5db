"""A Prefect server that the user names: which setting names it, and whether anything listens there. A command would else wait
for minutes, and then show a traceback."""

import os
import socket
import tomllib
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from prefect.settings import get_current_settings

from excel_core.errors import ServerError
from excel_core.text.key_transport import require_encrypted

__all__ = ["named_server", "require_named_server"]

VARIABLE = "PREFECT_API_URL"
PORTS = {"http": 80, "https": 443}
CONNECT_SECONDS = 10.0


def named_server() -> str | None:
    """`http://HOST:PORT/api, named by …`; None where no server is named."""
    url = get_current_settings().api.url
    return None if not url else f"{_shown(url)}, named by {_source()}"


def require_named_server() -> None:
    """ServerError where a server is named that cannot be reached; SettingError where its key would go to another machine over
    plain HTTP. One behind a proxy is not asked here."""
    api = get_current_settings().api
    url = api.url
    if not url:
        return
    address = urlsplit(url)
    host = address.hostname or ""
    if address.scheme not in PORTS or not host:
        raise ServerError(f"Prefect's server at {named_server()}: expected http://HOST:PORT/api; correct it, or take it out")
    if "@" in address.netloc or any(key is not None and key.get_secret_value() for key in (api.key, api.auth_string)):
        require_encrypted(url, "the key of Prefect's server", VARIABLE)
    proxies = getproxies()
    if (address.scheme in proxies or "all" in proxies) and not proxy_bypass(host):
        return
    try:
        socket.create_connection((host, address.port or PORTS[address.scheme]), CONNECT_SECONDS).close()
    except OSError as error:
        why = error.strerror or str(error) or type(error).__name__
        raise ServerError(
            f"Prefect's server at {named_server()}, does not answer ({why}); start it, or take that setting out: then this "
            "command starts a server of its own"
        ) from None


def _shown(url: str) -> str:
    """An address without a user's name and password."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def _source() -> str:
    """Where Prefect has the address from: it looks at these places in this order."""
    if VARIABLE in os.environ:
        return f"the environment variable {VARIABLE}"
    dotenv = Path(".env").resolve()
    with suppress(OSError, ValueError):
        if any(VARIABLE in line.partition("=")[0].upper() for line in dotenv.read_text(encoding="utf-8").splitlines()):
            return f"{VARIABLE} in {dotenv}"
    for name, table in (("prefect.toml", ()), ("pyproject.toml", ("tool", "prefect"))):
        file = Path(name).resolve()
        with suppress(OSError, ValueError, KeyError, TypeError):
            settings = tomllib.loads(file.read_text(encoding="utf-8"))
            for key in (*table, "api"):
                settings = settings[key]
            if "url" in settings:
                return f"[{'.'.join((*table, 'api'))}] url in {file}"
    return f"the profile in {get_current_settings().profiles_path}"
