"""The stage `score`, and two runs compared by it: which run is compared with, what is compared, and who opens masks for it."""

import json
import shutil
from dataclasses import replace

import pandas as pd
import pytest
import torch.nn.functional as F

from excel_core.config.presets import with_settings
from excel_core.datasets.palette import load_labels_png
from excel_core.errors import MaskLeakError, SettingError, StoreError
from excel_core.evaluation.metrics import class_iou, confusion_matrix
from excel_core.files import read_json
from excel_core.stores import read_knowledge
from excel_core.text.new_prompts import new_prompts
from tasks.engine.executor import build_stage
from tasks.engine.stage import Job, MaskAccess, RunEnvironment
from tasks.history.earlier_run import MADE, EarlierRun, earlier_run, named_run
from tasks.history.garbage import find_garbage
from tasks.history.garbage_removal import remove_garbage
from tasks.history.run_record import start_record
from tasks.history.score_change import ScoredRun, change_file, read_change, write_change, write_no_change
from tasks.history.verify import verify_store
from tasks.pipeline import STAGES
from tests.mask_watch import opened_masks
from tests.pipeline_runs import complete, files_made, files_named, follow, follow_and_note, follow_and_watch_masks, recorded

STEPS = ("raw", "affinity", "par", "crf")


@pytest.fixture(scope="module")
def environment(chain, tmp_path_factory):
    """A store of this file alone, with the small run's outputs."""
    store = tmp_path_factory.mktemp("scored") / "store"
    shutil.copytree(chain[1].store, store, symlinks=True, ignore=shutil.ignore_patterns("records", "report*", "ablation*"))
    return RunEnvironment(store=store)


@pytest.fixture(scope="module")
def edited(small_run, tmp_path_factory):
    """The small run with prompts of its own: `kite` is called otherwise, and one text of `boat` is another."""
    made = new_prompts(str(tmp_path_factory.mktemp("prompts") / "mine"), "world")
    made.classes.write_text(made.classes.read_text().replace('synonyms: "kite"', 'synonyms: "toaster oven"'))
    texts = json.loads(made.descriptions.read_text())
    texts["classes"]["boat"][0] = "a clean origami boat. it has the wings of a plane"
    made.descriptions.write_text(json.dumps(texts))
    return with_settings(small_run, [f"dataset.prompts={made.classes}"])


def _recorded(run, environment):
    """A complete run of the flow `score` → its record and outputs."""
    return recorded(run, environment, "score", "score")


@pytest.fixture(scope="module")
def before(small_run, environment):
    return _recorded(small_run, environment)


@pytest.fixture(scope="module")
def after(edited, environment, before):
    """Recorded after `before`."""
    return _recorded(edited, environment)


def _scored(recorded, run, environment):
    record, outputs = recorded
    inputs = {name: outputs[name] for name in STAGES["score"].dependencies(run, environment)}
    job = Job(STAGES["score"], run, environment, inputs)
    return ScoredRun(record.id, {stage: outputs[stage] for stage in MADE}, job, outputs["score"])


@pytest.fixture(scope="module")
def change(before, after, small_run, edited, environment):
    """(comparison, its file, masks that it opened)."""
    path = change_file(environment.store, after[0].id)
    earlier = earlier_run(environment.store, after[0].id, edited, after[1])
    assert isinstance(earlier, EarlierRun) and earlier.id == before[0].id
    with opened_masks() as masks:
        write_change(earlier, _scored(before, small_run, environment), _scored(after, edited, environment), path)
    return read_change(path), path, masks


def test_it_gives_the_numbers_of_the_evaluation(before, chain):
    score = read_json(before[1]["score"].folder / "score.json")
    metrics = read_json(chain[0]["evaluate"].folder / "metrics.json")
    assert score["format"] == "excel-score/1" and list(score["results"]) == [f"seeds.static.train.{step}" for step in STEPS]
    assert all(metrics["results"][key] == result for key, result in score["results"].items())
    assert before[1]["score"].result["miou"] == {key: round(result["miou"], 4) for key, result in score["results"].items()}
    assert files_made(before[1]["score"]) == files_named("score")


def test_it_is_cached_and_hangs_on_label_maps_alone(small_run, environment, before):
    assert follow_and_note(small_run, environment, "score")[1] == []
    other = with_settings(small_run, ["train.iterations=5", "evaluate.kinds=[segmentation]", "predict.scales=[1.0]"])
    assert follow_and_note(other, environment, "score")[1] == []
    few = with_settings(small_run, ["evaluate.max_images=3"])
    built = follow_and_note(few, environment, "score")[1]
    assert built[-1] == "score" and all(name.startswith("score") for name in built)


def test_it_trains_and_opens_masks_by_its_own_name_alone(small_run, environment, before, tmp_path):
    store = shutil.copytree(environment.store, tmp_path / "store", symlinks=True, ignore=shutil.ignore_patterns("score*"))
    outputs = follow(small_run, RunEnvironment(store=store), "dataset")  # what was copied is verified once, its masks too
    outputs, masks = follow_and_watch_masks(small_run, RunEnvironment(store=store), "score")
    assert list(outputs) == ["world", "dataset", "describe", "knowledge", "cams", "refine", "score"]
    assert {name for name, found in masks.items() if found} == {"score"} and len(masks["score"]) == 12
    assert STAGES["score"].masks is MaskAccess.ALWAYS
    job = _scored(before, small_run, environment).job
    blind = replace(job, stage=replace(job.stage, masks=MaskAccess.NEVER), environment=RunEnvironment(store=tmp_path / "new"))
    with pytest.raises(MaskLeakError, match="score: .*only evaluation may see masks"):
        build_stage(blind)


def test_the_comparison_opens_the_masks_that_it_shows(change):
    document, path, masks = change
    assert {mask.rpartition("/")[2] for mask in masks} == {f"{entry['id']}.png" for entry in document["images"]}
    assert 0 < len(document["images"]) <= 6 and path.with_suffix(".png").read_bytes().startswith(b"\x89PNG")


def test_the_comparison_obeys_the_stage(before, after, small_run, edited, environment, tmp_path, monkeypatch):
    """Masks are opened under the name of `score`: where that stage may not, nobody may for it."""
    sides = [_scored(*side, environment) for side in ((before, small_run), (after, edited))]
    blind = [replace(side, job=replace(side.job, stage=replace(side.job.stage, masks=MaskAccess.NEVER))) for side in sides]
    with pytest.raises(MaskLeakError, match="score: "):
        write_change(EarlierRun(before[0].id, small_run, before[1]), *blind, tmp_path / "change.json")
    assert not list(tmp_path.iterdir())


def test_edits_and_movements_are_of_the_two_runs(change, before, after):
    classes = {entry["class"]: entry for entry in change[0]["classes"]}
    assert {name for name, entry in classes.items() if entry["edited"]} == {"kite", "boat"}
    assert classes["kite"]["prompt"] == ["a clean origami kite.", "a clean origami toaster oven."]
    assert classes["boat"]["added"] == ["a clean origami boat. it has the wings of a plane"]
    assert len(classes["boat"]["removed"]) == 1
    old, new = (read_knowledge(side[1]["knowledge"].folder / "knowledge.zarr").knowledge.text[:10] for side in (before, after))
    for entry, cosine in zip(change[0]["classes"], F.cosine_similarity(old, new, dim=1).tolist(), strict=True):
        assert entry["moved"] == pytest.approx(1 - cosine, abs=1e-6) and entry["noise"] > 0
    assert classes["kite"]["moved"] > 10 * classes["kite"]["noise"]
    assert (change[0]["settings"], change[0]["code"], change[0]["left_out"]) == ([], [], {})


def test_scores_are_those_of_the_label_maps(change, before, after):
    """IoU of each class, counted here from the files."""
    first, last = change[0]["results"]
    assert (first["step"], last["step"]) == ("raw", "crf") and first["protocol"]["images"] == 12
    truths = before[1]["world"].folder / "SegmentationClass"
    for key, (_, outputs) in (("a", before), ("b", after)):
        maps = sorted((outputs["refine"].folder / "SegmentationClassPseudo").glob("*.png"))
        total = sum(confusion_matrix(load_labels_png(truths / path.name), load_labels_png(path), 11) for path in maps)
        iou = dict(zip(("background", *(entry["class"] for entry in change[0]["classes"])), class_iou(total), strict=True))
        for name, scores in last["classes"].items():
            assert scores[key] == pytest.approx(iou[name]) and scores["low"] <= scores["high"]
    held = pd.Series([value for path in maps for value in set(load_labels_png(truths / path.name).flat)]).value_counts()
    assert [scores["images"] for scores in last["classes"].values()] == [
        held[value] for value in sorted(held.index) if value < 11
    ]


def test_the_newest_run_that_differs_in_texts_alone_is_compared_with(before, after, small_run, edited, environment):
    """Not a newer one with other settings, nor one with the same outputs."""
    other, _ = _recorded(with_settings(small_run, ["refine.crf.iterations=1"]), environment)
    again, outputs = _recorded(edited, environment)
    assert earlier_run(environment.store, again.id, edited, outputs).id == before[0].id
    another = with_settings(edited, ["refine.crf.iterations=2"])  # nobody else's settings: the newest of all
    record, outputs = _recorded(another, environment)
    assert earlier_run(environment.store, record.id, another, outputs).id == again.id
    named = earlier_run(environment.store, record.id, another, outputs, against=other.id)
    assert named.id == other.id
    path = change_file(environment.store, record.id)
    other_outputs = follow(other.run, environment, "score", complete)
    sides = [_scored((other, other_outputs), other.run, environment), _scored((record, outputs), another, environment)]
    write_change(named, *sides, path)
    assert {entry["field"] for entry in read_change(path)["settings"]} == {"refine.crf.iterations"}


def test_a_run_to_compare_with_is_refused_with_a_reason(environment, small_run, before):
    failed = start_record("score", small_run, environment)
    failed.end("failed", "why")
    for name, words in ((failed.id, "is not complete: failed"), ("nobody", "no run named 'nobody'; runs: ")):
        with pytest.raises(SettingError, match=words):
            named_run(environment.store, name)
    cams = start_record("cams", small_run, environment)
    cams.note_own(follow(small_run, environment, "cams", complete))
    cams.end("complete")
    with pytest.raises(SettingError, match=f"run {cams.id} has no refine; it has world, dataset"):
        named_run(environment.store, cams.id)
    for record in (failed, cams):
        record.path.unlink()


@pytest.fixture
def small_store(environment, before, tmp_path):
    """A store with the outputs that a score needs, and no record."""
    comparisons = shutil.ignore_patterns("2*.json", "2*.png")
    for stage in ("world", "dataset", "describe", "knowledge", "cams", "refine", "score"):
        for kind in (stage, f"{stage}-parts"):
            if (environment.store / kind).is_dir():
                shutil.copytree(environment.store / kind, tmp_path / "store" / kind, ignore=comparisons)
    return RunEnvironment(store=tmp_path / "store")


def test_a_run_that_cannot_be_compared_is_named_with_its_reason(small_store, small_run, edited, tmp_path):
    first, _ = _recorded(edited, small_store)
    record, outputs = _recorded(small_run, small_store)
    shutil.rmtree(first.output("refine"))
    assert earlier_run(small_store.store, record.id, small_run, outputs) == {
        first.id: f"run {first.id}: its refine was removed or damaged; run it again to compare with it"
    }
    renamed = new_prompts(str(tmp_path / "renamed"), "world").classes
    renamed.write_text(renamed.read_text().replace("name: kite", "name: glider"))
    found = renamed.with_suffix(".json")
    found.write_text(found.read_text().replace('"kite": [', '"glider": [').replace("origami kite", "origami glider"))
    fresh = RunEnvironment(store=tmp_path / "fresh")
    few = ["dataset.train_scenes=4", "dataset.val_scenes=1"]
    first, _ = _recorded(with_settings(small_run, few), fresh)
    run = with_settings(small_run, [*few, f"dataset.prompts={renamed}"])
    # The world's own classes are fixed, so the other names stand in the outputs alone.
    outputs = follow(first.run, fresh, "score", complete) | follow(run, fresh, "describe")
    (reason,) = earlier_run(fresh.store, "new", run, outputs).values()
    assert "has other classes, or others in their order" in reason


def test_photos_that_one_run_lacks_are_left_out_and_counted(before, small_run, environment, tmp_path):
    fewer = with_settings(small_run, ["dataset.max_images=8"])
    recorded = _recorded(fewer, environment)
    earlier = EarlierRun(before[0].id, small_run, before[1])
    sides = [_scored(*side, environment) for side in ((before, small_run), (recorded, fewer))]
    path = tmp_path / "change.json"
    write_change(earlier, *sides, path)
    document = read_change(path)
    assert document["left_out"] == {"4 images of train": "only one of the runs scored them, or their photo was changed"}
    assert all(result["protocol"]["images"] == 8 for result in document["results"])
    assert {scores["difference"] for result in document["results"] for scores in result["classes"].values()} == {0.0}
    assert document["picture"] == "" and document["images"] == [] and [path] == list(tmp_path.iterdir())
    assert {entry["field"] for entry in document["settings"]} == {"dataset.max_images"}


def test_damage_of_a_comparison_is_seen_and_it_goes_with_its_run(small_store, small_run, edited):
    store = small_store.store
    first, second = _recorded(small_run, small_store), _recorded(edited, small_store)
    write_no_change(_scored(first, small_run, small_store), {}, change_file(store, first[0].id))
    path = change_file(store, second[0].id)
    sides = [_scored(*side, small_store) for side in ((first, small_run), (second, edited))]
    write_change(EarlierRun(first[0].id, small_run, first[1]), *sides, path)
    check = verify_store(store)
    assert not check.damaged and not check.unknown
    path.with_suffix(".png").write_bytes(b"half")
    with pytest.raises(StoreError, match="png: is missing or damaged"):
        read_change(path)
    assert path in verify_store(store).damaged and not path.exists()
    write_change(EarlierRun(first[0].id, small_run, first[1]), *sides, path)
    first[0].path.unlink()
    garbage = find_garbage(store)
    assert change_file(store, first[0].id) in {item.path for item in garbage}
    remove_garbage(store, garbage)
    assert not change_file(store, first[0].id).exists() and read_change(path)["before"] == first[0].id
