"""The user's proxies: never before this machine's own addresses, and none that the installed packages cannot use.

NO_PROXY gets the loopback addresses, beside the user's own entries. A socks proxy needs the package socksio: without it, httpx
raises for every client that is made, the one of a server on this machine too. Such a proxy is taken out of the environment, and
what would go through it to other machines is refused (`require_usable_proxies`).
"""

import os
from collections.abc import MutableMapping
from importlib.util import find_spec
from urllib.request import getproxies_environment

from excel_core.errors import SettingError

__all__ = ["LEFT_OUT", "keep_loopback_direct", "leave_out_socks", "require_usable_proxies"]

LOOPBACK = ("127.0.0.1", "localhost", "::1")
VARIABLES = ("all_proxy", "http_proxy", "https_proxy")
LEFT_OUT = "EXCEL_SOCKS_LEFT_OUT"  # names of the variables that were taken out, for processes started from here
SOCKS = "socks"  # socks4://, socks5://, socks5h://


def keep_loopback_direct(environment: MutableMapping[str, str] = os.environ) -> None:
    """Add this machine's addresses to NO_PROXY, for this process and those that it starts. What counts is kept: a variable in
    small letters goes before one in capitals."""
    hosts = [entry.strip() for entry in environment.get("no_proxy", environment.get("NO_PROXY", "")).split(",")]
    hosts = [entry for entry in hosts if entry]
    host_list = ",".join([*hosts, *(host for host in LOOPBACK if host not in hosts)])
    if "*" not in hosts:
        environment["NO_PROXY"] = environment["no_proxy"] = host_list


def leave_out_socks(environment: MutableMapping[str, str] = os.environ) -> str:
    """Take socks proxies that cannot be used out of the environment → a sentence that says so, or "". No address is shown: it
    may hold a password."""
    if find_spec("socksio") is not None:
        return ""
    names = [name for name in environment if name.lower() in VARIABLES and environment[name].lower().startswith(SOCKS)]
    for name in names:
        del environment[name]
    if not names:
        return ""
    environment[LEFT_OUT] = ", ".join(sorted(names))
    return f"{environment[LEFT_OUT]}: a socks proxy is left out, since socksio is not installed (pip install socksio)"


def require_usable_proxies() -> None:
    """SettingError where requests to other machines would have to go through a socks proxy that cannot be used."""
    socks = [f"{kind}_proxy" for kind, address in getproxies_environment().items() if address.lower().startswith(SOCKS)]
    names = os.environ.get(LEFT_OUT) or ", ".join(sorted(socks))
    if names and find_spec("socksio") is None:
        raise SettingError(f"{names}: a socks proxy needs the package socksio: pip install socksio, or unset {names}")
