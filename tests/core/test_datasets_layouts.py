"""The registry of layouts: complete, and read with the settings that are each layout's own."""

import inspect
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from PIL import Image

from excel_core.config import DatasetSpec
from excel_core.datasets.images import AS_STORED, DecodeOptions
from excel_core.datasets.layouts import LAYOUTS, decode_options, read_data_set


def test_every_layout_of_the_settings_has_an_entry() -> None:
    assert set(LAYOUTS) == set(get_args(DatasetSpec.model_fields["layout"].annotation))


@pytest.mark.parametrize("name", LAYOUTS)
def test_options_are_settings_that_the_reader_takes(name: str) -> None:
    parameters = set(inspect.signature(LAYOUTS[name].read).parameters)
    assert LAYOUTS[name].options <= parameters & set(DatasetSpec.model_fields)
    assert {"root", "splits", "class_names", "unlabelled", "max_bad"} <= parameters


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two photos of cats and one of a dog, 40 wide and 20 high, in class folders."""
    for name in ("cat/a", "cat/b", "dog/c"):
        path = tmp_path / f"{name}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(np.zeros((20, 40, 3), np.uint8)).save(path)
    return tmp_path


def test_a_data_set_is_read_as_its_settings_say(photos: Path) -> None:
    spec = DatasetSpec(layout="folder", train_split="train", seed_splits=(), val_splits=(), max_side=64)
    whole = read_data_set(photos, spec, ("cat", "dog"))
    assert list(whole["id"]) == ["a", "b", "c"] and list(whole["width"]) == [40] * 3
    assert list(read_data_set(photos, spec.model_copy(update={"max_images": 2}), ("cat", "dog"))["id"]) == ["a", "b"]


def test_images_are_decoded_as_the_layout_says() -> None:
    assert decode_options(DatasetSpec(layout="folder", max_side=64)) == DecodeOptions(upright=True, max_side=64)
    assert decode_options(DatasetSpec(layout="voc")) == decode_options(DatasetSpec(layout="coco")) == AS_STORED
