"""A folder of one's own photos through the whole chain: classes from the folder, no masks, label maps all the same."""

import shutil
from pathlib import Path

import pytest
from PIL import Image

from excel_core.config.presets import preset, with_settings
from excel_core.datasets.left_out import left_out_lines
from excel_core.datasets.palette import load_labels_png
from excel_core.errors import PromptError, SettingError
from excel_core.files import read_json
from excel_core.text.class_sets import class_set
from excel_core.world.voc_layout import scene_id, write_world
from tasks.engine.stage import RunEnvironment
from tasks.pipeline import complete_outputs
from tasks.stages.dataset import LEFT_OUT_CSV, left_out_things, left_out_told
from tests.pipeline_runs import follow

SMALL = [
    "clip.model=excel-tiny", "cams.image_size=64", "predict.image_size=64", "predict.scales=[1.0]", "train.crop=64",
    "train.iterations=2", "train.batch_size=2", "train.dynamic_from=1", "train.own_argmax_from=1",
    "train.segmenter.width=16", "refine.par.iterations=2", "report.gallery_images=2", "describe.n=4",
    "dataset.max_side=80",
]  # fmt: skip


def _save(image, number, path):
    """The fifth is larger than the run's limit, the sixth a portrait that lies on its side."""
    exif = Image.Exif()
    if number == 5:
        image = image.resize((160, 120))
    if number == 6:
        image, exif[0x0112] = image.crop((0, 0, 64, 48)), 6
    image.save(path, exif=exif)


SIZES = dict.fromkeys(range(1, 5), (64, 64)) | {5: (60, 80), 6: (64, 48)}  # height, width of what is seen


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Six scenes as photos of boats and cars (as far as the table is concerned), one of them without suffix in it."""
    folder = tmp_path_factory.mktemp("photos")
    world = tmp_path_factory.mktemp("world")
    write_world(world, {"train": range(1, 7)}, 64)
    rows = ["image,labels"]
    for number in range(1, 7):
        with Image.open(world / "JPEGImages" / f"{scene_id(number)}.jpg") as image:
            _save(image, number, folder / f"photo {number}.jpg")
        rows.append(f"photo {number}{'.jpg' if number % 2 else ''},{'Boat' if number < 4 else 'Boat; Traffic_light'}")
    (folder / "labels.csv").write_text("\n".join(rows))
    return folder


@pytest.fixture(scope="module")
def outputs(photos, tmp_path_factory):
    run = with_settings(preset("photos"), SMALL)
    return follow(run, RunEnvironment(store=tmp_path_factory.mktemp("store"), data=photos), "report")


def test_classes_come_from_the_table_and_their_descriptions_by_name(outputs):
    described = read_json(outputs["describe"].folder / "descriptions.json")
    assert list(described["classes"]) == ["Boat", "Traffic_light"]
    bundled = read_json(Path("prompts/descriptions/coco.json"))["classes"]
    assert described["classes"]["Traffic_light"] == bundled["traffic light"][:4]
    assert outputs["knowledge"].result["attributes"] == 2  # a quarter of eight


def test_every_photo_gets_its_label_maps_and_nothing_is_scored(photos, outputs):
    for number in range(1, 7):
        size = SIZES[number]
        pseudo = load_labels_png(outputs["dynamic"].folder / "SegmentationClassPseudo" / f"photo {number}.png")
        assert pseudo.shape == size and pseudo.max() <= (1 if number < 4 else 2)
        for variant in outputs["predict"].result["variants"]:
            assert load_labels_png(outputs["predict"].folder / variant / "train" / f"photo {number}.png").shape == size
    metrics = read_json(outputs["evaluate"].folder / "metrics.json")
    assert metrics["results"] == {} and list(metrics["skipped"]) == ["scores"]
    assert "photo 1" in (outputs["report"].folder / "index.html").read_text()


def test_what_else_lies_in_the_folder_changes_nothing(photos, outputs):
    """Such as the store itself."""
    run = with_settings(preset("photos"), SMALL)
    (photos / "runs").mkdir()
    (photos / "runs" / "notes.txt").write_text("mine")
    environment = RunEnvironment(store=outputs["dataset"].folder.parent.parent, data=photos)
    assert complete_outputs(run, environment, "report").keys() == outputs.keys()


def test_what_is_left_out_is_in_output_and_report_and_reruns_nothing_else(photos, outputs, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(photos, data)
    run = with_settings(preset("photos"), SMALL)
    environment = RunEnvironment(store=outputs["dataset"].folder.parent.parent, data=data)
    before = follow(run, environment, "report")
    assert left_out_told(before["dataset"]) == [] and not (before["dataset"].folder / LEFT_OUT_CSV).exists()
    shutil.copy(data / "photo 1.jpg", data / "extra.jpg")
    assert "report" not in complete_outputs(run, environment, "report")
    after = follow(run, environment, "report")
    line = "left out: extra.jpg: labels.csv has no row for it"
    assert left_out_told(after["dataset"]) == left_out_lines(left_out_things(run, environment)) == [line]
    assert line.replace("left", "Left", 1) in (after["report"].folder / "index.html").read_text()
    assert {name for name in after if after[name].key != before[name].key} <= {"dataset", "report"}


def test_a_class_file_in_the_folder_wins(photos, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(photos, data)
    run = preset("photos")
    (data / "classes.yaml").write_text(
        'name: mine\ntemplate: "a photo of a {}."\nclasses:\n  - {name: Boat, synonyms: ship}\n'
        "  - {name: Traffic_light, synonyms: lamp}\nbackground: [sky]\n"
    )
    assert class_set(run, data).templates() == ["a photo of a ship.", "a photo of a lamp."]


def test_a_class_that_no_file_knows_is_said(photos, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(photos, data)
    table = data / "labels.csv"
    table.write_text(table.read_text().replace("Boat", "axolotl"))
    advice = "no bundled descriptions of axolotl; write .*classes.json, give a file.* or let a model"
    with pytest.raises(PromptError, match=advice):
        follow(preset("photos"), RunEnvironment(store=tmp_path, data=data), "describe")


def test_only_some_layouts_tell_their_classes(tmp_path):
    with pytest.raises(SettingError, match="dataset.prompts=data: layout 'voc' needs classes.yaml"):
        class_set(with_settings(preset("voc"), ["dataset.prompts=data"]), tmp_path)
