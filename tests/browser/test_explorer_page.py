"""The report's explorer in a real browser: order, filters, steps, threshold, two runs, many images, keys, names of controls."""

import functools
import http.server
import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from artifacts import explorer
from artifacts.report import write_report
from artifacts.view import ReportView
from excel_core.evaluation.metrics import confusion_matrix
from tests.browser.conftest import console_errors, requested_addresses, set_width
from tests.report_view import HOSTILE, NAMES, example_view, explored_image

CARDS = """return [...document.querySelectorAll('.cards li')].map(card => [card.querySelector('.id').textContent,
    [...card.querySelectorAll('.badge')].map(badge => badge.textContent)])"""
TITLES = "return [...document.querySelectorAll('.cards li:first-child figure .title')].map(title => title.textContent)"
SHIFTS = {"a": 1, "b": 3, "c": 5, "d": 8, "e": 20}


def _view(shifts: dict[str, int]) -> ReportView:
    """Images whose label maps are the truth moved by so many pixels; the more, the worse."""
    items = [explored_image(name, shift) for name, shift in shifts.items()]
    return replace(example_view(), explored=(*items, explored_image("held out", 30, "val", scored=False)))


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_report(tmp_path_factory.mktemp("explorer"), _view(SHIFTS)).as_uri()


@pytest.fixture(scope="module")
def beside(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report whose images lie beside it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(explorer, "MAX_INLINE_IMAGES", 2)
        return write_report(tmp_path_factory.mktemp("beside"), _view(SHIFTS))


@pytest.fixture
def served(beside: Path) -> Iterator[str]:
    handler = functools.partial(_Quiet, directory=str(beside.parent))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/index.html"
        server.shutdown()


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args: Any) -> None:
        pass


def _wait(chromium: Any, script: str) -> Any:
    from selenium.webdriver.support.ui import WebDriverWait

    return WebDriverWait(chromium, 20).until(lambda driver: driver.execute_script(script))


def _load(chromium: Any, address: str) -> None:
    """The page, scrolled to its cards: their pictures are drawn once they are near the window."""
    chromium.get(address)
    chromium.execute_script("document.querySelector('#images .cards').scrollIntoView()")


def _choose(chromium: Any, control: str, value: str) -> None:
    script = "const c = document.querySelector(arguments[0]); c.value = arguments[1]; c.dispatchEvent(new Event('change'));"
    chromium.execute_script(script, control, value)


def _slide(chromium: Any, control: str, value: float) -> None:
    script = "const c = document.querySelector(arguments[0]); c.value = arguments[1]; c.dispatchEvent(new Event('input'));"
    chromium.execute_script(script, control, value)


def _open(chromium: Any, name: str) -> None:
    from selenium.common.exceptions import ElementClickInterceptedException
    from selenium.webdriver.support.ui import WebDriverWait

    button = chromium.find_element("css selector", f"[aria-label='Open {name}']")
    # Pictures that load move the page, also between finding the button's place and the click.
    moved = WebDriverWait(chromium, 20, ignored_exceptions=[ElementClickInterceptedException])
    moved.until(lambda _: button.click() is None)
    _wait(chromium, "return document.querySelectorAll('dialog[open] canvas').length > 1")


def test_cards_start_at_the_last_step_with_the_worst_first(chromium: Any, address: str) -> None:
    _load(chromium, address)
    cards = chromium.execute_script(CARDS)
    assert [name for name, _ in cards] == ["e", "d", "c", "b", "a", "held out"]
    assert [badges[0] for _, badges in cards][-1] == "not scored"
    last = {image.id: image.scores["static.crf"] for image in _view(SHIFTS).explored}
    for name, badges in cards[:-1]:
        assert badges[0] == f"foreground IoU {last[name].iou:.3f}"  # type: ignore[union-attr]
    assert _wait(chromium, TITLES) == ["CAM seed: + CRF", "truth", f"CAM: {NAMES[0]}", f"CAM: {NAMES[1]}"]
    assert "median foreground IoU" in chromium.find_element("id", "shown").text
    assert console_errors(chromium) == []
    asked = requested_addresses(chromium)
    assert [each for each in asked if not each.startswith(("file://", "data:", "chrome://"))] == []


@pytest.mark.parametrize(
    ("order", "expected"),
    [("best", "abcde"), ("name", "abcde"), ("median", "cdbea"), ("classes", "edcba"), ("worst", "edcba")],
)
def test_order(chromium: Any, address: str, order: str, expected: str) -> None:
    _load(chromium, address)
    _choose(chromium, "#order", order)
    names = [name for name, _ in chromium.execute_script(CARDS) if name != "held out"]
    assert "".join(names) == expected


def test_cards_of_a_class_are_ordered_by_its_iou(chromium: Any, address: str) -> None:
    _load(chromium, address)
    assert chromium.execute_script("return [...document.querySelectorAll('#class option')].map(o => o.text)") == [
        "all classes", *NAMES[:2],
    ]  # fmt: skip
    _choose(chromium, "#class", "2")
    _choose(chromium, "#order", "best")
    score = {image.id: image.scores["static.crf"] for image in _view(SHIFTS).explored}
    cards = chromium.execute_script(CARDS)[:-1]
    iou = [score[name].classes[2] for name, _ in cards]  # type: ignore[union-attr]
    assert iou == sorted(iou, reverse=True)
    assert [badges[0] for _, badges in cards] == [f"IoU of {HOSTILE} {value:.3f}" for value in iou]


def test_filters_say_what_they_leave(chromium: Any, tmp_path: Path) -> None:
    missing = explored_image("missing", 0)
    arrays = missing.load()
    empty = {kind: np.zeros_like(labels) for kind, labels in arrays.maps.items()}
    score = replace(next(iter(missing.scores.values())), missed=(1, 2), false=())  # type: ignore[type-var]
    missing = replace(missing, scores=dict.fromkeys(missing.scores, score), load=lambda: replace(arrays, maps=empty))
    other = replace(explored_image("other kinds", 1), scores={"lvc.raw": None}, split="val")
    view = replace(example_view(), explored=(explored_image("fine", 1), missing, other))
    _load(chromium, write_report(tmp_path, view).as_uri())
    _choose(chromium, "#mistakes", "missed")
    assert [name for name, _ in chromium.execute_script(CARDS)] == ["missing"]
    assert chromium.execute_script(CARDS)[0][1][1:] == [f"missed: {NAMES[0]}", f"missed: {HOSTILE}"]
    _choose(chromium, "#mistakes", "none")
    assert [name for name, _ in chromium.execute_script(CARDS)] == ["fine"]
    _choose(chromium, "#mistakes", "")
    _choose(chromium, "#kind", "static.raw")
    assert [name for name, _ in chromium.execute_script(CARDS)] == ["fine", "missing"]
    assert "2 of 3 images" in chromium.find_element("id", "shown").text
    assert "1 have no such label map" in chromium.find_element("id", "shown").text


def test_every_step_of_an_image_is_a_key_away(chromium: Any, address: str) -> None:
    from selenium.webdriver.common.keys import Keys

    _load(chromium, address)
    button = chromium.find_element("css selector", "[aria-label='Open c']")
    button.send_keys(Keys.ENTER)
    _wait(chromium, "return document.querySelectorAll('dialog[open] canvas').length > 1")
    step = chromium.find_element("css selector", "dialog .step")
    assert step.get_attribute("aria-valuetext") == "CAM seed: + CRF"
    before = chromium.find_element("css selector", "dialog .badge").text
    step.send_keys(Keys.ARROW_LEFT)
    assert step.get_attribute("aria-valuetext") == "CAM seed: raw"
    assert chromium.find_element("css selector", "dialog .badge").text != before
    chromium.find_element("css selector", "dialog .next").click()
    _wait(chromium, "return document.getElementById('large-title').textContent === 'b'")
    step.send_keys(Keys.ESCAPE)
    _wait(chromium, "return !document.getElementById('large').open")
    assert chromium.execute_script("return document.activeElement.getAttribute('aria-label')") == "Open c"


@pytest.mark.parametrize("threshold", [0.2, 0.5, 0.8])
def test_the_threshold_gives_the_iou_of_its_mask(chromium: Any, address: str, threshold: float) -> None:
    _load(chromium, address)
    _open(chromium, "c")
    _choose(chromium, "dialog .look", "cam")
    _choose(chromium, "dialog .cam-class", "1")
    _slide(chromium, "dialog .threshold", round(100 * threshold))
    arrays = explored_image("c", 5).load()
    assert arrays.truth is not None
    cams = np.stack([np.rint(np.asarray(cam) * 255) / 255 for cam in arrays.cams.values()])
    full = torch.nn.functional.interpolate(torch.from_numpy(cams)[None], size=(40, 60), mode="bilinear")[0].numpy()
    own = np.where(full[1] >= threshold, 2, 0)
    both = np.where(full.max(axis=0) >= threshold, full.argmax(axis=0) + 1, 0)
    # Independent of both: what the confusion matrices say.
    confusion = confusion_matrix(arrays.truth, own, 4)
    alone = confusion[2, 2] / (confusion[2].sum() + confusion[:, 2].sum() - confusion[2, 2])
    confusion = confusion_matrix(arrays.truth, both, 4)
    foreground = confusion.diagonal()[1:].sum() / (confusion.sum() - confusion[0, 0])
    said = chromium.find_element("css selector", "dialog .live").text
    assert f"IoU of {HOSTILE} alone {alone:.3f}; foreground IoU of all CAMs {foreground:.3f}; at 60 x 40 pixels" in said


def test_errors_are_counted(chromium: Any, address: str) -> None:
    _load(chromium, address)
    _open(chromium, "e")
    _choose(chromium, "dialog .look", "errors")
    arrays = explored_image("e", 20).load()
    assert arrays.truth is not None
    labels, counted = arrays.maps["static.crf"], arrays.truth != 255
    either = counted & ((labels > 0) | (arrays.truth > 0))
    right = (labels == arrays.truth)[either].mean()
    words = chromium.find_element("css selector", "dialog figure .words").text
    assert words.startswith(f"right {100 * right:.0f} %, missed ")


def test_zoom_and_opacity_change_the_picture(chromium: Any, address: str) -> None:
    _load(chromium, address)
    _open(chromium, "c")
    colours = "return document.querySelector('dialog canvas').toDataURL()"
    before, wide = chromium.execute_script(colours), "return document.querySelector('dialog canvas').offsetWidth"
    width = chromium.execute_script(wide)
    _slide(chromium, "dialog .opacity", 90)
    assert chromium.execute_script(colours) != before
    _slide(chromium, "dialog .zoom", 3)
    assert chromium.execute_script(wide) == pytest.approx(3 * width, rel=0.05)
    chromium.execute_script("document.querySelector('dialog .frame').scrollTo(50, 40)")
    scrolls = "return [...document.querySelectorAll('dialog .frame')].every(frame => frame.scrollLeft === 50)"
    assert _wait(chromium, scrolls)


def test_two_runs_stand_side_by_side(chromium: Any, address: str, tmp_path: Path) -> None:
    better = write_report(tmp_path, _view(SHIFTS | {"b": 30, "d": 2}))
    _load(chromium, address)
    chromium.find_element("id", "other").send_keys(str(better))
    _wait(chromium, "return document.querySelector('.badge.other')")
    cards = dict(chromium.execute_script(CARDS))
    assert next(iter(cards)) == "d"  # which lost most against the other run
    here, there = (
        {image.id: image.scores["static.crf"].iou for image in _view(shifts).explored[:-1]}  # type: ignore[union-attr]
        for shifts in (SHIFTS, SHIFTS | {"b": 30, "d": 2})
    )
    gain = here["d"] - there["d"]  # type: ignore[operator]
    assert cards["d"][1] == f"other run {there['d']:.3f} (−{-gain:.3f})"
    assert _wait(chromium, TITLES)[:4] == ["CAM seed: + CRF", "other run: CAM seed: + CRF", "difference", "truth"]
    _choose(chromium, "#order", "gain")
    assert chromium.execute_script(CARDS)[0][0] == "b"
    chromium.find_element("id", "forget").click()
    assert not chromium.execute_script("return document.querySelector('.badge.other')")


def test_another_report_brings_no_code(chromium: Any, address: str, tmp_path: Path) -> None:
    """A file of somebody else: markup in names stays text, and what is no report is refused with a word."""
    evil = '<img src=x onerror="window.evil=1">'
    data = {
        "format": "excel-explorer/1", "title": evil, "classes": ["background", evil, evil + "2", evil + "3"], "palette": [],
        "heat": "", "kinds": {"static.crf": evil}, "threshold": 0.5, "beside": False,
        "images": [{"id": "c", "split": "train", "labels": [1], "scores": {"static.crf": None}}],
    }  # fmt: skip
    picture = {"width": 10**6, "height": 10**6, "photo": "", "maps": {}, "truth": None, "cams": []}
    escape = lambda value: json.dumps(value).replace("&", "&amp;").replace("<", "&lt;")  # noqa: E731
    page = tmp_path / "evil.html"
    script = "<script>window.evil=1</script>"
    page.write_text(
        f'{script}<pre id="explorer-data">{escape(data)}</pre><pre class="picture-data">{escape(picture)}</pre>{evil}'
    )
    _load(chromium, address)
    chromium.find_element("id", "other").send_keys(str(page))
    _wait(chromium, "return document.querySelector('.badge.other')")
    # The picture in that file says that it is a million pixels wide: a word in its place, and the rest of the card.
    chromium.execute_script("document.querySelector('[aria-label=\\'Open c\\']').scrollIntoView()")
    _wait(chromium, "return document.querySelector('.cards').textContent.includes('a side of 1000000 pixels')")
    assert evil in chromium.execute_script("return document.querySelector('.cards').textContent")
    assert chromium.execute_script("return window.evil") is None
    wrong = tmp_path / "wrong.html"
    wrong.write_text("<p>nothing</p>")
    chromium.find_element("id", "forget").click()  # else the driver would add the file to the one before
    chromium.find_element("id", "other").send_keys(str(wrong))
    _wait(chromium, "return !document.getElementById('trouble').hidden")
    assert "wrong.html is no report of excel" in chromium.find_element("id", "trouble").text


def test_many_images_from_a_server_and_from_the_disk(chromium: Any, served: str, beside: Path) -> None:
    _load(chromium, served)
    assert len(_wait(chromium, TITLES)) == 4
    assert [error for error in console_errors(chromium) if "favicon" not in error] == []
    assert any(each.endswith("/images/4.json") for each in requested_addresses(chromium))
    _load(chromium, beside.as_uri())
    drawn = "return [...document.querySelectorAll('.cards img')].filter(image => image.complete && image.naturalWidth).length"
    _wait(chromium, f"{drawn} > 3")
    assert [name for name, _ in chromium.execute_script(CARDS)][:5] == list("edcba")
    said = chromium.find_element("id", "trouble").text
    assert f"python -m http.server --bind 127.0.0.1 --directory '{beside.parent}/'" in said
    assert console_errors(chromium) == []


@pytest.mark.parametrize("width", [390, 1200])
def test_the_explorer_never_scrolls_sideways(chromium: Any, address: str, width: int) -> None:
    set_width(chromium, width)
    _load(chromium, address)
    _open(chromium, "c")
    wide, window = chromium.execute_script("return [document.documentElement.scrollWidth, innerWidth]")
    assert wide <= window == width
    wide, inside = chromium.execute_script("const d = document.getElementById('large'); return [d.scrollWidth, d.clientWidth]")
    assert wide <= inside


def test_every_control_is_named_and_reached_by_tab(chromium: Any, address: str) -> None:
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys

    _load(chromium, address)
    _wait(chromium, "return document.querySelectorAll('.cards canvas').length > 15")
    for place in ("#images", "dialog"):
        if place == "dialog":
            _open(chromium, "c")
            _choose(chromium, "dialog .look", "cam")
        nodes = chromium.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
        named = {"button", "slider", "combobox", "image", "img", "region", "link", "dialog", "table", "list", "checkbox"}
        for node in nodes:
            if not node.get("ignored") and node["role"]["value"] in named - {"table", "list"}:
                assert node.get("name", {}).get("value", "").strip(), node
        controls = f"[...document.querySelectorAll('{place} :is(button, input, select, [tabindex])')]"
        controls += ".filter(control => control.offsetWidth && !control.disabled)"
        count = chromium.execute_script(f"return {controls}.length")
        chromium.execute_script("document.querySelector(arguments[0]).querySelector('button, input, select').focus()", place)
        chromium.execute_script("window.seen = new Set([document.activeElement])")
        for _ in range(count + 12):
            ActionChains(chromium).send_keys(Keys.TAB).perform()  # sent to a file's control, it would be a path
            chromium.execute_script("window.seen.add(document.activeElement)")
        missed = chromium.execute_script(
            f"return {controls}.filter(each => !window.seen.has(each)).map(each => each.outerHTML)"
        )
        assert missed == []
