"""The doctor: a sound data set has no problem, and every fault planted in one is found by its own check, and no other."""

import json
import shutil
import unicodedata

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from excel_core.datasets.doctor.checks import can_run
from excel_core.datasets.doctor.coco import examine_coco
from excel_core.datasets.doctor.voc import examine_voc
from excel_core.datasets.palette import save_labels_png
from excel_core.datasets.voc import read_voc
from excel_core.errors import DataError
from excel_core.text.prompts import load_prompts
from flows.cli import app
from tests.conftest import COCO, ROOT, VOC, needs_coco, needs_photos
from tests.core.coco_folder import CLASSES as COCO_CLASSES
from tests.core.coco_folder import annotation, document, square, write

CLASSES = ("cat", "dog")
LISTS = {"train": ["a", "b"], "val": ["c"], "test": ["t"], "train_aug": ["a", "b", "x"]}


@pytest.fixture
def voc(tmp_path):
    """Five photos of 12 x 10; a, b, c with VOC's mask, x with SBD's, t with none and no labels."""
    tmp_path /= "VOC2012"
    folder = tmp_path / "ImageSets" / "Segmentation"
    folder.mkdir(parents=True)
    for split, ids in LISTS.items():
        (folder / f"{split}.txt").write_text("\n".join(ids))
    (tmp_path / "JPEGImages").mkdir()
    for name in "abcxt":
        noise = np.random.default_rng(ord(name)).integers(0, 256, (10, 12, 3), dtype=np.uint8)
        Image.fromarray(noise).save(tmp_path / "JPEGImages" / f"{name}.jpg")
    for name in "abcx":
        of = "SegmentationClassAug" if name == "x" else "SegmentationClass"
        save_labels_png(tmp_path / of / f"{name}.png", np.array([[0, 1, 2, 255, 0, 0]] * 5, np.uint8).repeat(2, 0).repeat(2, 1))
    (tmp_path / "labels.csv").write_text("image,labels\na,cat dog\nb,cat dog\nc,cat dog\nx,cat dog\n")
    return tmp_path


def states(checks):
    return {check.name: check.state for check in checks if check.state != "ok" and not check.name.startswith("list ")}


def test_a_sound_one_differs_by_its_counts_alone(voc):
    checks = examine_voc(voc, CLASSES)
    assert states(checks) == {} and can_run(checks)
    lists = {check.name: (check.state, check.found) for check in checks if check.name.startswith("list ")}
    assert lists["list train"] == ("warning", "2 images, the published data have 1,464")
    assert lists["list train_aug"][1] == "3 images, the published data have 10,582"


def rewrite(path, text):
    path.write_text(text)


def cut(path):
    path.write_bytes(path.read_bytes()[:-20])


MASK = "SegmentationClass/a.png"
FAULTS = {
    "images": lambda root: (root / "JPEGImages/b.jpg").unlink(),
    "labels": lambda root: rewrite(root / "labels.csv", "image,labels\na,cat dog\nc,cat dog\nx,cat dog\n"),
    "objects": lambda root: rewrite(root / "labels.csv", "image,labels\na,cat dog\nb,\nc,cat dog\nx,cat dog\n"),
    "masks": lambda root: (root / "SegmentationClassAug/x.png").unlink(),
    "damaged files": lambda root: cut(root / "JPEGImages/a.jpg"),
    "masks fit their images": lambda root: save_labels_png(root / MASK, np.zeros((12, 10), np.uint8)),
    "mask values": lambda root: save_labels_png(root / MASK, np.full((10, 12), 3, np.uint8)),
    "masks are palette PNGs": lambda root: Image.open(root / MASK).convert("RGB").save(root / MASK),
    "ids differ by more than case": lambda root: rewrite(root / "ImageSets/Segmentation/test.txt", "t\nT"),
    "val is apart from training": lambda root: rewrite(root / "ImageSets/Segmentation/val.txt", "c\nb"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_every_fault_is_found_by_its_own_check(voc, name):
    if name == "ids differ by more than case":
        shutil.copy(voc / "JPEGImages/t.jpg", voc / "JPEGImages/T.jpg")
    FAULTS[name](voc)
    checks = examine_voc(voc, CLASSES)
    harmless = name in ("objects", "masks", "masks are palette PNGs")
    assert states(checks) == {name: "warning" if harmless else "problem"} and can_run(checks) == harmless
    (found,) = (check for check in checks if check.name == name)
    assert found.found.startswith("1 of ") and len(found.examples) == 1 and found.advice
    quick = states(examine_voc(voc, CLASSES, quick=True))
    assert quick == ({} if name in ("damaged files", "mask values") else states(checks))


def test_ids_that_only_their_accents_tell_apart_are_named_as_a_run_refuses_them(voc):
    composed, decomposed = (unicodedata.normalize(form, "caf\u00e9") for form in ("NFC", "NFD"))
    for name in (composed, decomposed):
        shutil.copy(voc / "JPEGImages/t.jpg", voc / "JPEGImages" / f"{name}.jpg")
    rewrite(voc / "ImageSets/Segmentation/test.txt", f"t\n{composed}")
    rewrite(voc / "ImageSets/Segmentation/train_aug.txt", f"a\nb\nx\n{decomposed}")
    (check,) = (check for check in examine_voc(voc, CLASSES) if check.name == "ids differ by more than case")
    assert check.state == "problem" and {*check.examples[0].split(" and ")} == {composed, decomposed}
    with pytest.raises(DataError, match="differ only by case or by how accents are composed"):
        read_voc(voc, ["test", "train_aug"], CLASSES, unlabelled=["test"], max_bad=1)


def test_images_without_an_object_are_no_more_than_a_run_bears(voc):
    rewrite(voc / "labels.csv", "image,labels\na,\nb,\nc,cat dog\nx,cat dog\n")
    checks = examine_voc(voc, CLASSES)
    assert states(checks) == {"objects": "problem", "masks hold labelled classes": "warning"}
    with pytest.raises(DataError, match="2 of 3 images are bad"):
        read_voc(voc, ["train_aug"], CLASSES)


def test_masks_whose_numbers_are_shifted_are_named(voc):
    for path in (voc / "SegmentationClass").iterdir():
        save_labels_png(path, np.full((10, 12), 1, np.uint8))
    rewrite(voc / "labels.csv", "image,labels\na,dog\nb,dog\nc,dog\nx,cat dog\n")
    checks = examine_voc(voc, CLASSES)
    assert states(checks) == {"masks hold labelled classes": "warning"}
    (check,) = (check for check in checks if check.name == "masks hold labelled classes")
    assert check.found == "3 of 5" and check.examples[0] == "SegmentationClass/a.png: 1"


def test_missing_lists_say_what_to_download(voc):
    for split in ("train", "test", "train_aug"):
        (voc / "ImageSets" / "Segmentation" / f"{split}.txt").unlink()
    found = {check.name: check for check in examine_voc(voc, CLASSES)}
    assert found["list train"].state == "problem" and "VOCtrainval_11-May-2012.tar" in found["list train"].advice
    assert found["list test"].state == found["list train_aug"].state == "note"
    assert "SBD's SegmentationClassAug/" in found["list train_aug"].advice
    with pytest.raises(DataError, match=f"pass {voc} instead"):
        examine_voc(voc.parent, CLASSES)


@pytest.fixture
def coco(tmp_path):
    write(tmp_path, "train2014", document())
    return tmp_path


def test_coco(coco):
    checks = examine_coco(coco, COCO_CLASSES)
    assert can_run(checks) and {check.name: check.found for check in checks} == {
        "train2014: images": "4, the published data have 82,783",
        "train2014: annotated": "3, the published data have 82,081",
        "train2014: masks": "4",
        "train2014: images with segmentations": "3",
        "train2014: files": "4",
        "train2014: damaged files": "4",
        "train2014: masks fit their images": "4",
        "train2014: EXIF orientation": "4",
    }


@pytest.mark.parametrize(
    ("name", "state"),
    [("masks", "warning"), ("files", "problem"), ("damaged files", "problem"), ("masks fit their images", "problem")],
)
def test_coco_faults(coco, name, state):
    content = document()
    if name == "masks":
        content["annotations"].append(annotation(50, 0, 1, [[float("nan")] * 6, *square(20, 15, 4)]))
    if name == "masks fit their images":
        content["images"][1]["width"] += 1
    write(coco, "train2014", content)
    if name == "files":
        (coco / "train2014" / "a1.jpg").unlink()
    if name == "damaged files":
        cut(coco / "train2014" / "a1.jpg")
    checks = [check for check in examine_coco(coco, COCO_CLASSES) if "published" not in check.found]
    assert {check.name: check.state for check in checks if check.state != "ok"} == {f"train2014: {name}": state}


def test_an_annotation_file_that_cannot_be_used(coco):
    (found,) = (check for check in examine_coco(coco, COCO_CLASSES[:2]) if check.state == "problem")
    assert found.name == "train2014: annotations" and "of the category 'dog'" in found.found


@needs_photos
def test_the_real_voc_photos(tmp_path):
    ran = CliRunner().invoke(app, ["doctor", "voc", str(VOC), "--quick", "--json", str(tmp_path / "checks.json")])
    assert ran.exit_code == 0 and "a run can use it" in ran.stdout
    found = json.loads((tmp_path / "checks.json").read_text())
    assert found["usable"] and {c["name"]: c["found"] for c in found["checks"]}["masks fit their images"] == "250"


@needs_coco
def test_the_real_coco_photos():
    checks = examine_coco(COCO, load_prompts(ROOT / "prompts" / "coco.yaml").class_names)
    assert can_run(checks) and {check.state for check in checks} == {"ok"}


def test_the_command_ends_with_1_for_a_problem_and_names_it(voc):
    FAULTS["images"](voc)
    ran = CliRunner().invoke(app, ["doctor", "voc", str(voc)])
    assert ran.exit_code == 1 and "problem: images: get VOCtrainval" in ran.stdout and "JPEGImages/b.jpg" in ran.stdout
