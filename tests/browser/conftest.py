"""A headless Chromium that keeps what it logged and asked for, and a Prefect server with artifacts in it."""

import json
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.conftest import ROOT
from tests.prefect_server import shared_server

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
# --disable-background-networking: Chromium's own requests are no requests of the page.
FLAGS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-dev-shm-usage")


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
def published(browser: Any) -> Published:
    """The run's server with the artifacts of tests/report_view.py, published by a real flow run."""
    server = shared_server()
    run = [sys.executable, "-m", "tests.browser.publish_example"]
    ran = subprocess.run(run, env=server.environment(), cwd=ROOT, check=True, capture_output=True, text=True)
    flow_run = ran.stdout.split()[-1]
    artifacts = _post(f"{server.url}/api/artifacts/filter", {"artifacts": {"flow_run_id": {"any_": [flow_run]}}})
    return Published(server.url, {artifact["key"]: artifact["id"] for artifact in artifacts}, flow_run)


def _post(address: str, body: dict[str, Any]) -> list[dict[str, Any]]:
    content = json.dumps(body).encode()
    request = urllib.request.Request(address, data=content, headers={"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        result: list[dict[str, Any]] = json.load(answer)
    return result
