"""What methods make of the same images: rows of pictures with a column a method, on the page and as one sheet."""

import io

import numpy as np
import pytest
from PIL import Image

from artifacts.compared import compared_rows, compared_sheet
from artifacts.gallery import PictureSize
from artifacts.view import ComparedItem


@pytest.fixture
def item():
    rng = np.random.default_rng(0)
    labels = {name: np.full((40, 60), value, dtype=np.uint8) for name, value in (("truth", 1), ("one", 2), ("late", 0))}
    return ComparedItem(
        id="a<b",
        image=rng.integers(0, 255, (40, 60, 3), dtype=np.uint8),
        truth=labels["truth"],
        methods={
            "one": {"training-free": labels["one"], "after training": labels["late"]},
            "two": {"training-free": labels["truth"]},
        },
        miou={"one": 0.25, "two": 1.0},
        remark="train; mIoU of this image from 0.25 to 1.00",
    )


def test_a_row_a_kind_and_a_cell_a_method(item):
    first, second = compared_rows([item], ("dog", "cat"), PictureSize(side=60))
    assert (first.caption, second.caption) == ("training-free", "after training")
    assert first.remark == item.remark and second.remark == ""  # said once an image
    photo, truth, one, two = first.cells
    assert photo.alt == "image a<b" and truth.alt == "truth of image a<b: 1 dog 100 %"
    assert one.alt == "one, training-free of image a<b: 2 cat 100 %" and one.caption == "mIoU 0.25"
    assert two.alt == "two, training-free of image a<b: 1 dog 100 %" and two.caption == "mIoU 1.00"
    assert second.cells[2].alt == "one, after training of image a<b: only background" and second.cells[2].caption == ""
    assert second.cells[3] is None  # nothing was trained
    assert first.cells[0].uri == second.cells[0].uri


def test_the_sheet_has_the_same_columns(item):
    png = compared_sheet([item], ["a note"])
    assert png == compared_sheet([item], ["a note"])
    with Image.open(io.BytesIO(png)) as sheet:
        width, height = sheet.size
        pixels = np.asarray(sheet.convert("RGB"))
    assert width == 1200 and height > 400
    # Four columns of pictures in the first row, three in the second, where the other method has none.
    columns = [slice(20 + number * 293, 20 + number * 293 + 250) for number in range(4)]
    filled = [
        [pixels[rows, column].std() > 12 for column in columns] for rows in (slice(90, 280), slice(height - 260, height - 80))
    ]
    assert filled[0] == [True] * 4 and not filled[1][3]
