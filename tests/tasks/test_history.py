"""Records of runs: what keeps an output alive, what two runs differ in, and which runs are dead."""

import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from excel_core.config.presets import with_settings
from excel_core.errors import SettingError, StoreError
from tasks.engine.output import read_marker
from tasks.engine.stage import RunEnvironment
from tasks.history.compare import compare_runs
from tasks.history.find_run import find_record
from tasks.history.garbage import find_garbage
from tasks.history.garbage_removal import remove_garbage
from tasks.history.run_record import Process, read_records, start_record
from tests.pipeline_runs import complete, follow, recorded


@pytest.fixture
def environment(chain, tmp_path):
    """A store of its own with the small run's outputs, and no record: other tests leave theirs in the shared one."""
    return RunEnvironment(store=shutil.copytree(chain[1].store, tmp_path / "store", ignore=shutil.ignore_patterns("records")))


def _recorded(run, environment, last="report"):
    return recorded(run, environment, last)[0]


def test_what_no_run_refers_to_goes_and_nothing_else(environment, small_run):
    first = _recorded(small_run, environment)
    edited = with_settings(small_run, ["refine.crf.iterations=1", "evaluate.ablation=false"])
    second = _recorded(edited, environment)
    remove_garbage(environment.store, find_garbage(environment.store))  # what other tests left in the store that was copied
    assert find_garbage(environment.store) == []
    for run, record in ((small_run, first), (edited, second)):
        assert follow(run, environment, "report", complete)["report"].key == record.own["report"]
    found = find_garbage(environment.store, keep=1)
    kinds = {item.kind for item in found}
    assert {"records", "refine", "refine-parts", "dynamic", "evaluate", "report", "sweep", "ablation"} <= kinds
    assert not kinds & {"world", "dataset", "describe", "describe-parts", "knowledge-parts", "cams", "cams-parts", "train"}
    size = _disk(environment.store)
    remove_garbage(environment.store, found, keep=1)
    assert size - _disk(environment.store) == sum(item.bytes for item in found) > 0
    assert follow(edited, environment, "report", complete)["report"].key == second.own["report"]
    assert "refine" not in follow(small_run, environment, "report", complete)
    assert [record.id for record in read_records(environment.store)] == [second.id] != [first.id]
    assert follow(small_run, environment, "report")["report"].content  # and it can be built again


def _disk(store):
    """Bytes of all outputs and records, linked files once."""
    files = [path for path in store.rglob("*") if path.is_file() and not path.name.startswith(".")]
    return sum({(s.st_dev, s.st_ino): s.st_size for s in (path.stat() for path in files)}.values())


def test_half_built_outputs_go_but_a_checkpoint_stays(environment, small_run):
    _recorded(small_run, environment)
    remove_garbage(environment.store, find_garbage(environment.store))
    (environment.store / "cams" / "abc.partial").mkdir()
    checkpoint = environment.store / "train" / "abc.resume" / "checkpoint.pt"
    checkpoint.parent.mkdir()
    checkpoint.touch()
    assert [(item.path.name, item.why) for item in find_garbage(environment.store)] == [("abc.partial", "half built")]
    remove_garbage(environment.store, find_garbage(environment.store))
    assert checkpoint.exists() and not (environment.store / "cams" / "abc.partial").exists()


def test_a_record_has_what_its_stages_took_whenever_that_was(environment, small_run):
    record = _recorded(with_settings(small_run, ["report.gallery_images=1"]), environment)
    (read,) = read_records(environment.store)
    assert [cost.stage for cost in read.costs] == list(read.own) and read.costs == record.costs
    assert [cost.stage for cost in read.costs if not cost.cached] == ["report"]
    for cost in read.costs:
        built = read_marker(record.output(cost.stage)).output
        assert cost.seconds == built["seconds"]
        assert cost.peak_host_bytes == built["peak_host_bytes"] > 10**7 and cost.peak_gpu_bytes is None
    path = environment.store / "records" / f"{record.id}.json"
    earlier = json.loads(path.read_text())
    del earlier["costs"], earlier["sha256"], earlier["number"]  # as written by a version that did not measure
    path.write_text(json.dumps(earlier))
    (read,) = read_records(environment.store)
    assert read.costs == [] and read.own == record.own


def test_nothing_goes_while_a_run_is_at_work(environment, small_run):
    record = start_record("excel", small_run, environment)
    with pytest.raises(SettingError, match=f"run {record.id} is at work"):
        find_garbage(environment.store)
    record.end("failed", "why")
    assert find_garbage(environment.store)


def test_a_killed_process_is_told_from_a_living_one(environment, small_run):
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    record = start_record("excel", small_run, environment)
    started = int(Path(f"/proc/{process.pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[19])
    record.process = Process(host=record.process.host, pid=process.pid, started=started)
    record.save()
    assert not read_records(environment.store)[0].dead
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert read_records(environment.store)[0].dead  # a zombie still
    process.communicate()
    assert read_records(environment.store)[0].dead


@pytest.mark.parametrize("elsewhere", [{"host": "elsewhere"}, {"machine": "another boot or container of the same name"}])
def test_a_run_of_another_machine_lives_while_it_gives_signs(environment, small_run, elsewhere):
    record = start_record("excel", small_run, environment)
    record.process = record.process.model_copy(update=elsewhere)
    record.save()
    with pytest.raises(SettingError, match=f"run {record.id} is at work on .*--ignore-run {record.id}"):
        find_garbage(environment.store)
    assert find_garbage(environment.store, ignored=[record.id])
    with record.at_work():
        assert record.heartbeat_file.exists()
    record.heartbeat_file.touch()
    hour_ago = record.heartbeat_file.stat().st_mtime - 3600
    os.utime(record.heartbeat_file, (hour_ago, hour_ago))
    (read,) = read_records(environment.store)
    assert read.dead and find_garbage(environment.store)
    read.heartbeat_file.unlink()  # of a version that gave none
    assert not read.dead


def test_a_record_of_an_earlier_version_is_read_as_that_meant_it(environment, small_run):
    record = start_record("excel", small_run, environment)
    for group, field in (("cams", "antialias"), ("dataset", "seed_splits"), ("predict", "average_at"), ("predict", "sides")):
        del record.spec[group][field]
    del record.spec["curve"]
    record.spec["train"]["precision"] = "amp"  # half precision on a GPU alone
    record.spec["dataset"]["train_split"] = "mine"
    record.end("complete")
    found = find_record(environment.store, record.id)
    assert (found.run.cams.antialias, found.run.train.precision, found.run.dataset.cam_splits) == (True, "fp32", ("mine",))
    assert found.run.predict.sides == "whole_patches"
    assert found.model_copy(update={"device": "cuda"}).run.train.precision == "bf16"
    found.spec["train"]["precision"] = "fp64"
    with pytest.raises(StoreError, match="of another version of excel, which set train.precision='fp64'; run it again"):
        assert found.run


def test_runs_are_found_by_the_beginning_of_their_id(environment, small_run):
    with pytest.raises(SettingError, match="no run named 'x'; runs: none"):
        find_record(environment.store, "x")
    records = [start_record("excel", small_run, environment, flow_run_name=name) for name in ("brave-newt", "calm-owl")]
    with pytest.raises(SettingError, match="is not complete: running; complete runs: none"):
        find_record(environment.store, "calm-owl")
    for record in records:
        record.end("complete")
    assert find_record(environment.store, records[0].id[:-1]).id == records[0].id
    assert find_record(environment.store, "calm-owl").id == find_record(environment.store, "latest").id == records[1].id
    records[0].own = {"cams": "x"}  # so that they did not lead to the same
    records[0].save()
    with pytest.raises(SettingError, match="several runs named '20'"):
        find_record(environment.store, "20")
    (environment.store / "records" / "zz.json").write_text("{half")
    assert len(read_records(environment.store)) == 2
    assert [path.name for path in read_records(environment.store).unreadable] == ["zz.json"]


def test_a_clock_that_is_set_back_changes_no_order(environment, small_run, monkeypatch):
    class Clock(datetime):
        hours = 0

        @classmethod
        def now(cls, zone=None):
            return datetime.now(zone) - timedelta(hours=cls.hours)

    old = start_record("excel", small_run, environment)
    old.number = 0  # as of a version that ordered by time
    old.end("complete")
    monkeypatch.setattr("tasks.history.run_record.datetime", Clock)
    records = []
    for Clock.hours in (1, 2, 72, 0):
        records.append(start_record("excel", small_run, environment))
        records[-1].end("complete")
    assert [record.id for record in read_records(environment.store)] == [record.id for record in (old, *records)]
    assert [record.number for record in records] == [1, 2, 3, 4]
    assert find_record(environment.store, "latest").id == records[-1].id
    gone = [item.path.stem for item in find_garbage(environment.store, keep=2) if item.kind == "records"]
    assert sorted(gone) == sorted(record.id for record in (old, *records[:2]))


def test_two_runs_that_begin_at_once_get_two_numbers(environment, small_run):
    with ThreadPoolExecutor(8) as pool:
        records = list(pool.map(lambda _: start_record("excel", small_run, environment), range(16)))
    assert sorted(record.number for record in records) == list(range(1, 17))


def test_two_runs_side_by_side(environment, small_run):
    a = _recorded(small_run, environment)
    b = _recorded(with_settings(small_run, ["train.learning_rate=0.01", "evaluate.ablation=false"]), environment)
    found = compare_runs(a, b)
    assert {entry["field"] for entry in found["spec"]} == {"train.learning_rate", "evaluate.ablation"}
    metrics = [json.loads((record.output("evaluate") / "metrics.json").read_text()) for record in (a, b)]
    key = found["result"]
    assert key == "segmentation.held_out_1.multi_scale_crf" and found["images_shared"] == 4
    for name, which in zip("ab", metrics, strict=True):
        assert found["miou"][name] == pytest.approx(which["results"][key]["miou"])
        for entry in found["classes"]:
            assert entry[name] == pytest.approx(which["results"][key]["iou"][entry["class"]])
    assert all(entry["low"] <= entry["high"] for entry in found["classes"])
    seeds = compare_runs(a, b, "seeds.static.train.crf")  # the edit does not touch them
    assert seeds["miou"]["difference"] == seeds["miou"]["low"] == seeds["miou"]["high"] == 0
    assert {entry["difference"] for entry in seeds["images"]} == {0.0}
    with pytest.raises(SettingError, match="--result 'x': both runs have seeds.static.train.raw"):
        compare_runs(a, b, "x")
    with pytest.raises(SettingError, match="has no evaluate; it has world"):
        compare_runs(a, _recorded(small_run, environment, "cams"))
