"""read_coco: the real photos, a small folder made here, and that no mask has a say in what comes out."""

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from PIL import Image

from excel_core.datasets import forbid_mask_access, usable
from excel_core.datasets.coco import COCO_SOURCES, read_coco
from excel_core.datasets.coco_json import read_entries
from excel_core.datasets.mask_guard import LABELS_IN_MASK_FILES
from excel_core.errors import DataError, SettingError
from excel_core.text.prompts import load_prompts
from tests.conftest import COCO, ROOT, needs_coco
from tests.core.coco_folder import CATEGORIES, CLASSES, SIZE, annotation, document, write

Spoil = Callable[[dict[str, Any]], None]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """train2014 of four images, of which the last has no annotation, and val2014 of three, two of them annotated."""
    write(tmp_path / "coco", "train2014", document())
    write(tmp_path / "coco", "val2014", document(3, "b"))
    return tmp_path / "coco"


def coco_classes() -> tuple[str, ...]:
    return load_prompts(ROOT / "prompts" / "coco.yaml").class_names


@needs_coco
def test_the_real_photos() -> None:
    manifest = read_coco(COCO, ["train", "val"], coco_classes())
    assert len(usable(manifest, "train")) == 30 and len(usable(manifest, "val")) == 6
    assert manifest.attrs["left_out"] == {"train": 2, "val": 0}
    first = manifest.iloc[0]
    assert (first.id, first.image, first.height, first.width) == (
        "000000397133", "images/train2017/000000397133.jpg", 427, 640,
    )  # fmt: skip
    assert first.labels[-4:] == ["carrot", "dining table", "oven", "sink"]
    # By plain counting; numbers of categories have gaps: 90 for 80 classes.
    for split in ("train", "val"):
        content = json.loads((COCO / "annotations" / f"instances_{split}2017.json").read_text())
        names = {entry["id"]: entry["name"] for entry in content["categories"]}
        assert max(names) == 90 and len(names) == 80
        wanted: dict[str, set[str]] = {}
        for entry in content["annotations"]:
            wanted.setdefault(f"{entry['image_id']:012d}", set()).add(names[entry["category_id"]])
        manifest = read_coco(COCO, [split], coco_classes())
        assert {row.id: set(row.labels) for row in manifest.itertuples()} == wanted


def test_labels_come_in_class_order_and_images_without_annotations_are_left_out(root: Path) -> None:
    manifest = read_coco(root, ["train", "val"], CLASSES)
    assert list(manifest["id"]) == ["a0", "a1", "a2", "b0", "b1"] and list(manifest["split"]) == ["train"] * 3 + ["val"] * 2
    assert list(manifest["labels"])[:2] == [["person", "dog"], ["traffic light"]]
    assert manifest.attrs["left_out"] == {"train": 1, "val": 1}
    other_order = read_coco(root, ["train"], ("dog", "zebra", "traffic light", "person"))  # a class without images is none
    assert other_order.iloc[0].labels == ["dog", "person"]


def test_crowds_count_as_labels(root: Path) -> None:
    content = document()
    content["annotations"] = [annotation(1, 0, 18, {"size": [*SIZE], "counts": [0, SIZE[0] * SIZE[1]]}, iscrowd=1)]
    write(root, "train2014", content)
    assert read_coco(root, ["train"], CLASSES)["labels"].tolist() == [["dog"]]


def garbage(entry: dict[str, Any]) -> None:
    shape = entry["id"] % 3
    entry["segmentation"] = [[[1], {"id": 3, "image_id": 20, "category_id": 1}], "dog", {"counts": "~", "size": [1, -1]}][shape]
    entry.update(bbox=[9, 9, 9, 9], area=-1, iscrowd=1)


def without(entry: dict[str, Any]) -> None:
    for field in ("segmentation", "bbox", "area", "iscrowd"):
        del entry[field]


@pytest.mark.parametrize("spoil", [garbage, without])
def test_no_mask_has_a_say(root: Path, spoil: Callable[[dict[str, Any]], None]) -> None:
    _check_spoilt(root, CLASSES, spoil)


@needs_coco
def test_no_mask_of_the_real_photos_has_a_say(tmp_path: Path) -> None:
    for spoil in (garbage, without):
        _check_spoilt(shutil.copytree(COCO, tmp_path / spoil.__name__), coco_classes(), spoil)


def _check_spoilt(root: Path, classes: Sequence[str], spoil: Callable[[dict[str, Any]], None]) -> None:
    before = read_coco(root, ["train", "val"], classes)
    for file in (root / "annotations").iterdir():
        content = json.loads(file.read_text())
        for entry in content["annotations"]:
            spoil(entry)
        file.write_text(json.dumps(content))
    pd.testing.assert_frame_equal(read_coco(root, ["train", "val"], classes), before)


def test_nothing_of_a_mask_survives_parsing(root: Path) -> None:
    entries = read_entries(root / "annotations" / "instances_train2014.json")
    assert {field for entry in entries.annotations for field in entry} == {"id", "image_id", "category_id"}


def test_a_split_is_found_by_its_name_its_year_or_not_at_all(root: Path) -> None:
    short = read_coco(root, ["train"], CLASSES)
    full = read_coco(root, ["train2014"], CLASSES)
    assert list(full["split"].unique()) == ["train2014"]
    pd.testing.assert_frame_equal(full.assign(split="train"), short)
    with pytest.raises(DataError, match=r"unknown split 'test'.*it has: train2014, val2014"):
        read_coco(root, ["test"], CLASSES)
    with pytest.raises(DataError, match="a split is a name such as train2014"):
        read_coco(root, ["../train"], CLASSES)


def test_two_years_are_refused_and_the_setting_is_named(root: Path) -> None:
    write(root, "train2017", document(4, "c"))
    write(root, "val2017", document(4, "d"))
    with pytest.raises(DataError, match="'train' is train2014 and train2017; say which one.* dataset.train_split=train2014"):
        read_coco(root, ["train"], CLASSES)
    with pytest.raises(DataError, match=r"dataset.val_splits=\[val2014\]"):
        read_coco(root, ["val"], CLASSES)
    assert list(read_coco(root, ["train2017"], CLASSES)["id"]) == ["c0", "c1", "c2"]
    write(root, "train", document(2, "e"), "images/train")  # a name of its own is no question
    assert list(read_coco(root, ["train"], CLASSES)["id"]) == ["e0"]


@pytest.mark.parametrize("folder", ["train2017", "images/train2017", "images/elsewhere", "images", "val2017"])
def test_images_are_found_where_they_are(tmp_path: Path, folder: str) -> None:
    write(tmp_path, "train2017", document(), folder)
    manifest = read_coco(tmp_path, ["train"], CLASSES)
    assert list(manifest["image"]) == [f"{folder}/a{i}.jpg" for i in range(3)]
    assert folder.split("/")[0] in COCO_SOURCES  # else a changed file would go unnoticed


def test_an_empty_folder_of_the_right_name_is_no_trap(tmp_path: Path) -> None:
    write(tmp_path, "train2014", document(), "images/train2014")
    (tmp_path / "train2014").mkdir()
    assert (read_coco(tmp_path, ["train"], CLASSES)["error"] == "").all()


def test_unlabelled_splits(root: Path) -> None:
    info = document(3, "t")
    write(root, "test2014", info, "test2014").unlink()
    by_folder = read_coco(root, ["train", "test"], CLASSES, unlabelled=["test"])
    assert list(usable(by_folder, "test")["id"]) == ["t0", "t1", "t2"]
    assert not any(usable(by_folder, "test")["labels"])
    del info["annotations"], info["images"][1]
    (root / "annotations" / "image_info_test2014.json").write_text(json.dumps(info))
    by_file = read_coco(root, ["train", "test"], CLASSES, unlabelled=["test"])
    assert list(usable(by_file, "test")["id"]) == ["t0", "t2"]
    dev = info | {"images": info["images"][1:]}
    (root / "annotations" / "image_info_test-dev2014.json").write_text(json.dumps(dev))
    assert list(read_coco(root, ["test-dev2014"], CLASSES, unlabelled=["test-dev2014"])["image"]) == ["test2014/t2.jpg"]
    val = read_coco(root, ["val"], CLASSES, unlabelled=["val"])  # those without an annotation too
    assert list(val["id"]) == ["b0", "b1", "b2"]
    with pytest.raises(DataError, match="unknown split 'test2015'"):
        read_coco(root, ["test2015"], CLASSES, unlabelled=["test2015"])


def test_the_reader_works_under_the_guard_with_its_exemption(root: Path) -> None:
    with forbid_mask_access(stage="dataset", exempt=LABELS_IN_MASK_FILES):
        assert len(read_coco(root, ["train"], CLASSES)) == 3


def at(entries: str, index: int, **fields: Any) -> Spoil:
    """Set fields of an entry; None takes the field away."""

    def spoil(content: dict[str, Any]) -> None:
        for field, value in fields.items():
            if value is None:
                del content[entries][index][field]
            else:
                content[entries][index][field] = value

    return spoil


BAD_FILES: list[tuple[Spoil, str]] = [
    *((lambda c, f=f: c.pop(f), f"'{f}' must be a list of entries") for f in ("images", "categories", "annotations")),
    *((at("images", 1, **{f: None}), rf"images\[1\]: the field '{f}' is missing") for f in ("id", "file_name", "height")),
    *((at("annotations", 2, **{f: None}), rf"annotations\[2\]: the field '{f}'") for f in ("id", "image_id", "category_id")),
    *((at("categories", 2, **{f: None}), rf"categories\[2\]: the field '{f}' is missing") for f in ("id", "name")),
    (at("images", 1, id="10"), r"images\[1\]: 'id' must be a whole number, got '10'"),
    (at("images", 1, width=True), r"images\[1\]: 'width' must be a whole number, got True"),
    (at("images", 1, height=0), r"images\[1\]: 'height' and 'width' must be at least 1"),
    (at("images", 1, file_name=5), r"images\[1\]: 'file_name' must be text"),
    (at("images", 2, id=0), r"images\[2\]: another image has the id 0 already"),
    (at("images", 2, file_name="A0.png"), r"images\[2\]: images\[0\] is called 'a0.jpg' already"),
    (at("annotations", 2, id=1), r"annotations\[2\]: another annotation has the id 1 already"),
    (at("annotations", 2, image_id=99), r"annotations\[2\] \(id 11\): 'image_id' 99 is not in 'images'"),
    (at("annotations", 2, category_id=2), r"annotations\[2\] \(id 11\): 'category_id' 2 is not in 'categories'"),
    (at("categories", 1, id=1), r"categories\[1\]: another category has the id 1"),
    (at("categories", 1, name="person"), r"categories\[1\]: another category has the id 10 or the name 'person'"),
    *(
        (at("images", 1, file_name=name), r"images\[1\]: 'file_name' must be a file's name")
        for name in ("../a1.jpg", "/etc/a1.jpg", "val/a1.jpg", "..", "C:\\a1.jpg", " a1.jpg", ".hidden.jpg")
    ),
    (lambda c: c["annotations"].clear(), "no image has an annotation"),
    (lambda c: c["images"].insert(0, [1]), r"images\[0\]: the field 'id' is missing"),
]


@pytest.mark.parametrize(("spoil", "message"), BAD_FILES)
def test_a_wrong_file_names_entry_and_field(root: Path, spoil: Spoil, message: str) -> None:
    content = document()
    content["categories"] = [dict(entry) for entry in CATEGORIES]
    spoil(content)
    (root / "annotations" / "instances_train2014.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=f"instances_train2014.json.*{message}"):
        read_coco(root, ["train"], CLASSES)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe{}", b"[" * 100_000, b"<html>", b'{"images": [1'])
def test_what_is_no_json_is_said(root: Path, content: bytes) -> None:
    (root / "annotations" / "instances_train2014.json").write_bytes(content)
    with pytest.raises(DataError, match="instances_train2014.json: not a JSON file"):
        read_coco(root, ["train"], CLASSES)


def test_a_category_that_is_no_class(root: Path) -> None:
    with pytest.raises(
        DataError, match=r"train2014.json: annotations use the category 'dog', .* valid: person, traffic light;"
    ):
        read_coco(root, ["train"], CLASSES[:2])
    with pytest.raises(SettingError, match="single spaces"):
        read_coco(root, ["train"], ["person", "traffic  light"])


def test_one_bad_image_is_recorded_and_two_end_it(root: Path) -> None:
    (root / "train2014" / "a1.jpg").unlink()
    manifest = read_coco(root, ["train", "val"], CLASSES)
    assert "a1.jpg: no such file" in manifest.iloc[1].error and (manifest["error"] != "").sum() == 1
    Image.new("RGB", SIZE).save(root / "train2014" / "a2.jpg")  # turned
    with pytest.raises(DataError, match=r"2 of 5 images are bad(.|\n)*a2.jpg: 24 wide and 32 high, but .* 32 by 24"):
        read_coco(root, ["train", "val"], CLASSES)
    assert read_coco(root, ["train", "val"], CLASSES, max_bad=0.5).iloc[2].width == SIZE[0]


def test_two_images_of_one_id(root: Path) -> None:
    write(root, "val2014", document())
    with pytest.raises(DataError, match=r"train2014/a0.jpg and val2014/a0.jpg would have the same id, a0"):
        read_coco(root, ["train", "val"], CLASSES)


def test_a_wrong_root_says_what_to_pass(root: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder"):
        read_coco(tmp_path / "nowhere", ["train"], CLASSES)
    for wrong in (tmp_path, root / "train2014", root / "annotations"):
        with pytest.raises(DataError, match=f"not COCO as downloaded.*pass {root} instead"):
            read_coco(wrong, ["train"], CLASSES)
    shutil.rmtree(root / "train2014")
    with pytest.raises(DataError, match="no folder holds the images of train2014; put them into images/train2014/"):
        read_coco(root, ["train"], CLASSES)
