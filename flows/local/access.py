"""Who may use a store's Prefect server: who holds its key, STORE/prefect/credential. Whoever does can run code as this user.

The key is random, made once for a store, and in no command line: it goes through the environment and files of mode 0600.
STORE/prefect/profiles.toml tells it to Prefect's own commands: `PREFECT_HOME=STORE/prefect prefect …`.
"""

import os
import re
import secrets
import tomllib
from pathlib import Path
from typing import Any

from flows.local.private import write_private
from flows.local.server_settings import SERVER_SETTINGS

__all__ = [
    "client_settings",
    "credential_of",
    "make_credential",
    "new_credential",
    "server_settings",
    "without_foreign_settings",
    "without_secrets",
    "write_profile",
]

FILE = "credential"
PROFILE = "excel"
# Variables of a user's environment that would make our server another one, or name another server.
FOREIGN = (
    "PREFECT_API_",
    "PREFECT_CLIENT_CSRF_",
    "PREFECT_PROFILE",
    "PREFECT_SERVER_API_",
    "PREFECT_SERVER_CORS_",
    "PREFECT_SERVER_CSRF_",
    "PREFECT_SERVER_DATABASE",
    "PREFECT_SERVER_UI_",
    "PREFECT_UI_",
)


def new_credential() -> str:
    """A random key as Prefect takes it, user:password."""
    return f"excel:{secrets.token_urlsafe(32)}"


def credential_of(home: Path) -> str:
    """The key in `home`, STORE/prefect; empty where there is none that can be used."""
    try:
        text = (home / FILE).read_text(encoding="utf-8").strip()
    except (FileNotFoundError, UnicodeDecodeError):
        return ""
    return text if re.fullmatch(r"[\w.-]+:[\x21-\x7e]{16,}", text, re.ASCII) else ""


def make_credential(home: Path) -> str:
    """The key in `home`, made where there is none; the first of several makers wins."""
    if not credential_of(home):
        write_private(home / FILE, new_credential() + "\n", replace=(home / FILE).exists())
    return credential_of(home)


def server_settings(credential: str, port: int) -> dict[str, str]:
    """Environment of a server on 127.0.0.1: a key for everything but health; no page of another origin; CSRF tokens; a small
    database, unless the user's environment says otherwise."""
    sizes = {name: os.environ.get(name, value) for name, value in SERVER_SETTINGS.items()}
    return sizes | {
        "PREFECT_SERVER_API_AUTH_STRING": credential,
        "PREFECT_SERVER_API_CSRF_PROTECTION_ENABLED": "true",
        "PREFECT_SERVER_API_CORS_ALLOWED_ORIGINS": f"http://127.0.0.1:{port}",
        "PREFECT_SERVER_API_HOST": "127.0.0.1",
        "PREFECT_SERVER_API_PORT": str(port),
        "PREFECT_UI_API_URL": "/api",  # of whatever address the browser has: also through an SSH tunnel it is the same origin
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    }


def client_settings(credential: str, port: int) -> dict[str, str]:
    """Environment of what talks to that server."""
    return {"PREFECT_API_URL": f"http://127.0.0.1:{port}/api", "PREFECT_API_AUTH_STRING": credential}


def write_profile(home: Path, settings: dict[str, str]) -> None:
    """Make `settings` those of Prefect's commands with PREFECT_HOME=`home`. Other settings of the user's there stay, but for
    the address of a server that runs no more."""
    import toml  # type: ignore[import-untyped]  # Prefect's own

    path = home / "profiles.toml"
    try:
        profiles: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        profiles = {}
    ours = {name: value for name, value in profiles.get("profiles", {}).get(PROFILE, {}).items() if name != "PREFECT_API_URL"}
    profiles = {"active": PROFILE, "profiles": {**profiles.get("profiles", {}), PROFILE: ours | settings}}
    if not path.exists() or toml.dumps(profiles) != path.read_text(encoding="utf-8"):
        write_private(path, toml.dumps(profiles))


def without_secrets(environment: dict[str, str]) -> dict[str, str]:
    """For a process that asks no language model: without the key for it."""
    return {name: value for name, value in environment.items() if name != "OPENAI_API_KEY"}


def without_foreign_settings() -> dict[str, str]:
    """This process's environment, without what it says of Prefect servers."""
    return {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}
