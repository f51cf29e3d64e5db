"""Words of the pages in a real browser, light and dark: their contrast with what is behind them."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from artifacts.comparison.page import write_comparison
from artifacts.report import write_report
from tests.browser.test_explorer_page import _load, _open
from tests.comparison_view import example_comparison
from tests.report_view import example_view, explored_image

SCHEMES = ("light", "dark")
MIN_WORDS = 4.5
OPENED = {"report": "e", "two runs": "lost"}  # an image of each page, whose dialog is looked at too
POOR_WORDS = """
const parse = (text) => { const n = text.match(/[\\d.]+/g).map(Number); return [n[0], n[1], n[2], n[3] ?? 1]; };
const luminance = (rgb) => rgb.slice(0, 3).map(v => v / 255).map(v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
  .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
const ground = (element) => { for (let e = element; e; e = e.parentElement) {
  const colour = parse(getComputedStyle(e).backgroundColor); if (colour[3] === 1) return colour; } return [255, 255, 255]; };
const poor = [];
for (const element of document.querySelectorAll('header *, main *')) {
  const own = [...element.childNodes].some(node => node.nodeType === 3 && node.textContent.trim());
  if (!own || !element.offsetWidth || element.matches('option, .chip, :disabled, .matrix *')) continue;
  const [a, b] = [luminance(parse(getComputedStyle(element).color)), luminance(ground(element))].sort((x, y) => y - x);
  if ((a + .05) / (b + .05) < arguments[0]) poor.push([element.outerHTML.slice(0, 120), (a + .05) / (b + .05)]);
}
return poor"""


@pytest.fixture(scope="module")
def addresses(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """By page."""
    two_runs = tmp_path_factory.mktemp("comparison")
    write_comparison(two_runs, example_comparison())
    view = replace(example_view(), explored=(explored_image("a", 1), explored_image("e", 20)))
    report = write_report(tmp_path_factory.mktemp("report"), view)
    return {"report": report.as_uri(), "two runs": (two_runs / "index.html").as_uri()}


@pytest.fixture(params=SCHEMES)
def scheme(request: pytest.FixtureRequest, chromium: Any) -> Iterator[str]:
    """What the browser's user prefers."""
    preferred = [{"name": "prefers-color-scheme", "value": request.param}]
    chromium.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": preferred})
    yield request.param
    chromium.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


@pytest.mark.usefixtures("scheme")
@pytest.mark.parametrize("page", OPENED)
def test_words_have_contrast(chromium: Any, addresses: dict[str, str], page: str) -> None:
    _load(chromium, addresses[page])
    _open(chromium, OPENED[page])
    assert chromium.execute_script(POOR_WORDS, MIN_WORDS) == []
    assert chromium.execute_script(POOR_WORDS, 21)  # no ratio is greater: the words are looked at
