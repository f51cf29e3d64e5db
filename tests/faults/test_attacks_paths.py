"""Hostile names: of images in lists and tables, of classes, of export folders; links planted where excel writes."""

import os
import secrets
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from excel_core.datasets.coco_masks import Region, pack, paint, problem_of
from excel_core.datasets.folder import folder_class_names, read_folder
from excel_core.datasets.manifest import MAX_ID_BYTES, ListedImage, build_manifest, check_image_id
from excel_core.datasets.palette import save_labels_png
from excel_core.errors import DataError, SettingError, StoreError
from excel_core.exports.folder import check_free, whole_folder
from excel_core.exports.label_maps import folder_names
from excel_core.files import write_json
from excel_core.prediction.photos import find_photos
from tests.conftest import ROOT

IDS = [
    "../../x", "/etc/passwd", "..", ".", ".hidden", "a/b", "a\\b", "C:x", "a\0b", "a\nb", "a\rb", "a\tb", " a", "a ", "", '"a"',
    "a\x1b[31mb", "a\u202eb", "a\u200bb", "\ufeffa", "x" * 5000, "é" * 101, "a\udcff",
]  # fmt: skip


@pytest.mark.parametrize("name", IDS, ids=ascii)
def test_ids_that_lead_elsewhere_or_hide_something_are_refused(name: str) -> None:
    with pytest.raises(DataError, match="an image id") as refused:
        check_image_id(name, "list")
    assert "\n" not in str(refused.value) and len(str(refused.value)) < 400


@pytest.mark.parametrize(
    "name", ["=1+1", "+1", "-1.5", "@x", "x" * MAX_ID_BYTES, "é" * 100, "a b", "a%2e", "~", "$HOME", "a;b|c"]
)
def test_other_ids_are_names_of_files_to_their_longest(tmp_path: Path, name: str) -> None:
    """No spreadsheet reads them (tests/core/test_house.py), no shell, and every file called so can be written."""
    assert check_image_id(name, "list") == name
    save_labels_png(tmp_path / f"{name}.png", np.zeros((8, 8), dtype=np.uint8))
    assert [path.name for path in tmp_path.iterdir()] == [f"{name}.png"]


def photo(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (16, 16)).save(path)
    return path


@pytest.mark.parametrize(("one", "other"), [("caf\u00e9", "cafe\u0301"), ("A", "a"), ("STRASSE", "stra\u00dfe")])
def test_ids_that_are_one_file_elsewhere_are_refused(tmp_path: Path, one: str, other: str) -> None:
    listed = [
        ListedImage(name, "train", f"{photo(tmp_path / f'{number}.png').name}") for number, name in enumerate((one, other))
    ]
    with pytest.raises(DataError, match="rename one"):
        build_manifest(tmp_path, listed, max_bad=0, threads=1)


@pytest.mark.parametrize(
    "image", ["../a.png", "/etc/passwd", "sub/../../a.png", "a\\..\\b.png", "c:a.png", "a\0.png", "a\u202egnp.exe"]
)
def test_a_table_names_no_photo_outside(tmp_path: Path, image: str) -> None:
    photo(tmp_path / "a.png")
    root = tmp_path / "data"
    photo(root / "ok.png")
    (root / "labels.csv").write_text(f'image,labels\nok.png,dog\n"{image}",dog\n')
    with pytest.raises(DataError) as refused:
        read_folder(root, ["train"], ["dog"])
    assert "\n" not in str(refused.value)


def test_links_out_of_the_data_folder_are_bad_images(tmp_path: Path) -> None:
    outside, root = photo(tmp_path / "secret.png"), tmp_path / "data"
    photo(root / "dog" / "ok.png")
    for name in "ab":
        (root / "dog" / f"{name}.png").symlink_to(outside)
    manifest = read_folder(root, ["train"], ["dog"], max_bad=0.9)
    assert dict(zip(manifest["id"], manifest["error"] == "", strict=True)) == {"a": False, "b": False, "ok": True}
    assert all("symbolic link" in error for error in manifest["error"] if error)


@pytest.mark.parametrize("name", ["a\x1b[2Jb", "a\u202eb", "a\x7fb"])
def test_classes_that_hide_something_are_refused(tmp_path: Path, name: str) -> None:
    photo(tmp_path / name / "a.png")
    with pytest.raises(SettingError, match="printable"):
        read_folder(tmp_path, ["train"], folder_class_names(tmp_path))


def test_class_folders_of_an_export_stay_inside_and_apart() -> None:
    names = ["../../x", "/etc", "..", ".", "con", "NUL", "a/b", "a\\b", "a\0b", "-rf", "=1+1", "\u202e", "A", "a"]
    folders = folder_names(names)
    assert len({folder.casefold() for folder in folders}) == len(names)
    assert all(Path(folder).name == folder and folder not in (".", "..") for folder in folders)


def test_results_of_photos_with_long_names_have_room(tmp_path: Path) -> None:
    for name in ("é" * 125 + ".png", "x" * 250 + ".jpg", "x" * 249 + "y.jpg"):
        photo(tmp_path / name)
    names = [found.name for found in find_photos([tmp_path], ("_overlay.png",))]
    assert len(set(names)) == 3 and all(len(f"{name}_overlay.png".encode()) < 230 for name in names)


def test_a_link_in_place_of_a_result_is_replaced_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("mine")
    for name in ("scores.json", "mask.png"):
        (tmp_path / name).symlink_to(victim)
    write_json(tmp_path / "scores.json", {})
    save_labels_png(tmp_path / "mask.png", np.zeros((8, 8), dtype=np.uint8))
    assert victim.read_text() == "mine" and not (tmp_path / "mask.png").is_symlink()


def test_an_export_follows_no_planted_link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "file").write_text("mine")
    out = tmp_path / "out"
    monkeypatch.setattr(secrets, "token_hex", lambda size: "guessed")
    for end in ("tmp", "old"):
        out.with_name(f".out.guessed.{end}").symlink_to(victim)
    with pytest.raises(StoreError, match="could not be written"), whole_folder(out, False, {}):
        pass
    assert not os.path.lexists(out)
    out.symlink_to(victim)
    with pytest.raises(SettingError, match="is not empty"):
        check_free(out, False)
    with pytest.raises(SettingError, match="no export wrote"):
        check_free(out, True)
    assert (victim / "file").read_text() == "mine" and len(list(victim.iterdir())) == 1


def test_a_polygon_of_endless_edges_is_broken_not_drawn() -> None:
    """pycocotools takes memory for every pixel along the edges, and does not ask whether it got it."""
    points = [value for number in range(4000) for value in (float(number % 2) * 99_999, number / 10)]
    packed = pack([points, [0, 0, 8, 0, 8, 8, 0, 8]])
    assert "outline of more than 1,000,000 pixels" in problem_of(packed, 100, 100)
    assert paint([Region(1, 7, False, packed)], 100, 100).sum() == 7 * 64  # what is sound of it
    wide = [value for number in range(60) for value in (float(number % 2) * 9_999, number * 100.0)]
    assert problem_of(pack([wide]), 6000, 10_000) == ""


@pytest.mark.parametrize("shadow", ["tasks.py", "artifacts.py", "prompts/__init__.py"])
def test_a_users_own_module_of_that_name_is_not_run(tmp_path: Path, shadow: str) -> None:
    (tmp_path / shadow).parent.mkdir(exist_ok=True)
    (tmp_path / shadow).write_text("open('ran', 'w').close()\n")
    program = "import sys; sys.path.insert(0, ''); sys.argv[0] = 'excel'\nimport flows.cli"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    ran = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert not (tmp_path / "ran").exists()
    (line,) = ran.stderr.splitlines()
    assert line.startswith(f"error: excel needs its package {shadow.split('/')[0].removesuffix('.py')!r} from ")
    assert str(tmp_path / shadow.split("/")[0]) in line and ran.returncode == 1
