"""Label maps whose palette another tool wrote anew: VOC's colours are read as colours, other palettes by number."""

import numpy as np
import pytest
from PIL import Image

import excel_core as excel
from excel_core.datasets.masks import VocMaskReader, holds_no_class, voc_mask_reader
from excel_core.datasets.palette import VOC_PALETTE, _chunk, load_labels_png, read_label_map, save_labels_png
from excel_core.errors import DataError
from excel_core.evaluation.metrics import evaluate_folders

CLASSES = 20
NAMES = ["background", *(f"class {number}" for number in range(1, CLASSES + 1))]
LABELS = np.random.default_rng(3).choice(np.array([0, 1, 15, 20, 255], np.uint8), (13, 17), p=[0.1, 0.2, 0.5, 0.1, 0.1])


def indexed(path, labels, order, entries=None, bits=8):
    """Save labels (H, W) in VOC's colours, the colour of order[i] at index i; the palette has all of `order`, or `entries`."""
    order = np.asarray(order)
    number = np.zeros(256, np.uint8)
    number[order] = np.arange(len(order))
    image = Image.fromarray(number[labels]).convert("L")
    image = Image.frombytes("P", image.size, image.tobytes())
    image.putpalette(VOC_PALETTE[order[:entries]].tobytes())
    image.save(path, bits=bits)
    return path


def by_frequency(labels):
    """The labels that occur, the most frequent first: how an optimiser numbers a palette."""
    values, counts = np.unique(labels, return_counts=True)
    return values[np.argsort(-counts)]


@pytest.mark.parametrize("bits", [8, 4])
def test_a_renumbered_palette_is_read_by_colour(tmp_path, bits):
    path = indexed(tmp_path / "x.png", LABELS, by_frequency(LABELS), bits=bits)
    with Image.open(path) as image:
        assert image.mode == "P" and not np.array_equal(np.array(image), LABELS)
        np.testing.assert_array_equal(np.array(image.convert("RGB")), VOC_PALETTE[LABELS])
    for classes in (None, CLASSES):
        read = read_label_map(path, classes)
        np.testing.assert_array_equal(read.labels, LABELS)
        assert read.by_colour


def test_all_256_colours_in_another_order(tmp_path):
    order = np.random.default_rng(0).permutation(256)
    labels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    np.testing.assert_array_equal(load_labels_png(indexed(tmp_path / "x.png", labels, order)), labels)


@pytest.mark.parametrize("filling", ["black", "white", "grey"])
def test_what_fills_a_palette_up_does_not_count(tmp_path, filling):
    order = by_frequency(LABELS)
    number = np.zeros(256, np.uint8)
    number[order] = np.arange(len(order))
    rest = {"black": np.zeros(256), "white": np.full(256, 255), "grey": np.arange(256)}[filling][len(order) :].astype(np.uint8)
    image = Image.frombytes("P", LABELS.shape[::-1], number[LABELS].tobytes())
    image.putpalette(VOC_PALETTE[order].tobytes() + rest.repeat(3).tobytes())
    image.save(tmp_path / "x.png")
    with Image.open(tmp_path / "x.png") as stored:
        assert len(stored.getpalette("RGB")) == 768
    np.testing.assert_array_equal(load_labels_png(tmp_path / "x.png", CLASSES), LABELS)


def test_pillows_own_quantising_of_a_colour_mask(tmp_path):
    Image.fromarray(VOC_PALETTE[LABELS]).quantize(16).save(tmp_path / "x.png")
    np.testing.assert_array_equal(load_labels_png(tmp_path / "x.png", CLASSES), LABELS)


def test_a_palette_as_it_should_be_is_read_by_number(tmp_path):
    save_labels_png(tmp_path / "whole.png", LABELS)
    labels = np.where(LABELS == 255, 0, LABELS)
    indexed(tmp_path / "cut.png", labels, np.arange(256), entries=21)
    for name, expected in (("whole", LABELS), ("cut", labels)):
        read = read_label_map(tmp_path / f"{name}.png", CLASSES)
        np.testing.assert_array_equal(read.labels, expected)
        assert not read.by_colour


@pytest.mark.parametrize(
    "palette",
    [
        [0, 0, 0, 255, 0, 0, 0, 255, 0],  # another tool's colours
        [0, 0, 0, 0, 128, 0, 128, 0, 0, 1, 2, 3],  # VOC's, and one that is not
        [0, 0, 0, *VOC_PALETTE[21], *VOC_PALETTE[22]],  # VOC's colours of no class: Cityscapes' road is one
        [level for value in range(256) for level in (value, value, value)],
    ],
)
def test_another_palette_is_read_by_number(tmp_path, palette):
    labels = np.array([[0, 1, 1], [2, 2, 0]], np.uint8)
    image = Image.frombytes("P", (3, 2), labels.tobytes())
    image.putpalette([int(level) for level in palette])
    image.save(tmp_path / "x.png")
    read = read_label_map(tmp_path / "x.png", CLASSES)
    np.testing.assert_array_equal(read.labels, labels)
    assert not read.by_colour


def test_colours_that_became_greyscale(tmp_path):
    """Class 7 is (128, 128, 128): a mask of it and background alone is smaller as greyscale."""
    labels = np.array([[0, 7, 7], [7, 0, 0]], np.uint8)
    Image.fromarray(VOC_PALETTE[labels]).convert("L").save(tmp_path / "x.png")
    read = read_label_map(tmp_path / "x.png", CLASSES)
    np.testing.assert_array_equal(read.labels, labels)
    assert read.by_colour
    np.testing.assert_array_equal(load_labels_png(tmp_path / "x.png", 150), labels // 7 * 128)  # a label of its own there
    Image.fromarray(np.array([[0, 7, 3]], np.uint8)).save(tmp_path / "grey.png")
    assert load_labels_png(tmp_path / "grey.png", CLASSES).tolist() == [[0, 7, 3]]
    Image.fromarray(np.array([[0, 128, 3]], np.uint8)).save(tmp_path / "odd.png")
    assert load_labels_png(tmp_path / "odd.png", CLASSES).tolist() == [[0, 128, 3]]  # refused when it is scored


def test_black_and_white(tmp_path):
    Image.fromarray(np.array([[False, True]])).save(tmp_path / "x.png")
    with Image.open(tmp_path / "x.png") as image:
        assert image.mode == "1"
    assert load_labels_png(tmp_path / "x.png").tolist() == [[0, 255]]


def test_truth_and_predictions_are_read_alike(tmp_path):
    labels = np.where(LABELS == 255, 0, LABELS)
    for folder, truth in (("truth", LABELS), ("pred", labels)):
        (tmp_path / folder).mkdir()
        indexed(tmp_path / folder / "a.png", truth, by_frequency(truth))
    for pred, truth in (("pred", "truth"), ("pred", "plain"), ("plain_pred", "truth")):
        save_labels_png(tmp_path / "plain" / "a.png", LABELS)
        save_labels_png(tmp_path / "plain_pred" / "a.png", labels)
        assert evaluate_folders(tmp_path / pred, tmp_path / truth, NAMES).miou == 1.0
    (tmp_path / "SegmentationClass").mkdir()
    indexed(tmp_path / "SegmentationClass" / "a.png", LABELS, by_frequency(LABELS))
    np.testing.assert_array_equal(voc_mask_reader(tmp_path, "train", tuple(NAMES[1:])).read("a", *LABELS.shape), LABELS)


@pytest.mark.parametrize("suffix", [".PNG", ".Png"])
def test_suffixes_in_any_case_and_files_of_macos(tmp_path, suffix):
    for folder in ("pred", "truth"):
        save_labels_png(tmp_path / folder / "a.png", LABELS % 5)
        (tmp_path / folder / "a.png").rename(tmp_path / folder / f"a{suffix}")
        (tmp_path / folder / "._a.png").write_bytes(b"\0\5\26\7")
    assert evaluate_folders(tmp_path / "pred", tmp_path / "truth", NAMES).miou == 1.0
    reader = VocMaskReader(tmp_path, "truth")
    assert reader.has("a") and reader.version("a") and not reader.has("b")
    np.testing.assert_array_equal(reader.read("a", *LABELS.shape), LABELS % 5)


def test_two_files_of_one_image_are_refused(tmp_path):
    save_labels_png(tmp_path / "a.png", LABELS)
    (tmp_path / "a.PNG").write_bytes((tmp_path / "a.png").read_bytes())
    if len(list(tmp_path.iterdir())) == 2:  # not on file systems that ignore case
        with pytest.raises(DataError, match=r"a\.PNG and a\.png are label maps of one image"):
            evaluate_folders(tmp_path, tmp_path, NAMES)


def test_a_truth_of_0_and_255_alone_is_named(tmp_path):
    binary = np.array([[0, 255], [0, 0]], np.uint8)
    save_labels_png(tmp_path / "truth" / "a.png", binary)
    save_labels_png(tmp_path / "truth" / "b.png", np.array([[0, 255], [1, 0]], np.uint8))
    for name in "ab":
        save_labels_png(tmp_path / "pred" / f"{name}.png", np.array([[0, 1], [1, 0]], np.uint8))
    result = evaluate_folders(tmp_path / "pred", tmp_path / "truth", NAMES)
    (warning,) = result.warnings
    assert warning.startswith("1 of 2 true masks (a) hold the values 0 and 255 alone") and result.to_json()["warnings"] == [
        warning
    ]
    result = evaluate_folders(tmp_path / "pred", tmp_path / "truth", NAMES, ids=["b"])
    assert result.warnings == () and "warnings" not in result.to_json()


def test_the_python_interface_reads_and_warns_alike(tmp_path):
    labels = np.where(LABELS == 255, 0, LABELS)
    path = indexed(tmp_path / "a.png", LABELS, by_frequency(LABELS))
    assert excel.evaluate([labels], [path], NAMES[1:]).miou == 1.0
    binary = np.where(labels == 0, 0, 255).astype(np.uint8)
    save_labels_png(tmp_path / "b.png", binary)
    result = excel.evaluate([labels, labels, labels], [path, binary, tmp_path / "b.png"], NAMES[1:])
    assert result.warnings[0].startswith("2 of 3 true masks (number 2, b.png) hold the values 0 and 255 alone")


def test_which_masks_hold_no_class():
    for values, expected in (([0, 255], True), ([255], True), ([0], False), ([0, 3, 255], False), ([254, 255], False)):
        assert holds_no_class(np.array([values], np.uint8)) == expected


def test_a_mask_that_lies_on_its_side_says_so(tmp_path):
    save_labels_png(tmp_path / "truth" / "a.png", LABELS)
    with pytest.raises(
        DataError, match="expected 17 high and 13 wide as what is scored against it; one of the two is turned by 90°"
    ):
        VocMaskReader(tmp_path, "truth").read("a", *LABELS.shape[::-1])


def test_a_palette_that_ends_too_early_is_no_crash(tmp_path):
    """libpng draws what has no colour black; the file's numbers are all there is to go by."""
    path = indexed(tmp_path / "x.png", LABELS, by_frequency(LABELS))
    content = path.read_bytes()
    start = content.index(b"PLTE") - 4
    length = int.from_bytes(content[start : start + 4])
    cut = content[start + 8 : start + 8 + 2 * 3]
    path.write_bytes(content[:start] + _chunk(b"PLTE", cut) + content[start + 12 + length :])
    read = read_label_map(path, CLASSES)
    with Image.open(path) as image:
        np.testing.assert_array_equal(read.labels, np.array(image))
    assert not read.by_colour
