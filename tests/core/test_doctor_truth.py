"""What the doctor says of truth that would be scored wrongly in silence, and that it and a run agree on files."""

import shutil

import numpy as np
import pytest
from PIL import Image

from excel_core.datasets.coco import read_coco
from excel_core.datasets.doctor.checks import can_run
from excel_core.datasets.doctor.coco import examine_coco
from excel_core.datasets.doctor.links import examine_links
from excel_core.datasets.doctor.voc import examine_voc
from excel_core.datasets.layouts import check_links
from excel_core.datasets.palette import VOC_PALETTE, save_labels_png
from excel_core.datasets.voc import read_voc
from excel_core.errors import DataError
from tests.core.coco_folder import CLASSES as COCO_CLASSES
from tests.core.coco_folder import SIZE, document, write

CLASSES = ("cat", "dog")
MASK = np.array([[0, 1, 2, 255, 0, 0]] * 5, np.uint8).repeat(2, 0).repeat(2, 1)
UPSIDE_DOWN, ON_ITS_SIDE = 3, 6
EXIF = 274  # the tag of the orientation


@pytest.fixture
def voc(tmp_path):
    """Four photos of 12 x 10 with masks: a, b in train, c, d in val."""
    root = tmp_path / "VOC2012"
    lists = root / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("a\nb\n")
    (lists / "val.txt").write_text("c\nd\n")
    (root / "JPEGImages").mkdir()
    for name in "abcd":
        Image.fromarray(_noise(name)).save(root / "JPEGImages" / f"{name}.jpg")
        save_labels_png(root / "SegmentationClass" / f"{name}.png", MASK)
    (root / "labels.csv").write_text("image,labels\na,cat dog\nb,cat dog\nc,cat dog\nd,cat dog\n")
    return root


def _noise(name, shape=(10, 12, 3)):
    return np.random.default_rng(ord(name)).integers(0, 256, shape, dtype=np.uint8)


def odd(checks):
    """What is not as it should be, but for counts and lists of a small data set."""
    counted = ("list ", "splits of", "published labels")
    return {
        check.name: (check.state, check.examples)
        for check in checks
        if check.state != "ok" and not check.name.startswith(counted) and "the published data have" not in check.found
    }


def turn(path, orientation, size=None):
    with Image.open(path) as image:
        image.load()
    exif = Image.Exif()
    exif[EXIF] = orientation
    (image if size is None else image.resize(size)).save(path, exif=exif)


def test_a_sound_one_is_sound(voc):
    assert odd(examine_voc(voc, CLASSES)) == {}


def test_renumbered_colours_are_named_and_no_odd_values(voc):
    number = np.zeros(256, np.uint8)
    order = np.array([255, 2, 0, 1])
    number[order] = np.arange(4)
    image = Image.frombytes("P", MASK.shape[::-1], number[MASK].tobytes())
    image.putpalette(VOC_PALETTE[order].tobytes())
    image.save(voc / "SegmentationClass" / "a.png")
    assert odd(examine_voc(voc, CLASSES)) == {
        "masks are palette PNGs": ("warning", ("SegmentationClass/a.png (VOC's colours under other numbers)",))
    }


@pytest.mark.parametrize("mode", ["P", "L", "1"])
def test_masks_of_two_values_are_named(voc, mode):
    binary = np.where(MASK == 0, 0, 255).astype(np.uint8)
    if mode == "P":
        save_labels_png(voc / "SegmentationClass" / "a.png", binary)
    else:
        Image.fromarray(binary).convert(mode).save(voc / "SegmentationClass" / "a.png")
    checks = examine_voc(voc, CLASSES)
    assert odd(checks) == {"masks hold classes": ("warning", ("SegmentationClass/a.png",))} and can_run(checks)
    assert "0 and 255 alone" in next(check.advice for check in checks if check.name == "masks hold classes")


def test_a_photo_upside_down(voc):
    turn(voc / "JPEGImages" / "a.jpg", UPSIDE_DOWN)
    turn(voc / "JPEGImages" / "b.jpg", 1)
    expected = {"EXIF orientation": ("warning", ("SegmentationClass/a.png: orientation 3",))}
    for quick in (False, True):
        checks = examine_voc(voc, CLASSES, quick=quick)
        assert odd(checks) == expected and can_run(checks)
    (voc / "SegmentationClass" / "a.png").unlink()  # without a mask nothing can be drawn wrongly
    assert list(odd(examine_voc(voc, CLASSES))) == ["masks"]


def test_a_photo_on_its_side(voc):
    """The mask's size tells for which of the two it was drawn, but of a square photo."""
    turn(voc / "JPEGImages" / "a.jpg", ON_ITS_SIDE)
    assert odd(examine_voc(voc, CLASSES)) == {}
    save_labels_png(voc / "SegmentationClass" / "a.png", np.ascontiguousarray(MASK.T))
    ((name, (state, (example,))),) = odd(examine_voc(voc, CLASSES)).items()
    assert (name, state) == ("masks fit their images", "problem") and "orientation 6: drawn for the turned photo" in example
    save_labels_png(voc / "SegmentationClass" / "a.png", MASK[:, :10])
    turn(voc / "JPEGImages" / "a.jpg", ON_ITS_SIDE, size=(10, 10))
    assert list(odd(examine_voc(voc, CLASSES))) == ["EXIF orientation"]


def test_links_out_of_the_folder_are_refused_by_both(voc, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for name in "ab":
        shutil.move(voc / "JPEGImages" / f"{name}.jpg", elsewhere / f"{name}.jpg")
        (voc / "JPEGImages" / f"{name}.jpg").symlink_to(elsewhere / f"{name}.jpg")
    check = examine_links(voc, "voc")
    assert check.examples == ("JPEGImages/a.jpg", "JPEGImages/b.jpg") and not can_run([check])
    with pytest.raises(DataError, match="a symbolic link that leads out of the data folder") as refused:
        read_voc(voc, ["train"], CLASSES)
    assert all(f"{name}.jpg" in str(refused.value) for name in "ab")


def test_links_within_it_and_a_folder_elsewhere_are_read_by_both(voc, tmp_path):
    shutil.move(voc / "JPEGImages", tmp_path / "large disk")
    (voc / "JPEGImages").symlink_to(tmp_path / "large disk")
    (voc / "stored").mkdir()
    shutil.move(tmp_path / "large disk" / "c.jpg", voc / "stored" / "c.jpg")
    (tmp_path / "large disk" / "c.jpg").symlink_to(voc / "stored" / "c.jpg")
    (voc / "JPEGImages" / "itself").symlink_to(".")
    check_links(voc, "voc")
    assert odd([examine_links(voc, "voc"), *examine_voc(voc, CLASSES)]) == {}
    assert (read_voc(voc, ["train", "val"], CLASSES)["error"] == "").all()


@pytest.mark.parametrize("suffix", [".JPG", ".jpeg", ".JPEG", ".Jpg", ".PNG"])
def test_suffixes_in_any_case_are_found_by_both(voc, suffix):
    path = voc / "JPEGImages" / "a.jpg"
    with Image.open(path) as image:
        image.save(path.with_suffix(suffix), format="PNG" if suffix == ".PNG" else "JPEG")
    path.unlink()
    (voc / "SegmentationClass" / "a.png").rename(voc / "SegmentationClass" / "a.PNG")
    (voc / "JPEGImages" / f"._a{suffix}").write_bytes(b"\0\5\26\7")
    (voc / "SegmentationClass" / "._a.png").write_bytes(b"\0\5\26\7")
    assert odd(examine_voc(voc, CLASSES)) == {}
    manifest = read_voc(voc, ["train"], CLASSES)
    assert manifest["image"][0].casefold() == f"jpegimages/a{suffix.casefold()}" and (manifest["error"] == "").all()


def boxes_alone(content, numbers, empty="missing"):
    """`content` with those annotations as a detector's export writes them."""
    for entry in content["annotations"]:
        if entry["id"] in numbers:
            entry["segmentation"] = empty
            if empty == "missing":
                del entry["segmentation"]
    return content


@pytest.mark.parametrize("empty", ["missing", None, [], {}, ""])
def test_boxes_without_segmentations_are_named(tmp_path, empty):
    write(tmp_path, "train2014", boxes_alone(document(), (2, 11), empty))
    checks = examine_coco(tmp_path, COCO_CLASSES)
    assert odd(checks) == {"train2014: images with segmentations": ("warning", ("a0", "a1"))} and can_run(checks)
    assert next(check.found for check in checks if "segmentations" in check.name) == "2 of 3"


def test_coco_links_and_orientation(tmp_path):
    root = tmp_path / "coco"
    write(root, "train2014", document())
    turn(root / "train2014" / "a1.jpg", UPSIDE_DOWN)
    assert odd(examine_coco(root, COCO_CLASSES)) == {"train2014: EXIF orientation": ("warning", ("a1.jpg: orientation 3",))}
    for name in ("a0.jpg", "a1.jpg"):
        shutil.move(root / "train2014" / name, tmp_path / name)
        (root / "train2014" / name).symlink_to(tmp_path / name)
    check = examine_links(root, "coco")
    assert check.examples == ("train2014/a0.jpg", "train2014/a1.jpg") and not can_run([check])
    with pytest.raises(DataError, match="a symbolic link that leads out of the data folder"):
        read_coco(root, ["train2014"], COCO_CLASSES)


def test_the_table_of_images_says_which_are_turned(tmp_path):
    write(tmp_path, "train2014", document())
    turn(tmp_path / "train2014" / "a1.jpg", UPSIDE_DOWN)
    manifest = read_coco(tmp_path, ["train2014"], COCO_CLASSES)
    assert manifest.attrs["turned"] == {"a1": UPSIDE_DOWN} and tuple(manifest.loc[1, ["height", "width"]]) == SIZE
