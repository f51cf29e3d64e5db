"""Label maps in other tools' formats, read back as those tools read them."""

import json
import tarfile
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as coder
from pycocotools.coco import COCO

from excel_core.datasets.palette import VOC_PALETTE
from excel_core.errors import DataError, SettingError, StoreError
from excel_core.exports.coco import write_coco
from excel_core.exports.coco_numbers import CocoNumbers
from excel_core.exports.coco_results import write_coco_results
from excel_core.exports.cvat import CVAT_ZIP, write_cvat
from excel_core.exports.folder import check_free, whole_folder
from excel_core.exports.formats import LABEL_FORMATS
from excel_core.exports.label_maps import folder_names, write_binary, write_palette
from excel_core.exports.voc_submission import VOC_ARCHIVE, VOC_CLASSES, write_voc_submission
from excel_core.text.prompts import load_prompts
from tests.conftest import ROOT
from tests.core.exported_maps import counted

CLASSES = ("dog", "potted plant", "a/b", "Dog")


@pytest.fixture
def truth():
    """Label maps of two sizes by id; 255 is ignored by every format."""
    generator = np.random.default_rng(0)
    blocks = generator.integers(0, 5, (2, 6, 4), dtype=np.uint8)
    large, small = np.kron(blocks[0], np.ones((5, 9), np.uint8)), blocks[1]
    large[0, :3] = 255
    empty = np.zeros((7, 9), np.uint8)
    return {"000000000042": large, "b": small, "c": empty}


def test_palette_is_a_copy(maps, truth, out):
    about = write_palette(out, CLASSES, maps)
    assert about == {"labels": ["background", *CLASSES]}
    assert {path.stem: path.read_bytes() for path in out.iterdir()} == {found.id: found.path.read_bytes() for found in maps}


def test_binary_masks_tell_the_map(maps, truth, out):
    folders = write_binary(out, CLASSES, maps)["folders"]
    assert list(folders.values()) == list(CLASSES) and {path.name for path in out.iterdir()} == set(folders)
    for name, labels in truth.items():
        found = np.zeros_like(labels)
        for value, folder in enumerate(folders, start=1):
            path = out / folder / f"{name}.png"
            assert path.exists() == bool((labels == value).any())
            if path.exists():
                mask = np.asarray(Image.open(path))
                assert mask.ndim == 2 and set(np.unique(mask)) <= {0, 255}
                found[mask == 255] = value
        assert np.array_equal(found, counted(labels))


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # in pycocotools' decoder
@pytest.mark.parametrize("official", [False, True])
def test_coco_results_are_read_by_pycocotools(maps, truth, out, official):
    numbers = CocoNumbers(
        {"000000000042": 42, "b": 7, "c": 1, "elsewhere": 2}, {"dog": 18, "potted plant": 64, "a/b": 1, "Dog": 90, "cat": 17}
    )
    write_coco_results(out, CLASSES, maps, numbers if official else None)
    truths = COCO(str(out / "dataset.json"))
    results = truths.loadRes(str(out / "results.json"))
    categories = {entry["name"]: entry["id"] for entry in truths.loadCats(truths.getCatIds())}
    assert categories == (
        {name: numbers.categories[name] for name in CLASSES} if official else dict(zip(CLASSES, (1, 2, 3, 4), strict=True))
    )
    for position, (name, labels) in enumerate(truth.items(), start=1):
        number = numbers.images[name] if official else position
        image = truths.loadImgs([number])[0]
        assert image["file_name"] == f"{name}.jpg" and (image["height"], image["width"]) == labels.shape
        found = np.zeros_like(labels)
        for entry in results.loadAnns(results.getAnnIds(imgIds=[number])):
            value = next(i for i, c in enumerate(CLASSES, 1) if categories[c] == entry["category_id"])
            found[coder.decode(entry["segmentation"]) == 1] = value
            assert entry["score"] == 1.0
        assert np.array_equal(found, counted(labels))


@pytest.mark.parametrize("write", [write_coco, write_coco_results])
def test_coco_numbers_must_know_image_and_class(maps, out, write):
    everything = {found.id: 1 for found in maps}
    with pytest.raises(SettingError, match="the class 'a/b' has no number"):
        write(out, CLASSES, maps, CocoNumbers(everything, {"dog": 1, "potted plant": 2, "Dog": 3}))
    with pytest.raises(SettingError, match="the image '000000000042' has no number"):
        write(out, CLASSES, maps, CocoNumbers({}, dict.fromkeys(CLASSES, 1)))


def test_cvat_reads_classes_by_their_colours(maps, truth, out):
    write_cvat(out, CLASSES, maps)
    with zipfile.ZipFile(out / CVAT_ZIP) as archive:
        lines = [line for line in archive.read("labelmap.txt").decode().splitlines() if not line.startswith("#")]
        colours = {}
        for line in lines:
            name, colour, parts, actions = line.split(":")
            colours[tuple(map(int, colour.split(",")))] = name
            assert not parts and not actions
        assert list(colours.values()) == ["background", *CLASSES] and next(iter(colours)) == (0, 0, 0)
        assert archive.read("ImageSets/Segmentation/default.txt").decode().split("\n")[:-1] == list(truth)
        assert len(archive.namelist()) == 2 + 2 * len(truth)
        for name, labels in truth.items():
            classes = np.asarray(Image.open(archive.open(f"SegmentationClass/{name}.png")))
            objects = np.asarray(Image.open(archive.open(f"SegmentationObject/{name}.png")))
            assert classes.shape == objects.shape == (*labels.shape, 3)
            names = np.array(["background", *CLASSES])[counted(labels)]
            assert [colours[tuple(p)] for p in classes.reshape(-1, 3).tolist()] == names.ravel().tolist()
            numbers = [VOC_PALETTE.tolist().index(p) for p in objects.reshape(-1, 3).tolist()]
            pairs = set(zip(numbers, names.ravel().tolist(), strict=True))  # one object a class, counted from 1
            assert sorted(n for n, c in pairs if c != "background") == list(
                range(1, len(np.unique(counted(labels)[counted(labels) > 0])) + 1)
            )
            assert all((n == 0) == (c == "background") for n, c in pairs)


@pytest.mark.parametrize("name", ["a:b", "#x"])
def test_cvat_refuses_names_its_label_map_cannot_hold(maps, out, name):
    with pytest.raises(SettingError, match="cannot hold the class"):
        write_cvat(out, (name, *CLASSES[1:]), maps)


def test_voc_submission(maps, truth, out):
    write_voc_submission(out, VOC_CLASSES, maps)
    with tarfile.open(out / VOC_ARCHIVE) as archive:
        assert archive.getnames() == [f"results/VOC2012/Segmentation/comp6_test_cls/{name}.png" for name in truth]
        for member, labels in zip(archive, truth.values(), strict=True):
            image = Image.open(archive.extractfile(member))
            assert image.mode == "P" and np.array_equal(np.asarray(image), labels)
    first = (out / VOC_ARCHIVE).read_bytes()
    write_voc_submission(out, VOC_CLASSES, maps)
    assert (out / VOC_ARCHIVE).read_bytes() == first


def test_voc_submission_is_for_vocs_classes_alone(maps, out):
    assert load_prompts(ROOT / "prompts" / "voc.yaml").class_names == VOC_CLASSES
    for names in (CLASSES, VOC_CLASSES[::-1], VOC_CLASSES[:-1]):
        with pytest.raises(SettingError, match="must be VOC's 20"):
            write_voc_submission(out, names, maps)


@pytest.mark.parametrize("name", sorted(set(LABEL_FORMATS) - {"voc-submission"}))
def test_a_label_without_class_is_refused(maps, out, name):
    with pytest.raises(DataError, match="holds the label 4, but there are 3 classes"):
        LABEL_FORMATS[name].write(out, CLASSES[:3], maps)


@given(st.lists(st.text(max_size=12), min_size=1, max_size=8))
def test_folder_names_are_safe_and_distinct(names):
    found = folder_names(names)
    assert len({name.casefold() for name in found}) == len(names)
    for name in found:
        assert name and name[0] != "." and name[-1] not in ". " and not set(name) & set('/\\:*?"<>|\0\n')
        assert name.lower() not in ("con", "nul", "aux", "prn", "com1")


def test_plain_names_stay():
    assert folder_names(("dog", "potted plant", "Dog", "con", "日本")) == ("dog", "potted_plant", "Dog_2", "con_2", "日本")


def test_a_folder_appears_whole_or_not_at_all(tmp_path):
    out = tmp_path / "deep" / "out"
    with pytest.raises(ValueError), whole_folder(out, False, {}) as folder:
        (folder / "half").write_text("x")
        raise ValueError
    assert not out.exists() and not any((tmp_path / "deep").iterdir())
    about = {"run": "r"}
    with whole_folder(out, False, about) as folder:
        (folder / "a.png").write_text("1")
        assert not out.exists()
        about["images"] = 1
    written = json.loads((out / "export.json").read_text())
    assert written == {"format": "excel-export/1", "run": "r", "images": 1, "holds": ["a.png"]}
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["out"]


def test_only_an_earlier_export_is_replaced_and_only_by_force(tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    with whole_folder(out, False, {}) as folder:  # an empty folder is free
        (folder / "old").write_text("1")
    with pytest.raises(SettingError, match="is not empty; .*--force"):
        check_free(out, False)
    with pytest.raises(ValueError), whole_folder(out, True, {}) as folder:
        raise ValueError
    assert (out / "old").exists()  # the earlier export outlives a failure
    with whole_folder(out, True, {}) as folder:
        (folder / "new").write_text("2")
    assert sorted(path.name for path in out.iterdir()) == ["export.json", "new"]
    (out / "mine.txt").write_text("a user's own file")
    with pytest.raises(SettingError, match=r"holds 'mine.txt', which no export wrote"):
        check_free(out, True)


def test_places_that_are_never_replaced(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("x")
    with pytest.raises(SettingError, match="is a file"):
        check_free(tmp_path / "file", True)
    (tmp_path / "photos").mkdir()
    monkeypatch.chdir(tmp_path / "photos")
    for place in (tmp_path / "photos", tmp_path):
        with pytest.raises(SettingError, match="the folder you are in, or around it"):
            check_free(place, True)


def test_a_place_that_cannot_be_written_is_said(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(StoreError, match="the export could not be written"), whole_folder(tmp_path / "file" / "out", False, {}):
        raise AssertionError("never entered")
