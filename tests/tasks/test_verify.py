"""`excel verify` reads everything below the store: damage is named and made to be built again."""

import os
import shutil

import pytest
import torch

from excel_core.checked_files import write_checked_json
from excel_core.config import KnowledgeSpec
from excel_core.config.presets import with_settings
from excel_core.text.kept_attributes import kept_attributes
from tasks.engine.stage import RunEnvironment
from tasks.history.garbage import find_garbage
from tasks.history.plan import plan_run
from tasks.history.run_record import start_record
from tasks.history.verify import verify_store
from tasks.pipeline import pipeline
from tests.pipeline_runs import complete, follow
from tests.tasks.kill_points import KILLED, After, killed_in_training


@pytest.fixture
def environment(chain, tmp_path):
    """A copy of the small run's store without records, and without what stages that were refused in it began."""
    ignored = shutil.ignore_patterns("records", "*.partial")
    return RunEnvironment(store=shutil.copytree(chain[1].store, tmp_path / "store", ignore=ignored, copy_function=shutil.copy2))


def _flip(path, bit=-1):
    """Flip a bit behind the back of the file's time of change."""
    status, content = path.stat(), bytearray(path.read_bytes())
    content[bit] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def test_a_whole_store_is_clean(environment, small_run):
    start_record("excel", small_run, environment).end("complete")
    check = verify_store(environment.store)
    outputs = len(list(environment.store.glob("*/*/stage.json")))
    assert check.damaged == {} and check.left == [] and check.unknown == []
    assert check.checked == outputs + len(list(environment.store.glob("texts/*/*"))) + 1


def test_a_flipped_bit_anywhere_is_named_and_built_again(environment, small_run):
    outputs = follow(small_run, environment, "report", complete)
    record = start_record("excel", small_run, environment)
    record.end("complete")
    store = environment.store
    write_checked_json(store / "paper" / "table-1.json", {"title": "x"})
    texts = sorted(store.glob("texts/*/*.embedding"))
    png = next(outputs["refine"].folder.glob("SegmentationClassPseudo/*.png"))
    marker = outputs["predict"].folder / "stage.json"
    hurt = [outputs["train"].folder / "segmenter.safetensors", png, marker, texts[0], store / "paper" / "table-1.json"]
    hurt.append(store / "records" / f"{record.id}.json")
    for path in hurt:
        _flip(path, 200 if path == marker else -1)
    check = verify_store(store)
    assert check.damaged == {
        hurt[0].parent: ["segmenter.safetensors"],
        outputs["refine"].folder: [f"SegmentationClassPseudo/{png.name}"],
        marker.parent: ["stage.json"],
        **{path: [] for path in hurt[3:]},
    }
    assert not texts[0].exists() and hurt[5].exists()
    again = follow(small_run, environment, "report")
    assert {name: output.content for name, output in again.items() if name != "report"} == {
        name: output.content for name, output in outputs.items() if name != "report"
    }
    assert verify_store(store).damaged == {hurt[5]: []}


def test_attributes_of_single_photos_are_read_too(environment):
    folder = next(environment.store.glob("texts/*"))
    descriptions = torch.eye(8)
    kept_attributes(folder, descriptions, KnowledgeSpec(attributes=4))
    (path,) = folder.glob("*.attributes")
    check = verify_store(environment.store)
    assert check.damaged == {} and check.unknown == []
    _flip(path)
    assert verify_store(environment.store).damaged == {path: []} and not path.exists()
    assert len(kept_attributes(folder, descriptions, KnowledgeSpec(attributes=4))) == 4 and path.exists()


def test_what_a_stage_reads_next_is_checked_before(environment, small_run):
    """Few small files decide everything that follows: they are hashed before reuse, however untouched they look."""
    outputs = follow(small_run, environment, "report", complete)
    _flip(outputs["train"].folder / "segmenter.safetensors")
    assert "train" not in follow(small_run, environment, "report", complete)
    assert follow(small_run, environment, "train")["train"].content == outputs["train"].content


def test_leftovers_and_strange_files_are_named_and_stay(environment):
    store = environment.store
    left = [store / "cams" / ("a" * 32 + ".partial"), store / "refine" / ("b" * 32)]
    for folder in left:
        folder.mkdir()
        (folder / "half").touch()
    left.append(next(store.glob("texts/*")) / ".x.embedding.7.tmp")
    left.append(left[2].with_name("of an earlier version.npy"))
    for path in left[2:]:
        path.touch()
    earlier = next(store.glob("refine-parts/*/stage.json"))
    earlier.write_text('{"format": "excel-stage/3"}')
    left.append(earlier.parent)
    (store / "notes").mkdir()
    unknown = [
        store / "notes.txt",
        store / "cams" / "other",
        next(store.glob("train/*/segmenter.safetensors")).with_name("extra"),
    ]
    unknown.append(next(store.glob("texts/*")) / "notes.txt")
    for path in unknown:
        path.touch()
    check = verify_store(store)
    assert set(check.left) == set(left) and set(check.unknown) == {*unknown, store / "notes"} and check.damaged == {}
    assert all(path.exists() for path in left + unknown)


RUBBISH = [b"[]", b"1", b"null", b"\xff", b"[" * 100_000, b'{"a": ' + b"9" * 5000, b'{"output": 1}', b""]


def test_markers_that_are_no_markers_stop_nobody(environment, small_run):
    """`verify`, `plan` and `gc` name them as damage, or pass over them; a run builds them again."""
    outputs = follow(small_run, environment, "report", complete)
    hurt = [
        outputs[name].folder for name in ("dataset", "describe", "knowledge", "cams", "refine", "train", "predict", "report")
    ]
    for folder, content in zip(hurt, RUBBISH, strict=True):
        (folder / "stage.json").write_bytes(content)
    planned = plan_run(pipeline(small_run, environment))
    assert [stage.why for stage in planned if stage.name == "dataset"] == ["its output is damaged"]
    assert set(hurt) <= {item.path for item in find_garbage(environment.store)}
    assert verify_store(environment.store).damaged == {folder: ["stage.json"] for folder in hurt}
    assert follow(small_run, environment, "knowledge")["knowledge"].content == outputs["knowledge"].content


def test_flipped_bits_of_a_training_that_was_killed(environment, small_run, tmp_path, capfd):
    """In the newest checkpoint, in the one before it too, in a kept segmenter: it is named, and the bytes come out the same."""
    run = with_settings(small_run, ["train.iterations=8", "train.checkpoint_every=2", "train.keep_every=3"])
    assert killed_in_training(After("checkpoint.pt", 3), run, environment) == KILLED
    store = environment.store
    (resume,) = store.glob("train/*.resume")
    assert sorted(path.name for path in resume.rglob("*") if path.is_file()) == [
        "000003.kept", "000006.kept", "checkpoint.previous.pt", "checkpoint.pt",
    ]  # fmt: skip
    stores = {name: shutil.copytree(store, tmp_path / name) for name in ("whole", "newest", "both", "kept", "verified")}
    hurt = {
        "whole": (),
        "newest": ("checkpoint.pt",),
        "both": ("checkpoint.pt", "checkpoint.previous.pt"),
        "kept": ("kept/000003.kept",),
        "verified": ("checkpoint.pt", "kept/000006.kept"),
    }
    said = {"newest": "goes on from the one before it", "both": "training starts again", "kept": "training starts again"}
    contents = set()
    for name, copy in stores.items():
        there = copy / "train" / resume.name
        for file in hurt[name]:
            _flip(there / file, 3000)
        if name == "verified":
            assert verify_store(copy).damaged == {there / file: [] for file in hurt[name]}
            assert not any((there / file).exists() for file in hurt[name])
        contents.add(follow(run, RunEnvironment(store=copy), "train")["train"].content)
        message = capfd.readouterr().err
        assert said.get(name, "") in message and ("damaged" in message) == (name in said)
    assert len(contents) == 1
