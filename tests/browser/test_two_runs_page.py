"""Two runs side by side in a real browser: panels, order, the difference's numbers, the dialog, a phone, dark and quiet."""

from pathlib import Path
from typing import Any

import pytest

from artifacts.comparison.page import write_comparison
from tests.browser.conftest import console_errors, requested_addresses, set_width
from tests.browser.test_explorer_page import CARDS, TITLES, _choose, _load, _open, _slide, _wait
from tests.comparison_view import SHIFTS, example_comparison
from tests.report_view import HOSTILE


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder: Path = tmp_path_factory.mktemp("comparison")
    write_comparison(folder, example_comparison())
    return (folder / "index.html").as_uri()


def _expected(name: str) -> dict[str, float]:
    """Shares of the pixels that a score counts, by another way than the page's."""
    runs = example_comparison()
    (a,), (b,) = ([image.load() for image in run.images if image.id == name] for run in (runs.a, runs.b))
    assert a.truth is not None
    theirs, own, counted = a.maps["static.crf"], b.maps["static.crf"], a.truth != 255
    differ = (theirs != own) & counted
    marks = {"only A is right": theirs == a.truth, "only B is right": own == a.truth}
    marks["neither is right"] = ~marks["only A is right"] & ~marks["only B is right"]
    return {words: float((differ & mark).sum() / counted.sum()) for words, mark in marks.items()}


def test_cards_show_photo_truth_a_b_and_difference(chromium: Any, address: str) -> None:
    _load(chromium, address)
    assert _wait(chromium, TITLES) == ["photo", "truth", "A: CAM seed: + CRF", "B: CAM seed: + CRF", "difference"]
    iou = {image.id: image.scores["static.crf"].iou for image in example_comparison().b.images}  # type: ignore[union-attr]
    there = {image.id: image.scores["static.crf"].iou for image in example_comparison().a.images}  # type: ignore[union-attr]
    cards = chromium.execute_script(CARDS)
    changes = [abs(iou[name] - there[name]) for name, _ in cards]  # type: ignore[operator]
    assert len(cards) == len(SHIFTS) and changes == sorted(changes, reverse=True)
    for name, badges in cards:
        change = iou[name] - there[name]  # type: ignore[operator]
        sign = "+" if change >= 0 else "−"
        assert badges[:2] == [f"B: foreground IoU {iou[name]:.3f}", f"A {there[name]:.3f} ({sign}{abs(change):.3f})"]
    words = chromium.execute_script(
        """return [...document.querySelectorAll('.cards li')].map(card => [card.querySelector('.id').textContent,
        [...card.querySelectorAll('figure')].at(-1).querySelector('.words').textContent])"""
    )
    for name, said in words:
        for look, share in _expected(name).items():
            digits = 1 if 0 < share < 0.095 else 0
            assert f"{look} {100 * share:.{digits}f} %" in said, (name, said)
    assert console_errors(chromium) == []
    assert [each for each in requested_addresses(chromium) if not each.startswith(("file://", "data:", "chrome://"))] == []


@pytest.mark.parametrize(("order", "first"), [("gain", "gained"), ("loss", "lost"), ("name", HOSTILE)])
def test_cards_are_sorted_by_gain_and_loss(chromium: Any, address: str, order: str, first: str) -> None:
    _load(chromium, address)
    _choose(chromium, "#order", order)
    assert chromium.execute_script(CARDS)[0][0] == first


def test_the_large_view_keeps_both_runs_at_one_step(chromium: Any, address: str) -> None:
    _load(chromium, address)
    _open(chromium, "gained")
    titles = "return [...document.querySelectorAll('dialog figure .title')].map(title => title.textContent)"
    assert chromium.execute_script(titles) == ["truth", "A: CAM seed: + CRF", "B: CAM seed: + CRF", "difference"]
    _slide(chromium, "dialog .step", 0)
    assert chromium.execute_script(titles)[1:3] == ["A: CAM seed: raw", "B: CAM seed: raw"]
    head = "return [...document.querySelectorAll('dialog th')].map(cell => cell.textContent)"
    assert chromium.execute_script(head) == ["class", "image-level label", "IoU of B", "IoU of A", "mistake"]


def test_no_other_report_is_asked_for(chromium: Any, address: str) -> None:
    _load(chromium, address)
    assert not chromium.find_elements("id", "other") and not chromium.find_elements("id", "forget")


def test_without_scripts_the_images_are_one_picture(chromium: Any, address: str) -> None:
    chromium.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    chromium.get(address)
    widths = chromium.execute_script("return [...document.querySelectorAll('#drawn img')].map(image => image.naturalWidth)")
    assert widths == [1200] and not chromium.execute_script("return document.getElementById('images').offsetWidth")


@pytest.mark.parametrize("width", [390, 1200])
def test_the_page_never_scrolls_sideways(chromium: Any, address: str, width: int) -> None:
    set_width(chromium, width)
    _load(chromium, address)
    _wait(chromium, "return document.querySelectorAll('.cards canvas').length > 4")
    wide, window = chromium.execute_script("return [document.documentElement.scrollWidth, innerWidth]")
    assert wide <= window == width
