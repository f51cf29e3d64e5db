"""What excel ships for VOC 2012, a folder as downloaded that is read with it, and what is refused before work starts."""

import shutil

import pytest

from excel_core.config import DatasetSpec
from excel_core.datasets.doctor.checks import can_run
from excel_core.datasets.doctor.voc import PRESET_SPLITS, examine_voc
from excel_core.datasets.layouts import LAYOUTS
from excel_core.datasets.published_voc import FILE, has_voc_classes, published_labels, published_list
from excel_core.datasets.voc import read_split, read_voc
from excel_core.errors import DataError
from tests.conftest import PUBLISHED, needs_published
from tests.voc_folder import ANNOTATED, MORE, NAMES, TRAIN, VAL, write_annotation, write_list, write_voc


@pytest.fixture
def root(tmp_path):
    return write_voc(tmp_path / "VOC2012")


def test_the_shipped_table():
    ids, labels = published_list("train_aug"), published_labels()
    assert len(ids) == len(set(ids)) == 10_582 and published_list("trainaug") == ids and published_list("train") == ()
    assert len(labels) == 12_031 and ids == tuple(labels)[:10_582] and ids[:3] == TRAIN
    assert set(VAL) <= set(tuple(labels)[10_582:]) and has_voc_classes(NAMES)
    assert all(found and set(found) <= set(NAMES) and len(found) == len(set(found)) for found in labels.values())
    assert labels["2007_000032"] == ("aeroplane", "person") and labels["2008_000008"] == ("horse", "person")
    assert not has_voc_classes(NAMES[:-1]) and not has_voc_classes((*NAMES[:-1], "axolotl")) and has_voc_classes(NAMES[::-1])
    assert FILE.read_bytes()[4:8] == bytes(4)  # no time of writing in it


@needs_published
def test_the_shipped_table_is_the_published_one():
    assert list(published_list("train_aug")) == (PUBLISHED / "voc_train_aug.txt").read_text().split()
    rows = [line.split(",") for line in (PUBLISHED / "voc_labels.csv").read_text().splitlines()[1:]]
    assert {image: tuple(names.split()) for image, names in rows} == published_labels()


def test_plain_voc_trains_on_train_aug_with_the_published_labels(root):
    manifest = read_voc(root, ["train_aug", "train", "val"], NAMES, partial=True)
    assert list(manifest["id"]) == [*TRAIN, *MORE, *TRAIN, *VAL] and (manifest["error"] == "").all()
    labels = dict(zip(manifest["id"], manifest["labels"], strict=True))
    assert labels["2007_000063"] == ["chair", "dog"] and labels["2008_000008"] == ["horse", "person"]
    assert manifest.attrs["absent"] == {"train_aug": 10_582 - 5}


def test_where_labels_come_from(root):
    def labels(**options):
        found = read_voc(root, ["train_aug"], NAMES, partial=True, **options)
        return found.set_index("id").loc["2008_000008", "labels"]

    assert labels() == ["horse", "person"] and labels(labels="folder") == ["horse"]
    rows = [f"{image},{' '.join(dict.fromkeys(names))}" for image, names in ANNOTATED.items()]
    (root / "labels.csv").write_text("\n".join(["image,labels", *rows]).replace("000008,horse", "000008,cow"))
    assert labels() == labels(labels="folder") == ["cow"]


def test_what_the_published_labels_do_not_know_is_annotated(root):
    shutil.copy(root / "JPEGImages" / f"{TRAIN[0]}.jpg", root / "JPEGImages" / "mine.jpg")
    write_annotation(root, "mine", ["cow"])
    write_list(root, "train", [*TRAIN, "mine"])
    assert read_voc(root, ["train"], NAMES).iloc[3].labels == ["cow"]


def test_other_classes_have_neither_list_nor_labels(root):
    names = (*NAMES, "axolotl")
    assert read_voc(root, ["train"], names).iloc[0].labels == ["aeroplane", "person"]  # annotated
    (root / "Annotations" / "2007_000032.xml").unlink()
    assert "Annotations/2007_000032.xml is missing" in read_voc(root, ["train"], names).iloc[0].error
    with pytest.raises(DataError, match="unknown split 'train_aug'; .* has: train, val$"):
        read_split(root, "train_aug", names)


@pytest.mark.parametrize(("file", "asked"), [("trainaug", "train_aug"), ("train_aug", "trainaug"), ("trainaug", "trainaug")])
def test_a_list_in_the_folder_wins_under_either_name(root, file, asked):
    write_list(root, file, MORE)
    assert read_split(root, asked, NAMES) == list(MORE)


def _refused(root, names=NAMES, **settings):
    with pytest.raises(DataError) as refused:
        LAYOUTS["voc"].check_splits(root, DatasetSpec(**settings), names)
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_a_list_with_images_that_are_not_there_is_refused(root):
    said = _refused(root)
    assert said.startswith(
        "dataset.train_split: the list train_aug, which comes with excel, has 10,582 images, of which 10,577"
    )
    assert "2007_000068" in said and "--set dataset.train_split=train" in said and "--set dataset.partial=true" in said
    LAYOUTS["voc"].check_splits(root, DatasetSpec(train_split="train"), NAMES)
    LAYOUTS["voc"].check_splits(root, DatasetSpec(partial=True), NAMES)
    write_list(root, "val", [*VAL, "2007_000061", "2007_000123"])
    said = _refused(root, train_split="train")
    assert said.startswith("dataset.val_splits: ImageSets/Segmentation/val.txt lists 4 images, of which 2 are not in ")
    assert said.endswith(
        "2007_000061, 2007_000123; get the whole data set, or take the images that are there: --set dataset.partial=true"
    )


def test_a_few_missing_images_are_bad_ones_as_before(root):
    write_list(root, "val", [*VAL, "2007_000061"])
    spec = DatasetSpec(train_split="train")
    LAYOUTS["voc"].check_splits(root, spec, NAMES)
    manifest = read_voc(root, ["train", "val"], NAMES)
    assert list(manifest[manifest["error"] != ""]["id"]) == ["2007_000061"] and manifest.attrs["absent"] == {}
    manifest = read_voc(root, ["train", "val"], NAMES, partial=True)
    assert (manifest["error"] == "").all() and manifest.attrs["absent"] == {"val": 1}
    write_list(root, "val", [*VAL, "2007_000061", "2007_000123"])
    LAYOUTS["voc"].check_splits(root, spec.model_copy(update={"max_bad": 0.5}), NAMES)


def test_a_split_of_which_nothing_is_there_is_refused_in_part_too(root):
    write_list(root, "val", ["2007_000061"])
    assert "partial" not in _refused(root, partial=True)
    with pytest.raises(DataError, match="split 'val': none of its 1 images is in"):
        read_voc(root, ["train", "val"], NAMES, partial=True)


def test_a_split_that_is_not_there_names_its_setting_and_the_valid_ones(root):
    said = _refused(root, seed_splits=("trainval",))
    assert (
        said.startswith("dataset.seed_splits: unknown split 'trainval'; ") and "has: train, val; excel has: train_aug" in said
    )
    assert said.endswith("--set 'dataset.seed_splits=[train]'")
    assert _refused(root, names=(*NAMES, "axolotl")).startswith("dataset.train_split: unknown split 'train_aug'")


def test_labels_are_needed_where_nobody_knows_them(root):
    shutil.rmtree(root / "Annotations")
    LAYOUTS["voc"].check_splits(root, DatasetSpec(train_split="train"), NAMES)
    assert (read_voc(root, ["train", "val"], NAMES)["error"] == "").all()
    said = _refused(root, train_split="train", labels="folder")
    assert "no labels for 5 of 5 images, such as 2007_000032: looked for labels.csv or Annotations/" in said


def checks(root, names=NAMES):
    return {check.name: check for check in examine_voc(root, names)}


def test_the_doctor_counts_the_labels_that_differ(root):
    found = checks(root)["published labels"]
    assert (found.state, found.found) == ("note", "1 of 7")
    assert found.examples == ("2008_000008: published horse person; Annotations horse",)
    assert "a run takes the published ones; --set dataset.labels=folder" in found.advice
    write_annotation(root, "2008_000008", ["person", "horse"])
    assert (checks(root)["published labels"].state, checks(root)["published labels"].found) == ("ok", "7")
    (root / "labels.csv").write_text("image,labels\n2007_000032,cow\n")
    found = checks(root)["published labels"]
    assert found.found == "1 of 1" and "a run takes labels.csv" in found.advice
    assert "published labels" not in checks(write_voc(root / "other"), (*NAMES, "axolotl"))


def test_the_doctor_says_what_a_run_would(root):
    """A run with the preset's splits is refused, for the reason that the note gives."""
    found = checks(root)
    assert can_run(list(found.values()))
    assert (found["list train_aug"].state, found["list train_aug"].found) == (
        "note",
        "comes with excel: 10,582 images, 5 of them here",
    )
    assert (found[PRESET_SPLITS].state, found[PRESET_SPLITS].advice) == ("note", _refused(root))
    assert found["masks"].found == "7"  # those of train_aug alone need none
    write_list(root, "train_aug", [*TRAIN, *MORE])
    LAYOUTS["voc"].check_splits(root, DatasetSpec(), NAMES)
    assert checks(root)[PRESET_SPLITS].state == "ok" and checks(root)["masks"].found == "2 of 7"


def test_coco_and_a_folder_name_the_setting_too(tmp_path):
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "instances_train2014.json").write_text("{}")
    spec = DatasetSpec(layout="coco", train_split="train2014", seed_splits=("mini",), val_splits=())
    with pytest.raises(DataError, match=r"dataset.seed_splits: unknown split 'mini': .* it has: train2014$"):
        LAYOUTS["coco"].check_splits(tmp_path, spec, NAMES)
    LAYOUTS["coco"].check_splits(tmp_path, spec.model_copy(update={"seed_splits": ("train",)}), NAMES)
    (tmp_path / "labels.csv").write_text("image,labels,split\na,dog,mine\n")
    spec = DatasetSpec(layout="folder", train_split="mine", val_splits=("mine",))
    with pytest.raises(DataError, match=r"dataset.seed_splits: unknown split 'train'; .* --set 'dataset.seed_splits=\[mine\]'"):
        LAYOUTS["folder"].check_splits(tmp_path, spec, NAMES)
