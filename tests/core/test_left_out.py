"""What a folder of photos leaves out is named with its reason: by format, by place, by split, by table; and classes too."""

import unicodedata

import pytest
from PIL import Image

from excel_core.config import DatasetSpec
from excel_core.config.presets import preset, with_settings
from excel_core.datasets.doctor.checks import can_run
from excel_core.datasets.doctor.links import examine_links
from excel_core.datasets.doctor.photos import examine_photos
from excel_core.datasets.folder import folder_class_names, list_folder, read_folder
from excel_core.datasets.images import image_formats, load_image
from excel_core.datasets.left_out import LeftOut, left_out_lines, left_out_of_folder
from excel_core.errors import DataError, ImageError
from excel_core.prediction.photos import find_photos


@pytest.fixture
def spec():
    return preset("photos").dataset


def photo(path, file_format="JPEG", **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.effect_noise((40, 30), 80).convert("RGB").save(path, format=file_format, **options)
    return path


def reasons(root, spec, names, store=None):
    return {thing.what: thing.reason for thing in left_out_of_folder(root, spec, names, store)}


def test_class_folders(tmp_path, spec, without_heif):
    photo(tmp_path / "dog/a.jpg")
    photo(tmp_path / "dog/b.jfif")
    (tmp_path / "dog/._a.jpg").write_bytes(b"\0\5\x16\7")
    (tmp_path / "dog/notes.txt").write_text("mine")
    photo(tmp_path / "dog/c")  # no suffix
    photo(tmp_path / "dog/d.picture", "PNG")
    (tmp_path / "dog/e.CR2").write_bytes(b"II*\0")
    (tmp_path / "dog/IMG_1.HEIC").write_bytes(b"\0\0\0\x18ftypheic")
    photo(tmp_path / "dog/day 1/f.jpg")
    photo(tmp_path / "horse/day1/n.jpg")
    (tmp_path / "cat").mkdir()
    photo(tmp_path / "loose.jpg")
    photo(tmp_path / "SegmentationClass/a.png", "PNG")
    photo(tmp_path / ".cache/g.jpg")
    names = folder_class_names(tmp_path)
    assert names == ("dog",)
    assert [row.id for row in list_folder(tmp_path, names)] == ["a", "b"]
    left_out = reasons(tmp_path, spec, names)
    expected = {
        "loose.jpg": "in no class folder", "dog/c": "a JPEG file with no suffix", "dog/d.picture": "a PNG file with the suffix",
        "dog/e.CR2": ".cr2 is not read; save it as JPEG", "dog/IMG_1.HEIC": "pip install 'excel-wsss[heic]'",
        "dog/day 1/f.jpg": "sub-folder; move it up, into dog/", "horse/": "no class", "cat/": "no class",
        "horse/day1/n.jpg": "sub-folder; move it up, into horse/",
    }  # fmt: skip
    assert left_out.keys() == expected.keys()
    assert all(words in left_out[what] for what, words in expected.items())


def test_heic_is_read_with_pillow_heif(tmp_path, spec, monkeypatch):
    pillow_heif = pytest.importorskip("pillow_heif")
    image_formats.cache_clear()
    pixels = Image.linear_gradient("L").convert("RGB").crop((0, 0, 64, 48))
    exif = Image.Exif()
    exif[0x0112] = 6
    (tmp_path / "dog").mkdir()
    pillow_heif.from_pillow(pixels).save(tmp_path / "dog/a.HEIC", quality=95)
    pillow_heif.register_heif_opener()
    pixels.save(tmp_path / "dog/lying.heic", format="HEIF", exif=exif.tobytes())
    names = folder_class_names(tmp_path)
    manifest = read_folder(tmp_path, ["train"], names)
    assert list(manifest["image"]) == ["dog/a.HEIC", "dog/lying.heic"] and set(manifest["error"]) == {""}
    assert list(zip(manifest["height"], manifest["width"], strict=True)) == [(48, 64), (64, 48)]
    assert left_out_of_folder(tmp_path, spec, names) == []
    assert abs(load_image(tmp_path / "dog/a.HEIC").astype(int).mean() - 23.5) < 3


def test_a_heic_without_pillow_heif_says_what_to_install(tmp_path, without_heif):
    (tmp_path / "a.jpg").write_bytes(b"\0\0\0\x18ftypheic" + bytes(40))
    with pytest.raises(ImageError, match=r"a\.jpg: HEIC is read with pillow-heif alone; install it"):
        load_image(tmp_path / "a.jpg")


def test_an_avif_says_what_it_is(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"\0\0\0\x20ftypavif" + bytes(40))
    with pytest.raises(ImageError, match="AVIF is not read; save it as JPEG"):
        load_image(tmp_path / "a.jpg")


def test_a_table(tmp_path, spec):
    for name in ("a.jpg", "b.jpg", "c.jpg", "d.jpg", "more/e.jpg", "more/._e.jpg", "runs/refine/1/f.jpg", "masks/a.png"):
        photo(tmp_path / name)
    (tmp_path / "runs/refine/1/stage.json").write_text("{}")
    (tmp_path / "masks/photos.json").write_text("{}")
    (tmp_path / "labels.csv").write_text("image,labels,split\na,dog,\nb,dog,Train\nc,sofa,val\ngone,dog,train\n")
    left_out = reasons(tmp_path, spec, ("dog", "sofa"))
    assert left_out.keys() == {"b.jpg", "c.jpg", "d.jpg", "more/e.jpg", "class sofa"}  # a row without file is a bad image
    assert "split 'Train', the run uses train; write 'train'" in left_out["b.jpg"]
    assert "--set 'dataset.val_splits=[val]'" in left_out["c.jpg"]
    assert left_out["d.jpg"] == left_out["more/e.jpg"] == "labels.csv has no row for it"
    assert "no photo of split 'train'" in left_out["class sofa"]
    used = with_settings(preset("photos"), ["dataset.val_splits=[val]"]).dataset
    assert "c.jpg" not in reasons(tmp_path, used, ("dog", "sofa"))
    photo(tmp_path / "store/new.jpg")
    assert "store/new.jpg" in reasons(tmp_path, spec, ("dog", "sofa"))
    assert "store/new.jpg" not in reasons(tmp_path, spec, ("dog", "sofa"), tmp_path / "store")


@pytest.mark.parametrize(("written", "on_disk"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_a_name_finds_its_file_however_accents_are_composed(tmp_path, spec, written, on_disk):
    path = photo(tmp_path / unicodedata.normalize(on_disk, "été/café.jpg"))
    rows = [unicodedata.normalize(written, name) for name in ("été/café.jpg", "été/café")]
    for row in rows:
        (tmp_path / "labels.csv").write_text(f"image,labels\n{row},dog\n")
        manifest = read_folder(tmp_path, ["train"], ("dog",))
        assert tmp_path / manifest["image"][0] == path and manifest["error"][0] == ""
        assert left_out_of_folder(tmp_path, spec, ("dog",)) == []


@pytest.mark.parametrize("name", ["Labels.csv", "LABELS.CSV", "classes.yml", "Classes.yaml", "Classes.JSON"])
def test_a_file_that_is_not_quite_named_as_it_is_read_is_named(tmp_path, spec, name):
    photo(tmp_path / "dog/a.jpg")
    (tmp_path / name).write_text("image,labels\na,cat\n")
    right = name.lower().replace("yml", "yaml")
    assert reasons(tmp_path, spec, ("dog",)) == {name: f"it is read under the name {right} alone; rename it"}


def test_lines_name_the_first_things_of_each_reason():
    things = [LeftOut(f"{n}.heic", "not read") for n in range(7)] + [LeftOut("a\nb.jpg", "odd")]
    assert left_out_lines(things) == [
        "left out: 0.heic, 1.heic, 2.heic, 3.heic, 4.heic and 2 more: not read", "left out: a\\nb.jpg: odd",
    ]  # fmt: skip


def test_the_doctor_of_photos(tmp_path, spec):
    for number in range(3):
        photo(tmp_path / f"dog/{number}.jpg")
    photo(tmp_path / "dog/day1/x.jpg")
    (tmp_path / "dog/half.jpg").write_bytes((tmp_path / "dog/0.jpg").read_bytes()[:300])
    photo(tmp_path / "axolotl/y.jpg")
    checks = {check.name: check for check in examine_photos(tmp_path, folder_class_names(tmp_path), spec)}
    assert checks["photos"].found == "5" and checks["photos by class"].found == "axolotl 1, dog 4"
    assert checks["left out"].examples == ("dog/day1/x.jpg",) and checks["left out"].state == "warning"
    assert checks["damaged files"].state == "warning" and "dog/half.jpg: truncated" in checks["damaged files"].examples[0]
    assert checks["descriptions"].examples == ("axolotl",) and can_run(list(checks.values()))
    (tmp_path / "dog/1.jpg").write_bytes(b"x")
    assert not can_run(examine_photos(tmp_path, folder_class_names(tmp_path), spec))
    photo(tmp_path / "axolotl/0.jpg")
    (check,) = examine_photos(tmp_path, folder_class_names(tmp_path), spec)
    assert check.state == "problem" and "different photos of one name" in check.advice


def test_the_doctor_refuses_links_as_a_run_does(tmp_path, spec):
    outside = photo(tmp_path / "elsewhere/x.jpg")
    for name in ("a", "b", "circle"):
        (tmp_path / "data/dog").mkdir(parents=True, exist_ok=True)
        (tmp_path / "data/dog" / f"{name}.jpg").symlink_to("circle.jpg" if name == "circle" else outside)
    photo(tmp_path / "data/dog/c.jpg")
    check = examine_links(tmp_path / "data", "folder")
    assert check.state == "problem" and check.examples == ("dog/a.jpg", "dog/b.jpg")  # a circle is a damaged file
    with pytest.raises(DataError, match="3 of 4 images are bad"):
        read_folder(tmp_path / "data", ["train"], ("dog",), max_bad=spec.max_bad)


def test_the_doctor_finds_photos_of_two_names(tmp_path, spec):
    photo(tmp_path / "dog/a.jpg")
    photo(tmp_path / "dog/b.jpg")
    for name in ("cat/c.jpg", "cat/b.jpg"):  # the second of one name is one photo of two classes
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes((tmp_path / "dog" / f"{'a' if name == 'cat/c.jpg' else 'b'}.jpg").read_bytes())
    checks = {check.name: check for check in examine_photos(tmp_path, ("cat", "dog"), spec)}
    assert checks["photos are there once"].state == "warning"
    assert checks["photos are there once"].examples == ("cat/c.jpg is dog/a.jpg",)


def test_photos_to_segment_are_all_pictures_that_are_not_hidden(tmp_path, without_heif):
    for name in ("a.jpg", "b", "c.heic", "._a.jpg", "d.dng"):
        photo(tmp_path / name)
    (tmp_path / "notes.txt").write_text("mine")
    found = {photo.path.name: photo.problem for photo in find_photos([tmp_path])}
    assert found.keys() == {"a.jpg", "b", "c.heic", "d.dng"} and not found["a.jpg"] and not found["b"]
    assert "HEIC" in found["c.heic"] and ".dng is not read" in found["d.dng"]


def test_a_split_or_a_twin_is_refused_before_work(tmp_path, spec):
    from excel_core.datasets.folder import check_folder_splits

    photo(tmp_path / "a.jpg")
    (tmp_path / "labels.csv").write_text("image,labels\na,dog\n")
    check_folder_splits(tmp_path, spec, ("dog",))
    with pytest.raises(DataError, match="unknown label 'dog'"):
        check_folder_splits(tmp_path, DatasetSpec(layout="folder"), ("cat",))
