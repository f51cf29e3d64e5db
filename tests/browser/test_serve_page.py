"""The page of `excel serve` in a browser: masks, and beside them in words what is doubtful about them."""

import gc

import pytest
from PIL import Image

from excel_core.world.scenes import render_scene
from flows.live.labeller import PhotoLabeller
from flows.request import RunRequest
from tests.browser.conftest import console_errors, requested_addresses, set_width

SECONDS = 60
# Gradio leaves files and loops open.
pytestmark = pytest.mark.filterwarnings("default", "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """(address of the page, a scene's file, names of what it shows)."""
    pytest.importorskip("gradio")
    from flows.live.page import make_page

    folder = tmp_path_factory.mktemp("page")
    settings = ["cams.image_size=128", "cams.normalisation=clip", "describe.n=4", "knowledge.attributes=8"]
    request = RunRequest.checked(preset="photos", clip="excel-tiny", settings=settings, store=str(folder / "store"))
    scene = next(scene for scene in (render_scene(seed, 128) for seed in range(1_000_000, 1_000_050)) if len(scene.labels) == 2)
    Image.fromarray(scene.image).save(folder / "scene.png")
    made = make_page(PhotoLabeller(request), f"{scene.labels[0]}, {scene.labels[1]}, zebra")
    _, address, _ = made.launch(prevent_thread_lock=True, quiet=True, server_name="127.0.0.1", share=False)
    yield address, folder / "scene.png", scene.labels
    made.close()
    del made
    gc.collect()


@pytest.mark.parametrize("width", [1400, 420])
def test_doubts_are_words_beside_the_masks(chromium, page, width):
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import WebDriverWait

    address, photo, names = page
    set_width(chromium, width)
    chromium.get(address)
    wait = WebDriverWait(chromium, SECONDS)
    wait.until(lambda driver: driver.find_elements(By.CSS_SELECTOR, "input[type=file]"))[0].send_keys(str(photo))
    wait.until(lambda driver: driver.find_elements(By.CSS_SELECTOR, "img[src*='scene.png']"))
    chromium.find_element(By.XPATH, "//button[normalize-space()='Segment']").click()
    remarks = chromium.find_element(By.XPATH, "//label[.//*[normalize-space()='doubts and warnings']]//textarea")
    wait.until(lambda driver: remarks.get_property("value"))
    said = remarks.get_property("value").splitlines()
    assert said[0].startswith("doubtful: zebra: excel-tiny has never seen it") and "drawn scenes" in said[-1]
    assert chromium.execute_script("return arguments[0].scrollHeight <= arguments[0].clientHeight + 2", remarks)
    shown = chromium.find_element(By.TAG_NAME, "body").text
    assert "zebra" in shown and " %, doubtful" in shown and any(name in shown for name in names)
    assert chromium.execute_script("return document.documentElement.scrollWidth <= innerWidth")
    buttons = {button.get_attribute("aria-label") for button in chromium.find_elements(By.TAG_NAME, "button")}
    assert "Download" in buttons and not [name for name in buttons if name and "share" in name.lower()]
    asked = [
        url for url in requested_addresses(chromium) if not url.startswith((address, "data:", "blob:", "about:", "chrome"))
    ]
    assert not asked and not [line for line in console_errors(chromium) if "error" in line.lower()]
