"""COCO's masks: against rasterisers of another make, who lies on top, what is broken, and that only evaluation sees them."""

import json
import logging

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image, ImageDraw
from pycocotools import mask as pycoco

from excel_core.datasets.coco_json import read_entries
from excel_core.datasets.coco_masks import Region, coco_mask_reader, pack, paint, problem_of, read_masks
from excel_core.datasets.mask_guard import LABELS_IN_MASK_FILES, forbid_mask_access
from excel_core.datasets.masks import require_segmentations, voc_mask_reader
from excel_core.datasets.palette import save_labels_png
from excel_core.errors import DataError, MaskLeakError
from excel_core.text.prompts import load_prompts
from tests.conftest import COCO, ROOT, needs_coco
from tests.core.coco_folder import CLASSES, SIZE, annotation, document, square, write

COCO_CLASSES = load_prompts(ROOT / "prompts" / "coco.yaml").class_names


def box(x, y, side):
    """What `square(x, y, side)` covers, (24, 32) bool."""
    found = np.zeros(SIZE, dtype=bool)
    found[y : y + side, x : x + side] = True
    return found


def runs(mask):
    """COCO's uncompressed RLE of a mask (H, W) bool, counted here."""
    counts, value = [0], False
    for pixel in mask.T.ravel().tolist():
        if pixel == value:
            counts[-1] += 1
        else:
            counts.append(1)
            value = pixel
    return {"size": list(mask.shape), "counts": counts}


def painted(*regions):
    return paint([Region(*region) for region in regions], *SIZE)


def test_a_square_covers_its_pixels_and_the_rest_is_background():
    np.testing.assert_array_equal(painted((1, 7, False, pack(square(2, 3, 8)))), 7 * box(2, 3, 8))


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_smaller_lies_above_larger_and_crowds_below_everything(order):
    regions = [(1, 1, False, pack(square(2, 2, 10))), (2, 2, False, pack(square(4, 4, 4))), (3, 3, True, pack(square(3, 3, 6)))]
    expected = np.where(box(4, 4, 4), 2, np.where(box(2, 2, 10), 1, 0))  # the crowd is hidden below both
    np.testing.assert_array_equal(painted(*(regions[i] for i in order)), expected)


def test_of_two_equal_ones_the_later_number_lies_above():
    regions = [(9, 1, False, pack(square(2, 2, 4))), (5, 2, False, pack(square(2, 2, 4)))]
    assert set(np.unique(painted(*regions))) == set(np.unique(painted(*regions[::-1]))) == {0, 1}


@given(arrays(bool, st.tuples(st.integers(1, 12), st.integers(1, 12))))
def test_run_lengths_in_both_writings_are_the_mask(mask):
    height, width = mask.shape
    text = pycoco.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"].decode()
    for written in (runs(mask), {"size": [height, width], "counts": text}):
        packed = pack(written)
        assert problem_of(packed, height, width) == ""
        np.testing.assert_array_equal(paint([Region(1, 1, False, packed)], height, width), mask)


BROKEN = [
    ([], "no segmentation"),
    (None, "no segmentation"),
    ([[1, 1, 5, 1, 5, float("nan")]], "not finite"),
    ([[1, 1, 5, 1, 5, 1e300]], "far outside"),
    ([[1, 1, 5, 1]], "fewer than 3 points"),
    ([[1, 1, 5, 1, 5, 5, 2]], "an x without a y"),
    ([["a"] * 6], "no list of numbers"),
    ("polygons", "neither polygons nor RLE"),
    ({"counts": [1]}, "RLE without its size"),
    ({"size": [3, 3], "counts": [9]}, "RLE of 3 by 3 in an image of 24 by 32"),
    ({"size": list(SIZE), "counts": [5, 5]}, "do not fill its image"),
    ({"size": list(SIZE), "counts": [-5, 5 + SIZE[0] * SIZE[1]]}, "do not fill its image"),
    ({"size": list(SIZE), "counts": "no such text é"}, "do not fill its image"),
    ({"size": list(SIZE), "counts": [0.5]}, "neither whole numbers nor text"),
]


@pytest.mark.parametrize(("segmentation", "problem"), BROKEN)
def test_what_is_broken_is_said_and_left_out(segmentation, problem):
    packed = pack(segmentation)
    assert problem in problem_of(packed, *SIZE)
    assert not painted((1, 1, False, packed)).any()


def test_the_sound_polygons_of_a_broken_annotation_stay():
    packed = pack([[1, 1], *square(2, 3, 8)])
    assert "fewer than 3" in problem_of(packed, *SIZE)
    np.testing.assert_array_equal(painted((1, 1, False, packed)), box(2, 3, 8))


@pytest.fixture
def root(tmp_path):
    content = document()
    content["annotations"].append(annotation(99, 0, 10, [[float("nan")] * 6, *square(20, 15, 4)]))
    write(tmp_path, "train2014", content)
    return tmp_path


def test_a_split_reads_its_images_and_logs_what_is_broken_once(root, caplog):
    reader = coco_mask_reader(root, "train", CLASSES)
    with caplog.at_level(logging.WARNING):
        mask = reader.read("a0", *SIZE)
        reader.read("a1", *SIZE)
    np.testing.assert_array_equal(mask, np.where(box(4, 4, 4), 1, 3 * box(2, 3, 8) + 2 * box(20, 15, 4)))  # person on dog
    assert mask.dtype == np.uint8 and not reader.read("a3", *SIZE).any()
    assert len(caplog.records) == 1 and "annotation 99: a polygon with a coordinate" in caplog.text
    assert reader.has("a0") and not coco_mask_reader(root, "val", CLASSES).has("a0")


@pytest.mark.parametrize(
    "empty",
    [
        "missing",
        None,
        [],
        {},
        "",
        [[]],
        [[1, 1, 9, 9]],
        [1, 1, 9, 1, 9, 9],
        {"size": [32, 24], "counts": [0, 768]},
        [["1"] * 6],
    ],
)
def test_an_image_with_an_object_without_drawable_segmentation_is_ignored_throughout(tmp_path, empty):
    content = document()
    del content["annotations"][1]["segmentation"]  # a person of a0, whose dog has one
    if empty != "missing":
        content["annotations"][1]["segmentation"] = empty
    write(tmp_path, "train2014", content)
    reader = coco_mask_reader(tmp_path, "train", CLASSES)
    assert (reader.read("a0", *SIZE) == 255).all() and set(np.unique(reader.read("a1", *SIZE))) == {0, 2}
    assert reader.unsegmented(["a0", "a1", "a3"]) == ["a0"]
    require_segmentations(reader, "train", ["a1", "a3"])
    with pytest.raises(
        DataError, match="1 of 2 images of 'train' have objects without a segmentation in annotations/instances_train"
    ):
        require_segmentations(reader, "train", ["a0", "a1"])
    with forbid_mask_access(stage="train"), pytest.raises(MaskLeakError, match="train: CocoMaskReader.unsegmented"):
        reader.unsegmented(["a0"])


def test_a_changed_file_is_read_again(root):
    reader = coco_mask_reader(root, "train", CLASSES)
    before = reader.read("a0", *SIZE), reader.version("a0")
    content = document()
    content["annotations"] = content["annotations"][:1]
    write(root, "train2014", content)
    assert reader.version("a0") != before[1] and not np.array_equal(reader.read("a0", *SIZE), before[0])


def test_an_image_of_another_size_or_file_is_refused(root):
    reader = coco_mask_reader(root, "train", CLASSES)
    with pytest.raises(DataError, match="24 high and 32 wide, expected 32 high and 24 wide"):
        reader.read("a0", *SIZE[::-1])
    with pytest.raises(DataError, match="does not list b0"):
        reader.read("b0", *SIZE)
    with pytest.raises(DataError, match="of the category 'dog'; valid: person, traffic light"):
        coco_mask_reader(root, "train", CLASSES[:2]).read("a0", *SIZE)


def test_only_evaluation_sees_them(root):
    reader = coco_mask_reader(root, "train", CLASSES)
    path = root / "annotations" / "instances_train2014.json"
    (root / "annotations" / "panoptic_val2014.json").touch()
    reader.read("a0", *SIZE)  # parsed and kept: what is kept is forbidden as well
    with forbid_mask_access(stage="train"):
        with pytest.raises(MaskLeakError, match="train: CocoMaskReader.read"):
            reader.read("a0", *SIZE)
        with pytest.raises(MaskLeakError, match="train: open of the segmentation mask"):
            path.read_text()
        assert reader.has("a0") and reader.version("a0")
    with forbid_mask_access(stage="dataset", exempt=LABELS_IN_MASK_FILES):
        assert json.loads(path.read_text())["images"]
        with pytest.raises(MaskLeakError, match="dataset: CocoMaskReader.read"):
            reader.read("a0", *SIZE)
        with pytest.raises(MaskLeakError):
            (root / "annotations" / "panoptic_val2014.json").read_text()


@needs_coco
def test_real_masks_agree_with_another_rasteriser():
    """Pillow's polygons and run lengths counted here, painted by the same rule; edges differ by part of a pixel."""
    file = COCO / "annotations" / "instances_train2017.json"
    raw = json.loads(file.read_text())
    names = {category["id"]: COCO_CLASSES.index(category["name"]) + 1 for category in raw["categories"]}
    reader = coco_mask_reader(COCO, "train2017", COCO_CLASSES)
    crowds = 0
    for image in raw["images"]:
        own = [entry for entry in raw["annotations"] if entry["image_id"] == image["id"]]
        crowds += sum(entry["iscrowd"] for entry in own)
        size = image["height"], image["width"]
        expected = _drawn(own, size, names)
        mask = reader.read(image["file_name"].removesuffix(".jpg"), *size)
        assert (mask == expected).mean() > 0.97 and set(np.unique(mask)) <= {0, *(names[e["category_id"]] for e in own)}
    assert crowds and not read_masks(file, COCO_CLASSES).problems
    assert len(read_entries(file).photos) == len(raw["images"])


def _drawn(own, size, names):
    """Semantic mask of an image's annotations, smaller above larger, crowds below."""
    drawn = []
    for entry in own:
        if isinstance(entry["segmentation"], dict):
            counts = entry["segmentation"]["counts"]
            inside = np.repeat(np.arange(len(counts)) % 2 == 1, counts).reshape(size[::-1]).T
        else:
            picture = Image.new("1", size[::-1])
            for polygon in entry["segmentation"]:
                ImageDraw.Draw(picture).polygon(polygon, fill=1)
            inside = np.array(picture)
        drawn.append((not entry["iscrowd"], -inside.sum(), inside, names[entry["category_id"]]))
    mask = np.zeros(size, dtype=np.uint8)
    for _, _, inside, label in sorted(drawn, key=lambda one: one[:2]):
        mask[inside] = label
    return mask


def test_vocs_augmented_split_has_official_masks_first(tmp_path):
    for folder, value in (("SegmentationClass", 1), ("SegmentationClassAug", 2)):
        (tmp_path / folder).mkdir()
        for name in ("both", "extra") if value == 2 else ("both",):
            save_labels_png(tmp_path / folder / f"{name}.png", np.full((4, 5), value, dtype=np.uint8))
    augmented, official = (voc_mask_reader(tmp_path, split, ("cat", "dog")) for split in ("train_aug", "train"))
    assert augmented.read("both", 4, 5).max() == 1 and augmented.read("extra", 4, 5).max() == 2
    assert official.has("both") and not official.has("extra") and augmented.has("extra")
