"""Label maps as polygons and run lengths of other tools: what they hold is the label map, by another way of reading them."""

import json

import numpy as np
import pytest
import yaml
from defusedxml import ElementTree
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from pycocotools import mask as coder
from pycocotools.coco import COCO

from excel_core.datasets.images import AS_STORED, UPRIGHT
from excel_core.datasets.palette import save_labels_png
from excel_core.errors import DataError
from excel_core.exports.brush_runs import decode_brush, encode_brush
from excel_core.exports.coco import write_coco
from excel_core.exports.cvat_images import write_cvat_images
from excel_core.exports.image_masks import write_image_masks
from excel_core.exports.label_maps import LabelMap
from excel_core.exports.label_studio import write_label_studio, write_label_studio_polygons
from excel_core.exports.outlines import one_ring, regions
from excel_core.exports.photos import check_photos, with_photos
from excel_core.exports.yolo import write_yolo
from tests.core.exported_maps import counted

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # in pycocotools' decoder
CLASSES = ("dog", "potted plant", 'a "<b>" & c', "Dog")
MASKS = arrays(bool, st.tuples(st.integers(1, 12), st.integers(1, 12)))


def ringed():
    """Labels (40, 60): a frame of class 1 with an island of class 2 in its hole, and pixels that touch by corners."""
    labels = np.zeros((40, 60), np.uint8)
    labels[5:30, 5:50] = 1
    labels[10:25, 12:40] = 0
    labels[14:20, 20:30] = 2
    labels[25:27, 42:44] = 0  # a second hole
    for step in range(6):
        labels[32 + step, 10 + step] = 4
    return labels


@pytest.fixture
def truth():
    blocks = np.random.default_rng(0).integers(0, 5, (6, 4), dtype=np.uint8)
    blocks[0, 0] = 255
    return {"a b": ringed(), "ü": np.kron(blocks, np.ones((5, 9), np.uint8)), "empty": np.zeros((9, 12), np.uint8)}


def filled(points, height, width):
    """The pixels of a polygon, by pycocotools."""
    return coder.decode(coder.frPyObjects([np.asarray(points, float).ravel().tolist()], height, width))[..., 0] == 1


@given(MASKS)
def test_outlines_hold_the_pixels_and_no_others(mask):
    height, width = mask.shape
    together = np.zeros_like(mask)
    for region in regions(mask):
        pixels = filled(region.outer, height, width)
        for hole in region.holes:
            assert not (filled(hole, height, width) & mask & together).any()
            pixels &= ~filled(hole, height, width)
        assert np.array_equal(filled(one_ring(region), height, width), pixels)
        x, y, box_width, box_height = region.box
        assert pixels[y : y + box_height, x : x + box_width].sum() == pixels.sum() == region.area
        assert not (together & pixels).any()
        together |= pixels
    assert np.array_equal(together, mask)


def test_a_frame_is_one_region_with_its_holes():
    frame, *_ = regions(ringed() == 1)
    assert [len(hole) for hole in frame.holes] == [4, 4] and len(frame.outer) == 4
    assert len(regions(ringed() == 4)) == 6  # pixels that touch by a corner are regions of their own


@given(MASKS)
def test_brush_run_lengths_come_back(mask):
    assert np.array_equal(decode_brush(encode_brush(mask), *mask.shape), mask)


def test_a_brush_mask_of_one_value_fills_long_runs():
    mask = np.ones((300, 200), bool)  # 240,000 values, more than a record holds
    assert decode_brush(encode_brush(mask), 300, 200).all()


def test_a_brush_may_list_values_one_by_one():
    """As Label Studio writes a soft edge: 8 values of 8 bits, none repeated; the last of each four is the mask."""
    bits = f"{8:032b}{7:05b}" + "".join(f"{width - 1:04b}" for width in (3, 4, 8, 16)) + "0" + "00" + f"{7:03b}"
    bits += "".join(f"{value:08b}" for value in (9, 8, 7, 0, 1, 2, 3, 4))
    bits += "0" * (-len(bits) % 8)
    content = [int(bits[at : at + 8], 2) for at in range(0, len(bits), 8)]
    assert decode_brush(content, 1, 2).tolist() == [[False, True]]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("x", "no list of bytes"),
        ([256], "no list of bytes"),
        ([], "ends too early"),
        ([255] * 40, "values of 32 bits instead of 24 of 8"),
        (encode_brush(np.ones((2, 3), bool))[:-1], "ends too early"),
        (encode_brush(np.ones((2, 4), bool)), "32 values of 8 bits instead of 24"),
    ],
)
def test_damaged_brush_masks_are_refused(content, message):
    with pytest.raises(DataError, match=message):
        decode_brush(content, 2, 3)


def test_coco_annotations_are_the_label_map(maps, truth, out):
    about = write_coco(out, CLASSES, maps)
    coco = COCO(str(out / "annotations.json"))
    assert [entry["name"] for entry in coco.loadCats(coco.getCatIds())] == list(CLASSES)
    assert about["annotations"] == len(coco.anns)
    for number, labels in enumerate(map(counted, truth.values()), start=1):
        found = np.zeros_like(labels)
        for entry in coco.loadAnns(coco.getAnnIds(imgIds=[number])):
            pixels = coco.annToMask(entry) == 1
            assert not found[pixels].any() and entry["iscrowd"] == 0 and entry["area"] == pixels.sum()
            assert entry["bbox"] == coder.toBbox(coder.encode(np.asfortranarray(pixels.astype(np.uint8)))).tolist()
            found[pixels] = entry["category_id"]
        assert np.array_equal(found, labels)


def test_yolo_polygons_are_the_label_map(maps, truth, out):
    write_yolo(out, CLASSES, maps)
    about = yaml.safe_load((out / "data.yaml").read_text(encoding="utf-8"))
    assert about == {"train": "images", "val": "images", "names": dict(enumerate(CLASSES))}
    for name, labels in truth.items():
        found = np.zeros_like(labels)
        for line in (out / "labels" / f"{name}.txt").read_text().splitlines():
            number, *points = line.split()
            assert all(0 <= float(point) <= 1 for point in points)
            corners = np.array(points, float).reshape(-1, 2) * labels.shape[::-1]
            found[filled(corners.round(3), *labels.shape)] = int(number) + 1
        assert np.array_equal(found, counted(labels))


@pytest.mark.parametrize("write", [write_label_studio, write_label_studio_polygons])
def test_label_studio_results_are_the_label_map(maps, truth, out, write):
    write(out, CLASSES, maps)
    tasks = json.loads((out / "tasks.json").read_text(encoding="utf-8"))
    assert tasks[0]["data"]["image"] == "/data/local-files/?d=images/a%20b.jpg"
    config = ElementTree.fromstring((out / "label_config.xml").read_text(encoding="utf-8"))
    controls = {control.get("name"): control for control in config if control.get("toName") == "image"}
    for task, labels in zip(tasks, map(counted, truth.values()), strict=True):
        found = np.zeros_like(labels)
        for result in task["predictions"][0]["result"]:
            control, value = controls[result["from_name"]], result["value"]
            assert result["type"] == control.tag.lower()
            (name,) = value[result["type"]]
            assert name in [label.get("value") for label in control]
            height, width = result["original_height"], result["original_width"]
            if "rle" in value:
                pixels = decode_brush(value["rle"], height, width)
            else:
                pixels = filled(np.array(value["points"]) * (width, height) / 100, height, width)
            found[pixels] = CLASSES.index(name) + 1
        assert np.array_equal(found, labels)


def test_cvat_masks_are_the_label_map(maps, truth, out):
    assert write_cvat_images(out, CLASSES, maps)["masks"] > 3
    root = ElementTree.parse(out / "annotations.xml").getroot()
    assert [entry["name"] for entry in json.loads((out / "labels.json").read_text(encoding="utf-8"))] == list(CLASSES)
    assert [label.findtext("name") for label in root.iterfind("meta/task/labels/label")] == list(CLASSES)
    for image, (name, labels) in zip(root.iterfind("image"), truth.items(), strict=True):
        assert image.get("name") == f"{name}.jpg" and (int(image.get("height")), int(image.get("width"))) == labels.shape
        found = np.zeros_like(labels)
        for mask in image.iterfind("mask"):
            left, top, width, height = (int(mask.get(side)) for side in ("left", "top", "width", "height"))
            runs = [int(run) for run in mask.get("rle").split(",")]
            pixels = np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(height, width)
            assert pixels[0].any() and pixels[-1].any() and pixels[:, 0].any() and pixels[:, -1].any()
            found[top : top + height, left : left + width][pixels] = CLASSES.index(mask.get("label")) + 1
        assert np.array_equal(found, counted(labels))


def test_masks_beside_photos_are_grey_values(maps, truth, out):
    write_image_masks(out, CLASSES, maps)
    assert json.loads((out / "mask_targets.json").read_text(encoding="utf-8"))["4"] == "Dog"
    for name, labels in truth.items():
        with Image.open(out / "labels" / f"{name}.png") as image:
            assert image.mode == "L" and np.array_equal(np.asarray(image), counted(labels))


def test_photos_go_along_as_the_run_saw_them(tmp_path):
    """Plain ones keep their bytes; what other tools would show in another size or turned is written anew."""
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    picture = Image.fromarray(pixels)
    picture.save(tmp_path / "plain.JPG", quality=95)
    picture.save(tmp_path / "turned.png", exif=exif)
    picture.save(tmp_path / "b.bmp")
    picture.convert("CMYK").save(tmp_path / "print.jpg")
    sizes = {"plain.JPG": (20, 30), "turned.png": (30, 20), "b.bmp": (20, 30), "print.jpg": (20, 30)}
    maps = []
    for name, size in sizes.items():
        path = tmp_path / "maps" / f"{name}.png"
        save_labels_png(path, np.zeros(size, np.uint8))
        maps.append(LabelMap(name.split(".")[0], path, name, tmp_path / name))
    check_photos(maps)
    written = {found.id: found.file_name for found in with_photos(maps, tmp_path / "images", UPRIGHT, 1)}
    assert written == {"plain": "plain.jpg", "turned": "turned.png", "b": "b.png", "print": "print.png"}
    assert (tmp_path / "images" / "plain.jpg").read_bytes() == (tmp_path / "plain.JPG").read_bytes()
    with Image.open(tmp_path / "images" / "turned.png") as image:
        assert np.array_equal(np.asarray(image), np.rot90(pixels, -1)) and 0x0112 not in image.getexif()
    with pytest.raises(DataError, match="has changed since the run"):
        list(with_photos(maps[1:2], tmp_path / "again", AS_STORED, 1))
    (tmp_path / "b.bmp").unlink()
    with pytest.raises(DataError, match="1 photos of the run are not there any more, first .*b.bmp"):
        check_photos(maps)
