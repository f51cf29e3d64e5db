"""Users' photos: the right way up, told apart by name, and label maps at full size."""

import numpy as np
import pytest
from PIL import Image, ImageOps

from excel_core.datasets.images import DecodeOptions, shrink_image
from excel_core.errors import ImageError, SettingError
from excel_core.prediction.photos import enlarge_labels, find_photos


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_photos_stand_upright_as_pillow_turns_them(tmp_path, orientation, suffix):
    pixels = np.random.default_rng(0).integers(0, 255, (9, 14, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"p.{suffix}"
    Image.fromarray(pixels).save(path, exif=exif)
    with Image.open(path) as stored:
        wanted = np.asarray(ImageOps.exif_transpose(stored).convert("RGB"))
    assert np.array_equal(DecodeOptions(upright=True).read(path), wanted)
    assert DecodeOptions(upright=True).read(path).shape[:2] == ((14, 9) if orientation > 4 else (9, 14))


def test_a_bad_photo_says_why(tmp_path):
    (tmp_path / "p.jpg").write_bytes(b"\xff\xd8\xffnothing")
    with pytest.raises(ImageError, match="p.jpg"):
        DecodeOptions(upright=True).read(tmp_path / "p.jpg")


def test_results_never_share_a_file(tmp_path):
    for name in ("a/x.jpg", "a/x.PNG", "b/X.jpg", "b/x_overlay.jpg", "b/notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    endings = (".png", "_overlay.png")
    found = find_photos([tmp_path / "b" / "x_overlay.jpg", tmp_path / "a", tmp_path / "b"], endings)
    assert [photo.path.name for photo in found] == ["x_overlay.jpg", "x.PNG", "x.jpg", "X.jpg"]  # each file once
    files = [f"{photo.name}{ending}".casefold() for photo in found for ending in endings]
    assert len(set(files)) == len(files)
    assert [photo.name for photo in found] == ["x_overlay", "x-2", "x-3", "X-4"]


def test_places_without_photos_are_refused(tmp_path):
    with pytest.raises(SettingError, match="holds no picture"):
        find_photos([tmp_path])
    with pytest.raises(SettingError, match="no such photo or folder"):
        find_photos([tmp_path / "gone.jpg"])


def test_photos_are_shrunk_and_never_enlarged():
    image = np.zeros((30, 60, 3), np.uint8)
    assert shrink_image(image, 60) is image
    assert shrink_image(image, 40).shape == (20, 40, 3)


def test_labels_are_enlarged_without_new_labels_or_stairs():
    labels = np.zeros((40, 40), np.uint8)
    rows, columns = np.mgrid[:40, :40]
    labels[(rows - 20) ** 2 + (columns - 20) ** 2 < 144] = 7
    labels[:5] = 3
    large = enlarge_labels(labels, (400, 400))
    assert large.shape == (400, 400) and set(np.unique(large)) == {0, 3, 7}
    assert enlarge_labels(labels, (40, 40)) is labels
    rows, columns = np.mgrid[:400, :400]
    disc = (rows - 204.5) ** 2 + (columns - 204.5) ** 2 < 120**2
    nearest = np.kron(labels, np.ones((10, 10), np.uint8))
    assert ((large == 7) ^ disc).mean() < ((nearest == 7) ^ disc).mean()
