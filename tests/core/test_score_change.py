"""What an edit of prompts did, as tables: verdicts, order, what is said beside them, and the picture."""

import io

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from artifacts.changed_images import ChangedImage, draw_changed_images
from artifacts.score_change import change_notes, change_rows, print_change, verdict

UNEDITED = {"prompt": None, "added": [], "removed": [], "edited": False, "moved": 0.001, "noise": 0.002}


def _score(a, b, low, high, images=40):
    return {"a": a, "b": b, "difference": b - a, "low": low, "high": high, "images": images}


def _change(**changes):
    """Three edited classes and two others; one split, two steps."""
    raw = {name: _score(0.5, 0.5, -0.01, 0.01) for name in ("cat", "dog", "bus", "car", "cup")}
    last = {
        "cat": _score(0.5, 0.6, 0.05, 0.15),
        "dog": _score(0.5, 0.3, -0.3, -0.1),
        "bus": _score(0.5, 0.49, -0.03, 0.02),
        "car": _score(0.5, 0.48, -0.03, -0.01),
        "cup": _score(0.5, 0.5, 0.0, 0.0),
    }
    cat = {"prompt": ["a cat.", "a tabby."], "added": [], "removed": [], "edited": True, "moved": 0.1, "noise": 0.002}
    dog = UNEDITED | {"added": ["it barks", "it digs"], "removed": ["it has fur"], "edited": True}
    bus = UNEDITED | {"removed": ["it has wheels"], "edited": True, "moved": None, "noise": None}
    words = {"cat": cat, "dog": dog, "bus": bus, "car": UNEDITED, "cup": UNEDITED}
    miou = {"a": 0.5, "b": 0.47, "difference": -0.03, "low": -0.05, "high": -0.01}
    protocol = {"what": "CAM seed", "split": "train", "images": 90}
    results = [{"split": "train", "step": step, "protocol": protocol, "miou": miou} for step in ("raw", "crf")]
    results[0]["classes"], results[1]["classes"] = raw, last
    change = {
        "before": "one", "after": "two", "passed_over": {}, "settings": [], "code": [], "reclusterings": 19,
        "background": {"added": [], "removed": []}, "classes": [{"class": name} | entry for name, entry in words.items()],
        "results": results, "left_out": {}, "images": [], "picture": "",
    }  # fmt: skip
    return change | changes


@pytest.mark.parametrize(
    ("low", "high", "images", "words"),
    [
        (-0.3, -0.1, 40, "hurt"),
        (0.1, 0.3, 40, "helped"),
        (-0.1, 0.1, 40, "no clear change"),
        (0.0, 0.0, 40, "no clear change"),
        (-0.3, -0.1, 9, "few images"),
        (None, None, 40, "–"),
    ],
)
def test_a_verdict_is_what_the_interval_says(low, high, images, words):
    assert verdict({"low": low, "high": high, "images": images}) == words


def test_a_class_that_no_truth_holds_has_no_verdict():
    assert verdict(None) == "–"
    change = _change()
    del change["results"][0]["classes"]["dog"], change["results"][1]["classes"]["dog"]
    (dog,) = [row for row in change_rows(change) if row["class"] == "dog"]
    assert (dog["verdict"], dog["after"], dog["Δ raw"], dog["images"]) == ("–", "–", "–", "–")


def test_edited_classes_come_worst_first():
    rows = change_rows(_change())
    assert [(row["class"], row["verdict"]) for row in rows] == [
        ("dog", "hurt"),
        ("bus", "no clear change"),
        ("cat", "helped"),
    ]
    assert [row["edit"] for row in rows] == ["texts +2 −1", "texts +0 −1", "“a cat.” → “a tabby.”"]
    assert rows[0]["Δ + CRF"] == "-0.200 [-0.300, -0.100]" and rows[1]["T_c moved"] == rows[1]["by chance"] == "–"


def test_other_classes_are_shown_where_they_changed_and_nowhere_else():
    assert [(row["class"], row["verdict"]) for row in change_rows(_change(), edited=False)] == [("car", "hurt")]


def test_several_splits_have_a_row_each():
    change = _change()
    change["results"] += [result | {"split": "val"} for result in change["results"]]
    assert [(row["split"], row["class"]) for row in change_rows(change)][:2] == [("train", "dog"), ("val", "dog")]


def test_whatever_else_differs_is_said():
    change = _change(
        settings=[{"field": "refine.crf.iterations", "a": 10, "b": 5}],
        code=["refine"],
        left_out={"2 images of train": "why"},
        passed_over={"zero": "has other classes"},
        background={"added": ["a road."], "removed": []},
    )
    notes = "\n".join(change_notes(change))
    for words in (
        "these settings differ too: refine.crf.iterations: 10 → 5",
        "the code of these stages was edited too: refine",
        "left out: 2 images of train: why",
        "not compared with run zero: has other classes",
        "background prompts +: a road.",
        "mIoU, train, raw: 0.500 → 0.470, difference -0.030 [-0.050, -0.010]",
        "in 19 clusterings",
    ):
        assert words in notes
    assert "settings" not in "\n".join(change_notes(_change())) and "code" not in "\n".join(change_notes(_change()))


def _printed(change, width=120):
    console = Console(width=width, file=io.StringIO())
    print_change(change, console)
    return console.file.getvalue()


def test_it_is_printed_with_what_it_has():
    assert "Classes that were edited" in _printed(_change()) and "Other classes that changed" in _printed(_change())
    nothing = _printed(_change(classes=[{"class": "cat"} | UNEDITED]))
    assert "no class was edited" in nothing and "Classes that were edited" not in nothing
    alone = _printed(_change(before=None, classes=[], results=[], passed_over={"zero": "was removed"}))
    assert "there is no earlier complete run" in alone and "not compared with run zero: was removed" in alone


def test_the_picture_shows_truth_before_after_and_difference_in_this_order():
    shape = (30, 40)
    grey = np.full((*shape, 3), 128, np.uint8)
    maps = [np.zeros(shape, np.uint8) for _ in range(3)]
    for value, labels in enumerate(maps, start=1):
        labels[:] = value
    image = ChangedImage("id", "train", grey, *maps, 0.5, 0.25)
    sheet = np.asarray(Image.open(io.BytesIO(draw_changed_images([image], ("cat", "dog", "bus")))).convert("RGB")).astype(int)
    middle = sheet[sheet.shape[0] // 3]
    columns = [tuple(middle[x]) for x in (60, 295, 530, 765, 1000)]
    assert columns[0][0] == columns[0][1] == columns[0][2]  # the photo is grey, the palette's first three are not
    olive, red, green, pink = columns[1:]  # the truth is the third class; neither map is right
    assert red[0] > red[1] and green[1] > green[0] and olive[0] == olive[1] > olive[2]
    assert pink[0] > pink[2] > pink[1]
