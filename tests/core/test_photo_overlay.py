"""Overlays of masks on photos: what is coloured, and that words stay readable and apart."""

import numpy as np
import pytest

from artifacts.drawing import INK, PAPER, LegendEntry, draw_legend, draw_tag
from artifacts.drawing.photo_masks import class_shares, draw_overlay, draw_steps, share_text
from excel_core.datasets.palette import VOC_PALETTE
from tests.contrast import contrast

NAMES = tuple(f"class {n}" for n in range(1, 21))


@pytest.fixture
def photo():
    return np.full((100, 160, 3), 90, np.uint8)


def test_shares_are_of_all_pixels_largest_first():
    labels = np.zeros((10, 10), np.uint8)
    labels[:2], labels[2, :5], labels[9] = 3, 1, 255
    assert class_shares(labels, NAMES) == {"class 3": 0.2, "class 1": 0.05}
    assert list(class_shares(labels, NAMES)) == ["class 3", "class 1"]
    assert [share_text(share) for share in (0.204, 0.004, 0.0, 1.0)] == ["20 %", "< 1 %", "0 %", "100 %"]


def test_background_keeps_the_photo(photo):
    labels = np.zeros(photo.shape[:2], np.uint8)
    picture = draw_overlay(photo, labels, NAMES)
    height = 100 * picture.shape[1] // 160
    assert picture.shape[1] == 960 and (picture[:height] == 90).all()
    assert (picture[height:, :20] == PAPER[0]).any() and (picture[height:] < 100).any()  # a legend: nothing found


def test_a_class_is_tinted_in_its_colour_and_outlined(photo):
    labels = np.zeros(photo.shape[:2], np.uint8)
    labels[20:80, 30:130] = 5
    picture = draw_overlay(photo, labels, NAMES).astype(int)
    tint = np.rint(0.5 * VOC_PALETTE[5] + 0.5 * 90)
    assert (picture[6 * 24, 6 * 40] == tint).all()  # a corner of the area, away from its name
    edge = picture[6 * 50, 6 * 26 : 6 * 36]
    assert (edge == 255).all(axis=1).any() and (edge == 20).all(axis=1).any()
    assert (picture[6 * 5, 6 * 5] == 90).all()


def test_names_do_not_cover_each_other(photo):
    """Two classes whose deepest points nearly meet: the plates of both would overlap, so one is left to the legend."""
    labels = np.zeros(photo.shape[:2], np.uint8)
    labels[:, :] = 1
    labels[48:52, 70:90] = 2
    both = draw_overlay(photo, labels, ("a very long name of a class", "another"))
    alone = draw_overlay(photo, np.where(labels == 2, 0, labels).astype(np.uint8), ("a very long name of a class", "another"))
    plate = (both[:600] == VOC_PALETTE[2]).all(axis=-1)
    assert not plate.any()
    assert (alone[:600] == VOC_PALETTE[1]).all(axis=-1).any()


@pytest.mark.parametrize("value", range(1, 255, 7))
def test_words_stand_out_on_every_colour(value):
    colour = tuple(VOC_PALETTE[value].tolist())
    tag = np.asarray(draw_tag("dog", colour, 30))[..., :3].reshape(-1, 3).astype(int)
    words = max((INK, (255, 255, 255)), key=lambda word: contrast(word, colour))
    assert (np.abs(tag - words).sum(axis=1) < 12).any()
    assert contrast(words, colour) > 4


@pytest.mark.parametrize("width", [200, 400, 900, 2000])
def test_a_legend_keeps_entries_apart_and_inside(width):
    entries = [
        LegendEntry(str(n), tuple(VOC_PALETTE[n].tolist()), f"a class of rather long name {n}", "12 %") for n in range(1, 21)
    ]
    sheet = draw_legend(entries, width, 18)
    assert sheet.shape[1] == width
    assert (sheet[:, :10] == PAPER).all() and (sheet[:, -10:] == PAPER).all()
    one = draw_legend(entries[:1], width, 18)
    lines = (sheet.shape[0] - one.shape[0]) // 40 + 1
    assert lines >= (20 if width <= 400 else 20 * 320 // width)


def test_steps_are_side_by_side_with_every_class_named(photo):
    raw, last = np.zeros((2, 100, 160), np.uint8)
    raw[:50], last[60:] = 1, 2
    sheet = draw_steps(photo, {"raw": raw, "crf": last}, NAMES)
    without = draw_steps(photo, {"raw": last, "crf": last}, NAMES)
    assert sheet.shape[1] == 3 * (480 + 16) and sheet.shape == without.shape
    legend = sheet[-60:]
    assert (legend == VOC_PALETTE[1]).all(axis=-1).any() and not (without[-60:] == VOC_PALETTE[1]).all(axis=-1).any()
