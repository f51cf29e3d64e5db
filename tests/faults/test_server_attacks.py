"""`excel up` under attack, by another user of the machine and by pages of other origins in its user's own browser.

Both get nothing and change nothing. The user is signed in to the UI meanwhile, and the server holds a Secret block.
"""

import asyncio
import json
import os
import re
import shutil
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import websockets
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from tests.browser.conftest import CHROMIUM, DRIVER, FLAGS
from tests.faults.conftest import Record
from tests.up import PATIENCE, Up, brought_up

NOBODY = 65534
SECRET = "sk-nobody-may-read-this"
KEYS = ["excel:", "admin:pass", "excel:excel", "", "é"]  # a stranger's guesses
SOCKETS = (
    "events/in",
    "events/out",
    "logs/out",
    "task_runs/subscriptions/scheduled",
    "work_pools/excel/workers/connect",
)
ATTACKER = Path(__file__).with_name("attack.html")
REBOUND = "rebound.example"  # a name of the attacker's that leads to 127.0.0.1
OPEN = {("GET", "/api/health"), ("GET", "/api/ready")}  # what Prefect answers without a key: true, and OK


@pytest.fixture(scope="module")
def up() -> Iterator[Up]:
    """`excel up` without a worker, in a folder that every user may enter, with a Secret block and its user's usual umask."""
    folder = Path(tempfile.mkdtemp(prefix="excel-attacked-"))
    folder.chmod(0o755)
    try:
        with brought_up(folder / "store", "--no-worker") as installation:
            save = f"from prefect.blocks.system import Secret; Secret(value={SECRET!r}).save('victim')"
            environment = os.environ | {"PREFECT_HOME": str(installation.home)}
            subprocess.run([sys.executable, "-c", save], check=True, env=environment, capture_output=True)
            yield installation
    finally:
        shutil.rmtree(folder)


def contents(up: Up) -> dict[str, Any]:
    """What an attack could have added or changed."""
    kinds = ("flows", "flow_runs", "deployments", "block_documents", "work_pools", "variables", "automations")
    everything = {kind: up.post(f"{kind}/filter") for kind in kinds}
    for pool in everything["work_pools"]:
        pool.pop("status")
    forged = {"filter": {"event": {"prefix": ["attack"]}}}
    return everything | {"forged": up.post("events/filter", **forged)["total"]}


def test_files_are_for_their_user_alone(up: Up) -> None:
    """While the server and what it started write them; the commands of the folder's own user included."""
    home = up.home
    assert stat.S_IMODE(home.stat().st_mode) == 0o700 == stat.S_IMODE((home / "logs").stat().st_mode)
    for name in ("credential", "profiles.toml", "up.json", "prefect.db", "logs/server.log"):
        assert stat.S_IMODE((home / name).stat().st_mode) == 0o600, name


def test_the_key_is_in_two_files_and_nothing_else(up: Up) -> None:
    key = (up.home / "credential").read_text().strip().encode()
    holders = {path.name for path in up.store.rglob("*") if path.is_file() and key in path.read_bytes()}
    assert holders == {"credential", "profiles.toml"}
    assert key.decode() not in up.output
    assert key not in Path(f"/proc/{up.state.server.pid}/cmdline").read_bytes()  # type: ignore[union-attr]
    assert key.partition(b":")[2] not in up.ask("GET", "admin/settings").content


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as another user")
@pytest.mark.skipif(not shutil.which("python3", path="/usr/bin"), reason="needs a Python that every user can run")
def test_another_user_gets_nothing(up: Up, soak: bool, figures: Record) -> None:
    paths = [
        [method.upper(), "/api" + re.sub(r"\{[^}]*\}", "00000000-0000-0000-0000-000000000000", path)]
        for path, methods in up.get("openapi.json")["paths"].items()
        for method in methods
    ]
    paths += [["GET", path] for path in ("/api/docs", "/api/openapi.json", "/api/static/x", "/api/nothing", "/api//flows")]
    assert len(paths) > 150
    before = contents(up)
    task = {
        "api": up.state.ui,
        "home": str(up.home),
        "pids": [up.state.server.pid],  # type: ignore[union-attr]
        "paths": paths,
        "keys": KEYS if soak else [KEYS[0], KEYS[-1]],
    }
    source = Path(__file__).with_name("other_user.py").read_text()
    ran = subprocess.run(
        [shutil.which("python3", path="/usr/bin") or "", "-I", "-c", source],
        input=json.dumps(task),
        capture_output=True,
        text=True,
        check=True,
        user=NOBODY,
        group=NOBODY,
        extra_groups=[],
        cwd="/",
    )
    tried = json.loads(ran.stdout)
    assert tried["uid"] == NOBODY
    answered = {(method, path): body for method, path, status, body in tried["answers"] if status not in (401, 403)}
    assert set(answered) <= OPEN and set(answered.values()) <= {"true", '{"message":"OK"}'}
    read = {path for path, content in tried["files"].items() if content is not None}
    assert read == {f"/proc/{task['pids'][0]}/cmdline"}
    assert SECRET not in ran.stdout and (up.home / "credential").read_text().partition(":")[2].strip() not in ran.stdout
    assert contents(up) == before
    figures("server_other_user", requests=len(tried["answers"]), answered=sorted(map(list, answered)), files_read=len(read) - 1)


@pytest.mark.parametrize("path", SOCKETS)
def test_websockets_ask_for_the_key(up: Up, path: str) -> None:
    address = f"ws://127.0.0.1:{up.state.port}/api/{path}"
    event = {"event": "attack.forged", "resource": {"prefect.resource.id": "attack"}, "occurred": "2026-01-01T00:00:00Z"}

    async def got(token: str | None, protocol: str | None, origin: str | None) -> list[str]:
        """What the server says after a first message with this token, and after a subscription and an event."""
        said: list[str] = []
        try:
            options: dict[str, Any] = {"origin": origin, "subprotocols": [protocol] if protocol else None}
            async with websockets.connect(address, proxy=None, **options) as socket:
                for message in ({"type": "auth", "token": token}, {"type": "filter", "filter": {}}, event):
                    await socket.send(json.dumps(message))
                async with asyncio.timeout(20):
                    while True:
                        said.append(str(await socket.recv()))
        except (websockets.WebSocketException, TimeoutError) as error:
            assert not isinstance(error, TimeoutError), "left open"
        return said

    key = (up.home / "credential").read_text().strip()
    for token in (None, "", "excel:guess"):
        for protocol in ("prefect", None):
            assert asyncio.run(got(token, protocol, None)) == []
    assert asyncio.run(got(key, "prefect", "http://attacker.example")) == []  # a foreign page, even with the key


@pytest.fixture(scope="module")
def signed_in(up: Up, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The user's Chromium: signed in to the UI, by the form, with the key from its file. It takes REBOUND for 127.0.0.1."""
    if not (CHROMIUM and DRIVER):
        pytest.skip("needs a Chromium and its driver: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    own = (f"--user-data-dir={tmp_path_factory.mktemp('chromium')}", f"--host-resolver-rules=MAP {REBOUND} 127.0.0.1")
    for flag in (*FLAGS, *own):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    driver.set_script_timeout(PATIENCE)
    try:
        driver.get(up.state.ui)
        form = WebDriverWait(driver, PATIENCE).until(lambda page: page.find_elements(By.CSS_SELECTOR, "input[type=password]"))
        form[0].send_keys((up.home / "credential").read_text())  # with its line's end, which submits
        WebDriverWait(driver, PATIENCE).until(lambda page: "login" not in page.current_url)
        yield driver
    finally:
        driver.quit()


def test_its_user_signs_in_once(up: Up, signed_in: Any) -> None:
    """Both UIs take that one sign-in, show what there is, and ask nobody else for anything."""
    shown = f"{len(up.post('deployments/filter'))} Deployments"
    for ui in ("/v2/deployments", "/deployments"):
        signed_in.get(up.state.ui + ui)
        WebDriverWait(signed_in, PATIENCE).until(
            lambda page: shown in page.find_element(By.TAG_NAME, "body").text, f"nothing of {ui}"
        )
    answered = {address for address in _answered(signed_in) if not address.startswith(("data:", "blob:", "chrome"))}
    assert answered and all(address.startswith(up.state.ui) for address in answered)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "attacker.localhost"])
def test_a_page_of_another_origin_gets_nothing(up: Up, signed_in: Any, host: str, figures: Record) -> None:
    before = contents(up)
    deployment = next(one["id"] for one in before["deployments"] if one["name"] == "demo")
    handler = partial(_Quiet, directory=ATTACKER.parent)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        page = f"http://{host}:{server.server_port}/{ATTACKER.name}"
        signed_in.get(page)
        results = signed_in.execute_async_script(
            "const done = arguments[arguments.length - 1]; attack(arguments[0], arguments[1]).then(done)",
            up.state.ui,
            deployment,
        )
        server.shutdown()
    assert len(results) > 25
    got = {name: result for name, result in results.items() if not result.startswith("nothing")}
    assert got == {}
    assert contents(up) == before
    figures(f"server_foreign_page_{host}", tries=len(results), got=len(got))


def test_a_name_that_is_rebound_gets_nothing(up: Up, signed_in: Any) -> None:
    """A page that was loaded from the attacker's name can ask this server as its own origin once that name leads here."""
    for path in ("/", "/ui-settings", "/api/health", "/api/admin/settings"):
        signed_in.get(f"http://{REBOUND}:{up.state.port}{path}")
        body = signed_in.find_element(By.TAG_NAME, "body").text
        assert body == "This server answers pages of its own origin, under 127.0.0.1 and localhost."


def _answered(driver: Any) -> list[str]:
    """Addresses that answered since this was last called."""
    events = (json.loads(entry["message"])["message"] for entry in driver.get_log("performance"))
    return [event["params"]["response"]["url"] for event in events if event["method"] == "Network.responseReceived"]


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *arguments: object) -> None:
        pass
