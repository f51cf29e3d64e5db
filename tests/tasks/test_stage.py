"""Key, commit, damage, resuming and full disks of a stage."""

import multiprocessing
import os
import resource
import signal
from dataclasses import replace

import pytest

from excel_core.config.presets import preset
from excel_core.errors import StoreError
from tasks.engine import executor
from tasks.engine.executor import Step, build_stage, complete_output, find_or_build
from tasks.engine.output import (
    StageResult,
    damaged_files,
    is_resumable,
    link_tree,
    read_marker,
    read_output,
    resume_folder,
)
from tasks.engine.stage import Job, KeyParts, Part, RunEnvironment, Sharded, Stage, Whole

RUN = preset("voc")


class Runs(StageResult):
    """How often the toy stage ran."""

    runs: int = 0


def _job(build, store, run=RUN):
    key = KeyParts(settings=lambda run: {"n": run.describe.n})
    stage = Stage("toy", reads=(), makes="a/b/out.txt", work=Whole(build), key=key)
    return Job(stage, run, RunEnvironment(store=store), {})


def _with(**groups):
    """RUN with other fields, a group a stage."""
    return RUN.model_copy(update={name: getattr(RUN, name).model_copy(update=edits) for name, edits in groups.items()})


@pytest.fixture
def counted(tmp_path):
    """A stage's job that writes one file, and the list of its runs."""
    runs = []

    def build(job, folder):
        (folder / "a" / "b").mkdir(parents=True)
        (folder / "a" / "b" / "out.txt").write_text("hello")
        runs.append(folder.name)
        return Runs(runs=len(runs))

    return _job(build, tmp_path), runs


def test_a_complete_output_is_reused_until_its_settings_change(counted):
    job, runs = counted
    first = build_stage(job)
    assert build_stage(job) == first and len(runs) == 1
    assert first.result_as(Runs) == Runs(runs=1)
    changed = build_stage(replace(job, run=_with(describe={"n": 3})))
    assert len(runs) == 2 and changed.key != first.key
    assert changed.content == first.content  # the same bytes: what follows need not run again
    assert build_stage(replace(job, run=_with(report={"gallery_images": 1}))).key == first.key


def test_another_input_or_other_code_is_another_key(counted, monkeypatch):
    """Inputs count by their content alone, not by their keys."""
    job, _ = counted
    read = build_stage(job)
    reader = replace(job, stage=replace(job.stage, name="reader"), inputs={"toy": read})
    key = Step(reader).key
    assert Step(replace(reader, inputs={"toy": read.model_copy(update={"key": "other"})})).key == key
    assert Step(replace(reader, inputs={"toy": read.model_copy(update={"content": "other"})})).key != key
    monkeypatch.setattr(executor, "code_digest", lambda function, choices: "edited")
    assert Step(reader).key != key


def test_a_part_is_keyed_by_its_own_code_and_the_whole_by_that_of_both(counted, monkeypatch):
    """Code of the join touches no part."""

    def build_part(job, part, folder):
        return StageResult()

    def join(job, parts, folder):
        return StageResult()

    job, _ = counted
    parts = [Part("one", 1, {"number": 1}), Part("two", 1, {"number": 2})]
    job = replace(job, stage=replace(job.stage, work=Sharded(lambda job: parts, build_part, join)))

    def keys(edited=None):
        monkeypatch.setattr(executor, "code_digest", lambda function, choices: function is edited)
        return {step.name: step.key for step in (*executor.part_steps(job), Step(job))}

    before = keys()
    assert len(set(before.values())) == 3
    for edited, changed in ((join, {"toy"}), (build_part, {"toy", "toy one", "toy two"})):
        assert {name for name, key in keys(edited).items() if key != before[name]} == changed
    parts[1] = Part("two", 1, {"number": 3})
    assert {name for name, key in keys().items() if key != before[name]} == {"toy", "toy two"}


@pytest.mark.parametrize("damage", ["delete", "truncate", "marker", "half marker", "earlier version"])
def test_a_damaged_output_is_built_again(counted, damage):
    job, runs = counted
    output = build_stage(job)
    file, marker = output.folder / "a" / "b" / "out.txt", output.folder / "stage.json"
    {
        "delete": file.unlink,
        "truncate": lambda: file.write_text("hel"),
        "marker": marker.unlink,
        "half marker": lambda: marker.write_text(marker.read_text()[:40]),
        "earlier version": lambda: marker.write_text(marker.read_text().replace("excel-stage/4", "excel-stage/3")),
    }[damage]()
    assert complete_output(Step(job)) is None and read_output(output.folder) is None
    notes = []
    again = find_or_build(Step(job), notes.append)
    assert again.content == output.content and len(runs) == 2 and "damaged" in notes[0]


def test_an_output_without_marker_is_an_error_to_whoever_needs_one(counted):
    output = build_stage(counted[0])
    marker = output.folder / "stage.json"
    assert read_marker(output.folder).origin.key_parts["settings"] == {"n": RUN.describe.n}
    marker.write_text('{"format": "excel-stage/1"}')
    with pytest.raises(StoreError, match=r"stage.json: format: .*; the next run builds it again"):
        read_marker(output.folder)
    marker.unlink()
    with pytest.raises(StoreError):
        read_marker(output.folder)


def test_a_failed_stage_leaves_nothing_complete_and_what_it_goes_on_from(tmp_path):
    tries = []

    def build(job, folder):
        resume = resume_folder(folder)
        tries.append(sorted(path.name for place in (folder, resume) for path in place.glob("*")))
        for place in (folder, resume):
            place.mkdir(exist_ok=True)
            (place / f"of {place.suffix}").write_text("half")
        if len(tries) == 1:
            raise RuntimeError("killed")
        return StageResult()

    job = _job(build, tmp_path)
    with pytest.raises(RuntimeError):
        build_stage(job)
    assert not list(tmp_path.rglob("stage.json"))
    left = sorted((tmp_path / "toy").glob("[!.]*"))
    assert [(folder.suffix, is_resumable(folder)) for folder in left] == [(".partial", False), (".resume", True)]
    output = build_stage(job)
    assert tries == [[], ["of .resume"]] and [path.name for path in (tmp_path / "toy").glob("[!.]*")] == [output.folder.name]


def _build_slowly(store, queue):
    def build(job, folder):
        queue.put("ran")
        __import__("time").sleep(0.5)
        (folder / "x").write_text("x")
        return StageResult()

    queue.put(build_stage(_job(build, store)).content)


def test_two_runs_at_once_build_once(tmp_path):
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    both = [context.Process(target=_build_slowly, args=(tmp_path, queue)) for _ in range(2)]
    for process in both:
        process.start()
    messages = [queue.get(timeout=60) for _ in range(3)]
    for process in both:
        process.join()
    assert messages.count("ran") == 1 and len(set(messages)) == 2


def test_a_full_disk_is_one_clear_error(tmp_path):
    """The system itself refuses to write more than 64 KiB to a file."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def build(job, folder):
        (folder / "big").write_bytes(b"x" * 2**20)
        return StageResult()

    resource.setrlimit(resource.RLIMIT_FSIZE, (2**16, hard))
    try:
        with pytest.raises(StoreError, match="toy: cannot write to .*File too large.*make room or choose another --store"):
            build_stage(_job(build, tmp_path))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list(tmp_path.rglob("stage.json"))


def test_the_same_size_with_other_bytes_is_damage(counted):
    job, _ = counted
    output = build_stage(job)
    file = output.folder / "a" / "b" / "out.txt"
    status = file.stat()
    file.write_text("hello")  # touched, but the same
    assert complete_output(Step(job)) == output
    file.write_text("HELLO")
    assert complete_output(Step(job)) is None and damaged_files(output.folder) == ["a/b/out.txt"]
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))  # behind our back
    assert complete_output(Step(job)) is None and damaged_files(output.folder) == ["a/b/out.txt"]


def test_linked_files_are_one_file(tmp_path):
    (tmp_path / "part" / "x").mkdir(parents=True)
    (tmp_path / "part" / "x" / "a.txt").write_text("a")
    (tmp_path / "part" / "stage.json").write_text("{}")
    link_tree(tmp_path / "part", tmp_path / "whole")
    assert (tmp_path / "whole" / "x" / "a.txt").samefile(tmp_path / "part" / "x" / "a.txt")
    assert not (tmp_path / "whole" / "stage.json").exists()
    with pytest.raises(FileExistsError):
        link_tree(tmp_path / "part", tmp_path / "whole")
