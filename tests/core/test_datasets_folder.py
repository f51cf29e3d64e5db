"""A folder of one's own photos: from a table, from class folders, and everything that can be wrong with one."""

import os
import shutil

import numpy as np
import pytest
from PIL import Image

from excel_core.config.presets import preset
from excel_core.datasets.folder import folder_class_names, folder_decode_options, folder_sources, read_folder
from excel_core.datasets.left_out import left_out_of_folder
from excel_core.errors import DataError

CLASSES = ("cat", "dog", "traffic light")


def photo(path, seed=0, size=(12, 10)):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def table(root, *rows, header="image,labels"):
    (root / "labels.csv").write_text("\n".join([header, *rows, ""]))


@pytest.fixture
def root(tmp_path):
    """Four photos, one of them in a folder, and a table of them."""
    for number, name in enumerate(["a.png", "b c.PNG", "more/d.jpg", "e.webp"]):
        photo(tmp_path / name, number)
    table(tmp_path, "a,dog", "b c.PNG,dog; cat", "more/d,traffic light", "e.webp,cat")
    return tmp_path


def read(root, splits=("train",), classes=CLASSES, **options):
    return read_folder(root, splits, classes, **options)


def test_a_table_names_photos_with_or_without_suffix_and_its_classes(root):
    assert folder_class_names(root) == CLASSES
    manifest = read(root)
    assert list(manifest["id"]) == ["a", "b c", "d", "e"] and set(manifest["split"]) == {"train"}
    assert list(manifest["image"]) == ["a.png", "b c.PNG", "more/d.jpg", "e.webp"]
    assert list(manifest["labels"]) == [["dog"], ["cat", "dog"], ["traffic light"], ["cat"]]
    assert set(manifest["error"]) == {""} and set(manifest["height"]) == {10} and set(manifest["width"]) == {12}
    assert folder_sources(root) == ["labels.csv", "a.png", "b c.PNG", "more/d.jpg", "e.webp"]


def test_without_a_semicolon_spaces_separate(root):
    table(root, "a,dog cat", "e,cat")
    assert folder_class_names(root) == ("cat", "dog")
    assert list(read(root, classes=("cat", "dog"))["labels"]) == [["cat", "dog"], ["cat"]]


def test_splits_are_a_column(root):
    table(root, "a,dog,", "b c,cat,val", "e,,test", header="image,labels,split")
    manifest = read(root, ("val", "train", "test"), ("cat", "dog"), unlabelled=["test"])
    assert list(zip(manifest["id"], manifest["split"], manifest["error"], strict=True)) == [
        ("b c", "val", ""), ("a", "train", ""), ("e", "test", ""),
    ]  # fmt: skip
    with pytest.raises(DataError, match="unknown split 'vla'; .* has: train, val, test"):
        read(root, ("vla",), ("cat", "dog"))


def test_class_folders(tmp_path):
    for name, seed in {"dog/x.jpg": 1, "dog/y.jpg": 2, "cat/z.png": 3, ".cache/h.jpg": 4, "SegmentationClass/x.png": 5}.items():
        photo(tmp_path / name, seed)
    shutil.copy(tmp_path / "dog/x.jpg", tmp_path / "cat/x.jpg")
    (tmp_path / "notes").mkdir()
    assert folder_class_names(tmp_path) == ("cat", "dog") and folder_sources(tmp_path) == ["cat", "dog"]
    manifest = read(tmp_path, classes=("cat", "dog"))
    assert list(manifest["id"]) == ["x", "y", "z"]
    assert list(manifest["labels"]) == [["cat", "dog"], ["dog"], ["cat"]]
    photo(tmp_path / "cat/y.jpg", 6)
    with pytest.raises(DataError, match=r"cat/y\.jpg and .*dog/y\.jpg are different photos of one name"):
        read(tmp_path, classes=("cat", "dog"))


@pytest.mark.parametrize("name", ["../up", "/etc/passwd", "more/../../up", "..\\up", "C:/x", "a\x07"])
def test_a_path_that_leads_out_is_refused(root, name):
    table(root, "a,dog", f"{name},dog")
    with pytest.raises(DataError, match=r"labels\.csv line 3: .* leads out of the folder"):
        read(root)


def test_a_link_that_leads_out_is_skipped(root, tmp_path_factory):
    outside = tmp_path_factory.mktemp("outside") / "secret.png"
    photo(outside)
    (root / "link.png").symlink_to(outside)
    table(root, "a,dog", "link,dog")
    manifest = read(root)
    assert "symbolic link that leads out" in manifest["error"][1] and manifest["digest"][1] == "" and manifest["error"][0] == ""


def test_a_link_in_a_circle_and_a_pipe_are_skipped(root):
    (root / "circle.png").symlink_to("circle.png")
    os.mkfifo(root / "pipe.png")
    os.mkfifo(root / "pipe")
    (root / "self").symlink_to(".")
    table(root, "a,dog", "circle.png,dog", "pipe.png,cat")
    assert [reason.partition(" (")[0] for reason in read(root, max_bad=0.9)["error"]] == [
        "", "circle.png: cannot be opened", "pipe.png: cannot be opened",
    ]  # fmt: skip
    assert "pipe" not in [thing.what for thing in left_out_of_folder(root, preset("photos").dataset, CLASSES)]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["a,dog", "a,cat"], "line 3: a has a row already"),
        (["a,dog", "a.png,cat"], "labels.csv has two rows of a.png; merge them"),
        (["a,dog", "more/a,cat"], "a.png and more/a.jpg would both be called 'a'"),
        (["a,dog", "A,cat"], "differ only by case"),
        (["a,unicorn; dog"], "line 2: unknown label 'unicorn'; valid: cat, dog, traffic light"),
        (["a,dog,train"], "line 2: expected image, labels"),
        ([",dog"], "line 2: expected image, labels"),
        (["two,dog"], r"line 2: two may be any of two.jpg, two.png"),
    ],
)
def test_a_wrong_table_is_refused_with_its_line(root, rows, message):
    for name in ("more/a.jpg", "A.jpg", "two.jpg", "two.png"):
        photo(root / name)
    table(root, *rows)
    with pytest.raises(DataError, match=message):
        read(root)


def test_bad_photos_keep_their_rows_with_the_reason(root):
    (root / "half.png").write_bytes((root / "a.png").read_bytes()[:60])
    photo(root / "tiny.png", size=(4, 4))
    table(root, "a,dog", "half,dog", "tiny,dog", "gone,dog", "e,")
    reasons = dict(zip(*(read(root, max_bad=0.9)[column] for column in ("id", "error")), strict=True))
    assert reasons["a"] == "" and "truncated or damaged" in reasons["half"] and "at least 8" in reasons["tiny"]
    assert "no such file" in reasons["gone"] and "no labels" in reasons["e"]
    with pytest.raises(DataError, match=r"4 of 5 images are bad, 50\.0% are tolerated"):
        read(root, max_bad=0.5)


def test_a_decompression_bomb_is_skipped(root, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    table(root, "a,dog")
    with pytest.raises(DataError, match="too large to decode safely"):
        read(root)


def test_photos_are_seen_upright_and_not_too_large(root):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (40, 20)).save(root / "lying.jpg", exif=exif)
    table(root, "a,dog", "lying,dog")
    for side, size in ((None, (40, 20)), (30, (30, 15))):
        manifest = read(root, max_side=side)
        assert (manifest["height"][1], manifest["width"][1]) == size and manifest["height"][0] == 10
        assert folder_decode_options(side).read(root / "lying.jpg").shape == (*size, 3)


def test_a_folder_without_labels_says_what_was_looked_for(tmp_path):
    photo(tmp_path / "a.jpg")
    with pytest.raises(DataError, match=r"looked for labels\.csv .* or one folder of photos per class; found 1 photos"):
        folder_class_names(tmp_path)
    table(tmp_path, "a,")
    with pytest.raises(DataError, match="no row has a label"):
        folder_class_names(tmp_path)
    photo(tmp_path / "splits/train/dog/a.jpg")
    (tmp_path / "splits/notes").mkdir()
    with pytest.raises(DataError, match=r"found 0 photos and neither; pass .*splits/train instead"):
        folder_class_names(tmp_path / "splits")
    with pytest.raises(DataError, match="no such folder"):
        read(tmp_path / "nowhere")
