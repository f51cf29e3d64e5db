"""Plain VOC through the chain: trained on train_aug, seeds scored on train, every image computed once."""

import shutil

import numpy as np
import pytest

from excel_core.config.presets import preset, with_settings
from excel_core.datasets.masks import VocMaskReader
from excel_core.datasets.palette import load_labels_png
from excel_core.errors import SettingError
from excel_core.evaluation.metrics import confusion_matrix, scores
from excel_core.files import read_json
from excel_core.stores import CamReader, read_manifest
from tasks.engine.stage import RunEnvironment
from tasks.history.plan import plan_run
from tasks.history.run_record import start_record
from tasks.photos.export import ExportRequest, chosen_maps
from tasks.pipeline import pipeline
from tasks.stages.dataset import check_layout
from tests.pipeline_runs import complete, follow, follow_and_note
from tests.voc_folder import MORE, NAMES, TRAIN, VAL, write_list, write_voc

SMALL = [
    "dataset.partial=true", "clip.model=excel-tiny", "describe.n=2", "knowledge.attributes=16", "cams.image_size=48",
    "predict.image_size=48", "predict.scales=[1.0]", "predict.crf=false", "train.crop=48", "train.iterations=2",
    "train.batch_size=2", "train.dynamic_from=1", "train.own_argmax_from=1", "train.segmenter.width=16",
    "refine.par.iterations=2", "refine.crf.enabled=false", "report.gallery_images=2",
]  # fmt: skip


def _run(*settings):
    return with_settings(preset("voc"), [*SMALL, *settings])


def _built(run, environment, last="report"):
    """The run's outputs, and the names of what was not there before."""
    return follow_and_note(run, environment, last)


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    return RunEnvironment(store=tmp_path_factory.mktemp("store"), data=write_voc(tmp_path_factory.mktemp("data") / "VOC2012"))


@pytest.fixture(scope="module")
def first(environment):
    return _built(_run(), environment)


def _metrics(outputs):
    return read_json(outputs["evaluate"].folder / "metrics.json")


def test_it_is_trained_on_train_aug_with_published_labels(first):
    outputs, _ = first
    assert outputs["dataset"].result["images"] == {"train_aug": 5, "train": 3, "val": 2}
    assert outputs["dataset"].result["absent"] == {"train_aug": 10_577}
    manifest = read_manifest(outputs["dataset"].folder / "manifest.parquet")
    rows = manifest[manifest["split"] == "train_aug"].set_index("id")
    assert list(rows.index) == [*TRAIN, *MORE] and list(rows.loc["2008_000008", "labels"]) == ["horse", "person"]
    assert "absent train_aug 10577" in (outputs["report"].folder / "index.html").read_text()


def test_an_image_of_two_splits_is_computed_once(first):
    outputs, built = first
    for stage in ("cams", "dynamic"):
        assert CamReader(outputs[stage].folder).ids == [*TRAIN, *MORE]
    for stage in ("cams", "refine", "dynamic"):
        assert [name for name in built if name.split()[0] == stage] == [f"{stage} train_aug-1of1", stage]
    for stage in ("refine", "dynamic"):
        assert outputs[stage].result["images"] == 5
        for split, ids in {"train_aug": (*TRAIN, *MORE), "train": TRAIN}.items():
            listed = outputs[stage].folder / "ImageSets" / "Segmentation" / f"{split}.txt"
            assert listed.read_text().split() == list(ids)


def test_seeds_are_scored_on_train_alone(first, environment):
    outputs, built = first
    results = _metrics(outputs)["results"]
    assert {key.rpartition(".")[0] for key in results} == {"seeds.static.train", "seeds.lvc.train", "segmentation.val"}
    assert {"evaluate static-train-in-train_aug-1of1", "evaluate lvc-train-in-train_aug-1of1"} < set(built)
    reader, folder = VocMaskReader(environment.data), outputs["dynamic"].folder / "SegmentationClassPseudo"
    matrix = sum(confusion_matrix(reader.read(i, 48, 48), load_labels_png(folder / f"{i}.png"), 21) for i in TRAIN)
    result = results["seeds.lvc.train.par"]
    assert (result["protocol"]["split"], result["protocol"]["images"]) == ("train", 3)
    assert result["miou"] == pytest.approx(scores(matrix, ("background", *NAMES)).miou)
    assert [row["id"] for row in read_json(outputs["evaluate"].folder / "examples.json")["train"]]


def test_a_seed_split_more_costs_its_own_images(first, environment):
    """Scores of train are found; those of val's seeds are made in val's own shard."""
    outputs, built = _built(_run("dataset.seed_splits=[train, val]"), environment)
    made = {f"{stage} val-1of1" for stage in ("cams", "refine", "dynamic")}
    joined = {"dataset", "cams", "refine", "dynamic", "evaluate", "report"}
    assert set(built) == made | joined | {"evaluate static-val-1of1", "evaluate lvc-val-1of1"}
    assert CamReader(outputs["cams"].folder).ids == [*TRAIN, *MORE, *VAL]
    results, before = _metrics(outputs)["results"], _metrics(first[0])["results"]
    assert results["seeds.static.val.par"]["protocol"]["images"] == 2
    assert all(results[key]["miou"] == before[key]["miou"] for key in before)


def test_no_seed_split_and_no_masks_of_one(first, environment):
    outputs, built = _built(_run("dataset.seed_splits=[]"), environment)
    assert {key.split(".")[0] for key in _metrics(outputs)["results"]} == {"segmentation"}
    assert not any(name.startswith(("cams", "train", "predict")) for name in built)
    outputs, _ = _built(_run("dataset.seed_splits=[train_aug]"), environment)
    metrics = _metrics(outputs)
    assert metrics["results"]["seeds.static.train_aug.par"]["protocol"]["images"] == 3
    skipped = metrics["skipped"]["train_aug: 2 of 5 images"]
    assert skipped == "no mask in SegmentationClass or SegmentationClassAug"


def test_the_list_of_a_seed_split_touches_lists_and_scores_alone(first, environment, tmp_path):
    data = shutil.copytree(environment.data, tmp_path / "VOC2012")
    elsewhere = RunEnvironment(store=shutil.copytree(environment.store, tmp_path / "store"), data=data)
    _built(_run(), elsewhere)
    write_list(data, "train", TRAIN[:2])
    steps = {step.name: step.why for step in plan_run(pipeline(_run(), elsewhere))}
    assert steps["dataset"].startswith("data, prompts or weights outside")
    outputs, built = _built(_run(), elsewhere)
    scored = {"evaluate static-train-in-train_aug-1of1", "evaluate lvc-train-in-train_aug-1of1"}
    assert set(built) == {"dataset", "refine", "dynamic", "evaluate", *scored, "report"}
    assert (outputs["refine"].folder / "ImageSets" / "Segmentation" / "train.txt").read_text().split() == list(TRAIN[:2])
    assert _metrics(outputs)["results"]["seeds.static.train.par"]["protocol"]["images"] == 2


def test_pseudo_labels_of_either_split_are_exported(first, environment):
    record = start_record("excel", _run(), environment)
    record.own = {name: output.key for name, output in first[0].items()}
    with pytest.raises(SettingError, match="--split is needed: this run has train_aug, train$"):
        chosen_maps(record, ExportRequest("palette", what="pseudo"))
    for split, ids in {"train_aug": [*TRAIN, *MORE], "train": list(TRAIN)}.items():
        about, maps = chosen_maps(record, ExportRequest("palette", what="pseudo", split=split))
        assert about["split"] == split and [found.id for found in maps] == ids
        assert all(np.array_equal(load_labels_png(found.path).shape, (48, 48)) for found in maps)


def test_the_source_of_labels_is_part_of_the_data_set(environment):
    one, other = (
        _built(_run(*settings), environment, "dataset")[0]["dataset"] for settings in ((), ("dataset.labels=folder",))
    )
    assert one.key != other.key and one.content != other.content
    manifest = read_manifest(other.folder / "manifest.parquet").set_index("id")
    assert list(manifest[manifest["split"] == "train_aug"].loc["2008_000008", "labels"]) == ["horse"]


@pytest.mark.parametrize(
    ("name", "setting", "message"),
    [
        ("coco", "dataset.partial=true", "dataset.partial is for layout voc"),
        ("voc", "dataset.test_splits=[train]", "train is a train, seed or validation split already"),
        ("voc", "dataset.val_splits=[val, val]", r"dataset.val_splits: \[val, val\] names a split twice"),
        ("demo", "dataset.seed_splits=[held_out_9]", "no split 'held_out_9'; valid: train, held_out_1"),
    ],
)
def test_wrong_splits_are_refused(name, setting, message):
    with pytest.raises(SettingError, match=message):
        check_layout(with_settings(preset(name), [setting]).dataset)


def test_the_world_is_keyed_by_what_it_draws_alone(small_run, chain):
    """The setting of another layout changes no stage of it."""
    other = with_settings(small_run, ["dataset.labels=folder"])
    outputs = follow(other, chain[1], "dataset", complete)
    assert outputs["dataset"] == chain[0]["dataset"]
