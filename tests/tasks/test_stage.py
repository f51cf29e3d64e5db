"""Identity, sealing, damage, resuming and full disks of a stage."""

import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import textwrap

import pytest
from pydantic import ValidationError

from excel_core.config.presets import preset
from excel_core.errors import StoreError
from tasks.engine import code_version
from tasks.engine.build import complete_output, find_or_build, run_stage
from tasks.engine.outputs import StageOutput, damaged_files, link_tree
from tasks.engine.stage import RunEnvironment, Stage, Work
from tests.conftest import ROOT

RUN = preset("voc")


def _stage(build, **fields):
    build.__module__ = "tasks.describe"  # a stage's code version is its module's
    return Stage("toy", (), lambda run: {"n": run.describe.n}, build, **fields)


@pytest.fixture
def counted():
    """A stage that writes one file, and the list of its runs."""
    runs = []

    def build(work):
        (work.folder / "a" / "b").mkdir(parents=True)
        (work.folder / "a" / "b" / "out.txt").write_text("hello")
        runs.append(work.folder.name)
        return {"runs": len(runs)}

    return _stage(build), runs


def test_a_complete_output_is_reused_until_its_spec_changes(counted, tmp_path):
    stage, runs = counted
    first = run_stage(Work(stage, RUN, RunEnvironment(store=tmp_path), {}))
    assert run_stage(Work(stage, RUN, RunEnvironment(store=tmp_path), {})) == first and len(runs) == 1
    other = RUN.model_copy(update={"describe": RUN.describe.model_copy(update={"n": 3})})
    changed = run_stage(Work(stage, other, RunEnvironment(store=tmp_path), {}))
    assert len(runs) == 2 and changed.identity != first.identity
    assert changed.content == first.content  # the same bytes: what follows need not run again
    unrelated = RUN.model_copy(update={"report": RUN.report.model_copy(update={"gallery_images": 1})})
    assert run_stage(Work(stage, unrelated, RunEnvironment(store=tmp_path), {})).identity == first.identity


@pytest.mark.parametrize("damage", ["delete", "truncate", "marker", "half marker"])
def test_a_damaged_output_is_built_again(counted, tmp_path, damage):
    stage, runs = counted
    output = run_stage(Work(stage, RUN, RunEnvironment(store=tmp_path), {}))
    file, marker = output.folder / "a" / "b" / "out.txt", output.folder / "stage.json"
    {
        "delete": file.unlink,
        "truncate": lambda: file.write_text("hel"),
        "marker": marker.unlink,
        "half marker": lambda: marker.write_text(marker.read_text()[:40]),
    }[damage]()
    assert complete_output(Work(stage, RUN, RunEnvironment(store=tmp_path), {})) is None
    with pytest.raises(ValidationError):
        StageOutput.model_validate(output.model_dump())
    notes = []
    again = find_or_build(Work(stage, RUN, RunEnvironment(store=tmp_path), {}), notes.append)
    assert again.content == output.content and len(runs) == 2 and "damaged" in notes[0]


def test_a_failed_stage_leaves_nothing_complete_and_resumable_ones_their_folder(tmp_path):
    tries = []

    def build(work):
        tries.append(sorted(path.name for path in work.folder.iterdir()))
        (work.folder / "progress").write_text("half")
        if len(tries) == 1:
            raise RuntimeError("killed")
        return {}

    for resumable, seen in ((True, ["progress"]), (False, [])):
        tries.clear()
        place = RunEnvironment(store=tmp_path / str(resumable))
        stage = _stage(build, resumable=resumable)
        with pytest.raises(RuntimeError):
            run_stage(Work(stage, RUN, place, {}))
        assert not list(place.store.rglob("stage.json"))
        run_stage(Work(stage, RUN, place, {}))
        assert tries == [[], seen]


def _build_slowly(store, queue):
    def build(work):
        queue.put("ran")
        __import__("time").sleep(0.5)
        (work.folder / "x").write_text("x")
        return {}

    queue.put(run_stage(Work(_stage(build), RUN, RunEnvironment(store=store), {})).content)


def test_two_runs_at_once_build_once(tmp_path):
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    both = [context.Process(target=_build_slowly, args=(tmp_path, queue)) for _ in range(2)]
    for process in both:
        process.start()
    got = [queue.get(timeout=60) for _ in range(3)]
    for process in both:
        process.join()
    assert got.count("ran") == 1 and len(set(got)) == 2


def test_a_full_disk_is_one_clear_error(tmp_path):
    """The system itself refuses to write more than 64 KiB to a file."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def build(work):
        (work.folder / "big").write_bytes(b"x" * 2**20)
        return {}

    resource.setrlimit(resource.RLIMIT_FSIZE, (2**16, hard))
    try:
        with pytest.raises(StoreError, match="toy: cannot write to .*File too large.*make room or choose another --store"):
            run_stage(Work(_stage(build), RUN, RunEnvironment(store=tmp_path), {}))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list(tmp_path.rglob("stage.json"))


def test_code_version_sees_every_module_a_stage_uses():
    used = code_version.used_modules("tasks.cams")
    assert {
        "tasks.cams",
        "tasks.inputs.cam_model",
        "excel_core.cams.cam_model",
        "excel_core.models.calibration",
        "excel_core.models.clip",
    } <= set(used)
    assert not {
        "tasks.refine",
        "excel_core.evaluation.metrics",
        "tasks.engine.stage",
        "tasks.engine.progress",
        "tasks.evaluate",
    } & set(used)


def test_code_version_changes_with_an_indirect_module(tmp_path):
    package = tmp_path / "excel_core"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "top.py").write_text("from excel_core import middle\n")
    (package / "middle.py").write_text("from excel_core.bottom import x\n")
    (package / "bottom.py").write_text("x = 1\n")
    (package / "beside.py").write_text("y = 1\n")
    script = textwrap.dedent(f"""
        import sys; sys.path.insert(0, {str(tmp_path)!r}); sys.path.append({str(ROOT)!r})
        from tasks.engine.code_version import code_version
        print(code_version("excel_core.top"))
    """)

    def version():
        ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path, check=True)
        return ran.stdout

    before = version()
    (package / "beside.py").write_text("y = 2\n")
    assert version() == before
    (package / "bottom.py").write_text("x = 2\n")
    assert version() != before


def test_the_same_size_with_other_bytes_is_damage(counted, tmp_path):
    stage, _ = counted
    work = Work(stage, RUN, RunEnvironment(store=tmp_path), {})
    output = run_stage(work)
    file = output.folder / "a" / "b" / "out.txt"
    status = file.stat()
    file.write_text("hello")  # touched, but the same
    assert complete_output(work) == output
    file.write_text("HELLO")
    assert complete_output(work) is None and damaged_files(output.folder) == ["a/b/out.txt"]
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))  # behind our back
    assert complete_output(work) == output and damaged_files(output.folder) == ["a/b/out.txt"]


def test_linked_files_are_one_file(tmp_path):
    (tmp_path / "part" / "x").mkdir(parents=True)
    (tmp_path / "part" / "x" / "a.txt").write_text("a")
    (tmp_path / "part" / "stage.json").write_text("{}")
    link_tree(tmp_path / "part", tmp_path / "whole")
    assert (tmp_path / "whole" / "x" / "a.txt").samefile(tmp_path / "part" / "x" / "a.txt")
    assert not (tmp_path / "whole" / "stage.json").exists()
    with pytest.raises(FileExistsError):
        link_tree(tmp_path / "part", tmp_path / "whole")
