"""Files of a data folder that are links out of it: a run refuses them in one line, before a store and a server are there, and
the doctor by the same names. Photos, masks, lists and tables, in every layout that a folder can have."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from excel_core.datasets.palette import save_labels_png
from excel_core.errors import DataError
from flows.cli import app
from tests.core import coco_folder

SHAPE = (24, 32)  # of a photo: height, width


def _photo(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.effect_noise(SHAPE[::-1], 80).convert("RGB").save(path)


def _voc(root):
    for name in "abcd":
        _photo(root / f"JPEGImages/{name}.jpg")
        save_labels_png(root / f"SegmentationClass/{name}.png", np.ones(SHAPE, np.uint8))
    save_labels_png(root / "SegmentationClassAug/a.png", np.ones(SHAPE, np.uint8))
    (root / "ImageSets/Segmentation").mkdir(parents=True)
    (root / "ImageSets/Segmentation/train_aug.txt").write_text("a\nb\n")
    (root / "ImageSets/Segmentation/val.txt").write_text("c\nd\n")
    (root / "labels.csv").write_text("image,labels\n" + "".join(f"{name},dog\n" for name in "abcd"))


def _coco(root):
    for name, prefix in (("train2014", "a"), ("val2014", "b")):
        coco_folder.write(root, name, coco_folder.document(prefix=prefix), f"images/{name}")


def _table(root):
    for name in "abcd":
        _photo(root / f"{name}.jpg")
    (root / "labels.csv").write_text("image,labels\n" + "".join(f"{name},dog\n" for name in "abcd"))
    save_labels_png(root / "SegmentationClass/a.png", np.ones(SHAPE, np.uint8))


def _class_folders(root):
    for name in ("dog/a", "dog/b", "cat/c"):
        _photo(root / f"{name}.jpg")
    (root / "classes.yaml").write_text("classes: [cat, dog]\n")


CASES = [
    ("voc", _voc, "JPEGImages/d.jpg"),
    ("voc", _voc, "SegmentationClass/c.png"),
    ("voc", _voc, "SegmentationClassAug/a.png"),
    ("voc", _voc, "ImageSets/Segmentation/val.txt"),
    ("voc", _voc, "labels.csv"),
    ("coco", _coco, "images/val2014/b1.jpg"),
    ("coco", _coco, "annotations/instances_val2014.json"),
    ("photos", _table, "c.jpg"),
    ("photos", _table, "labels.csv"),
    ("photos", _table, "SegmentationClass/a.png"),
    ("photos", _class_folders, "dog/b.jpg"),
    ("photos", _class_folders, "classes.yaml"),
]


@pytest.fixture
def data(tmp_path, monkeypatch):
    """A place for a data folder; no store is named but that of a command."""
    monkeypatch.delenv("EXCEL_STORE", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "data"


def _replaced_by_a_link(file: Path, target: Path) -> None:
    target.parent.mkdir(exist_ok=True)
    shutil.move(file, target)
    file.symlink_to(target)


def _doctor(preset, root):
    ran = CliRunner().invoke(app, ["doctor", preset, str(root), "--quick", "--json", "checks.json"])
    return ran, json.loads(Path("checks.json").read_text())


@pytest.mark.parametrize(("preset", "write", "name"), CASES, ids=lambda value: getattr(value, "__name__", value))
def test_a_link_out_of_the_folder_is_refused_before_anything_starts(data, preset, write, name):
    write(data)
    _replaced_by_a_link(data / name, data.parent / "private" / Path(name).name)
    ran = CliRunner().invoke(app, ["run", preset, "--data", str(data), "--store", "store"])
    assert isinstance(ran.exception, DataError), ran.output
    said = str(ran.exception)
    assert said.startswith(f"{data}: a symbolic link leads out of the data folder: {name}; put the files themselves there")
    assert "\n" not in said and not Path("store").exists()
    ran, found = _doctor(preset, data)
    assert ran.exit_code == 1 and not found["usable"]
    assert [(check["name"], check["state"], check["examples"]) for check in found["checks"]] == [("links", "problem", [name])]


def test_many_links_are_one_line(data):
    _table(data)
    for name in "abcd":
        _replaced_by_a_link(data / f"{name}.jpg", data.parent / "private" / f"{name}.jpg")
    ran = CliRunner().invoke(app, ["run", "photos", "--data", str(data), "--store", "store"])
    assert "4 symbolic links lead out of the data folder: a.jpg, b.jpg, c.jpg and 1 more; put" in str(ran.exception)


@pytest.mark.parametrize(("preset", "write", "folder"), [("voc", _voc, "SegmentationClass"), ("coco", _coco, "images/val2014")])
def test_a_whole_folder_elsewhere_is_none_but_links_in_it_are(data, preset, write, folder):
    write(data)
    _replaced_by_a_link(data / folder, data.parent / "large disk")
    _, found = _doctor(preset, data)
    assert found["checks"][0]["state"] == "ok"
    first = min((data.parent / "large disk").iterdir())
    _replaced_by_a_link(first, data.parent / "private" / first.name)
    _, found = _doctor(preset, data)
    assert found["checks"][0]["examples"] == [f"{folder}/{first.name}"]


def test_links_to_files_within_it_and_to_nothing_lead_nowhere(data):
    _table(data)
    _replaced_by_a_link(data / "a.jpg", data / "stored" / "a.jpg")
    (data / "b.jpg").unlink()
    (data / "b.jpg").symlink_to(data.parent / "lost.jpg")
    _, found = _doctor("photos", data)
    states = {check["name"]: check["state"] for check in found["checks"]}
    assert states["links"] == "ok" and states["damaged files"] == "warning" and found["usable"]
