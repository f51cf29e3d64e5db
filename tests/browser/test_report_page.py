"""The report in a real browser: pictures, phone width, dark pages, and that it asks nothing of anybody."""

from pathlib import Path
from typing import Any

import pytest

from artifacts.report import write_report
from tests.browser.conftest import console_errors, requested_addresses, set_width
from tests.report_view import example_view

PICTURES = "return [...document.images].map(image => [image.complete && image.naturalWidth, image.alt.trim()])"


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    page: Path = write_report(tmp_path_factory.mktemp("report"), example_view())
    return page.as_uri()


def test_pictures_show_and_nothing_is_asked_of_the_network(chromium: Any, address: str) -> None:
    chromium.get(address)
    pictures = chromium.execute_script(PICTURES)
    assert len(pictures) == 3 and all(width > 0 and alt for width, alt in pictures)  # charts; photos are on canvases
    assert console_errors(chromium) == []
    asked = requested_addresses(chromium)
    assert address in asked and all(each.startswith(("file://", "data:")) for each in asked)


def test_without_scripts_every_step_shows(chromium: Any, address: str) -> None:
    chromium.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    chromium.get(address)
    captions = "return [...document.querySelectorAll('#gallery figcaption')].map(each => each.offsetWidth && each.innerText)"
    shown = chromium.execute_script(captions)
    assert {"raw", "+ affinity", "+ PAR", "+ CRF", "truth", "CAM: car|van"} <= set(shown) and 0 not in shown
    controls = "return [...document.querySelectorAll('input, select, button')].map(input => input.offsetWidth)"
    assert set(chromium.execute_script(controls)) == {0}


def test_charts_are_dark_on_a_dark_page(chromium: Any, address: str) -> None:
    from io import BytesIO

    from PIL import Image

    brightness = {}
    for scheme in ("light", "dark"):
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        chromium.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        chromium.get(address)
        chart = chromium.find_element("css selector", "#training img.chart")
        picture = Image.open(BytesIO(chart.screenshot_as_png)).convert("L")
        levels = sorted(picture.resize((60, 40)).tobytes())
        brightness[scheme] = levels[len(levels) // 2]
    chromium.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    assert brightness["light"] > 230 and brightness["dark"] < 50


@pytest.mark.parametrize("width", [390, 1200])
def test_the_page_never_scrolls_sideways(chromium: Any, address: str, width: int) -> None:
    set_width(chromium, width)
    chromium.get(address)
    chromium.execute_script("document.querySelectorAll('details').forEach(each => { each.open = true })")
    wide, window = chromium.execute_script("return [document.documentElement.scrollWidth, innerWidth]")
    assert wide <= window == width


def test_a_script_that_is_not_the_page_s_own_is_refused(chromium: Any, address: str) -> None:
    chromium.get(address)
    insert = "const s = document.createElement('script'); s.textContent = 'window.evil = 1'; document.body.append(s)"
    chromium.execute_script(insert)
    assert chromium.execute_script("return window.evil") is None
    assert any("Content Security Policy" in error for error in console_errors(chromium))
