"""A headless Chromium that keeps what it logged and asked for, and a Prefect server with artifacts in it."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
# --disable-background-networking: Chromium's own requests are no requests of the page.
FLAGS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-dev-shm-usage")
PATIENCE = 120  # seconds until something that never comes is called missing


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """One Chromium for all tests."""
    if not (CHROMIUM and DRIVER):
        pytest.skip("needs a Chromium and its driver: apt-get install chromium chromium-driver")
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture
def chromium(browser: Any) -> Iterator[Any]:
    """The browser with empty logs, one window of 1200 x 900 and scripts allowed."""
    set_width(browser, 1200)
    yield browser
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
    first, *others = browser.window_handles
    for window in others:
        browser.switch_to.window(window)
        browser.close()
    browser.switch_to.window(first)
    browser.get("about:blank")
    console_errors(browser), requested_addresses(browser)  # reading empties them


def set_width(browser: Any, width: int) -> None:
    """As on a screen of that width; a headless window itself is never narrower than 500."""
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)


def console_errors(browser: Any) -> list[str]:
    """What the console said since it was last asked, warnings and errors."""
    return [entry["message"] for entry in browser.get_log("browser") if entry["level"] in ("WARNING", "SEVERE")]


def requested_addresses(browser: Any) -> list[str]:
    """Every address that pages asked for since this was last called."""
    events = (json.loads(entry["message"])["message"] for entry in browser.get_log("performance"))
    return [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]


@dataclass(frozen=True)
class Published:
    """A Prefect server's address, its artifacts' ids by key, and the flow run that made them."""

    url: str
    artifacts: dict[str, str]
    flow_run: str


@pytest.fixture(scope="session")
def published(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Published]:
    """A real server with the artifacts of tests/report_view.py, published by a real flow run."""
    folder = tmp_path_factory.mktemp("prefect")
    url = f"http://127.0.0.1:{_free_port()}"
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PREFECT_")}
    environment |= {
        "PREFECT_HOME": str(folder),
        "PREFECT_API_URL": f"{url}/api",
        "PREFECT_UI_API_URL": f"{url}/api",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
    }
    start = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", url.rpartition(":")[2]]
    with (folder / "server.log").open("w") as log:
        server = subprocess.Popen(start, env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            _wait_for(f"{url}/api/health", server, folder / "server.log")
            run = [sys.executable, "-m", "tests.browser.publish_example"]
            subprocess.run(run, env=environment, cwd=ROOT, check=True, capture_output=True)
            found = _post(f"{url}/api/artifacts/filter")
            yield Published(url, {each["key"]: each["id"] for each in found}, found[0]["flow_run_id"])
        finally:
            os.killpg(server.pid, signal.SIGTERM)  # of the session that it was started in: itself and its children
            server.wait(timeout=PATIENCE)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_for(address: str, server: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + PATIENCE
    while server.poll() is None and time.monotonic() < end:
        try:
            with urllib.request.urlopen(address, timeout=5):
                return
        except (urllib.error.URLError, TimeoutError):
            time.sleep(0.5)
    raise AssertionError(f"no Prefect server at {address}:\n{log.read_text()[-2000:]}")


def _post(address: str) -> list[dict[str, Any]]:
    request = urllib.request.Request(address, data=b"{}", headers={"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        found: list[dict[str, Any]] = json.load(answer)
    return found
