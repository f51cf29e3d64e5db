"""Lists of images: one reader for VOC's splits and `excel evaluate --split`."""

import codecs
import json

import numpy as np
import pytest
from typer.testing import CliRunner

from excel_core.datasets.lists import read_list
from excel_core.datasets.palette import save_labels_png
from excel_core.datasets.voc import list_file, read_split
from excel_core.errors import DataError
from flows.cli import app

GOOD = {
    "plain": (b"a\nmy dog\n\nb2", ["a", "my dog", "b2"]),
    "windows": (b"a\r\nb\r\n", ["a", "b"]),
    "byte order mark": (codecs.BOM_UTF8 + b"a\nb\n", ["a", "b"]),
    "UTF-16": ("a\r\nmy dog\r\nhä\r\n".encode("utf-16"), ["a", "my dog", "hä"]),
    "UTF-16, big end first": (codecs.BOM_UTF16_BE + "a\nb\n".encode("utf-16-be"), ["a", "b"]),
    "SBD": (
        b"/JPEGImages/a.jpg /SegmentationClassAug/a.png\nJPEGImages/my dog.JPG\tSegmentationClass/my dog.PNG\n",
        ["a", "my dog"],
    ),
    "spaces at the ends": (b"  a  \n\tb\t\n", ["a", "b"]),
}
BAD = {
    "twice": (b"a\nb\na\n", "line 3: a is on line 1 already"),
    "twice in two forms": (b"a\n/JPEGImages/a.jpg /SegmentationClass/a.png\n", "line 2: a is on line 1 already"),
    "twice, composed otherwise": ("é\ne\u0301\n".encode(), "line 2: e\u0301 is on line 1 already"),
    "empty": (b"\n \n", "lists no image; write one id a line"),
    "nothing": (b"", "lists no image; write one id a line"),
    "Latin-1": (b"h\xe4\n", "not a text file in UTF-8"),
    "UTF-16 without a mark": ("a\nb\n".encode("utf-16-le"), "looks like UTF-16 without a byte order mark"),
    "half a character": (codecs.BOM_UTF16_LE + b"a\0b", "not a text file in UTF-8"),
    "two images": (
        b"a\n/JPEGImages/b.jpg /SegmentationClassAug/c.png\n",
        "line 2: an image id is one file name without folder",
    ),
    "a path": (b"../a\n", "line 1: an image id is one file name without folder"),
    "a file of macOS": (b"._a\n", "line 1: an image id is one file name without folder"),
    "a table": (b"a\t1\n", "line 1: an image id is one file name without folder"),
}


@pytest.mark.parametrize("kind", GOOD)
def test_every_writing_is_read(tmp_path, kind):
    content, ids = GOOD[kind]
    (tmp_path / "list.txt").write_bytes(content)
    assert read_list(tmp_path / "list.txt") == ids


@pytest.mark.parametrize("kind", BAD)
def test_what_is_no_list_is_refused_with_its_line(tmp_path, kind):
    content, message = BAD[kind]
    (tmp_path / "list.txt").write_bytes(content)
    with pytest.raises(DataError, match=message) as refused:
        read_list(tmp_path / "list.txt")
    assert str(refused.value).startswith(str(tmp_path / "list.txt")) and "\n" not in str(refused.value)


def test_what_is_not_there(tmp_path):
    with pytest.raises(DataError, match="no such list; expected a text file with one image id a line"):
        read_list(tmp_path / "list.txt")
    with pytest.raises(DataError, match="cannot be read"):
        read_list(tmp_path)


def _folders(tmp_path):
    """Two predictions and truths of 6 x 4 pixels, of `a` and `my dog`."""
    for name, value in (("a", 1), ("my dog", 2)):
        for folder in ("pred", "truth"):
            save_labels_png(tmp_path / folder / f"{name}.png", np.full((6, 4), value, np.uint8))
    return ["evaluate", "--pred", str(tmp_path / "pred"), "--truth", str(tmp_path / "truth"), "--classes", "voc"]


def _split(folder, content):
    path = folder / "ImageSets" / "Segmentation" / "train.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("kind", GOOD)
def test_evaluate_and_a_run_read_the_same_list(tmp_path, kind):
    content, ids = GOOD[kind]
    path = _split(tmp_path, content)
    assert read_split(tmp_path, "train", ("cat",)) == ids
    command = _folders(tmp_path)
    for name in ids:
        for folder in ("pred", "truth"):
            save_labels_png(tmp_path / folder / f"{name}.png", np.full((6, 4), 1, np.uint8))
    ran = CliRunner().invoke(app, [*command, "--split", str(path), "--json", str(tmp_path / "scores.json")])
    assert ran.exit_code == 0, ran.output
    assert json.loads((tmp_path / "scores.json").read_text())["pixels"] == 24 * len(ids)


@pytest.mark.parametrize("kind", BAD)
def test_evaluate_and_a_run_refuse_the_same_list(tmp_path, kind):
    path = _split(tmp_path, BAD[kind][0])
    with pytest.raises(DataError, match=BAD[kind][1]):
        read_split(tmp_path, "train", ("cat",))
    ran = CliRunner().invoke(app, [*_folders(tmp_path), "--split", str(path)])
    assert isinstance(ran.exception, DataError) and BAD[kind][1] in str(ran.exception)


def test_files_of_macos_are_no_lists(tmp_path):
    _split(tmp_path, b"a\n").with_name("._train.txt").write_bytes(b"\0\5\26\7")
    assert list_file(tmp_path, "._train") is None and list_file(tmp_path, "train") is not None
    with pytest.raises(DataError, match=r"has: train$"):
        read_split(tmp_path, "val", ("cat",))
