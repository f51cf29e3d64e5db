"""Truth that is odd, through the stages: read as it was meant, left out with a count, or scored with a warning."""

import shutil

import numpy as np
import pytest
from PIL import Image

from artifacts.tables import print_tables
from excel_core.config.presets import preset, with_settings
from excel_core.datasets.palette import VOC_PALETTE, load_labels_png, save_labels_png
from excel_core.errors import DataError
from excel_core.files import read_json
from flows.cli.options import console
from tasks.engine.stage import RunEnvironment
from tests.core.coco_folder import document, write
from tests.pipeline_runs import follow
from tests.voc_folder import TRAIN, VAL, write_voc

SMALL = [
    "clip.model=excel-tiny", "describe.n=2", "knowledge.attributes=16", "cams.image_size=48", "predict.image_size=48",
    "train.enabled=false", "refine.par.iterations=2", "refine.crf.enabled=false", "report.gallery_images=2",
    "evaluate.kinds=[static]",
]  # fmt: skip
AS_VOC = [*SMALL, "dataset.train_split=train", "dataset.seed_splits=[train, val]"]
AS_COCO = [*SMALL, "knowledge.attributes=40", "dataset.val_splits=[val2017]"]
EXIF = 274  # the tag of the orientation


@pytest.fixture(scope="module")
def voc(tmp_path_factory):
    return write_voc(tmp_path_factory.mktemp("data") / "VOC2012")


@pytest.fixture
def data(voc, tmp_path):
    """A copy to spoil."""
    return shutil.copytree(voc, tmp_path / "VOC2012")


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Shared: what a spoilt mask does not touch is computed once."""
    return tmp_path_factory.mktemp("store")


def _metrics(store, data, settings, name="voc"):
    outputs = follow(with_settings(preset(name), settings), RunEnvironment(store=store, data=data), "evaluate")
    return read_json(outputs["evaluate"].folder / "metrics.json")


def _spoil(data, ids, change):
    for image_id in ids:
        path = data / "SegmentationClass" / f"{image_id}.png"
        change(path, load_labels_png(path))


def _renumber(path, labels):
    values, counts = np.unique(labels, return_counts=True)
    order, number = values[np.argsort(-counts)], np.zeros(256, np.uint8)
    number[order] = np.arange(len(order))
    image = Image.frombytes("P", labels.shape[::-1], number[labels].tobytes())
    image.putpalette(VOC_PALETTE[order].tobytes())
    image.save(path)
    with Image.open(path) as stored:
        assert stored.mode == "P" and not np.array_equal(np.array(stored), labels)


def test_renumbered_masks_give_the_same_scores(voc, data, store):
    before = _metrics(store, voc, AS_VOC)
    _spoil(data, TRAIN + VAL, _renumber)
    after = _metrics(store, data, AS_VOC)
    assert after == before and after["warnings"] == {} and after["skipped"] == {}
    assert after["results"]["seeds.static.train.raw"]["protocol"]["images"] == len(TRAIN)


def test_masks_of_0_and_255_are_scored_with_a_warning(data, store, capsys):
    _spoil(data, VAL, lambda path, labels: save_labels_png(path, np.where(labels == 0, 0, 255).astype(np.uint8)))
    metrics = _metrics(store, data, AS_VOC)
    ((which, reason),) = metrics["warnings"].items()
    assert which == f"val: 2 of 2 images ({', '.join(VAL)})" and reason.startswith("hold the values 0 and 255 alone")
    print_tables(metrics, console())
    assert "warning: val: 2 of 2 images" in capsys.readouterr().out


def test_masks_of_255_throughout_are_left_out_and_counted(data, store):
    _spoil(data, VAL[:1], lambda path, labels: save_labels_png(path, np.full_like(labels, 255)))
    metrics = _metrics(store, data, AS_VOC)
    assert metrics["results"]["seeds.static.val.raw"]["protocol"]["images"] == 1
    ((which, reason),) = metrics["skipped"].items()
    assert which == "val: 1 of 2 masks" and VAL[0] in reason and "255 throughout, in SegmentationClass" in reason


def test_a_photo_upside_down_is_scored_with_a_warning(data, tmp_path):
    """A photo on its side is not named: the size of its mask told that it fits."""
    for image_id, orientation, width in ((TRAIN[0], 3, 48), (TRAIN[1], 6, 40)):
        path = data / "JPEGImages" / f"{image_id}.jpg"
        with Image.open(path) as image:
            stored = image.crop((0, 0, width, 48))
        exif = Image.Exif()
        exif[EXIF] = orientation
        stored.save(path, exif=exif)
        mask = data / "SegmentationClass" / f"{image_id}.png"
        save_labels_png(mask, np.ascontiguousarray(load_labels_png(mask)[:, :width]))
    environment = RunEnvironment(store=tmp_path / "store", data=data)
    outputs = follow(with_settings(preset("voc"), AS_VOC), environment, "evaluate")
    assert outputs["dataset"].result["turned"] == {TRAIN[0]: 3, TRAIN[1]: 6}
    metrics = read_json(outputs["evaluate"].folder / "metrics.json")
    ((which, reason),) = metrics["warnings"].items()
    assert which == f"train: 1 of 3 images ({TRAIN[0]})" and "EXIF orientation" in reason and metrics["skipped"] == {}


def _boxes_alone(content, images):
    """`content`, in which the annotations of the images of these numbers have no segmentation."""
    for entry in content["annotations"]:
        if entry["image_id"] in images:
            del entry["segmentation"]
    return content


def test_boxes_without_segmentations_are_left_out_and_counted(tmp_path, store):
    data = tmp_path / "coco"
    write(data, "train2017", _boxes_alone(document(6), [10, 20]))
    write(data, "val2017", document(6, "b"))
    metrics = _metrics(store, data, AS_COCO, "coco")
    assert metrics["results"]["seeds.static.train.raw"]["protocol"]["images"] == 3
    ((which, reason),) = metrics["skipped"].items()
    assert which == "train: 2 of 5 masks" and reason.endswith("in annotations/instances_train2017.json (a1, a2)")


def test_nothing_is_learnt_from_boxes_as_masks(tmp_path, store):
    data = tmp_path / "coco"
    write(data, "train2017", _boxes_alone(document(6), [10]))
    write(data, "val2017", document(6, "b"))
    supervised = ["train.enabled=true", "train.supervision=masks", "evaluate.kinds=[static, lvc, segmentation]"]
    run = with_settings(preset("coco"), [*AS_COCO, *supervised, "train.crop=48", "train.iterations=1", "train.batch_size=2"])
    with pytest.raises(DataError, match="1 of 5 images of 'train' have objects without a segmentation"):
        follow(run, RunEnvironment(store=store, data=data), "train")


def test_an_export_of_boxes_alone_is_trained_on_and_not_scored(tmp_path, store):
    data = tmp_path / "coco"
    write(data, "train2017", _boxes_alone(document(6), range(60)))
    write(data, "val2017", document(6, "b"))
    metrics = _metrics(store, data, AS_COCO, "coco")
    assert metrics["results"] == {} and list(metrics["skipped"]) == ["train: 5 of 5 masks"]
