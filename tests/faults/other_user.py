"""What a user of the machine who has no key tries on an `excel up`; a script of its own, run as that user without our packages.

Standard input: {"api", "home", "pids", "paths": [[method, path], ...], "keys": [...]}. Standard output: what each try gave.
"""

import base64
import json
import os
import sys
import urllib.error
import urllib.request
from typing import Any


def asked(address: str, method: str, key: str | None) -> tuple[int, str]:
    """Status and body of a request; 0 where the server hung up."""
    headers = {"Content-Type": "application/json"}
    if key is not None:
        headers["Authorization"] = "Basic " + base64.b64encode(key.encode()).decode()
        headers |= {"Prefect-Csrf-Client": "other", "Prefect-Csrf-Token": "other"}
    body = b"{}" if method in ("POST", "PUT", "PATCH") else None
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(urllib.request.Request(address, body, headers, method=method), timeout=60) as answer:
            return answer.status, answer.read(10_000).decode(errors="replace")
    except urllib.error.HTTPError as error:
        return error.code, error.read(10_000).decode(errors="replace")
    except OSError:
        return 0, ""


def read(path: str) -> str | None:
    """A file's first bytes or a folder's names; None where that is refused."""
    try:
        if os.path.isdir(path):
            return repr(os.listdir(path))
        with open(path, "rb") as file:
            return file.read(10_000).decode(errors="replace")
    except PermissionError:
        return None


def main() -> None:
    task: dict[str, Any] = json.load(sys.stdin)
    home = task["home"]
    names = ("", "credential", "profiles.toml", "up.json", "prefect.db", "prefect.db-wal", "logs", "logs/server.log")
    files = [f"{home}/{name}" for name in names]
    files += [f"/proc/{pid}/{name}" for pid in task["pids"] for name in ("environ", "mem", "fd", "cmdline")]
    answers = [
        [method, path, *asked(task["api"] + path, method, key)]
        for key in [None, *task["keys"]]
        for method, path in task["paths"]
    ]
    json.dump({"uid": os.getuid(), "answers": answers, "files": {path: read(path) for path in files}}, sys.stdout)


main()
