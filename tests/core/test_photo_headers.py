"""Photos that cannot be used are told from their headers, in one line, before any work."""

import pytest
from PIL import Image

from excel_core.config import DatasetSpec
from excel_core.config.presets import preset
from excel_core.datasets.photo_headers import check_photo_headers
from excel_core.errors import DataError

HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(200)


def _folder(root, **contents):
    """A table with these photos, two good ones first: bytes, or a size."""
    rows = ["image,labels"]
    for name, content in ({"a.jpg": (40, 30), "b.jpg": (40, 30)} | contents).items():
        if isinstance(content, tuple):
            Image.effect_noise(content, 80).convert("RGB").save(root / name)
        elif content is not None:
            (root / name).write_bytes(content)
        rows.append(f"{name},dog")
    (root / "labels.csv").write_text("\n".join(rows))
    return root


def _refusal(root, spec=None):
    with pytest.raises(DataError) as refused:
        check_photo_headers(root, spec or preset("photos").dataset, ("dog",))
    assert "\n" not in str(refused.value)
    return str(refused.value)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("x.HEIC", HEIC, "HEIC is read with pillow-heif alone; install it (pip install 'excel-wsss[heic]')"),
        ("x.jpg", HEIC, "HEIC is read with pillow-heif alone"),  # as phones' apps rename it
        ("x.avif", b"\0\0\0\x18ftypavif" + bytes(200), ".avif is not read; save it as JPEG or PNG"),
        ("x.dng", b"II*\0" + bytes(200), ".dng is not read"),
        ("x.jpg", b"<html>not found</html>", "not an image in one of the formats JPEG, PNG"),
        ("x.jpg", b"", "the file is empty"),
        ("x.jpg", None, "no such file"),
        ("x.png", (1, 1), "both sides must have at least 8 pixels"),
    ],
)
def test_one_line_says_which_and_why(tmp_path, without_heif, name, content, reason):
    stem, suffix = name.split(".")
    photos = {f"{stem}{number}.{suffix}": content for number in range(5)}
    said = _refusal(_folder(tmp_path, **photos))
    assert "5 of 7 photos cannot be used, 20.0% are tolerated; repair them or leave them out: x0" in said
    assert reason in said and said.endswith("; and 2 more")


def test_what_the_data_set_tolerates_passes(tmp_path, without_heif):
    spec = preset("photos").dataset
    check_photo_headers(_folder(tmp_path, **{"x.jpg": b""}), spec, ("dog",))  # one is no reason to stop
    _folder(tmp_path, **{"x.jpg": b"", "y.jpg": b""})
    assert "2 of 4 photos" in _refusal(tmp_path)
    check_photo_headers(tmp_path, spec.model_copy(update={"max_bad": 0.5}), ("dog",))
    (tmp_path / "x.jpg").write_bytes((tmp_path / "a.jpg").read_bytes())  # repaired, and looked at again
    check_photo_headers(tmp_path, spec, ("dog",))


def test_a_split_without_a_photo_is_refused(tmp_path):
    _folder(tmp_path)
    (tmp_path / "c.jpg").write_bytes(b"nothing")
    rows = ("image,labels,split", "a.jpg,dog,train", "b.jpg,dog,train", "c.jpg,dog,val", "d.jpg,dog,spare")
    (tmp_path / "labels.csv").write_text("\n".join(rows))
    spec = DatasetSpec(layout="folder", prompts="data", train_split="train", seed_splits=("train",), val_splits=("val",))
    assert _refusal(tmp_path, spec).startswith(f"{tmp_path}: split 'val' has no photo that can be used: c.jpg: not an image")


def test_a_link_out_of_the_folder_is_no_photo(tmp_path):
    outside = tmp_path / "outside.jpg"
    Image.effect_noise((40, 30), 80).convert("RGB").save(outside)
    (tmp_path / "data").mkdir()
    root = _folder(tmp_path / "data", **{"x.jpg": None, "y.jpg": None})
    for name in ("x.jpg", "y.jpg"):
        (root / name).symlink_to(outside)
    assert "a symbolic link that leads out of the data folder" in _refusal(root)
