"""Exports opened by the packages they are for: ultralytics, datumaro (CVAT's reader), Label Studio's SDK, FiftyOne. A package
that is not installed skips its test; tests/core/test_export_shapes.py reads the same files without them."""

import json
import zipfile

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coder

from excel_core.datasets.images import AS_STORED
from excel_core.datasets.palette import save_labels_png
from excel_core.exports.brush_runs import decode_brush
from excel_core.exports.formats import LABEL_FORMATS
from excel_core.exports.label_maps import LabelMap
from excel_core.exports.photos import with_photos
from excel_core.imports.annotated import paint
from excel_core.imports.cvat import read_cvat
from excel_core.imports.photos import Photos

pytestmark = pytest.mark.filterwarnings("ignore")  # of the other packages
CLASSES = ("dog", "potted plant", "a & b")
REASON = "{} is not installed; docs/exports.md says how to try it"


def _labels():
    frame = np.zeros((60, 80), np.uint8)
    frame[5:50, 5:60] = 1
    frame[15:40, 15:45] = 0  # a hole
    frame[20:30, 20:40] = 2  # and an island in it
    diagonal = np.kron(np.eye(6, dtype=np.uint8) * 3, np.ones((8, 10), np.uint8))
    return {"frame": frame, "diagonal": diagonal, "nothing": np.zeros((50, 70), np.uint8)}


@pytest.fixture(scope="module")
def truth():
    return _labels()


@pytest.fixture(scope="module")
def exported(truth, tmp_path_factory):
    """A function: format → its export of three photos."""
    root = tmp_path_factory.mktemp("run")
    maps = []
    for name, labels in truth.items():
        save_labels_png(root / "maps" / f"{name}.png", labels)
        Image.fromarray(np.repeat(labels[..., None] * 60, 3, axis=2)).save(root / f"{name}.jpg")
        maps.append(LabelMap(name, root / "maps" / f"{name}.png", f"{name}.jpg", root / f"{name}.jpg"))

    def export(name):
        out = root / name
        out.mkdir()
        chosen = LABEL_FORMATS[name]
        chosen.write(out, CLASSES, with_photos(maps, out / (chosen.photos or "images"), AS_STORED, len(CLASSES)))
        return out

    return export


def test_ultralytics_loads_yolo_labels(exported, truth):
    pytest.importorskip("ultralytics", reason=REASON.format("ultralytics"))
    from ultralytics.data.dataset import YOLODataset
    from ultralytics.data.utils import check_det_dataset, polygon2mask

    data = check_det_dataset(str(exported("yolo") / "data.yaml"))
    assert list(data["names"].values()) == list(CLASSES)
    dataset = YOLODataset(img_path=data["train"], data=data, task="segment", augment=False)
    assert len(dataset.labels) == 3  # a photo without any class is background, not damaged
    for entry in dataset.labels:
        labels = truth[entry["im_file"].rpartition("/")[2].removesuffix(".jpg")]
        assert tuple(entry["shape"]) == labels.shape
        found = np.zeros_like(labels)
        for number, polygon in zip(entry["cls"][:, 0], entry["segments"], strict=True):
            points = polygon * np.array(labels.shape[::-1])
            found[polygon2mask(labels.shape, [points.ravel()]) == 1] = number + 1
        # Its polygons fill the pixels on their border too, here on the right and below.
        inner = found[:-1, :-1] == labels[:-1, :-1]
        assert inner.mean() > 0.94 and set(np.unique(found)) == set(np.unique(labels))
        if "frame" in entry["im_file"]:
            assert found[18, 18] == 0 and found[25, 30] == 2 and found[10, 10] == 1  # the hole stays a hole


@pytest.mark.parametrize("name", ["cvat", "cvat-images", "coco"])
def test_datumaro_reads_what_cvat_takes(exported, truth, name, tmp_path):
    """CVAT imports by datumaro."""
    pytest.importorskip("datumaro", reason=REASON.format("datumaro"))
    from datumaro.components.annotation import AnnotationType
    from datumaro.components.dataset import Dataset

    out = exported(name)
    if name == "cvat":
        with zipfile.ZipFile(next(out.glob("*.zip"))) as archive:
            archive.extractall(tmp_path)
        dataset = Dataset.import_from(str(tmp_path), "voc_segmentation")
    elif name == "cvat-images":
        dataset = Dataset.import_from(str(out / "annotations.xml"), "cvat")
    else:
        (tmp_path / "annotations").mkdir()
        (out / "annotations.json").rename(tmp_path / "annotations" / "instances_train.json")
        (out / "images").rename(tmp_path / "images")
        dataset = Dataset.import_from(str(tmp_path), "coco_instances")
    names = [label.name for label in dataset.categories()[AnnotationType.label]]
    items = {item.id.rpartition("/")[2].removesuffix(".jpg"): item for item in dataset}
    assert set(items) == set(truth)
    for key, labels in truth.items():
        found = np.zeros_like(labels)
        for annotation in items[key].annotations:
            if names[annotation.label] == "background" or annotation.type == AnnotationType.bbox:
                continue
            if annotation.type == AnnotationType.polygon:
                mask = coder.decode(coder.frPyObjects([annotation.points], *labels.shape))[..., 0]
            else:
                mask = annotation.image
            found[mask > 0] = CLASSES.index(names[annotation.label]) + 1
        assert np.array_equal(found, labels), (name, key)


@pytest.mark.parametrize("name", ["label-studio", "label-studio-polygons"])
def test_label_studio_takes_the_tasks(exported, truth, name):
    pytest.importorskip("label_studio_sdk", reason=REASON.format("label-studio-sdk"))
    from label_studio_sdk.converter.brush import decode_rle
    from label_studio_sdk.label_interface import LabelInterface

    out = exported(name)
    interface = LabelInterface((out / "label_config.xml").read_text())
    interface.validate()
    tasks = json.loads((out / "tasks.json").read_text())
    assert len(tasks) == 3
    for task, labels in zip(tasks, truth.values(), strict=True):
        assert interface.validate_task({"data": task["data"]})
        for prediction in task["predictions"]:
            assert interface.validate_prediction(prediction)
        if name == "label-studio":
            found = np.zeros_like(labels)
            for result in task["predictions"][0]["result"]:
                mask = decode_rle(result["value"]["rle"]).reshape(*labels.shape, 4)[..., 3]
                found[mask > 0] = CLASSES.index(result["value"]["brushlabels"][0]) + 1
            assert np.array_equal(found, labels)


def test_brushes_of_label_studios_encoder_are_read(truth):
    pytest.importorskip("label_studio_sdk", reason=REASON.format("label-studio-sdk"))
    from label_studio_sdk.converter.brush import mask2rle

    for labels in truth.values():
        mask = labels == 1
        assert np.array_equal(decode_brush(mask2rle(mask.astype(np.uint8) * 255), *labels.shape), mask)


def test_cvat_files_of_datumaro_are_read(tmp_path):
    pytest.importorskip("datumaro", reason=REASON.format("datumaro"))
    from datumaro.components.annotation import Label, Polygon
    from datumaro.components.dataset import Dataset
    from datumaro.components.dataset_base import DatasetItem
    from datumaro.components.media import Image as Media

    shapes = [Polygon([1, 1, 9, 1, 9, 5, 1, 5], label=0, z_order=1), Polygon([4, 2, 12, 2, 12, 8, 4, 8], label=1, z_order=0)]
    item = DatasetItem("a", media=Media.from_numpy(np.zeros((10, 20, 3), np.uint8)), annotations=[*shapes, Label(2)])
    Dataset.from_iterable([item], categories=list(CLASSES)).export(str(tmp_path), "cvat", save_media=True)
    (image,) = read_cvat(next(tmp_path.rglob("*.xml")))
    assert image.labels == ("a & b",) and (image.height, image.width) == (10, 20)
    labels = paint(image, CLASSES)
    assert (labels[1:5, 1:9] == 1).all() and (labels[2:8, 9:12] == 2).all() and (labels > 0).sum() == 32 + 48 - 15
    assert Photos(tmp_path).find(image.name)


def test_fiftyone_reads_photos_and_masks(exported, truth):
    pytest.importorskip("fiftyone", reason=REASON.format("fiftyone"))
    from fiftyone.utils.data.importers import ImageSegmentationDirectoryImporter

    importer = ImageSegmentationDirectoryImporter(dataset_dir=str(exported("fiftyone")))
    importer.setup()
    samples = {path.rpartition("/")[2].removesuffix(".jpg"): label for path, _, label in importer}
    assert set(samples) == set(truth)
    for name, labels in truth.items():
        assert np.array_equal(samples[name].get_mask(), labels)
