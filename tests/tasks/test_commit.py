"""Between any two file operations of a stage's completion a run may be killed; what counts as complete is whole, and no work is
done twice."""

import hashlib
import json
import os
import shutil

import pytest

from excel_core.config.presets import preset, with_settings
from excel_core.errors import StoreError
from tasks.engine.executor import Step, build_stage, complete_output, find_or_build
from tasks.engine.output import StageResult, damaged_files, link_tree, read_marker, read_output, resume_folder
from tasks.engine.stage import Job, KeyParts, Part, RunEnvironment, Sharded, Stage, Whole
from tests.pipeline_runs import follow
from tests.tasks.kill_points import KILLED, Before, killed_before, killed_in_training

RUN = preset("voc")
KEY = KeyParts(settings=lambda run: {})


def _whole(store):
    """A job whose work goes on from a file of its resume folder; what it does is in STORE/log."""

    def build(job, folder):
        checkpoint = resume_folder(folder) / "checkpoint"
        if not checkpoint.exists():
            _note(store, "worked")
            checkpoint.parent.mkdir(exist_ok=True)
            checkpoint.write_text("state")
        (folder / "a" / "b").mkdir(parents=True)
        (folder / "a" / "b" / "out.txt").write_text("hello")
        (folder / "other.txt").write_text("x" * 1000)
        return StageResult()

    return Job(Stage("toy", reads=(), makes="a/", work=Whole(build), key=KEY), RUN, RunEnvironment(store=store), {})


def _sharded(store):
    """A job of two parts, whose files are linked."""

    def build_part(job, part, folder):
        _note(store, part.name)
        (folder / "maps").mkdir()
        (folder / "maps" / f"{part.name}.png").write_text(part.name)
        return StageResult()

    def join(job, parts, folder):
        for part in parts.values():
            link_tree(part.folder / "maps", folder / "maps")
        return StageResult()

    parts = [Part("one", 1, {"n": 1}), Part("two", 1, {"n": 2})]
    work = Sharded(lambda job: parts, build_part, join)
    return Job(Stage("toy", reads=(), makes="maps/", work=work, key=KEY), RUN, RunEnvironment(store=store), {})


def _note(store, text):
    with (store / "log").open("a") as file:
        file.write(f"{text}\n")


def _moves_to(final):
    return lambda number, event, arguments: event == "os.rename" and str(arguments[1]) == str(final)


def _tree(store):
    """Every file of the outputs, and every other name that is no lock."""
    files = {path.relative_to(store).as_posix() for path in store.glob("toy*/**/*") if path.is_file()}
    return {name for name in files if not name.endswith((".lock", "stage.json"))}


@pytest.mark.parametrize("make, every", [(_whole, 1), (_sharded, 5)])
def test_a_kill_at_file_operations_of_a_stage(tmp_path, make, every):
    (tmp_path / "whole").mkdir()
    output = build_stage(make(tmp_path / "whole"))
    log, tree = (tmp_path / "whole" / "log").read_text(), _tree(tmp_path / "whole")
    point = 1 - every
    while True:
        point += every
        store = tmp_path / f"{point}"
        store.mkdir()
        job = make(store)
        status = killed_before(lambda number, event, arguments, point=point: number == point, lambda job=job: build_stage(job))
        if status == 0:
            break
        assert status == KILLED
        for folder in store.glob("toy*/*"):
            if folder.suffix == "" and not folder.name.startswith("."):
                assert read_output(folder) is not None and damaged_files(folder) == []
        again = build_stage(job)
        assert again.content == output.content and _tree(store) == tree, point
        done = (store / "log").read_text().splitlines()
        assert len(done) <= len(log.splitlines()) + 1, point  # what was at work when it was killed, once more
        marker = (again.folder / "stage.json").stat().st_mtime_ns
        assert build_stage(job) == again and (again.folder / "stage.json").stat().st_mtime_ns == marker
    assert point > 15


def test_an_output_that_only_lacks_its_name_is_not_built_again(tmp_path):
    """Killed between the marker and the move: the marker is no file of the output, and the work is not done twice."""
    job = _whole(tmp_path)
    final = Step(job).folder
    assert killed_before(_moves_to(final), lambda: build_stage(job)) == KILLED
    (partial,) = final.parent.glob("*.partial")
    assert (partial / "stage.json").exists() and not final.exists()
    written = (partial / "stage.json").stat().st_mtime_ns
    output = build_stage(job)
    assert (tmp_path / "log").read_text() == "worked\n" and (final / "stage.json").stat().st_mtime_ns == written
    assert set(read_marker(final).files) == {"a/b/out.txt", "other.txt"} and read_output(final) == output
    assert not list(final.parent.glob("[!.]*.*"))


def test_a_marker_over_missing_bytes_is_never_given_its_name(tmp_path):
    job = _whole(tmp_path)
    final = Step(job).folder
    assert killed_before(_moves_to(final), lambda: build_stage(job)) == KILLED
    (partial,) = final.parent.glob("*.partial")
    status = (partial / "other.txt").stat()
    (partial / "other.txt").write_text("y" * 1000)
    os.utime(partial / "other.txt", ns=(status.st_atime_ns, status.st_mtime_ns))
    output = build_stage(job)
    assert (output.folder / "other.txt").read_text() == "x" * 1000 and damaged_files(final) == []


def test_a_kill_at_every_file_operation_that_replaces_a_damaged_output(tmp_path):
    (tmp_path / "store").mkdir()
    first = build_stage(_whole(tmp_path / "store"))
    (first.folder / "other.txt").write_text("short")
    point = 0
    while True:
        point += 1
        job = _whole(shutil.copytree(tmp_path / "store", tmp_path / f"{point}"))
        status = killed_before(lambda number, event, arguments, point=point: number == point, lambda job=job: build_stage(job))
        if status == 0:
            break
        complete = complete_output(Step(job))
        assert complete is None or damaged_files(complete.folder) == []
        assert build_stage(job).content == first.content
    assert point > 15


def test_nothing_is_joined_from_parts_that_were_not_built(tmp_path):
    """The whole was complete when the run looked, so no part was built; then somebody removed it."""
    job = _sharded(tmp_path)
    output = build_stage(job)

    def removed_meanwhile(step):
        shutil.rmtree(output.folder)
        return find_or_build(step)

    with pytest.raises(StoreError, match="toy: .* was removed or damaged during the run; run again"):
        build_stage(job, removed_meanwhile)
    assert build_stage(job).content == output.content


RUBBISH = {
    "list": "[]",
    "number": "1",
    "null": "null",
    "empty object": "{}",
    "nested": '{"output": ' + "[" * 100_000,
    "huge number": '{"format": ' + "9" * 5000 + "}",
    "not a number": '{"format": NaN}',
    "not UTF-8": b"\xff\xfe{}",
    "nothing": "",
}


@pytest.mark.parametrize("content", RUBBISH.values(), ids=RUBBISH)
def test_a_marker_that_is_no_marker_is_damage(tmp_path, content):
    output = build_stage(_whole(tmp_path))
    (output.folder / "stage.json").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(StoreError, match="stage.json"):
        read_marker(output.folder)
    assert read_output(output.folder) is None
    assert build_stage(_whole(tmp_path)).content == output.content


@pytest.mark.parametrize("name", ["/etc/passwd", "../x", "a/../../x", "a//b", "", "a/./b", "nul\0", "stage.json", "\ud800"])
def test_a_marker_names_files_of_its_folder_alone(tmp_path, name):
    """As somebody would write it who also writes the digest."""
    output = build_stage(_whole(tmp_path))
    document = json.loads((output.folder / "stage.json").read_text())
    del document["sha256"]
    document["files"][name] = [0, 0, "0" * 64]
    _write_escaped(output.folder / "stage.json", document)
    assert read_output(output.folder) is None
    assert build_stage(_whole(tmp_path)).content == output.content


def _write_escaped(path, document):
    head = json.dumps(document, indent=2).removesuffix("\n}").encode()
    path.write_bytes(head + f',\n  "sha256": "{hashlib.sha256(head).hexdigest()}"\n}}\n'.encode())


@pytest.mark.parametrize("field, value", [("stage", "other"), ("key", "0" * 32), ("seconds", "x"), ("result", [1])])
def test_a_marker_of_another_folder_or_another_shape_is_damage(tmp_path, field, value):
    output = build_stage(_whole(tmp_path))
    document = json.loads((output.folder / "stage.json").read_text())
    document["output"][field] = value
    del document["sha256"]
    _write_escaped(output.folder / "stage.json", document)
    with pytest.raises(StoreError, match="the next run builds it again"):
        read_marker(output.folder)


def test_no_flipped_bit_of_a_marker_goes_unnoticed(tmp_path):
    output = build_stage(_whole(tmp_path))
    path = output.folder / "stage.json"
    whole = path.read_bytes()
    for bit in range(0, 8 * len(whole), 7):
        content = bytearray(whole)
        content[bit // 8] ^= 1 << bit % 8
        path.write_bytes(content)
        assert read_output(output.folder) is None, bit


@pytest.mark.parametrize("kind", ["folder", "fifo", "lost link"])
def test_what_is_no_file_is_damage(tmp_path, kind):
    output = build_stage(_whole(tmp_path))
    file = output.folder / "other.txt"
    file.unlink()
    {"folder": file.mkdir, "fifo": lambda: os.mkfifo(file), "lost link": lambda: file.symlink_to("nowhere")}[kind]()
    assert read_output(output.folder) is None and damaged_files(output.folder) == ["other.txt"]


EDITS = ["train.iterations=6", "train.checkpoint_every=2", "train.keep_every=3"]
TAIL = {
    "after the last checkpoint": Before("open", part="/.segmenter.safetensors."),
    "before the marker": Before("open", part="/.stage.json."),
    "before the move": Before("os.rename", part="/train/", end=".partial"),
    "before the resume folder goes": Before("shutil.rmtree", part="/train/", end=".resume"),
}


def test_training_that_is_killed_at_its_end_is_not_trained_again(chain, small_run, tmp_path, monkeypatch):
    run = with_settings(small_run, EDITS)
    whole = follow(run, RunEnvironment(store=shutil.copytree(chain[1].store, tmp_path / "whole")), "train")["train"]
    for name, point in TAIL.items():
        environment = RunEnvironment(store=shutil.copytree(chain[1].store, tmp_path / name.replace(" ", "_")))
        assert killed_in_training(point, run, environment) == KILLED, name
        with monkeypatch.context() as patched:
            patched.setattr("excel_core.training.loop.training_step", None)  # nobody calls it
            again = follow(run, environment, "train")["train"]
        assert again.content == whole.content, name
        train = environment.store / "train"
        assert not [path for path in train.glob("*") if path.suffix in (".partial", ".resume")], name
