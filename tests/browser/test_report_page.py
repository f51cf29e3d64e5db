"""The report in a real browser: pictures, slider, phone width, and that it asks nothing of anybody."""

from pathlib import Path
from typing import Any

import pytest

from artifacts.report import write_report
from tests.browser.conftest import console_errors, requested_addresses, set_width
from tests.report_view import example_view

PICTURES = "return [...document.images].map(image => [image.complete && image.naturalWidth, image.alt.trim()])"
SHOWN = """return [...document.querySelector('[data-steps]').querySelectorAll('figure')]
    .filter(figure => figure.offsetWidth).map(figure => figure.innerText.trim())"""


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    page: Path = write_report(tmp_path_factory.mktemp("report"), example_view())
    return page.as_uri()


def test_pictures_show_and_nothing_is_asked_of_the_network(chromium: Any, address: str) -> None:
    chromium.get(address)
    pictures = chromium.execute_script(PICTURES)
    assert len(pictures) > 20 and all(width > 0 and alt for width, alt in pictures)
    assert console_errors(chromium) == []
    asked = requested_addresses(chromium)
    assert address in asked and all(each.startswith(("file://", "data:")) for each in asked)


def test_the_slider_goes_through_the_steps(chromium: Any, address: str) -> None:
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    chromium.get(address)
    slider = chromium.find_element(By.CSS_SELECTOR, "[data-steps] input")
    assert "Refinement of image one" in slider.get_attribute("aria-label")
    assert chromium.execute_script(SHOWN) == ["raw"]
    slider.send_keys(Keys.ARROW_RIGHT)
    assert chromium.execute_script(SHOWN) == ["+ affinity"] and slider.get_attribute("aria-valuetext") == "+ affinity"
    slider.send_keys(Keys.END)
    assert chromium.execute_script(SHOWN) == ["+ CRF"]
    chromium.execute_script("arguments[0].value = 2; arguments[0].dispatchEvent(new Event('input'))", slider)
    assert chromium.execute_script(SHOWN) == ["+ PAR"]
    chromium.find_element(By.CSS_SELECTOR, "[data-steps] .names span").click()
    assert chromium.execute_script(SHOWN) == ["raw"] and slider.get_attribute("value") == "0"


def test_without_scripts_every_step_shows(chromium: Any, address: str) -> None:
    chromium.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    chromium.get(address)
    assert chromium.execute_script(SHOWN) == ["raw", "+ affinity", "+ PAR", "+ CRF"]
    sliders = "return [...document.querySelectorAll('input')].map(input => input.offsetWidth)"
    assert set(chromium.execute_script(sliders)) == {0}


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
