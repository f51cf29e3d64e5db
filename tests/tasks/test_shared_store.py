"""A store on S3-compatible storage, against a real server. Machines are cache folders: each sees its own files alone."""

import json
import os
import socket
from dataclasses import replace

import pytest

from excel_core.config.presets import preset, with_settings
from excel_core.errors import SettingError, StoreError
from tasks.engine import executor
from tasks.engine.executor import Step, build_stage, complete_output, find_or_build
from tasks.engine.object_store import CACHE, cache_folder, remote_of, remote_url
from tasks.engine.output import StageResult, read_marker
from tasks.engine.shared_outputs import marker_name, object_name
from tasks.engine.stage import Job, KeyParts, Part, RunEnvironment, Sharded, Stage
from tasks.history import shared_garbage
from tasks.history.garbage import find_garbage
from tasks.history.garbage_removal import remove_garbage
from tasks.history.plan import plan_run
from tasks.history.run_record import read_records, start_record
from tasks.history.verify import verify_store
from tasks.pipeline import pipeline
from tests.conftest import SMALL_DEMO
from tests.flows.store_files import file_digests
from tests.part_begun import PartBegun
from tests.pipeline_runs import follow, follow_and_note
from tests.s3_server import new_address, s3_server
from tests.tasks.kill_points import KILLED, killed_before

RUN = with_settings(preset("demo"), [*SMALL_DEMO, "shards.images=6"])


@pytest.fixture(scope="module", autouse=True)
def server():
    with s3_server() as url:
        yield url


@pytest.fixture(scope="module")
def on_disk(tmp_path_factory):
    """The store of a run up to `refine` on a disk alone."""
    environment = RunEnvironment(store=tmp_path_factory.mktemp("disk") / "store")
    follow(RUN, environment, "refine")
    return environment.store


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """machine(name) → the environment of a run on a machine of that name; all share one address."""
    address = new_address()

    def environment(name):
        monkeypatch.setenv(CACHE, str(tmp_path / name))
        store = cache_folder(address)
        return RunEnvironment(store=store, remote=remote_url(store))

    return environment


def _toy(environment, text="same", parts=3):
    """A stage of a few parts; `text` is what its files hold, which no key tells."""

    def build_part(job, part, folder):
        (folder / "deep").mkdir()
        (folder / "deep" / f"{part.name}.txt").write_text(f"{text} {part.name}")
        return StageResult()

    def join(job, outputs, folder):
        for part in outputs.values():
            for file in (part.folder / "deep").iterdir():
                (folder / file.name).write_bytes(file.read_bytes())
        return StageResult()

    work = Sharded(lambda job: [Part(f"part{i}", 1, {"number": i}) for i in range(parts)], build_part, join)
    return Job(Stage("cams", (), "files", work, KeyParts(lambda run: {})), RUN, environment, {})


def test_a_run_leaves_the_bytes_of_one_on_disk_and_another_machine_finds_them_all(machine, on_disk):
    one = machine("one")
    follow(RUN, one, "refine")
    assert file_digests(one.store) == file_digests(on_disk)
    two = machine("two")
    assert two.store != one.store
    outputs, built = follow_and_note(RUN, two, "refine")
    assert built == []
    # What nobody asked for stays there: CAMs, texts, parts.
    assert not list(two.store.glob("cams/[!.]*")) and not list(two.store.glob("*-parts/[!.]*"))
    for output in outputs.values():
        assert read_marker(output.folder).output["content"] == output.content
    theirs = file_digests(two.store)
    assert theirs and theirs == {name: digest for name, digest in file_digests(on_disk).items() if name in theirs}
    assert any(name.startswith("cams/") for name in theirs)
    assert all(not stage.runs for stage in plan_run(pipeline(RUN, machine("three"), "refine")))


def test_a_machine_that_is_killed_leaves_what_another_goes_on_from(machine, on_disk):
    environment = machine("one")
    second = PartBegun("refine", 2)
    assert killed_before(lambda number, *event: second(*event), lambda: follow(RUN, environment, "refine")) == KILLED
    assert len([*remote_of(environment.store).listed("refine-parts/")]) == 1
    two = machine("two")
    _, built = follow_and_note(RUN, two, "refine")
    assert len(built) == 2 and built[-1] == "refine"
    theirs, whole = file_digests(two.store), file_digests(on_disk)
    assert theirs == {name: whole[name] for name in theirs}
    assert {name for name in whole if name.startswith("refine/")} <= set(theirs)


def test_an_output_that_was_not_shared_before_a_kill_is_shared_by_the_next_run(machine, monkeypatch):
    one = machine("one")
    with monkeypatch.context() as patch:
        patch.setattr(executor, "share", _killed)
        with pytest.raises(KeyboardInterrupt):
            build_stage(_toy(one))
    job = _toy(one)
    assert complete_output(Step(job)) is None and not [*remote_of(one.store).listed("")]
    build_stage(job)
    two = _toy(machine("two"), text="of nobody")
    assert "same" in (build_stage(two).folder / "part0.txt").read_text()


def _killed(*arguments):
    raise KeyboardInterrupt


def test_of_two_builders_the_first_counts_and_the_other_takes_its_output(machine):
    """Both build the same parts, with bytes that no key foresees, as another GPU makes them."""
    one, two = machine("one"), machine("two")
    theirs = _toy(two, "two's")
    whole, parts = Step(theirs), executor.part_steps(theirs)
    # Two is in the middle: its first part is done, though not shared yet.
    plain = replace(parts[0], job=replace(theirs, environment=two))
    find_or_build(replace(plain, job=_toy(RunEnvironment(store=two.store.parent / "alone"), "two's")))
    (two.store / "cams-parts").mkdir()
    os.rename(two.store.parent / "alone" / "cams-parts" / parts[0].key, parts[0].folder)
    machine("one")
    first = [find_or_build(step) for step in executor.part_steps(_toy(one, "one's"))]
    machine("two")
    second = build_stage(theirs)
    assert second.parts == {f"part{i}": part.content for i, part in enumerate(first)} and second.place == whole.folder
    assert {path.read_text().split()[0] for path in second.folder.glob("*.txt")} == {"one's"}
    assert (parts[0].folder / "deep" / "part0.txt").read_text() == "one's part0"


def test_a_file_of_two_outputs_is_there_once(machine):
    environment = machine("one")
    build_stage(_toy(environment))
    assert len([*remote_of(environment.store).listed("objects/")]) == 3


def test_a_lost_file_is_one_line_and_the_next_run_builds_the_output_again(machine):
    one = machine("one")
    output = build_stage(_toy(one))
    _, _, digest = read_marker(output.folder).files["part1.txt"]
    remote_of(one.store).delete([object_name(digest)])
    two = _toy(machine("two"))
    lost = build_stage(two)
    with pytest.raises(StoreError, match=r"^s3://.*cams/[0-9a-f]{32} lost files there; run again"):
        _ = lost.folder
    with pytest.raises(StoreError, match="cams-parts/.* lost files there; run again"):
        build_stage(two)
    assert sorted(path.name for path in build_stage(two).folder.glob("*.txt")) == ["part0.txt", "part1.txt", "part2.txt"]


def test_a_damaged_file_never_gets_here(machine):
    one = machine("one")
    output = build_stage(_toy(one))
    _, _, digest = read_marker(output.folder).files["part1.txt"]
    remote_of(one.store).write(object_name(digest), b"SAME PART1")
    assert verify_store(one.store).lost == {}  # of its size it is
    two = _toy(machine("two"))
    with pytest.raises(StoreError, match="is damaged; .* run again"):
        _ = build_stage(two).folder
    with pytest.raises(StoreError, match="lost files there; run again"):
        build_stage(two)
    assert (build_stage(two).folder / "part1.txt").read_text() == "same part1"


def test_verify_finds_what_is_lost_there(machine):
    one = machine("one")
    output = build_stage(_toy(one))
    _, _, digest = read_marker(output.folder).files["part1.txt"]
    remote_of(one.store).write(object_name(digest), b"half")
    part = executor.part_steps(_toy(one))[1].folder
    check = verify_store(one.store)
    assert check.lost == {output.place: ["part1.txt"], part: ["deep/part1.txt"]} and check.damaged == {}
    assert build_stage(_toy(one)).content == output.content  # from its copy here
    assert verify_store(one.store).lost == {}
    assert (build_stage(_toy(machine("two"))).folder / "part1.txt").read_text() == "same part1"


def test_a_damaged_copy_is_fetched_again(machine):
    environment = machine("one")
    output = build_stage(_toy(environment))
    (output.folder / "part2.txt").write_text("broken")
    again = build_stage(_toy(environment))
    assert (again.folder / "part2.txt").read_text() == "same part2"


def test_runs_of_every_machine_are_listed_and_their_end_is_seen(machine):
    one = machine("one")
    first = start_record("toy", RUN, one)
    two = machine("two")
    [seen] = read_records(two.store)
    assert seen.id == first.id and seen.state == "running" and seen.heartbeat_file.exists()
    second = start_record("toy", RUN, two)
    first.end("complete")
    assert [(record.id, record.state, record.number) for record in read_records(two.store)] == [
        (first.id, "complete", 1),
        (second.id, "running", 2),
    ]
    assert not seen.heartbeat_file.exists()


def test_gc_keeps_what_kept_runs_need_and_no_more(machine, monkeypatch):
    one = machine("one")
    remote = remote_of(one.store)
    outputs = {}
    for text, parts in (("old", 2), ("new", 3)):
        job = _toy(one, text, parts)
        record = start_record("toy", RUN, one)
        outputs[text] = build_stage(job)
        record.use(outputs[text], cached=False)
        record.end("complete")
    remote.upload(outputs["old"].folder / "part0.txt", "objects/ff/ff")  # of a machine that was killed
    two = machine("two")
    monkeypatch.setattr(shared_garbage, "MIN_AGE", -10.0)
    running = start_record("toy", RUN, one)
    with pytest.raises(SettingError, match=f"run {running.id} is at work"):
        find_garbage(two.store)
    running.end("failed")
    [running.path.unlink(), remote.delete([f"records/{running.path.name}"])]
    shown = find_garbage(two.store, keep=1)
    # New's parts 0 and 1 are old's, since their keys are.
    assert {(item.kind, len(item.objects)) for item in shown} == {("records", 0), ("cams", 1), ("files", 1)}
    assert remove_garbage(two.store, shown, keep=1) == shown
    names = {entry.name for entry in remote.listed("")}
    assert marker_name(outputs["new"].place) in names and marker_name(outputs["old"].place) not in names
    assert len([name for name in names if name.startswith("objects/")]) == 3 and len(read_records(one.store)) == 1
    assert find_garbage(two.store, keep=1) == [] and verify_store(one.store).lost == {}


@pytest.mark.parametrize(
    "address", ["s3://B/x", "s3://key:secret@bucket/x", "s3://bucket/a//b", "s3://bucket/x?X-Amz-Signature=1", "s3:/bucket"]
)
def test_an_address_that_is_none_is_refused(address):
    with pytest.raises(SettingError, match="expected s3://BUCKET"):
        cache_folder(address)


def test_a_bucket_that_is_not_there_and_a_server_that_is_gone_are_one_line(tmp_path, monkeypatch, server):
    monkeypatch.setenv(CACHE, str(tmp_path))
    with pytest.raises(StoreError, match=r"NoSuchBucket.*run again") as raised:
        remote_of(cache_folder("s3://no-such-bucket/x")).write("a", b"")
    assert "secret" not in str(raised.value) and "\n" not in str(raised.value)
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{closed.getsockname()[1]}")
        monkeypatch.setattr("tasks.engine.object_store.MAX_TRIES", 1)
        with pytest.raises(StoreError, match="cannot read a .*Could not connect.*run again once it answers"):
            remote_of(cache_folder("s3://elsewhere/x")).read("a")


def test_no_credential_is_written(machine, tmp_path):
    environment = machine("one")
    record = start_record("toy", RUN, environment)
    build_stage(_toy(environment))
    record.end("complete")
    remote = remote_of(environment.store)
    texts = [path.read_text() for path in tmp_path.rglob("*") if path.is_file()]
    texts += [remote.read(entry.name).decode() for entry in remote.listed("")]
    assert len(texts) > 10 and not any("a-test's" in text for text in texts)
    assert json.loads(record.path.read_text())["state"] == "complete"
