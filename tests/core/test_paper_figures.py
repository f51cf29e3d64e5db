"""The paper's figures drawn: the same bytes for the same arrays, any words and any shape of photo, artifacts that fit."""

import io
import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from artifacts.drawing import bounded_data_uri, draw_paragraph, load_font, wrapped_lines
from artifacts.paper.figures import PaperImage, draw_cams, draw_query, draw_responses, mark_patch
from artifacts.prefect_artifacts.body import MAX_MARKDOWN_BYTES, MarkdownBody
from artifacts.prefect_artifacts.study_bodies import figure_bodies
from excel_core.paper.figures import AttributeResponses, CamColumns, QueryMaps
from tests.report_view import HOSTILE, decoded

FORMULA = "$x_{ \\frac 1"  # matplotlib would fail to read it


@pytest.fixture
def image() -> PaperImage:
    """Noise, 40 x 60; maps of 4 x 6 patches; two attributes."""
    random = np.random.default_rng(0)
    maps = random.random((8, 4, 6), dtype=np.float32)
    photo = random.integers(0, 256, (40, 60, 3), dtype=np.uint8)
    responses = AttributeResponses(np.array([7, 3]), np.array([0.6, 0.4], np.float32), maps[4:6] - 0.5, np.array([1, 2]))
    words = ("a clean origami kite. it " + "is very long and " * 30, FORMULA)
    query = QueryMaps((1, 5), 6, maps[0], maps[6], maps[7] - 0.5, maps[6] + maps[7])
    return PaperImage("one|1", f"{HOSTILE} {FORMULA}", photo, CamColumns(*maps[:4]), responses, words, query)


def drawn(image: PaperImage, notes: tuple[str, ...] = ()) -> list[bytes]:
    return [draw_cams([image], "svc", notes), draw_responses([image], notes), draw_query([image], notes)]


def opened(png: bytes) -> Image.Image:
    picture = Image.open(io.BytesIO(png), formats=["PNG"])
    picture.load()
    return picture


def test_figures_follow_their_arrays_alone(image: PaperImage) -> None:
    figures = drawn(image)
    assert figures == drawn(image)
    for png in figures:
        picture = opened(png)
        assert picture.width == 1200 and 150 < picture.height < 900 and not picture.info
        assert np.asarray(picture.convert("L")).std() > 20
    other = replace(image, photo=image.photo[::-1].copy())
    assert all(a != b for a, b in zip(figures, drawn(other), strict=True))
    assert all(opened(b).height > opened(a).height for a, b in zip(figures, drawn(image, (FORMULA * 40,)), strict=True))


@pytest.mark.parametrize("shape", [(8, 400), (400, 8), (333, 500), (500, 333)])
def test_any_shape_of_photo_is_drawn(image: PaperImage, shape: tuple[int, int]) -> None:
    photo = np.random.default_rng(1).integers(0, 256, (*shape, 3), dtype=np.uint8)
    assert all(opened(png).width == 1200 and opened(png).height < 900 for png in drawn(replace(image, photo=photo)))


def test_what_a_run_has_not_is_left_out(image: PaperImage) -> None:
    none = replace(image.responses, numbers=image.responses.numbers[:0], maps=image.responses.maps[:0])
    bare = replace(
        image,
        cams=replace(image.cams, calibrated=None, learnt=None),
        responses=none,
        descriptions=(),
        query=replace(image.query, calibrated=None, learnt=None),
    )
    wide = [opened(png).height for png in drawn(image)]
    for index, png in enumerate(drawn(bare)):
        picture = opened(png)
        assert picture.width == 1200
        assert picture.height > wide[index] if index != 1 else picture.height < wide[index]  # fewer columns are wider
    constant = replace(image, query=replace(image.query, original=np.ones((4, 6), np.float32), relation=np.zeros((4, 6))))
    assert all(drawn(constant))


def test_the_frame_is_around_its_patch() -> None:
    grey = np.full((200, 300, 3), 128, dtype=np.uint8)
    marked = mark_patch(grey, (1, 2), (4, 6))
    assert (marked[55:95, 105:145] == 128).all()  # the patch itself, rows 50-99 and columns 100-149
    changed = (marked != 128).any(axis=2)
    assert changed[45:50, 100:150].any() and changed[50:100, 94:100].any() and not changed[:40].any()
    assert (marked == 255).all(axis=2).any() and (marked == 0).all(axis=2).any()


def test_a_paragraph_stays_in_its_width() -> None:
    font = load_font(13)
    for text in ("unbreakable" * 20, "W" * 50 + " i" * 100, "x"):
        lines = wrapped_lines(text, 100, font)
        assert max(map(font.getlength, lines)) <= 100 and "".join(lines).replace(" ", "") == text.replace(" ", "")
    long = draw_paragraph("unbreakable" * 20, 200, 13)
    assert long.shape[1] == 200 and len(long) > 5 * 13
    assert draw_paragraph("  ", 200, 13).shape == (0, 200, 3)
    cut = draw_paragraph("one two three " * 100, 200, 13, max_lines=3)
    assert len(cut) == len(draw_paragraph("one two three " * 6, 200, 13)[: len(cut)]) < len(long)
    assert np.array_equal(draw_paragraph("a\nb\tc", 200, 13), draw_paragraph("a b c", 200, 13))


def test_pictures_are_made_to_fit(image: PaperImage) -> None:
    noise = np.random.default_rng(2).integers(0, 256, (600, 900, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, format="PNG")
    png = buffer.getvalue()
    assert (np.asarray(decoded(bounded_data_uri(png, 10_000_000))) == noise).all()
    for most, widest in ((1_000_000, 900), (100_000, 600)):
        uri = bounded_data_uri(png, most)
        assert uri.startswith("data:image/webp;base64,") and most / 8 < len(uri) <= most and decoded(uri).width <= widest
    with pytest.raises(ValueError, match="900 x 600 pixels does not fit 100 characters"):
        bounded_data_uri(png, 100)


def test_a_page_a_figure(image: PaperImage, tmp_path) -> None:
    about = {
        "preset": "De_mo", "method": "reference", "clip": "excel-tiny",
        "figures": {"4": "CAMs", "5": "responses", "6": "a patch"},
        "images": [{"id": "one|1", "class": HOSTILE}],
    }  # fmt: skip
    (tmp_path / "figures.json").write_text(json.dumps(about))
    for number, png in zip((4, 5, 6), drawn(image), strict=True):
        (tmp_path / f"figure_{number}.png").write_bytes(png)
    pages = figure_bodies(tmp_path)
    assert [page.key for page in pages] == ["excel-figure-4-de-mo", "excel-figure-5-de-mo", "excel-figure-6-de-mo"]
    for page in pages:
        assert isinstance(page, MarkdownBody) and len(page.markdown.encode()) <= MAX_MARKDOWN_BYTES
        assert HOSTILE not in page.markdown and "](data:image/webp;base64," in page.markdown
        assert "reference method with excel-tiny" in page.description
