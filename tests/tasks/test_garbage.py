"""`gc` beside runs: what is asked first and decided last, what belongs to a killed run, and what else can go."""

import multiprocessing
import os
import random
import shutil
import time

import pytest

from excel_core.errors import SettingError
from tasks.engine.executor import Step, build_stage, complete_output
from tasks.engine.lock import locked, store_in_use
from tasks.engine.stage import Job, KeyParts, Part, RunEnvironment, Sharded, Stage, StageResult
from tasks.history.garbage import find_garbage
from tasks.history.garbage_removal import remove_garbage
from tasks.history.run_record import read_records, start_record

CONTEXT = multiprocessing.get_context("fork")


def _job(run, store, number):
    """A stage called `cams`, of two parts; `number` tells outputs apart."""

    def fill(job, folder):
        (folder / "file").write_text(f"{number}" * 100)
        return StageResult()

    work = Sharded(
        lambda job: [Part(f"part {i}", 1, {"part": i, "number": number}) for i in range(2)],
        lambda job, part, folder: fill(job, folder),
        lambda job, parts, folder: fill(job, folder),
    )
    stage = Stage("cams", (), "file", work, KeyParts(lambda run: {"number": number}))
    return Job(stage, run, RunEnvironment(store=store), {})


def _run(run, store, number):
    """A run of one stage, as `chain_run` has it → (its record, its output)."""
    job = _job(run, store, number)
    with store_in_use(store):
        record = start_record("toy", run, job.environment)
        cached = complete_output(Step(job)) is not None
        output = build_stage(job)
        record.use(output, cached)
        assert complete_output(Step(job)) == output, "it was removed under the run"
        record.end("complete")
    return record, output


def test_a_run_that_begins_while_gc_waits_for_its_answer_keeps_its_outputs(small_run, tmp_path):
    _, old = _run(small_run, tmp_path, 0)
    _, other = _run(small_run, tmp_path, 1)
    _run(small_run, tmp_path, 2)
    shown = find_garbage(tmp_path, keep=1)
    assert {item.path for item in shown} >= {old.folder, other.folder}
    record = start_record("toy", small_run, RunEnvironment(store=tmp_path))  # now the user thinks about the answer
    with pytest.raises(SettingError, match=f"run {record.id} is at work"):
        remove_garbage(tmp_path, shown, keep=1)
    assert old.folder.exists()
    record.use(old, cached=True)
    record.end("complete")
    removed = remove_garbage(tmp_path, shown, keep=1)
    assert old.folder.exists() and not other.folder.exists()
    assert old.folder not in {item.path for item in removed} and len(removed) < len(shown)
    assert find_garbage(tmp_path, keep=1)  # the run before the last: it was not shown, so it stayed


def _runs(run, store, seed, rounds):
    chance = random.Random(seed)
    for _ in range(rounds):
        _run(run, store, chance.randrange(4))
        time.sleep(chance.random() / 5)  # so that gc, which refuses while a run is at work, gets its turns


def _collect_for_ever(store):
    while True:
        try:
            remove_garbage(store, find_garbage(store, keep=1), keep=1, notify=lambda text: None)
        except SettingError:  # a run is at work
            time.sleep(0.01)


def test_runs_beside_a_gc_that_never_rests_lose_nothing(small_run, tmp_path):
    collector = CONTEXT.Process(target=_collect_for_ever, args=(tmp_path,))
    runs = [CONTEXT.Process(target=_runs, args=(small_run, tmp_path, seed, 12)) for seed in range(2)]
    for process in (collector, *runs):
        process.start()
    for process in runs:
        process.join()
    collector.kill()
    collector.join()
    assert [process.exitcode for process in runs] == [0] * 2
    remove_garbage(tmp_path, find_garbage(tmp_path, keep=1), keep=1)
    assert len(read_records(tmp_path)) == 1


def test_a_run_waits_while_gc_removes(small_run, tmp_path, monkeypatch):
    _, old = _run(small_run, tmp_path, 0)
    _run(small_run, tmp_path, 1)
    process, remove, order = CONTEXT.Process(target=_run, args=(small_run, tmp_path, 0)), shutil.rmtree, []

    def slowly(folder, **options):
        if folder == old.folder:
            process.start()
            process.join(1)
            order.append(process.is_alive())
        remove(folder, **options)

    monkeypatch.setattr(shutil, "rmtree", slowly)
    remove_garbage(tmp_path, find_garbage(tmp_path, keep=1), keep=1)
    process.join()
    assert order == [True] and process.exitcode == 0 and old.folder.exists()


def test_what_a_killed_run_was_building_is_its_own(small_run, tmp_path):
    """Finished parts, and a training to go on from."""
    job = _job(small_run, tmp_path, 0)
    record = start_record("toy", small_run, job.environment)
    steps = [Step(job), *(Step(job, part) for part in job.stage.work.parts(job))]
    record.begin([*(f"{step.kind}/{step.key}" for step in steps), "train/abc"])
    part = build_stage(Job(job.stage, small_run, job.environment, {})).folder  # its parts are complete
    shutil.rmtree(part)
    checkpoint = tmp_path / "train" / "abc.resume" / "checkpoint"
    checkpoint.parent.mkdir(parents=True)
    checkpoint.touch()
    record.end("crashed")
    assert find_garbage(tmp_path) == find_garbage(tmp_path, keep=1) == []
    _run(small_run, tmp_path, 1)
    assert find_garbage(tmp_path) == []
    going = {item.path for item in find_garbage(tmp_path, keep=1)}
    assert going == {record.path, checkpoint.parent, *(step.folder for step in steps[1:])}


def test_parts_of_an_output_whose_marker_is_damaged_stay(small_run, tmp_path):
    _, output = _run(small_run, tmp_path, 0)
    (output.folder / "stage.json").write_text("[]")
    assert find_garbage(tmp_path) == []


def test_a_record_that_cannot_be_read_stops_gc_until_it_is_given_up(small_run, tmp_path):
    record, output = _run(small_run, tmp_path, 0)
    _run(small_run, tmp_path, 1)
    record.path.write_text(record.path.read_text().replace("complete", "completf"))
    with pytest.raises(SettingError, match=f"damaged, or of another version.*--ignore-run {record.id}"):
        find_garbage(tmp_path)
    garbage = find_garbage(tmp_path, ignored=[record.id])
    assert {item.path for item in garbage} >= {record.path, output.folder}
    with pytest.raises(SettingError, match="--ignore-run x: .* has no such run"):
        find_garbage(tmp_path, ignored=[record.id, "x"])


def test_leftovers_go_and_what_somebody_builds_stays(small_run, tmp_path):
    _, output = _run(small_run, tmp_path, 0)
    half = [tmp_path / "cams" / f"{key}.partial" / "file" for key in "ab"]
    for file in half:
        file.parent.mkdir()
        file.write_text("x" * 1000)
    temporary = [tmp_path / "records" / ".x.json.7-abc.tmp", tmp_path / "texts" / "clip" / ".t.embedding.7.tmp"]
    prefect = tmp_path / "prefect" / ".theirs.tmp"
    for file in (*temporary, prefect):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    old_lock, lock = (tmp_path / "cams" / f".{name}.lock" for name in ("gone", output.key))
    old_lock.touch()
    dead = tmp_path / "records" / ".20200101-000000-abcdef.alive"
    dead.touch()
    with locked(tmp_path / "cams" / ".a.lock", ""):  # by a worker that outlived its run
        garbage = find_garbage(tmp_path)
        assert {item.path for item in garbage} == {*(file.parent for file in half), *temporary}
        assert {item.path.name for item in remove_garbage(tmp_path, garbage)} == {"b.partial", *(t.name for t in temporary)}
        assert half[0].exists() and (tmp_path / "cams" / ".a.lock").exists()
    assert not half[1].parent.exists() and not any(file.exists() for file in (*temporary, old_lock, dead))
    assert prefect.exists() and lock.exists() and output.folder.exists() and not (tmp_path / "texts" / "clip").exists()


def test_texts_that_no_kept_run_needs_go(chain, small_run, tmp_path):
    outputs, environment = chain
    store = shutil.copytree(environment.store, tmp_path / "store", ignore=shutil.ignore_patterns("records", ".*.lock"))
    environment = environment.model_copy(update={"store": store})
    record = start_record("excel", small_run, environment)
    for name in ("describe", "knowledge"):
        record.use(outputs[name], cached=True)
    record.end("complete")

    def texts():
        return [item for item in find_garbage(store) if item.kind == "texts"]

    (folder,) = (store / "texts").iterdir()
    remove_garbage(store, find_garbage(store))  # other tests share the store that was copied
    count = len(list(folder.iterdir()))
    assert texts() == [] and count >= 200
    extra = folder / f"{'0' * 32}.embedding"
    extra.write_bytes(b"of no text")
    (item,) = texts()
    assert item.files == (extra,) and item.bytes == len(b"of no text") and item.why == f"no kept run needs 1 of {count + 1}"
    remove_garbage(store, [item])
    assert not extra.exists() and len(list(folder.iterdir())) == count
    record.device = "cuda"
    record.save()
    assert len(texts()[0].files) == count
    shutil.rmtree(store / "describe")
    assert texts() == []  # nobody can tell


def test_a_file_that_is_gone_meanwhile_is_no_error(small_run, tmp_path):
    _run(small_run, tmp_path, 0)
    _, output = _run(small_run, tmp_path, 1)
    shown = find_garbage(tmp_path, keep=1)
    for item in shown:
        shutil.rmtree(item.path) if item.path.is_dir() else os.unlink(item.path)
    assert remove_garbage(tmp_path, shown, keep=1) == [] and output.folder.exists()
