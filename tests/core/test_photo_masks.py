"""Masks beside a folder of photos: read in the photo's own size and in that of a run; what cannot be scored is found before."""

import numpy as np
import pytest
from PIL import Image

from excel_core.config.presets import preset, with_settings
from excel_core.datasets.doctor.checks import can_run
from excel_core.datasets.doctor.photos import examine_photos
from excel_core.datasets.layouts import LAYOUTS
from excel_core.datasets.palette import save_labels_png
from excel_core.errors import DataError

CLASSES = ("cat", "dog")


@pytest.fixture
def root(tmp_path):
    """A large photo, one that lies on its side, and a small one, each with a mask drawn on what viewers show."""
    exif = Image.Exif()
    exif[0x0112] = 6
    for name, size, more in (("large", (200, 90), {}), ("lying", (40, 20), {"exif": exif}), ("small", (30, 24), {})):
        path = tmp_path / "dog" / f"{name}.jpg"
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", size, (90, 90, 90)).save(path, **more)
    (tmp_path / "cat").mkdir()
    Image.new("RGB", (24, 24)).save(tmp_path / "cat" / "other.png")
    for name, shape in (("large", (90, 200)), ("lying", (40, 20)), ("small", (24, 30))):
        labels = np.zeros(shape, np.uint8)
        labels[:, shape[1] // 2 :] = 2
        save_labels_png(tmp_path / "SegmentationClass" / f"{name}.png", labels)
    return tmp_path


@pytest.fixture
def spec():
    return with_settings(preset("photos"), ["dataset.max_side=100"]).dataset


def masks(checks):
    return {check.name: (check.state, check.found) for check in checks if check.name.startswith("mask")}


def test_a_mask_is_shrunk_as_its_photo_is(root):
    reader = LAYOUTS["folder"].mask_reader(root, "train", CLASSES)
    mask = reader.read("large", 45, 100)
    assert mask.shape == (45, 100) and not mask[:, :50].any() and (mask[:, 50:] == 2).all()
    assert reader.read("large", 90, 200).shape == (90, 200)
    for size in ((46, 100), (100, 45), (180, 400)):  # other proportions, on its side, larger
        with pytest.raises(DataError, match="the mask is 90 high and 200 wide, expected"):
            reader.read("large", *size)
    with pytest.raises(DataError, match="expected 45 high"):  # VOC's photos are never shrunk
        LAYOUTS["voc"].mask_reader(root, "train", CLASSES).read("large", 45, 100)


def test_the_doctor_looks_at_them(root, spec):
    checks = examine_photos(root, CLASSES, spec)
    assert masks(checks) == dict.fromkeys(("masks fit their photos", "mask values", "masks hold classes"), ("ok", "3"))
    save_labels_png(root / "SegmentationClass" / "lying.png", np.zeros((20, 40), np.uint8))
    save_labels_png(root / "SegmentationClass" / "small.png", np.full((24, 30), 3, np.uint8))
    save_labels_png(root / "SegmentationClass" / "large.png", np.full((90, 200), 255, np.uint8))
    checks = examine_photos(root, CLASSES, spec)
    assert set(masks(checks).values()) == {("warning", "1 of 3")} and can_run(checks)
    (fit,) = (check for check in checks if check.name == "masks fit their photos")
    assert "lying" in fit.examples[0] and "one of the two is turned by 90°" in fit.examples[0]


def test_without_masks_nothing_is_said_of_them(root, spec):
    for path in (root / "SegmentationClass").iterdir():
        path.unlink()
    assert masks(examine_photos(root, CLASSES, spec)) == {}
