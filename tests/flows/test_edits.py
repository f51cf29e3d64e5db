"""An edit runs the task runs it touches and no other: stages, classes, shards of images, on a real Prefect server."""

import json
import os
import shutil
from contextlib import contextmanager
from pathlib import Path

import pytest
from PIL import Image

from excel_core.config.presets import preset, with_settings
from excel_core.files import read_json
from excel_core.text.class_sets import descriptions_file, prompts_file
from excel_core.world.voc_layout import scene_id, write_world
from flows.excel import excel
from tasks.engine.stage import RunEnvironment
from tasks.history.run_record import read_records
from tasks.inputs.images import shard_index
from tasks.pipeline import pipeline
from tests.flows.server import task_runs

pytestmark = pytest.mark.usefixtures("prefect_server")

SETTINGS = [
    "dataset.train_split=train", "dataset.val_splits=[held_out]", "clip.model=excel-tiny", "knowledge.attributes=16",
    "shards.images=5",
    "cams.image_size=64", "predict.image_size=64", "predict.scales=[1.0]", "refine.par.iterations=2",
    "train.crop=64", "train.iterations=2", "train.batch_size=2", "train.dynamic_from=1", "train.own_argmax_from=1",
    "train.segmenter.width=16", "report.gallery_images=2",
]  # fmt: skip
TRAIN, LATER, HELD_OUT = range(1, 9), 9, range(501, 507)
SCORED = {"static": "refine", "lvc": "dynamic", "segmentation": "predict"}  # kind of label maps -> the stage that makes them
TRAINED = ("train", "dynamic", "predict", "evaluate", "report")
EVERYTHING_SEEN = ("cams", "refine", *TRAINED)


class Edited:
    """A data folder, prompts and a store that are edited one thing at a time; `run` says what was executed."""

    def __init__(self, folder: Path) -> None:
        self.data, self.store, self.count = folder / "data", folder / "store", 0
        self.scored: set[tuple[str, str]] = set()  # part of evaluate, content of its label maps
        self.newly_scored: set[str] = set()  # parts of evaluate whose label maps the last run made as none before it
        self.data.mkdir()
        write_world(self.data, {"train": [*TRAIN, LATER], "held_out": HELD_OUT}, 64)
        self.listed = self.data / "ImageSets" / "Segmentation" / "train.txt"
        self.listed.write_text(self.listed.read_text().replace(f"{scene_id(LATER)}\n", ""))
        self.prompts, self.descriptions = folder / "classes.yaml", folder / "classes.json"
        shutil.copy(prompts_file("world"), self.prompts)
        shutil.copy(descriptions_file("world"), self.descriptions)

    def run(self, *settings: str) -> dict[str, set[str]]:
        """Run → the task runs that were executed, not cached: {stage: its parts, "" for the stage itself}."""
        name, self.count = f"edit {self.count} of {self.store}", self.count + 1
        every = [f"dataset.prompts={self.prompts}", *SETTINGS, *settings]
        excel.with_options(flow_run_name=name)("voc", settings=every, data=str(self.data), store=str(self.store))
        self._note_label_maps()
        executed: dict[str, set[str]] = {}
        for run in task_runs(name):
            if run.state.name == "Completed" and not run.name.startswith("artifacts"):
                stage, _, part = run.name.partition(" ")
                executed.setdefault(stage, set()).add(part)
        return executed

    def _note_label_maps(self) -> None:
        record = read_records(self.store)[-1]
        made = {
            (f"{kind}-{shard}", content)
            for kind, stage in SCORED.items()
            for shard, content in read_json(record.output(stage) / "stage.json")["output"]["parts"].items()
        }
        self.newly_scored = {part for part, _ in made - self.scored}
        self.scored |= made


@pytest.fixture(scope="module")
def edited(tmp_path_factory, prefect_server):
    return Edited(tmp_path_factory.mktemp("edited"))


@pytest.fixture(scope="module")
def full(edited):
    """What the first run executes: everything."""
    executed = edited.run()
    assert executed["evaluate"] == {"", *edited.newly_scored}
    return executed


@contextmanager
def _undone(*paths):
    """Give the files their bytes and times back afterwards."""
    kept = {path: (path.read_bytes(), path.stat()) for path in paths}
    try:
        yield
    finally:
        for path, (content, status) in kept.items():
            path.write_bytes(content)
            os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def _expected(edited, full, stages, **parts):
    """Everything of `stages`, but of some only the given parts; of `evaluate`, the parts whose label maps came out
    as never before."""
    expected = {stage: full[stage] for stage in stages} | parts
    if "evaluate" in stages:
        expected["evaluate"] = {"", *edited.newly_scored}
    return expected


def _check(edited, full, stages, *settings, change=lambda: None, **parts):
    """Run with the edit, compare what was executed, and undo it."""
    with _undone(edited.prompts, edited.descriptions, edited.listed):
        change()
        executed = edited.run(*settings)
    assert executed == _expected(edited, full, stages, **parts)


def test_the_first_run_executes_everything(edited, full):
    shards = {f"train-{i + 1}of2" for i in range(2)}
    assert full["cams"] == full["refine"] == full["dynamic"] == {"", *shards}
    assert full["describe"] == {"", *_classes(edited)}
    held_out = {f"held_out-{i + 1}of2" for i in range(2)}
    assert full["predict"] == {"", *held_out}
    scored = {f"{kind}-{shard}" for kind in ("static", "lvc") for shard in shards} | {f"segmentation-{s}" for s in held_out}
    assert full["evaluate"] == {"", *scored}
    assert full["train"] == full["knowledge"] == full["dataset"] == full["report"] == {""}
    assert edited.run() == {}


def _classes(edited):
    return list(json.loads(edited.descriptions.read_text())["classes"])


def _rewrite_description(edited, detail):
    """Half of what is said of a class: one sentence of 20 may move CAMs and yet no label of the few crops trained on."""
    found = json.loads(edited.descriptions.read_text())
    texts = found["classes"]["house"]
    texts[: len(texts) // 2] = [f"a clean origami house. it has {detail} {i}." for i in range(len(texts) // 2)]
    edited.descriptions.write_text(json.dumps(found))


def test_prompt_of_one_class(edited, full):
    stages = ("knowledge", *EVERYTHING_SEEN)
    _check(edited, full, stages, change=lambda: _rewrite_description(edited, "a round green window"), describe={"", "house"})


def test_prompt_of_one_class_without_enrichment_leaves_the_cams_alone(edited, full):
    """T_c does not change, so nothing that looks at images runs; only the report shows the texts."""
    edited.run("knowledge.mode=none")
    with _undone(edited.descriptions):
        _rewrite_description(edited, "a wooden wheel at its side")
        executed = edited.run("knowledge.mode=none")
    assert executed == {"describe": {"", "house"}, "knowledge": {""}, "report": {""}}


def test_synonym(edited, full):
    stages = ("knowledge", *EVERYTHING_SEEN)
    _check(edited, full, stages, change=lambda: _synonym(edited), describe={""})


def _synonym(edited):
    text = edited.prompts.read_text()
    assert 'synonyms: "house"' in text
    edited.prompts.write_text(text.replace('synonyms: "house"', 'synonyms: "castle palace"'))


def test_background_prompt(edited, full):
    change = lambda: edited.prompts.write_text(edited.prompts.read_text().rstrip() + "\n  - marble statue\n")  # noqa: E731
    _check(edited, full, ("knowledge", *EVERYTHING_SEEN), change=change, describe={""})


@pytest.mark.parametrize(
    ("setting", "stages"),
    [
        ("describe.n=10", ("describe", "knowledge", *EVERYTHING_SEEN)),
        ("knowledge.attributes=8", ("knowledge", *EVERYTHING_SEEN)),
        ("cams.calibration.depth=2", EVERYTHING_SEEN),
        ("refine.affinity.threshold=0.4", ("refine", *TRAINED)),
        ("refine.affinity.layers=2", EVERYTHING_SEEN),  # CAMs are stored with their attention
        ("refine.crf.bilateral_weight=9", ("refine", "dynamic", "predict", "evaluate", "report")),  # training has no CRF
        ("train.crop_rule=random", TRAINED),
        ("train.learning_rate=0.01", TRAINED),
        ("predict.scales=[0.5, 1.0]", ("predict", "evaluate", "report")),
        ("report.gallery_images=1", ("report",)),
        ("report.images=2", ("evaluate", "report")),  # evaluation copies the truths that the explorer shows
        ("train.workers=1", ("report",)),  # how fast, not what; the report shows the whole spec
    ],
)
def test_setting(edited, full, setting, stages):
    _check(edited, full, stages, setting)


def test_keeping_segmenters_adds_the_curve(edited, full):
    """The weights are the same, so nothing is scored again."""
    stages = [stage for stage in TRAINED if stage != "evaluate"]
    _check(edited, full, stages, "train.keep_every=1", curve={"", *(f"held_out-{i + 1}of2" for i in range(2))})


def test_random_crops_look_at_no_label(edited, full):
    """Then training needs neither CAMs nor their refinement: it makes the labels of its crops itself."""
    environment = RunEnvironment(store=edited.store, data=edited.data)
    runs = {rule: with_settings(preset("voc"), [*SETTINGS, f"train.crop_rule={rule}"]) for rule in ("pseudo", "random")}
    needed = {rule: set(pipeline(run, environment, "train").own_ids) for rule, run in runs.items()}
    assert needed["random"] == {"dataset", "describe", "knowledge", "train"}
    assert needed["pseudo"] == needed["random"] | {"cams", "refine"}


def _image(edited, number):
    return edited.data / "JPEGImages" / f"{scene_id(number)}.jpg"


def _mirror(path):
    with Image.open(path) as image:
        mirrored = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    mirrored.save(path, quality=95)


def test_one_training_image_replaced(edited, full):
    path = _image(edited, TRAIN[2])
    one = {"", f"train-{shard_index(path.stem, 2) + 1}of2"}
    with _undone(path):
        change = lambda: _mirror(path)  # noqa: E731
        _check(edited, full, TRAINED, change=change, dataset={""}, cams=one, refine=one)


def test_one_training_image_added(edited, full):
    one = {"", f"train-{shard_index(scene_id(LATER), 2) + 1}of2"}
    change = lambda: edited.listed.write_text(f"{edited.listed.read_text()}{scene_id(LATER)}\n")  # noqa: E731
    _check(edited, full, TRAINED, change=change, dataset={""}, cams=one, refine=one)


def test_one_held_out_image_replaced(edited, full):
    path = _image(edited, HELD_OUT[0])
    with _undone(path):
        _mirror(path)
        executed = edited.run()
    shard = f"held_out-{shard_index(path.stem, 2) + 1}of2"
    evaluated = {"", f"segmentation-{shard}"}
    assert executed == {"dataset": {""}, "predict": {"", shard}, "evaluate": evaluated, "report": {""}}
