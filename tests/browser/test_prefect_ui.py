"""The artifacts in Prefect's own UI, both of them: pictures load, and a stage links to the run that built it."""

from typing import Any

import pytest

from tests.browser.conftest import Published, set_width
from tests.prefect_server import PATIENCE_SECONDS

# Ours are data URIs; the UI's editor has empty images of its own.
PICTURES = "return [...document.images].filter(i => i.src.startsWith('data:')).map(i => i.complete && i.naturalWidth)"

# Of a table's column, and of the box that cuts the table off.
RIGHT_ENDS = """const cell = [...document.querySelectorAll('th')].find(each => each.innerText.trim() === arguments[0]);
    let box = cell.closest('table').parentElement;
    while (getComputedStyle(box).overflowX === 'visible') box = box.parentElement;
    return [cell, box].map(each => each.getBoundingClientRect().right)"""


def opened(chromium: Any, published: Published, key: str, ui: str) -> None:
    """Go to an artifact's page."""
    chromium.get(f"{published.url}{ui}/artifacts/artifact/{published.artifacts[key]}")


def waited(chromium: Any, condition: Any) -> Any:
    """What `condition` returns once it is true; the UI draws itself after the page has loaded."""
    from selenium.webdriver.support.ui import WebDriverWait

    return WebDriverWait(chromium, PATIENCE_SECONDS).until(condition)


@pytest.mark.parametrize("ui", ["", "/v2"])
@pytest.mark.parametrize("name", ["gallery", "ablation-chart", "losses", "knowledge"])
def test_pictures_show(chromium: Any, published: Published, name: str, ui: str) -> None:
    opened(chromium, published, f"excel-{name}-de-mo", ui)
    expected = 2 * (2 + 2 + 4 + 1) + (3 + 2) if name == "gallery" else 1
    waited(chromium, lambda driver: len(driver.execute_script(PICTURES)) >= expected)
    waited(chromium, lambda driver: all(width > 0 for width in driver.execute_script(PICTURES)))


@pytest.mark.parametrize("ui", ["", "/v2"])
def test_a_stage_links_to_the_run_that_built_it(chromium: Any, published: Published, ui: str) -> None:
    from selenium.webdriver.common.by import By

    opened(chromium, published, "excel-stages-de-mo", ui)
    (link,) = waited(chromium, lambda driver: driver.find_elements(By.CSS_SELECTOR, "table a"))
    name = link.text
    assert name
    link.click()
    chromium.switch_to.window(chromium.window_handles[-1])  # one of the UIs opens links in another tab
    waited(chromium, lambda driver: driver.current_url.startswith(f"{published.url}{ui}/runs/flow-run/{published.flow_run}"))
    waited(
        chromium, lambda driver: {name, "publish example"} <= set(driver.find_element(By.TAG_NAME, "body").text.splitlines())
    )


@pytest.mark.parametrize("key", ["results-de-mo", "classes-de-mo-segmentation-val", "ablation-de-mo", "attributes-de-mo"])
def test_tables_show(chromium: Any, published: Published, key: str) -> None:
    from selenium.webdriver.common.by import By

    opened(chromium, published, f"excel-{key}", "")
    waited(chromium, lambda driver: len(driver.find_elements(By.CSS_SELECTOR, "table tr")) > 2)


@pytest.mark.parametrize(("width", "column"), [(420, "mIoU"), (1400, "labels used")])
def test_scores_show_on_a_phone_and_protocols_in_a_window(chromium: Any, published: Published, width: int, column: str) -> None:
    from selenium.webdriver.common.by import By

    set_width(chromium, width)
    opened(chromium, published, "excel-results-de-mo", "")
    waited(chromium, lambda driver: len(driver.find_elements(By.CSS_SELECTOR, "table tr")) > 2)
    right, edge = chromium.execute_script(RIGHT_ENDS, column)
    assert 0 < right <= edge < width
