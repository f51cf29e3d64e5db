"""A finished `excel up` for tests that run deployments on it or attack it, and a client that holds its key."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import httpx

from flows.local.state import Installation, read_state
from tests.conftest import ROOT

__all__ = ["PATIENCE", "Up", "brought_up", "command", "free_port"]

BIN = Path(sys.executable).parent
PATIENCE = 1200  # seconds; a slow machine is no failure


def command(name: str, *arguments: Any, **env: str) -> "subprocess.CompletedProcess[str]":
    """Run a command of the environment, as a user without settings of Prefect's and ours does."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT_API", "PREFECT_HOME", "EXCEL_"))}
    return subprocess.run(
        [BIN / name, *map(str, arguments)], capture_output=True, text=True, cwd=ROOT, env=clean | env, timeout=PATIENCE
    )


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass(frozen=True)
class Up:
    """Its store, what runs of it, and what the command said; `ask`, `get` and `post` hold the key."""

    store: Path
    state: Installation
    output: str = field(repr=False)

    @property
    def home(self) -> Path:
        return self.store / "prefect"

    @property
    def api(self) -> str:
        return f"{self.state.ui}/api"

    def ask(self, method: str, path: str, body: Any = None) -> httpx.Response:
        while (answer := self._client.request(method, f"{self.api}/{path}", json=body)).status_code == 503:
            time.sleep(0.3)  # SQLite was locked by another request
        return answer.raise_for_status()

    def get(self, path: str) -> Any:
        return self.ask("GET", path).json()

    def post(self, path: str, **body: Any) -> Any:
        return self.ask("POST", path, body).json()

    def close(self) -> None:
        self._client.close()

    @cached_property
    def _client(self) -> httpx.Client:
        name, _, password = (self.home / "credential").read_text().strip().partition(":")
        client = httpx.Client(auth=(name, password), timeout=60)
        token = client.get(f"{self.api}/csrf-token?client=tests").raise_for_status().json()["token"]
        client.headers.update({"Prefect-Csrf-Client": "tests", "Prefect-Csrf-Token": token})
        return client


@contextmanager
def brought_up(store: Path, *options: str) -> Iterator[Up]:
    """`excel up` of a store; at the end `excel down`."""
    try:
        ran = command("excel", "up", "--store", store, "--port", free_port(), *options)
        assert ran.returncode == 0, ran.stdout + ran.stderr
        state = read_state(store)
        assert state is not None
        with closing(Up(store, state, ran.stdout)) as installation:
            yield installation
    finally:
        command("excel", "down", "--store", store)
