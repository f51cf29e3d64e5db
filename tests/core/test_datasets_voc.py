"""read_voc: the real photos, a small folder made here, and everything that can be wrong with one."""

import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from excel_core.datasets import VocMaskReader, forbid_mask_access, read_voc, usable
from excel_core.datasets.palette import VOC_PALETTE
from excel_core.errors import DataError, SettingError
from tests.conftest import VOC, needs_photos

VOC_CLASSES = [
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
]
CLASSES = ["dog", "cat", "person"]
IDS = [f"a{index}" for index in range(5)]


def write_split(root: Path, name: str, lines: Sequence[str]) -> None:
    folder = root / "ImageSets" / "Segmentation"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.txt").write_text("".join(f"{line}\n" for line in lines))


def write_xml(root: Path, image_id: str, names: Sequence[str]) -> None:
    (root / "Annotations").mkdir(exist_ok=True)
    objects = "".join(f"<object><name>{n}</name><part><name>head</name></part></object>" for n in names)
    (root / "Annotations" / f"{image_id}.xml").write_text(f"<annotation>{objects}</annotation>")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Five images of different sizes, splits train (3), val (2) and train_aug (4), labels.csv."""
    folder = tmp_path / "voc"
    (folder / "JPEGImages").mkdir(parents=True)
    for index, image_id in enumerate(IDS):
        Image.new("RGB", (20 + index, 30), (40 * index, 0, 0)).save(folder / "JPEGImages" / f"{image_id}.jpg")
    write_split(folder, "train", IDS[:3])
    write_split(folder, "val", IDS[3:])
    write_split(folder, "train_aug", IDS[:4])
    rows = ["person dog", "cat", "dog dog", "person", "cat person"]
    table = "".join(f"{i},{row}\n" for i, row in zip(IDS, rows, strict=True))
    (folder / "labels.csv").write_text("image,labels\n" + table)
    return folder


@needs_photos
def test_the_real_photos() -> None:
    """What was downloaded: lists, sizes, labels, a mask with the palette in its file."""
    with forbid_mask_access(VOC / "SegmentationClass"):
        manifest = read_voc(VOC, ["train", "val"], VOC_CLASSES)
    assert len(usable(manifest, "train")) == 150 and len(usable(manifest, "val")) == 100
    expected = ["2007_000032", "train", "JPEGImages/2007_000032.jpg", 281, 500, ["aeroplane", "person"], ""]
    assert manifest.iloc[0].tolist()[:-1] == expected
    with Image.open(VOC / manifest.iloc[-1].image) as image:
        assert image.size == (manifest.iloc[-1].width, manifest.iloc[-1].height)
    mask = VocMaskReader(VOC).read("2007_000032", 281, 500)
    assert set(np.unique(mask)) == {0, 1, 15, 255}  # aeroplane and person
    with Image.open(VOC / "SegmentationClass" / "2007_000032.png") as image:
        np.testing.assert_array_equal(np.array(image.getpalette("RGB"), np.uint8).reshape(-1, 3), VOC_PALETTE)


def test_labels_csv_is_read_in_class_order(root: Path) -> None:
    manifest = read_voc(root, ["train", "val"], CLASSES)
    assert list(manifest["id"]) == IDS and list(manifest["split"]) == ["train"] * 3 + ["val"] * 2
    assert list(manifest["width"]) == [20, 21, 22, 23, 24] and set(manifest["height"]) == {30}
    assert manifest["height"].dtype == manifest["width"].dtype == np.int32
    assert list(manifest["labels"]) == [["dog", "person"], ["cat"], ["dog"], ["person"], ["cat", "person"]]


def test_train_aug_is_a_list_file_and_may_share_images(root: Path) -> None:
    manifest = read_voc(root, ["train_aug", "train"], CLASSES)
    assert list(manifest["id"]) == IDS[:4] + IDS[:3]


def test_xml_gives_the_same_labels_without_parts(root: Path) -> None:
    expected = read_voc(root, ["train"], CLASSES)
    (root / "labels.csv").unlink()
    for image_id, names in zip(IDS, [["person", "dog", "dog"], ["cat"], ["dog"]], strict=False):
        write_xml(root, image_id, names)
    assert list(read_voc(root, ["train"], CLASSES)["labels"]) == list(expected["labels"])


def test_labels_csv_takes_precedence(root: Path) -> None:
    write_xml(root, IDS[1], ["dog"])
    assert read_voc(root, ["train"], CLASSES).iloc[1].labels == ["cat"]


def test_png_images_are_found(root: Path) -> None:
    with Image.open(root / "JPEGImages" / "a0.jpg") as image:
        image.save(root / "JPEGImages" / "a0.png")
    (root / "JPEGImages" / "a0.jpg").unlink()
    record = read_voc(root, ["train"], CLASSES).iloc[0]
    assert (record.image, record.error) == ("JPEGImages/a0.png", "")


def truncate(root: Path) -> None:
    os.truncate(root / "JPEGImages" / "a1.jpg", 300)


def unlabel(root: Path) -> None:
    table = root / "labels.csv"
    table.write_text(table.read_text().replace("a1,cat\n", ""))


def empty_labels(root: Path) -> None:
    table = root / "labels.csv"
    table.write_text(table.read_text().replace("a1,cat", "a1,"))


def unknown_xml(root: Path) -> None:
    (root / "labels.csv").unlink()
    for image_id, name in zip(IDS, ["dog", "unicorn", "cat"], strict=False):
        write_xml(root, image_id, [name])


def broken_xml(root: Path) -> None:
    unknown_xml(root)
    (root / "Annotations" / "a1.xml").write_text("<annotation><object>")


def hostile_xml(root: Path) -> None:
    unknown_xml(root)
    entity = '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/hostname">]>'
    (root / "Annotations" / "a1.xml").write_text(f"{entity}<a><object><name>&x;</name></object></a>")


def no_xml(root: Path) -> None:
    unknown_xml(root)
    (root / "Annotations" / "a1.xml").unlink()


BAD = [
    (truncate, "a1.jpg: truncated or damaged"),
    (lambda root: (root / "JPEGImages" / "a1.jpg").unlink(), "a1.jpg: no such file"),
    (lambda root: Image.new("RGB", (30, 1)).save(root / "JPEGImages" / "a1.jpg"), "30 wide and 1 high"),
    (unlabel, "labels.csv has no row for this image"),
    (empty_labels, "no labels: the image has no object"),
    (unknown_xml, "Annotations/a1.xml: unknown label 'unicorn'; valid: dog, cat, person"),
    (broken_xml, "no labels: Annotations/a1.xml cannot be read"),
    (hostile_xml, "no labels: Annotations/a1.xml cannot be read"),
    (no_xml, "no labels: Annotations/a1.xml is missing"),
]


@pytest.mark.parametrize(("spoil", "reason"), BAD)
def test_one_bad_image_is_recorded_and_skipped(root: Path, spoil: Callable[[Path], None], reason: str) -> None:
    spoil(root)
    manifest = read_voc(root, ["train"], CLASSES)
    assert reason in manifest.iloc[1].error
    assert list(manifest["error"] == "") == [True, False, True]
    assert list(usable(manifest, "train")["id"]) == ["a0", "a2"]


@pytest.mark.parametrize("mode", ["L", "CMYK", "P"])
def test_unusual_images_are_no_bad_images(root: Path, mode: str) -> None:
    name = "a1.png" if mode == "P" else "a1.jpg"
    (root / "JPEGImages" / "a1.jpg").unlink()
    Image.new("RGB", (33, 44)).convert(mode).save(root / "JPEGImages" / name)
    record = read_voc(root, ["train"], CLASSES).iloc[1]
    assert (record.error, record.height, record.width) == ("", 44, 33)


def test_more_bad_images_than_tolerated_end_it(root: Path) -> None:
    truncate(root)
    (root / "JPEGImages" / "a3.jpg").unlink()
    expected = r"2 of 5 images are bad(.|\n)*a1: a1.jpg: trunc(.|\n)*a3: a3.jpg: no such"
    with pytest.raises(DataError, match=expected):
        read_voc(root, ["train", "val"], CLASSES)
    tolerant = read_voc(root, ["train", "val"], CLASSES, max_bad=0.4)
    assert (tolerant["error"] != "").sum() == 2
    with pytest.raises(DataError, match="2 of 5"):
        read_voc(root, ["train", "val"], CLASSES, max_bad=0.39)


def test_a_split_without_a_usable_image_ends_it(root: Path) -> None:
    truncate(root)
    write_split(root, "one", ["a1"])
    with pytest.raises(DataError, match="split 'one' has no usable image"):
        read_voc(root, ["train", "one"], CLASSES)


def test_an_image_in_two_splits_counts_once_as_bad(root: Path) -> None:
    truncate(root)
    assert (read_voc(root, ["train", "train_aug"], CLASSES)["error"] != "").sum() == 2


@pytest.mark.parametrize("image_id", ["/etc/passwd", "../secret", "..", "b/../../x", "C:\\x", "a\t1", "a\0b"])
def test_an_id_that_leads_elsewhere_is_refused(root: Path, image_id: str) -> None:
    write_split(root, "train", ["a0", image_id])
    with pytest.raises(DataError, match=r"train\.txt line 2: an image id is one file name"):
        read_voc(root, ["train"], CLASSES)


def test_an_unknown_label_in_labels_csv_ends_it(root: Path) -> None:
    with (root / "labels.csv").open("a") as table:
        table.write("b9,cat unicorn\n")
    with pytest.raises(DataError, match="labels.csv line 7: unknown label 'unicorn'; valid: dog, cat, person"):
        read_voc(root, ["train"], CLASSES)


def test_split_files(root: Path) -> None:
    with pytest.raises(DataError, match="unknown split 'test'.* has: train, train_aug, val"):
        read_voc(root, ["test"], CLASSES)
    with pytest.raises(DataError, match="unknown split '../train'"):
        read_voc(root, ["../train"], CLASSES)
    write_split(root, "train", ["a0", "a1", "", "a0"])
    with pytest.raises(DataError, match=r"line 4: a0 is on line 1 already"):
        read_voc(root, ["train"], CLASSES)
    write_split(root, "train", [""])
    with pytest.raises(DataError, match="lists no image"):
        read_voc(root, ["train"], CLASSES)


def test_a_wrong_root_says_what_was_found_and_what_to_pass(root: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder; pass the folder that holds"):
        read_voc(tmp_path / "nowhere", ["train"], CLASSES)
    (tmp_path / "empty" / "inner").mkdir(parents=True)
    with pytest.raises(DataError, match="found an empty folder$"):
        read_voc(tmp_path / "empty" / "inner", ["train"], CLASSES)
    inner = tmp_path / "download" / "VOCdevkit" / "VOC2012"
    shutil.copytree(root, inner)
    for wrong in (inner.parent, inner.parent.parent, inner / "JPEGImages"):
        with pytest.raises(DataError, match=f"looked for JPEGImages/.*pass {inner} instead"):
            read_voc(wrong, ["train"], CLASSES)
    (root / "labels.csv").unlink()
    with pytest.raises(DataError, match="looked for labels.csv or Annotations/; found ImageSets/, JPEGIm.*/$"):
        read_voc(root, ["train"], CLASSES)


@pytest.mark.parametrize(
    ("splits", "names", "max_bad"),
    [
        ("train", CLASSES, 0.01),
        ([], CLASSES, 0.01),
        (["train", "train"], CLASSES, 0.01),
        (["train"], [], 0.01),
        (["train"], "dog", 0.01),
        (["train"], ["dog", "dog"], 0.01),
        (["train"], ["dog", "traffic  light"], 0.01),
        (["train"], ["dog", "cat; person"], 0.01),
        (["train"], CLASSES, 1.5),
    ],
)
def test_wrong_settings(root: Path, splits: list[str], names: list[str], max_bad: float) -> None:
    with pytest.raises(SettingError):
        read_voc(root, splits, names, max_bad=max_bad)
