"""The files of two runs side by side: the same each time, no markup from names, and what the pictures show."""

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from artifacts.changed_images import ChangedImage, overlay_difference
from artifacts.comparison.page import class_differences_png, write_comparison
from artifacts.prefect_artifacts.body import MAX_MARKDOWN_BYTES
from artifacts.prefect_artifacts.comparison_bodies import comparison_bodies
from tasks.history.compared_scores import edited_truths
from tests.comparison_view import example_comparison
from tests.report_view import HOSTILE


def test_the_same_comparison_gives_the_same_files(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        write_comparison(tmp_path / folder, example_comparison())
    names = {path.name for path in (tmp_path / "one").iterdir()}
    assert names == {"comparison.json", "classes.png", "images.png", "index.html"}
    assert all((tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes() for name in names)


def test_no_name_becomes_markup(tmp_path: Path) -> None:
    write_comparison(tmp_path, example_comparison())
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert HOSTILE not in page and "&lt;script&gt;alert" in page
    for body in comparison_bodies(tmp_path):
        assert HOSTILE not in body.markdown and len(body.markdown.encode()) <= MAX_MARKDOWN_BYTES


def test_the_page_says_numbers_with_protocol_interval_and_verdict(tmp_path: Path) -> None:
    write_comparison(tmp_path, example_comparison())
    page = " ".join((tmp_path / "index.html").read_text(encoding="utf-8").split())
    for words in ("B − A: B better", "+0.068", "95 % interval +0.010 to +0.120", "over 55 images that both runs scored"):
        assert words in page
    assert "over 55 shared images; CAM seed · train · images: 3 · scales: A 0.5, B single." in page
    assert page.count("CAM seed · train · scales: 0.5 · images: 3") == 1  # A's own protocol below A's number
    rows = page[page.index('aria-label="IoU by class"') :]
    order = [rows.index(name) for name in ("car|van", "&lt;script&gt;", "$kite$")]
    assert order == sorted(order)  # the largest gain first
    assert "few images" in rows and "no clear difference" in rows


def test_artifacts_lead_to_the_page(tmp_path: Path) -> None:
    write_comparison(tmp_path, example_comparison())
    tables, classes, images = comparison_bodies(tmp_path, "/reports/capability/compare/key")
    assert (
        tables.key == "excel-compare-demo"
        and "[The page with all images](/reports/capability/compare/key/index.html)" in tables.markdown
    )
    assert (classes.key, images.key) == ("excel-compare-classes-demo", "excel-compare-images-demo")
    assert str(tmp_path / "index.html") in comparison_bodies(tmp_path)[0].markdown


def test_the_chart_tells_groups_apart_without_colour() -> None:
    """Each verdict has a panel of its own, so that a chart in grey says the same."""
    classes = example_comparison().comparison["classes"]
    one = _height(class_differences_png(classes[:1]))
    assert _height(class_differences_png(classes)) > one + 2 * 30
    assert class_differences_png(classes) == class_differences_png(list(reversed(classes)))


def _height(png: bytes) -> int:
    return Image.open(io.BytesIO(png)).height


def test_a_class_that_one_truth_lacks_has_no_place_in_the_chart(tmp_path: Path) -> None:
    runs = example_comparison()
    gone = {"class": "gone", "a": 0.5, "b": None, "difference": None, "low": None, "high": None, "images": 2}
    drawn = class_differences_png(runs.comparison["classes"])
    assert class_differences_png([*runs.comparison["classes"], gone]) == drawn
    write_comparison(tmp_path, replace(runs, comparison=runs.comparison | {"classes": [*runs.comparison["classes"], gone]}))
    assert "gone" in (tmp_path / "index.html").read_text(encoding="utf-8")


def test_images_whose_truth_was_edited_are_told() -> None:
    columns = ["image", "truth", "predicted", "pixels"]
    a = pd.DataFrame([("same", 0, 1, 7), ("edited", 0, 0, 5), ("edited", 1, 1, 4), ("of a", 0, 0, 9)], columns=columns)
    b = pd.DataFrame([("same", 0, 0, 3), ("same", 0, 1, 4), ("edited", 0, 0, 9), ("of b", 1, 1, 9)], columns=columns)
    assert edited_truths(a, b) == {"edited"}


def test_a_difference_shows_who_is_right() -> None:
    truth = np.array([[1, 1, 1, 255, 0]], np.uint8).repeat(4, axis=0)
    before = np.array([[1, 2, 2, 1, 0]], np.uint8).repeat(4, axis=0)
    after = np.array([[2, 1, 3, 2, 0]], np.uint8).repeat(4, axis=0)
    grey = np.full((4, 5, 3), 100, np.uint8)
    row = overlay_difference(ChangedImage("x", "train", grey, before, after, truth, 0.5, 0.6), 5)[0].astype(int)
    lost, gained, neither, ignored, same = row
    assert lost[0] > lost[1] > lost[2] and gained[2] > gained[1] > gained[0] and neither[0] > neither[2] > neither[1]
    assert (ignored == 100).all() and (same == 100).all()
