"""Names as people give them, of classes, photos and folders, through the whole chain and out of it again."""

import csv
import html
import json
import unicodedata

import numpy as np
import pytest
import yaml
from PIL import Image

from excel_core.config.presets import preset, with_settings
from excel_core.datasets.palette import load_labels_png, save_labels_png
from excel_core.exports.formats import LABEL_FORMATS
from excel_core.files import read_json
from excel_core.text.class_sets import class_set
from tasks.engine.stage import RunEnvironment
from tasks.history.run_record import start_record
from tasks.photos.export import ExportRequest, export_run
from tests.pipeline_runs import follow
from tests.tasks.chat_server import chat_server
from tests.tasks.test_own_photos import SMALL

# What YAML takes for booleans and numbers, what HTML, paths, formats and spreadsheets read, and parts of one another.
CLASSES = (
    "no", "on", "null", "1e3", "a/b", "Cats & Dogs", "<b>x</b>", "car", "carpet", "🐶 pup", 'it\'s "one"', "%s {x} \\n", "=1+1",
    "naïve", "..", "con", "$a_{$ x",
)  # fmt: skip
PHOTOS = ("plain", "it's 100 % é", "🐶", "a, b; c", "a.b.c", "no", "1", "<i>", "#x&y", "-dash")


@pytest.fixture(scope="module")
def outputs(tmp_path_factory):
    """A run whose store lies in its own data folder, below a path that no shell would like."""
    data = tmp_path_factory.mktemp("data") / "my 'fotos' é # %20"
    (data / "sub").mkdir(parents=True)
    random, rows = np.random.default_rng(0), [("image", "labels")]
    for number, name in enumerate(PHOTOS):
        size = {0: (300, 9), 1: (9, 300)}.get(number, (64, 48))
        picture = Image.fromarray(random.integers(0, 255, (6, 8, 3), dtype=np.uint8)).resize(size)
        picture.save(data / "sub" / f"{unicodedata.normalize('NFD', name)}.png")
        rows.append((f"sub/{name}.png", ";".join(CLASSES[number :: len(PHOTOS)])))
        masks = data / "SegmentationClass" / f"{unicodedata.normalize('NFC', name)}.png"
        save_labels_png(masks, np.full(size[::-1], 1 + number, np.uint8))
    with (data / "labels.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    with chat_server() as server:
        settings = ["describe.provider=openai", f"describe.base_url={server.url}", "describe.n=4", "describe.retries=0"]
        run = with_settings(preset("photos"), [*SMALL, *settings])
        environment = RunEnvironment(store=data / "store", data=data)
        made = follow(run, environment, "report")
    return run, environment, made


def test_every_class_and_photo_is_there(outputs):
    run, environment, made = outputs
    names = class_set(run, environment.data).class_names
    assert set(names) == set(CLASSES)
    assert set(read_json(made["describe"].folder / "descriptions.json")["classes"]) == set(CLASSES)
    assert made["dataset"].result["images"] == {"train": len(PHOTOS)} and made["dataset"].result["unused"] == {}
    results = read_json(made["evaluate"].folder / "metrics.json")["results"]
    assert all(result["protocol"]["images"] == len(PHOTOS) for result in results.values()) and results
    assert set(results["seeds.static.train.raw"]["iou"]) == {"background", *CLASSES}


def test_the_report_shows_names_and_runs_none(outputs):
    page = (outputs[2]["report"].folder / "index.html").read_text()
    assert "<b>x</b>" not in page.partition("<script")[0] and html.escape("<b>x</b>") in page
    assert html.escape("Cats & Dogs") in page


@pytest.mark.parametrize("name", [name for name in LABEL_FORMATS if name != "voc-submission"])
def test_every_format_holds_them(outputs, tmp_path, name):
    run, environment, made = outputs
    record = start_record("excel", run, environment)
    for stage, output in made.items():
        record.own[stage] = output.key
        record.use(output, cached=False)
    record.end("complete")
    exported = export_run(record, ExportRequest(name), tmp_path / "out")
    assert exported["images"] == len(PHOTOS) and set(exported["class_names"]) == set(CLASSES)
    if name == "yolo":
        assert set(yaml.safe_load((tmp_path / "out" / "data.yaml").read_text())["names"].values()) == set(CLASSES)
    if name == "binary":
        assert len(exported["folders"]) == len(CLASSES) and set(exported["folders"].values()) == set(CLASSES)
    if name == "palette":
        assert all(load_labels_png(path).max() <= len(CLASSES) for path in (tmp_path / "out").glob("*.png"))
    for path in (tmp_path / "out").rglob("*.json"):
        json.loads(path.read_text(encoding="utf-8"))
