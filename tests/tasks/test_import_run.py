"""Corrected labels and masks, imported, are a data set for `excel run photos`: scored with its masks, and trained on them."""

import numpy as np
import pytest
from PIL import Image

from excel_core.config.presets import preset, with_settings
from excel_core.datasets.images import AS_STORED
from excel_core.datasets.palette import load_labels_png
from excel_core.exports.formats import LABEL_FORMATS
from excel_core.exports.label_maps import LabelMap
from excel_core.exports.photos import with_photos
from excel_core.files import read_json
from excel_core.world.voc_layout import scene_id, write_world
from tasks.engine.stage import RunEnvironment
from tasks.photos.import_labels import ImportRequest, import_labels
from tests.pipeline_runs import follow
from tests.tasks.test_own_photos import SMALL

# The world's ten things under names that the bundled descriptions know.
NAMES = ("chair", "bird", "car", "boat", "dog", "cat", "cup", "kite", "bus", "train")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Six scenes, as corrected in CVAT."""
    world, folder = tmp_path_factory.mktemp("world"), tmp_path_factory.mktemp("cvat")
    write_world(world, {"train": range(1, 7)}, 64)
    ids = [scene_id(number) for number in range(1, 7)]
    maps = [LabelMap(i, world / "SegmentationClass" / f"{i}.png", "", world / "JPEGImages" / f"{i}.jpg") for i in ids]
    LABEL_FORMATS["cvat-images"].write(folder, NAMES, with_photos(maps, folder / "images", AS_STORED, len(NAMES)))
    out = folder / "data"
    about = import_labels(ImportRequest(folder / "annotations.xml", "cvat"), out)
    assert about["masks"] == about["photos"] == 6
    names = ["background", *about["class_names"]]
    for found in maps:
        mask = load_labels_png(out / "SegmentationClass" / f"{found.id}.png")
        value_of = np.array([names.index(name) if name in names else 0 for name in ("background", *NAMES)])
        assert np.array_equal(mask, value_of[found.read(len(NAMES))])
    return out


@pytest.mark.parametrize("supervision", ["labels", "masks"])
def test_an_imported_data_set_runs_and_is_scored(data, tmp_path, supervision):
    run = with_settings(preset("photos"), [*SMALL, f"train.supervision={supervision}"])
    outputs = follow(run, RunEnvironment(store=tmp_path, data=data), "evaluate")
    metrics = read_json(outputs["evaluate"].folder / "metrics.json")
    assert metrics["results"], metrics
    for photo in (data / "images").iterdir():
        with Image.open(photo) as image:
            found = load_labels_png(outputs["predict"].folder / "single_scale" / "train" / f"{photo.stem}.png")
            assert found.shape == image.size[::-1]
