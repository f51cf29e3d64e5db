"""A batch of photos: whatever goes wrong with one, the others are done, and photos.json says what became of each."""

import os
import resource
from contextlib import contextmanager

import numpy as np
import pytest
from PIL import Image

from excel_core.errors import SettingError
from excel_core.files import read_json
from excel_core.prediction.photos import find_photos, photos_in_sub_folders
from excel_core.prediction.predictors import Prediction, Predictor
from tasks.photos.segment_photos import photos_of, segment_photos

LONG = "a" * 235  # with .jpg, a name of 239 of the 255 bytes that one may have


def upper_half(image):
    """The upper half of a photo is a dog."""
    labels = np.zeros(image.shape[:2], np.uint8)
    labels[: len(labels) // 2] = 1
    return Prediction({"raw": labels}, {"dog": "hardly seen"} if image.mean() > 200 else {})


DOGS = Predictor(("dog",), upper_half, ("a note",), ("a warning",))


@pytest.fixture
def folder(tmp_path):
    """Two sound photos, one of them white, and some that are not."""
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    for name, colour in ((f"{LONG}.jpg", "teal"), ("zz after.png", "white"), ("more/x.jpg", "teal"), ("no suffix", "teal")):
        Image.new("RGB", (60, 40), colour).save(folder / name, format="JPEG")
    (folder / "._zz after.png").write_bytes(b"\0\5\x16\7")
    (folder / "bad.jpg").write_text("no photo")
    (folder / "circle.jpg").symlink_to("circle.jpg")
    (folder / "raw.nef").write_bytes(b"II*\0")
    return folder


@contextmanager
def largest_file(size):
    """Files of at most so many bytes can be written: the error of a full disk, but for its number."""
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))


def entries(out):
    return {os.path.basename(entry["photo"]): entry for entry in read_json(out / "photos.json")["photos"]}


def test_one_bad_photo_or_name_does_not_end_the_batch(folder, tmp_path):
    out = tmp_path / "out"
    below = photos_in_sub_folders([folder])
    results = segment_photos(photos_of([folder], out, False), DOGS, out, 640, left_out=below)
    assert [bool(result.error) for result in results] == [False, True, True, False, True, False]
    by_name, about = entries(out), read_json(out / "photos.json")
    assert "not an image" in by_name["bad.jpg"]["error"] and ".nef is not read" in by_name["raw.nef"]["error"]
    assert "cannot be opened" in by_name["circle.jpg"]["error"]
    assert by_name[f"{LONG}.jpg"]["shares"] == {"dog": 0.5} and by_name["no suffix"]["files"][0] == "no suffix.png"
    assert by_name["zz after.png"]["doubts"] == {"dog": "hardly seen"} and "doubts" not in by_name["no suffix"]
    assert about["left_out"] == [str(folder / "more/x.jpg")] and about["notes"] == ["a warning", "a note"]
    assert {path.name for path in out.iterdir()} == {
        "photos.json", *(name for entry in by_name.values() for name in entry.get("files", ()))
    }  # fmt: skip


def test_a_name_that_is_no_text_is_written_as_escapes(folder, tmp_path):
    os.rename(os.fsencode(folder / "no suffix"), os.fsencode(folder) + b"/caf\xe9\nx.jpg")
    segment_photos(find_photos([folder]), DOGS, tmp_path / "out", 640)
    assert "files" in entries(tmp_path / "out")[r"caf\xe9\nx.jpg"]


def test_results_that_find_no_room_leave_the_others(folder, tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (300, 400, 3), dtype=np.uint8)
    Image.fromarray(noise).save(folder / "large.png")
    with largest_file(50_000):
        segment_photos(find_photos([folder]), DOGS, tmp_path / "out", 640)
    by_name = entries(tmp_path / "out")
    assert by_name["large.png"]["error"] == "its results cannot be written (File too large)"
    assert "files" in by_name["zz after.png"]
    assert not list((tmp_path / "out").glob("large*")) and not list((tmp_path / "out").glob(".*"))


def test_what_the_model_cannot_compute_is_said(folder, tmp_path):
    def look(image):
        if image.mean() > 200:
            raise RuntimeError("CUDA error: out of memory. Kernels are asynchronous")
        return upper_half(image)

    segment_photos(find_photos([folder]), Predictor(("dog",), look), tmp_path / "out", 640)
    by_name = entries(tmp_path / "out")
    assert by_name["zz after.png"]["error"] == "RuntimeError: CUDA error: out of memory" and "files" in by_name["no suffix"]


def test_a_stopped_batch_says_how_far_it_came(folder, tmp_path):
    def look(image):
        if image.mean() > 200:
            raise KeyboardInterrupt
        return upper_half(image)

    with pytest.raises(KeyboardInterrupt):
        segment_photos(find_photos([folder]), Predictor(("dog",), look), tmp_path / "out", 640)
    by_name = entries(tmp_path / "out")
    assert "files" in by_name["no suffix"] and "was stopped" in by_name["zz after.png"]["error"]


def test_a_folder_that_cannot_be_written_is_refused_before_work(folder, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingError, match="cannot be written"):
        segment_photos(find_photos([folder]), DOGS, tmp_path / "file" / "out", 640)
    with largest_file(1000), pytest.raises(SettingError, match="cannot be written"):
        segment_photos(find_photos([folder]), DOGS, tmp_path / "out", 640)
    assert list((tmp_path / "out").iterdir()) == []
