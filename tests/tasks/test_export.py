"""What leaves a run is what the run made: label maps, its segmenter in a file, and its masks of single photos."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from excel_core.datasets.images import read_image
from excel_core.datasets.manifest import usable
from excel_core.datasets.palette import load_labels_png
from excel_core.errors import DataError, ModelError, SettingError, StoreError
from excel_core.exports.formats import LABEL_FORMATS
from excel_core.prediction.predictors import trained_predictor
from excel_core.stores import read_manifest
from tasks.engine.stage import RunEnvironment
from tasks.photos.export import ExportRequest, chosen_maps, export_run
from tasks.photos.segment_photos import photos_of, segment_photos
from tasks.photos.trained import find_segmenter, run_segmenter, training_free


@pytest.fixture(scope="module")
def portable(record, tmp_path_factory):
    """The run's segmenter as a file."""
    out = tmp_path_factory.mktemp("exports") / "file"
    export_run(record, ExportRequest("safetensors"), out)
    return out / "segmenter.safetensors"


@pytest.fixture(scope="module")
def photos(chain):
    """Path and id of each image of a held-out split."""
    outputs, _ = chain
    rows = usable(read_manifest(outputs["dataset"].folder / "manifest.parquet"), "held_out_1")
    return {row.id: outputs["world"].folder / row.image for row in rows.itertuples()}


@pytest.mark.parametrize("variant", ["single_scale", "multi_scale", "multi_scale_crf"])
def test_the_file_predicts_what_the_run_predicted(chain, portable, record, photos, variant):
    outputs, environment = chain
    trained, own = find_segmenter(str(portable), environment.store, "cpu"), run_segmenter(record, "cpu")
    predictor = trained_predictor(trained, (), variant != "single_scale", variant.endswith("crf"))
    for name, path in photos.items():
        image = read_image(path)
        multi_scale = variant != "single_scale"
        assert torch.equal(trained.segment(image, multi_scale), own.segment(image, multi_scale))
        wanted = load_labels_png(outputs["predict"].folder / variant / "held_out_1" / f"{name}.png")
        assert np.array_equal(list(predictor.predict(image).values())[-1], wanted)


def test_segmentation_is_exported_by_default_and_its_best_variant(chain, record, photos, tmp_path):
    outputs, _ = chain
    about = export_run(record, ExportRequest("palette", split="held_out_1"), tmp_path / "out")
    assert (about["what"], about["variant"], about["images"]) == ("segmentation", "multi_scale_crf", len(photos))
    for name in photos:
        source = outputs["predict"].folder / "multi_scale_crf" / "held_out_1" / f"{name}.png"
        assert (tmp_path / "out" / f"{name}.png").read_bytes() == source.read_bytes()
    assert json.loads((tmp_path / "out" / "export.json").read_text())["run"] == record.id


def test_pseudo_labels_are_those_with_lvc(chain, record):
    outputs, _ = chain
    about, maps = chosen_maps(record, ExportRequest("palette", what="pseudo"))
    assert about == {"what": "pseudo", "stage": "dynamic", "split": "train"} and len(maps) == 12
    assert {found.path.parent for found in maps} == {outputs["dynamic"].folder / "SegmentationClassPseudo"}
    without = record.model_copy(update={"own": {k: v for k, v in record.own.items() if k not in ("dynamic", "predict")}})
    about, maps = chosen_maps(without, ExportRequest("palette"))  # a run up to `refine`
    assert about["stage"] == "refine" and len(maps) == 12


@pytest.mark.parametrize("name", sorted(set(LABEL_FORMATS) - {"voc-submission"}))
def test_every_format_takes_a_runs_label_maps(record, tmp_path, name):
    about = export_run(record, ExportRequest(name, what="pseudo"), tmp_path / "out")
    assert about["images"] == 12 and all((tmp_path / "out" / name).exists() for name in about["holds"])
    photos = LABEL_FORMATS[name].photos
    assert not photos or len(list((tmp_path / "out" / photos).glob("*.jpg"))) == 12


def test_photos_go_along_with_any_format(chain, record, tmp_path):
    outputs, _ = chain
    export_run(record, ExportRequest("cvat", split="held_out_1", photos=True), tmp_path / "out")
    photos = {path.name: path.read_bytes() for path in (tmp_path / "out" / "images").iterdir()}
    assert (
        photos == {name: (outputs["world"].folder / "JPEGImages" / name).read_bytes() for name in photos} and len(photos) == 4
    )


def test_formats_with_photos_need_the_data(record, tmp_path):
    gone = record.model_copy(update={"own": {k: v for k, v in record.own.items() if k != "world"}, "data": str(tmp_path / "x")})
    with pytest.raises(DataError, match="photos of the run are not there any more, first .*this format takes them along"):
        export_run(gone, ExportRequest("yolo", what="pseudo"), tmp_path / "out")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (
            ExportRequest("jpeg"),
            "valid formats: palette, binary, coco, coco-results, yolo, label-studio, .*, safetensors, onnx",
        ),
        (ExportRequest("palette"), "--split is needed: this run has held_out_1, held_out_2, held_out_3"),
        (ExportRequest("palette", split="train"), "--split 'train': this run has held_out_1"),
        (ExportRequest("palette", split="held_out_1", variant="best"), "--variant 'best': this run has single_scale"),
        (ExportRequest("palette", what="pseudo", variant="multi_scale"), "pseudo labels have none"),
        (ExportRequest("palette", what="masks"), "valid: pseudo, segmentation"),
        (ExportRequest("onnx", split="held_out_1"), "leave out --what, --variant, --split and --photos"),
        (ExportRequest("voc-submission", split="held_out_1"), "must be VOC's 20"),
    ],
)
def test_wrong_wishes_are_refused_and_leave_nothing(record, tmp_path, wanted, message):
    with pytest.raises(SettingError, match=message):
        export_run(record, wanted, tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_outputs_that_are_gone_are_named(record):
    gone = record.model_copy(update={"own": record.own | {"train": "0" * 32}})
    with pytest.raises(StoreError, match="its train in .* is missing or damaged; run it again"):
        run_segmenter(gone, "cpu")


def test_a_clip_that_changed_since_is_refused(record, monkeypatch):
    monkeypatch.setattr("tasks.photos.trained.clip_fingerprint", lambda clip: "excel-tiny:other")
    with pytest.raises(ModelError, match="no longer those that run .* used"):
        run_segmenter(record, "cpu")


def test_onnx_of_a_run(record, tmp_path):
    check = export_run(record, ExportRequest("onnx"), tmp_path / "out")["check"]
    assert check["images"] > 3 and check["difference"] < 1e-4 and check["equal"] > 0.999


@pytest.mark.parametrize(("name", "file"), [("coco", "annotations.json"), ("coco-results", "dataset.json")])
def test_coco_data_keep_their_numbers(record, tmp_path, name, file):
    """A run on data in COCO layout: images and categories have the numbers of its annotation files."""
    (tmp_path / "annotations").mkdir()
    _, maps = chosen_maps(record, ExportRequest(name, what="pseudo"))
    names = run_segmenter(record, "cpu").class_names
    image = {"height": 128, "width": 128}
    document = {
        "images": [{"id": 900 + i, "file_name": f"{found.id}.png", **image} for i, found in enumerate(maps)],
        "categories": [{"id": 50 - i, "name": name} for i, name in enumerate(names)],
        "annotations": [],
    }
    (tmp_path / "annotations" / "instances_train.json").write_text(json.dumps(document))
    spec = record.spec | {"dataset": record.spec["dataset"] | {"layout": "coco"}}
    about = export_run(
        record.model_copy(update={"spec": spec, "data": str(tmp_path)}), ExportRequest(name, what="pseudo"), tmp_path / "out"
    )
    dataset = json.loads((tmp_path / "out" / file).read_text())
    assert about["numbers"] == "the data set's own"
    assert {Path(entry["file_name"]).stem: entry["id"] for entry in dataset["images"]} == {
        found.id: 900 + i for i, found in enumerate(maps)
    }
    assert {entry["name"]: entry["id"] for entry in dataset["categories"]} == {name: 50 - i for i, name in enumerate(names)}


def test_named_classes_restrict_the_segmenter(chain, portable, photos):
    _, environment = chain
    trained = find_segmenter(str(portable), environment.store, "cpu")
    image = read_image(next(iter(photos.values())))
    logits = trained.segment(image)
    index = trained.class_names.index("fish") + 1
    labels = trained_predictor(trained, ("Fish",), False, False).predict(image)["segmenter"]
    assert np.array_equal(labels, np.where((logits[index] > logits[0]).numpy(), index, 0))
    with pytest.raises(SettingError, match="unknown class 'unicorn'; the classes are: house, tree"):
        trained_predictor(trained, ("unicorn",), False, False)


def test_without_training_each_named_class_competes(small_run, photos, tmp_path):
    environment = RunEnvironment(store=tmp_path / "store")
    with_descriptions = training_free(("dog", "unicorn"), small_run, environment)
    assert "no descriptions of unicorn" in with_descriptions.notes[0] and "other classes" in with_descriptions.notes[0]
    alone = training_free(("unicorn",), small_run, environment)
    assert "enriched by nothing" in alone.notes[0]
    assert training_free(("dog",), small_run, environment).notes == ()
    steps = with_descriptions.predict(read_image(next(iter(photos.values()))))
    assert list(steps) == ["raw", "affinity", "par", "crf"] and set(np.unique(steps["raw"])) == {0, 1, 2}
    texts = {path.name for path in (environment.store / "texts").rglob("*.npy")}
    training_free(("dog", "unicorn"), small_run, environment)
    assert {path.name for path in (environment.store / "texts").rglob("*.npy")} == texts  # kept, not encoded again


def test_photos_become_files_and_bad_ones_a_reason(chain, portable, photos, tmp_path):
    _, environment = chain
    exif = Image.Exif()
    exif[0x0112] = 6
    lying = Image.open(next(iter(photos.values()))).resize((200, 90))
    lying.save(tmp_path / "phone.jpg", exif=exif)
    (tmp_path / "bad.jpg").write_bytes(b"no photo")
    predictor = trained_predictor(find_segmenter(str(portable), environment.store, "cpu"), (), False, False)
    out = tmp_path / "out"
    found = photos_of([tmp_path], out, force=False)
    bad, phone = segment_photos(found, predictor, out, side=100, steps=True)
    assert bad.error.startswith("bad.jpg: ") and not bad.files
    assert phone.size == (200, 90)  # upright
    assert load_labels_png(out / "phone.png").shape == (200, 90)
    names = {"phone.png", "phone_overlay.png", "phone_steps.png", "photos.json"}
    assert {path.name for path in out.iterdir()} == names
    about = json.loads((out / "photos.json").read_text())
    assert about["format"] == "excel-photos/1" and [("error" in photo) for photo in about["photos"]] == [True, False]
    with pytest.raises(SettingError, match="is there already; .*--force"):
        photos_of([tmp_path], out, force=False)
    assert photos_of([tmp_path], out, force=True)


def test_no_photo_is_overwritten_by_its_mask(tmp_path):
    Image.new("RGB", (20, 20)).save(tmp_path / "dog.png")
    with pytest.raises(SettingError, match="would replace the photo itself"):
        photos_of([tmp_path / "dog.png"], tmp_path, force=True)
