"""Labels and masks out of CVAT's and Label Studio's files: what export wrote comes back, and what people do there is read."""

import csv
import json
import zipfile

import numpy as np
import pytest
import yaml
from PIL import Image
from typer.testing import CliRunner

from excel_core.datasets.images import AS_STORED
from excel_core.datasets.palette import load_labels_png, save_labels_png
from excel_core.errors import DataError, SettingError
from excel_core.exports.brush_runs import encode_brush
from excel_core.exports.formats import LABEL_FORMATS
from excel_core.exports.label_maps import LabelMap
from excel_core.exports.photos import with_photos
from excel_core.files import read_json
from flows.cli import app
from tasks.photos.import_labels import ImportRequest, import_labels

CLASSES = ("dog", "potted plant", "cat")


def _frame():
    labels = np.zeros((60, 80), np.uint8)
    labels[5:50, 5:60] = 1
    labels[15:40, 15:45] = 0
    labels[20:30, 20:40] = 2
    return labels


TRUTH = {"frame": _frame(), "noise": np.random.default_rng(0).integers(0, 4, (12, 10), dtype=np.uint8)}


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for name, labels in TRUTH.items():
        Image.fromarray(np.repeat(labels[..., None] * 60, 3, axis=2)).save(folder / f"{name}.jpg")
    return folder


@pytest.fixture
def exported(photos, tmp_path):
    """A function: format → its export."""
    maps = []
    for name, labels in TRUTH.items():
        save_labels_png(tmp_path / "maps" / f"{name}.png", labels)
        maps.append(LabelMap(name, tmp_path / "maps" / f"{name}.png", f"{name}.jpg", photos / f"{name}.jpg"))

    def export(name):
        out = tmp_path / name
        out.mkdir()
        LABEL_FORMATS[name].write(out, CLASSES, with_photos(maps, out / "images", AS_STORED, len(CLASSES)))
        return out

    return export


def rows(out):
    with (out / "labels.csv").open() as file:
        return {row["image"]: row["labels"] for row in csv.DictReader(file)}


def class_names(out):
    return [entry["name"] for entry in yaml.safe_load((out / "classes.yaml").read_text())["classes"]]


def masks(out):
    """Label maps by image, of class names."""
    names = np.array(["background", *class_names(out)])
    return {path.stem: names[load_labels_png(path)] for path in (out / "SegmentationClass").iterdir()}


@pytest.mark.parametrize("name", ["cvat", "cvat-images", "label-studio", "label-studio-polygons"])
def test_an_export_comes_back_as_it_was(exported, tmp_path, name):
    folder = exported(name)
    file = next(path for path in folder.iterdir() if path.name in ("annotations.xml", "tasks.json") or path.suffix == ".zip")
    if file.suffix == ".json":  # a person accepts every prediction
        tasks = json.loads(file.read_text())
        for task in tasks:
            (prediction,) = task.pop("predictions")
            task["annotations"] = [{"result": prediction["result"], "was_cancelled": False}]
        file.write_text(json.dumps(tasks))
    about = import_labels(ImportRequest(file, name.removesuffix("-images").removesuffix("-polygons")), tmp_path / "out")
    assert (about["photos"], about["masks"], about["left_out"], about["without_mask"]) == (2, 2, {}, {})
    names = np.array(["background", *CLASSES])
    found = masks(tmp_path / "out")
    assert found.keys() == TRUTH.keys() and all(np.array_equal(found[key], names[labels]) for key, labels in TRUTH.items())
    assert class_names(tmp_path / "out") == sorted(CLASSES)
    told = {image: set(labels.split(";")) for image, labels in rows(tmp_path / "out").items()}
    assert told == {"images/frame.jpg": {"dog", "potted plant"}, "images/noise.jpg": set(CLASSES)}
    photo = (tmp_path / "out" / "images" / "frame.jpg").read_bytes()
    assert photo == (tmp_path / "photos" / "frame.jpg").read_bytes()
    assert read_json(tmp_path / "out" / "import.json")["format"] == "excel-import/1"


def cvat_xml(path, *images):
    path.write_text(f"<annotations><version>1.1</version>{''.join(images)}</annotations>", encoding="utf-8")
    return path


def image_xml(name, content, size=(60, 80)):
    return f'<image id="0" name="{name}" width="{size[1]}" height="{size[0]}">{content}</image>'


SQUARE = '<polygon label="dog" points="10,10;30.0,10;30,30;10,30" z_order="{z}"/>'


def test_cvat_shapes_lie_in_their_order(photos, tmp_path):
    """By z_order, then as they follow each other; a background shape takes pixels away."""
    shapes = (
        SQUARE.format(z=2)
        + '<ellipse label="cat" cx="20" cy="20" rx="15" ry="5" rotation="90" z_order="1"/>'
        + '<mask label="background" rle="0, 4" left="28" top="10" width="2" height="2" z_order="3"/>'
    )
    file = cvat_xml(tmp_path / "a.xml", image_xml("frame.jpg", shapes))
    import_labels(ImportRequest(file, "cvat", photos), tmp_path / "out")
    found = masks(tmp_path / "out")["frame"]
    assert (found[10:30, 10:30] == "dog").sum() == 400 - 4 and found[10, 28] == found[11, 29] == "background"
    upright = found == "cat"  # what the square leaves of an ellipse that stands on its end
    assert upright[:10, 15:25].any() and upright[30:, 15:25].any() and not upright[:, :14].any() and not upright[:, 26:].any()


TAG = '<tag label="cat"/>'
BOX = '<box label="cat" xtl="1" ytl="1" xbr="9" ybr="9"/>'


@pytest.mark.parametrize(
    ("content", "labels", "reason"),
    [
        (TAG, "cat", "has labels, but no shapes"),
        (TAG + SQUARE.format(z=0), "cat;dog", "has the label 'cat', but no shape of it"),
        (BOX + SQUARE.format(z=0), "cat;dog", "has a box, which outlines no object"),
        (SQUARE.format(z=0).replace("30,30;", "nan,30;"), "dog", "a polygon with a coordinate that is not finite"),
        ('<mask label="dog" rle="1, 3" left="79" top="1" width="2" height="2"/>', "dog", "reaches out of its image"),
    ],
)
def test_labels_without_a_whole_mask_stay_labels(photos, tmp_path, content, labels, reason):
    file = cvat_xml(tmp_path / "a.xml", image_xml("frame.jpg", content))
    about = import_labels(ImportRequest(file, "cvat", photos), tmp_path / "out")
    assert rows(tmp_path / "out") == {"images/frame.jpg": labels} and about["masks"] == 0
    assert reason in about["without_mask"]["frame.jpg"]


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        (image_xml("empty.jpg", ""), "no class is in it"),
        (image_xml("gone.jpg", TAG), "has no photo of this name"),
        (image_xml("../../etc/passwd.jpg", TAG), "has no photo of this name"),
        (image_xml("noise.jpg", SQUARE.format(z=0)), "is 12 high and 10 wide, but was annotated at 60 by 80"),
        (image_xml("noise.jpg", '<polygon label="dog" points="1;2"/>'), "has no photo"),
        (image_xml("noise.jpg", '<mask label="dog" rle="1, x" left="0"/>'), "its annotation is damaged"),
        (image_xml("noise.jpg", '<mask label="dog" rle="1, 2" left="0" top="0" width="2" height="2"/>'), "do not fill its box"),
        (image_xml("noise.jpg", "<polygon label='dog'/>"), "lacks 'points'"),
    ],
)
def test_what_is_left_out_is_named(photos, tmp_path, image, reason):
    if reason == "has no photo":
        (photos / "noise.jpg").unlink()
    file = cvat_xml(tmp_path / "a.xml", image, image_xml("frame.jpg", SQUARE.format(z=0)))
    about = import_labels(ImportRequest(file, "cvat", photos), tmp_path / "out")
    (found,) = about["left_out"].values()
    assert reason in found and list(rows(tmp_path / "out")) == ["images/frame.jpg"]
    assert {path.name for path in (tmp_path / "out" / "images").iterdir()} == {"frame.jpg"}


BOMB = (
    '<!DOCTYPE a [<!ENTITY b "bbbb"><!ENTITY c "&b;&b;">]><annotations><image name="&c;" width="1" height="1"/></annotations>'
)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (BOMB, "not a readable XML file"),
        ("<annotations/>", "has no element 'image'"),
        ("<annotations><track/></annotations>", "holds tracks of a video; export the task as 'CVAT for images 1.1'"),
        ("no xml", "not a readable XML file"),
        (f"<a>{image_xml('frame.jpg', TAG)}{image_xml('sub/frame.jpg', TAG)}</a>", "would both be called 'frame'"),
        (f"<a>{image_xml('frame.jpg', TAG)}{image_xml('frame.jpg', TAG)}</a>", "frame.jpg is annotated twice; leave one out"),
        (f"<a>{image_xml('frame.jpg', '<tag label=' + repr('a;b') + '/>')}</a>", "without ';'"),
        (f"<a>{image_xml('frame.jpg', '<tag label=' + repr('=1') + '/>')}</a>", "would be a formula in labels.csv"),
        (f"<a>{image_xml('frame.jpg', '')}</a>", "no image of the file can be used; frame.jpg: no class is in it"),
    ],
)
def test_files_that_cannot_be_used_leave_nothing(photos, tmp_path, content, message):
    (tmp_path / "a.xml").write_text(content)
    with pytest.raises((DataError, SettingError), match=message):
        import_labels(ImportRequest(tmp_path / "a.xml", "cvat", photos), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_accents_are_the_same_however_they_are_composed(photos, tmp_path):
    one, other = "caf\u00e9", "cafe\u0301"
    (photos / "frame.jpg").rename(photos / f"{one}.jpg")
    images = image_xml(f"sub/{other}.jpg", TAG.replace("cat", other)), image_xml("noise.jpg", TAG.replace("cat", one), (12, 10))
    file = cvat_xml(tmp_path / "a.xml", *images)
    made = import_labels(ImportRequest(file, "cvat", photos), tmp_path / "out")
    assert made["class_names"] == [one] and not made["left_out"] and len(rows(tmp_path / "out")) == 2


def test_folders_as_windows_separates_them(photos, tmp_path):
    entry = {"type": "choices", "value": {"choices": ["dog"]}}
    tasks = [{"data": {"image": "/data/local-files/?d=photos%5Cframe.jpg"}, "annotations": [{"result": [entry]}]}]
    (tmp_path / "file.json").write_text(json.dumps(tasks))
    made = import_labels(ImportRequest(tmp_path / "file.json", "label-studio", photos), tmp_path / "out")
    assert rows(tmp_path / "out") == {"images/frame.png": "dog"} and not made["left_out"]


def test_a_zip_of_cvat_brings_its_photos(exported, tmp_path):
    folder = exported("cvat-images")
    with zipfile.ZipFile(tmp_path / "task.zip", "w") as archive:
        archive.write(folder / "annotations.xml", "annotations.xml")
        for name in TRUTH:
            archive.write(folder / "images" / f"{name}.jpg", f"images/default/{name}.jpg")
    assert import_labels(ImportRequest(tmp_path / "task.zip", "cvat"), tmp_path / "out")["masks"] == 2
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.writestr("a.txt", "")
    with pytest.raises(DataError, match=r"holds neither annotations.xml nor labelmap.txt"):
        import_labels(ImportRequest(tmp_path / "other.zip", "cvat", folder / "images"), tmp_path / "again")


def test_a_colour_that_no_label_has_is_named(exported, tmp_path):
    folder = exported("cvat")
    file = next(folder.glob("*.zip"))
    with zipfile.ZipFile(file) as archive, zipfile.ZipFile(tmp_path / "less.zip", "w") as less:
        for name in archive.namelist():
            content = archive.read(name)
            less.writestr(name, content.replace(b"cat:128,128,0::\n", b"") if name == "labelmap.txt" else content)
    about = import_labels(ImportRequest(tmp_path / "less.zip", "cvat", folder / "images"), tmp_path / "out")
    assert about["left_out"] == {"noise": "its mask has the colour #808000, which labelmap.txt does not name"}


def region(kind, value, label="dog", **fields):
    entry = {"type": f"{kind}labels", "original_width": 80, "original_height": 60, "value": value | {f"{kind}labels": [label]}}
    return entry | fields


DRAWN = np.zeros((60, 80), bool)
DRAWN[10:20, 30:40] = True
BRUSH = region("brush", {"format": "rle", "rle": encode_brush(DRAWN)})
CHOICE = {"type": "choices", "value": {"choices": ["cat"]}}


def studio(path, *results, **fields):
    task = {"data": {"image": "/data/upload/1/0123abcd-frame.jpg"}, "annotations": [{"result": list(results)}]} | fields
    path.write_text(json.dumps([task]))
    return path


@pytest.mark.parametrize(
    ("results", "labels", "reason"),
    [
        ([BRUSH], "dog", ""),
        ([BRUSH, CHOICE], "cat;dog", "has the label 'cat', but no shape"),
        ([CHOICE], "cat", "has labels, but no shapes"),
        ([region("rectangle", {"x": 1, "y": 1, "width": 5, "height": 5})], "dog", "has a box"),
        ([BRUSH | {"image_rotation": 90}], "dog", "was turned"),
        ([BRUSH | {"value": BRUSH["value"] | {"rle": [1, 2]}}], "dog", "ends too early"),
        ([BRUSH, region("ellipse", {"x": 50, "y": 50, "radiusX": 10, "radiusY": 5, "rotation": 0}, "cat")], "cat;dog", ""),
        ([{"type": "textarea", "value": {"text": ["fine"]}}, BRUSH], "dog", ""),
        ([BRUSH | {"type": "brush", "id": "r"}, {"id": "r", "type": "labels", "value": {"labels": ["cat"]}}], "cat", ""),
        ([BRUSH, BRUSH | {"type": "brush", "id": "r"}], "dog", "has a brush of no labels"),
    ],
)
def test_label_studio_results(photos, tmp_path, results, labels, reason):
    about = import_labels(ImportRequest(studio(tmp_path / "a.json", *results), "label-studio", photos), tmp_path / "out")
    assert list(rows(tmp_path / "out").values()) == [labels]
    assert reason in next(iter(about["without_mask"].values()), "") and about["masks"] == (reason == "")


def test_the_annotation_that_counts(photos, tmp_path):
    """The ground truth, else the one changed last; never one that was skipped; predictions only where they are asked for."""
    other = region("brush", BRUSH["value"], "cat")
    old, new = {"result": [BRUSH], "updated_at": "2026-01-01"}, {"result": [other], "updated_at": "2026-02-01"}

    def labels(number, *annotations, predictions=False, **fields):
        file = studio(tmp_path / "a.json", annotations=list(annotations), **fields)
        import_labels(ImportRequest(file, "label-studio", photos, predictions=predictions), tmp_path / str(number))
        return list(rows(tmp_path / str(number)).values())

    assert labels(1, new, old) == ["cat"] and labels(2, old | {"ground_truth": True}, new) == ["dog"]
    assert labels(3, old, new | {"was_cancelled": True}) == ["dog"]
    with pytest.raises(DataError, match="was skipped in Label Studio"):
        labels(4, old | {"was_cancelled": True})
    with pytest.raises(DataError, match="has no annotation; --predictions takes pre-annotations as they are"):
        labels(5)
    guess = [{"result": [BRUSH]}]
    assert labels(6, new, predictions=True) == ["cat"]
    file = studio(tmp_path / "b.json", annotations=[], predictions=guess)
    assert import_labels(ImportRequest(file, "label-studio", photos, predictions=True), tmp_path / "7")["masks"] == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{}", "must be a list of tasks"),
        ("[", "not a JSON file"),
        ('[{"image": "a.jpg", "label": []}]', "not as 'JSON-MIN'"),
        ('[{"data": {}}]', "'data' names no 'image'"),
    ],
)
def test_other_json_is_refused(photos, tmp_path, content, message):
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(DataError, match=message):
        import_labels(ImportRequest(tmp_path / "a.json", "label-studio", photos), tmp_path / "out")


def test_large_and_turned_photos_come_as_a_run_takes_them(tmp_path):
    """Annotated upright at full size; written upright, shrunk together with the mask."""
    (tmp_path / "images").mkdir()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (2048, 1000)).save(tmp_path / "images" / "a.jpg", exif=exif)  # seen 1000 wide, 2048 high
    square = '<polygon label="dog" points="0,0;1000,0;1000,1024;0,1024"/>'
    file = cvat_xml(tmp_path / "a.xml", image_xml("a.jpg", square, (2048, 1000)))
    about = import_labels(ImportRequest(file, "cvat"), tmp_path / "out")
    labels = load_labels_png(tmp_path / "out" / "SegmentationClass" / "a.png")
    with Image.open(tmp_path / "out" / "images" / "a.png") as image:
        assert image.size == (500, 1024) and labels.shape == (1024, 500) and about["shrunk"] == 1
    assert labels[:512].all() and not labels[512:].any()


def test_a_class_set_fixes_the_order_and_the_names(photos, tmp_path):
    file = cvat_xml(tmp_path / "a.xml", image_xml("frame.jpg", SQUARE.format(z=0)))
    import_labels(ImportRequest(file, "cvat", photos, classes="voc"), tmp_path / "out")
    assert class_names(tmp_path / "out")[11] == "dog"
    assert set(np.unique(load_labels_png(tmp_path / "out" / "SegmentationClass" / "frame.png"))) == {0, 12}
    cvat_xml(file, image_xml("frame.jpg", '<tag label="unicorn"/>'))
    with pytest.raises(DataError, match="frame.jpg: unknown label 'unicorn'; valid: aeroplane"):
        import_labels(ImportRequest(file, "cvat", photos, classes="voc"), tmp_path / "again")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"format": "coco"}, "--format 'coco': valid formats: cvat, label-studio"),
        ({"predictions": True}, "--predictions is for --format label-studio"),
        ({"photos": "none"}, "neither a folder nor a zip"),
        ({"photos": "empty"}, "holds no photo"),
        ({"photos": None}, "--photos is needed: a.xml holds no photos, and there is no folder"),
        ({"file": "b.xml"}, "b.xml: there is no such file"),
        ({"classes": "mine"}, "there is no 'mine'; valid: "),
    ],
)
def test_wrong_wishes_for_an_import_are_refused(photos, tmp_path, fields, message):
    (tmp_path / "empty").mkdir()
    cvat_xml(tmp_path / "a.xml", image_xml("frame.jpg", TAG))
    wanted = {"file": "a.xml", "format": "cvat", "photos": "photos"} | fields
    places = {key: tmp_path / wanted[key] for key in ("file", "photos") if wanted[key] is not None}
    with pytest.raises((DataError, SettingError), match=message):
        import_labels(ImportRequest(**(wanted | places)), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_command_says_what_came_and_what_did_not(photos, tmp_path):
    (photos / "noise.jpg").unlink()
    file = cvat_xml(tmp_path / "a.xml", image_xml("frame.jpg", BOX + SQUARE.format(z=0)), image_xml("noise.jpg", TAG))
    command = ["import", str(file), "--format", "cvat", "--photos", str(photos), "--out", str(tmp_path / "out")]
    ran = CliRunner().invoke(app, command)
    assert ran.exit_code == 0, ran.output
    said = [line for line in ran.stdout.splitlines() if not line.startswith("import:")]
    assert said == [
        "1 photos with labels, 0 of them with masks; classes: cat, dog",
        "left out: noise.jpg: has no photo of this name",
        "no mask: frame.jpg: has a box, which outlines no object; draw a polygon or a mask",
        str(tmp_path / "out"),
    ]
    assert isinstance(CliRunner().invoke(app, command).exception, SettingError)  # an earlier import stays without --force
    assert CliRunner().invoke(app, [*command, "--force"]).exit_code == 0
