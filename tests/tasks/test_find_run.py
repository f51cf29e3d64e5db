"""One notion of a run: which one `latest` and a name mean, which ones `excel gc` keeps, and where they are by name."""

import os
import re
import shutil

import pytest

from excel_core.config.presets import with_settings
from excel_core.errors import SettingError
from tasks.engine.stage import RunEnvironment
from tasks.history.changed_settings import changed_settings
from tasks.history.find_run import find_any, find_record, run_with
from tasks.history.garbage import find_garbage
from tasks.history.garbage_removal import remove_garbage
from tasks.history.kept_runs import kept_runs, pin
from tasks.history.named_folder import folder_of, link_outputs, write_config
from tasks.history.run_record import read_records, start_record
from tasks.history.run_summary import run_summary
from tasks.history.verify import verify_store
from tasks.photos.export import ExportRequest
from tasks.photos.exported_run import find_exported

FULL = ("world", "dataset", "describe", "knowledge", "cams", "refine", "train", "dynamic", "predict", "evaluate", "report")
CAMS = FULL[:5]


@pytest.fixture
def environment(chain, tmp_path):
    """A store of its own with links to the small run's outputs, and no record."""
    store = shutil.copytree(
        chain[1].store, tmp_path / "store", copy_function=os.link, ignore=shutil.ignore_patterns("records", ".*.lock")
    )
    return RunEnvironment(store=store)


@pytest.fixture
def recorded(chain, environment, small_run):
    """Make a record of a run with some of the outputs → the record."""

    def make(name, stages=FULL, flow="excel", state="complete", run=small_run, place=environment):
        record = start_record(flow, run, place, flow_run_name=name, config="preset: demo\n")
        write_config(record)
        outputs = {stage: chain[0][stage] for stage in stages}
        for output in outputs.values():
            record.use(output, cached=False)
        if state == "complete":
            record.note_own(outputs)
            link_outputs(record)
        if state != "running":
            record.end(state)
        return record

    return make


def test_latest_is_the_newest_complete_run_that_holds_what_is_asked(environment, recorded):
    store = environment.store
    full = recorded("full")
    cams = recorded("look", CAMS, "cams")
    recorded("broken", state="failed")
    assert find_record(store, "latest").id == cams.id
    for needs in (["train", "knowledge"], ["evaluate"], ["dynamic or refine"], ["predict", "dataset"]):
        assert find_record(store, "latest", needs).id == full.id
    assert find_exported(store, "latest", ExportRequest("safetensors")).id == full.id
    assert find_exported(store, "latest", ExportRequest("palette")).id == full.id
    seeds = recorded("seeds", FULL[:6], "refine")
    assert find_exported(store, "latest", ExportRequest("palette")).id == full.id  # segmentations come first
    assert find_exported(store, "latest", ExportRequest("palette", what="pseudo")).id == seeds.id
    assert find_exported(store, "seeds", ExportRequest("palette")).id == seeds.id
    with pytest.raises(
        SettingError, match=re.escape(f"has no complete run with curve; runs: full ({full.id}): excel complete;")
    ):
        find_record(store, "latest", ["curve"])


def test_a_run_that_does_not_serve_is_refused_with_those_that_do(environment, recorded):
    store = environment.store
    full, look = recorded("full"), recorded("look", CAMS, "cams")
    failed = recorded("broken", state="failed")
    listed = re.escape(f"complete runs with train: full ({full.id}): excel complete")
    with pytest.raises(SettingError, match=rf"run look \({look.id}\) has no train; it has world, .*cams; {listed}$"):
        find_record(store, "look", ["train"])
    with pytest.raises(SettingError, match=rf"run broken \({failed.id}\) is not complete: failed; {listed}"):
        find_record(store, failed.id, ["train"])
    assert find_any(store, "broken").id == find_any(store, "latest").id == failed.id
    with pytest.raises(SettingError, match="has no run named 'x'; runs: full"):
        find_record(store, "x")
    shutil.rmtree(store / "train" / full.own["train"])
    with pytest.raises(SettingError, match="run full .* has lost its train, which is removed or damaged; run it again"):
        find_record(store, "full", ["train"])


def test_of_two_runs_of_one_name_the_newer_serves_where_they_led_to_the_same(environment, recorded):
    store = environment.store
    recorded("twice", state="crashed")
    first, second = recorded("twice"), recorded("twice")
    assert find_record(store, "twice").id == second.id != first.id
    assert run_with(store, "report", first.own["report"]).id == second.id and run_with(store, "report", "x") is None
    recorded("twice", CAMS)
    with pytest.raises(SettingError, match="several runs named 'twice'"):
        find_record(store, "twice")
    assert find_record(store, "twice", ["train"]).id == second.id


def test_gc_keeps_the_newest_of_each_kind_of_work_and_what_is_pinned(environment, recorded, small_run):
    store = environment.store
    full = recorded("full")
    recorded("look", CAMS, "cams")
    remove_garbage(store, find_garbage(store))  # what other tests left in the store that was copied
    kinds = {item.kind for item in find_garbage(store, keep=1)}
    assert not kinds & {"records", "train", "predict", "report"}  # one look at CAMS took none of the full run's
    small = with_settings(small_run, ["dataset.max_images=2"])
    trial = recorded("trial", run=small)
    other = recorded("other", place=environment.model_copy(update={"data": store}))
    pinned = recorded("best")
    pin(find_record(store, "best"), True)
    newest, crashed = recorded("newest"), recorded("crashed", state="crashed")

    def kept(keep):
        return {record.flow_run_name for record in kept_runs(read_records(store), keep)}

    assert kept(1) == {"look", "trial", "other", "best", "newest", "crashed"} and kept(None) == kept(1) | {"full"}
    assert kept(3) == kept(None)
    (gone,) = [item for item in find_garbage(store, keep=1) if item.kind == "records"]
    assert gone.path == full.path and gone.why == f"{full.title}, excel, complete: newer runs of its kind are kept"
    pin(find_record(store, "best"), False)
    assert kept(1) == {"look", "trial", "other", "newest", "crashed"}
    recorded("last")
    assert kept(1) == {"look", "trial", "other", "last"}  # a complete run followed the crashed one
    assert len({record.id for record in (trial, other, pinned, newest, crashed)}) == 5
    running = recorded("running", state="running")
    with pytest.raises(SettingError, match="running .* is at work; pin it when it has ended"):
        pin(running, True)


def test_results_are_found_by_name(environment, recorded, monkeypatch):
    store = environment.store
    one, two = recorded("calm owl/7"), recorded("calm owl/7")
    assert folder_of(one) == store / "runs" / "by-name" / "calm-owl-7"
    assert folder_of(two).name == f"calm-owl-7-{two.id[-6:]}"
    assert {path.name for path in folder_of(one).iterdir()} == {*FULL, "config.yaml"}
    page = folder_of(one) / "report" / "index.html"
    assert page.samefile(store / "report" / one.own["report"] / "index.html")
    assert not os.path.isabs(os.readlink(folder_of(one) / "report"))
    moved = store.rename(store.with_name("moved"))
    assert (moved / "runs" / "by-name" / "calm-owl-7" / "train" / "segmenter.safetensors").is_file()
    moved.rename(store)

    def refuse(*arguments, **named):
        raise OSError("no links here")

    monkeypatch.setattr(os, "symlink", refuse)
    plain = recorded("")
    assert folder_of(plain).name == plain.id
    told = (folder_of(plain) / "train.txt").read_text().strip()
    assert (folder_of(plain) / told / "segmenter.safetensors").is_file() and not (folder_of(plain) / "train").exists()
    check = verify_store(store)
    assert not check.unknown and not check.damaged


def test_a_name_goes_with_its_run_and_no_output_goes_through_it(environment, recorded):
    store = environment.store
    old, new = recorded("old"), recorded("new")
    remove_garbage(store, find_garbage(store, keep=1), keep=1)
    assert [record.id for record in read_records(store)] == [new.id]
    assert not folder_of(old).exists() and (folder_of(new) / "report" / "index.html").is_file()


def test_a_summary_names_the_headline_and_what_was_changed(environment, recorded):
    record = recorded("calm-owl")
    record.headline = {
        "seeds.lvc.train.crf": 0.1, "segmentation.a.single_scale": 0.2, "segmentation.a.multi_scale_crf": 0.3,
        "segmentation.b.multi_scale_crf": 0.4,
    }  # fmt: skip
    summary = run_summary(record)
    assert summary["headline"] == {"key": "segmentation.a.multi_scale_crf", "miou": 0.3}
    assert summary["changed"]["train.iterations"] == 4 and "train.crop" not in summary["changed"]
    assert summary["stages"]["train"] == str(environment.store / "train" / record.own["train"])
    assert (summary["name"], summary["title"], summary["folder"]) == ("calm-owl", "excel demo", str(folder_of(record)))
    record.spec["train"]["precision"] = "fp64"  # of a version that this one does not know
    assert changed_settings(record) == {}
