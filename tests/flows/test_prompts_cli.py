"""`excel prompts diff` and `check` as a user runs them, without a server."""

import json

import pytest
from typer.testing import CliRunner

from excel_core.config.presets import preset, with_settings
from excel_core.errors import PromptError, SettingError
from flows.cli import app
from flows.request import RunRequest
from tasks.engine.executor import build_stage
from tasks.engine.stage import RunEnvironment
from tasks.history.run_record import start_record
from tasks.pipeline import pipeline
from tests.conftest import ROOT

WORLD = ROOT / "prompts" / "descriptions" / "world.json"


def _excel(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def edited(tmp_path):
    """The world's descriptions with one of `boat` rewritten."""
    found = json.loads(WORLD.read_text())
    found["classes"]["boat"][0] = "a clean origami boat. it has a rudder of dark wood."
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(found))
    return path


def test_two_files(edited, tmp_path):
    ran = _excel(
        "prompts", "diff", WORLD, edited, "--classes", "world", "--store", tmp_path, "--texts", "--json", tmp_path / "d"
    )
    assert ran.exit_code == 0 and "through excel-tiny" in ran.stdout and "a rudder of dark wood" in ran.stdout
    found = {change["name"]: change for change in json.loads((tmp_path / "d").read_text())["classes"]}
    assert found["boat"]["added"] == ["a clean origami boat. it has a rudder of dark wood."] and len(found) == 10
    assert found["boat"]["cosine"] < 1 and not found["car"]["added"]
    same = _excel("prompts", "diff", WORLD, WORLD, "--store", tmp_path)
    assert "10 of 10 classes are the same" in same.stdout


def test_two_runs(edited, tmp_path):
    names = []
    for prompts in ("world", str(edited.with_suffix(".yaml"))):
        edited.with_suffix(".yaml").write_text((ROOT / "prompts" / "world.yaml").read_text())
        run = with_settings(preset("demo"), [f"dataset.prompts={prompts}"])
        place = RunEnvironment(store=tmp_path)
        record = start_record("knowledge", run, place)
        record.own = {name: output.key for name, output in pipeline(run, place, "knowledge").follow(build_stage).items()}
        record.end("complete")
        names.append(record.id)
    ran = _excel("prompts", "diff", *names, "--store", tmp_path, "-v")
    assert ran.exit_code == 0 and "+ a clean origami boat. it has a rudder of dark wood." in ran.stdout
    mixed = _excel("prompts", "diff", names[0], WORLD, "--store", tmp_path)
    assert isinstance(mixed.exception, SettingError) and "one is a file, the other a run" in str(mixed.exception)


def test_classes_without_their_descriptions_are_refused_by_all(tmp_path):
    """`plan`, a run, Prefect's parameters and `prompts check`; a source that reads no such file needs none."""
    mine = tmp_path / "mine.yaml"
    mine.write_text((ROOT / "prompts" / "world.yaml").read_text())
    line = (
        f"describe.provider=bundled: {tmp_path / 'mine.json'}, which holds the descriptions of the classes in {mine}, does not"
    )
    setting, others = f"dataset.prompts={mine}", ["--store", tmp_path / "store"]
    for command in ("plan", "run", "ablation"):
        ran = _excel(command, "demo", "--set", setting, *others)
        assert isinstance(ran.exception, PromptError) and str(ran.exception).startswith(line), command
    with pytest.raises(PromptError, match="does not exist; write it, or choose another source"):
        RunRequest(preset="demo", settings=[setting]).resolve()
    ran = _excel("prompts", "check", mine, ROOT / "prompts" / "voc.yaml")
    assert ran.exit_code == 1 and line in ran.stdout and "20 classes" in ran.stdout
    assert not (tmp_path / "store").exists()
    RunRequest(preset="demo", settings=[setting, "describe.provider=none", "knowledge.mode=none"]).resolve()
    mine.rename(tmp_path / "classes.yaml")
    assert _excel("prompts", "check", tmp_path / "classes.yaml").exit_code == 0  # its classes may be known by name


def test_descriptions_of_other_classes_are_refused_before_work(edited, tmp_path):
    mine = edited.with_suffix(".yaml")
    mine.write_text((ROOT / "prompts" / "world.yaml").read_text().replace("{name: boat,", "{name: ship,"))
    ran = _excel("plan", "demo", "--set", f"dataset.prompts={mine}", "--store", tmp_path / "store")
    assert isinstance(ran.exception, PromptError) and "mine.json:" in str(ran.exception)


def test_files_are_checked(edited, tmp_path):
    assert _excel("prompts", "check", WORLD, ROOT / "prompts" / "voc.yaml").exit_code == 0
    found = json.loads(edited.read_text())
    found["classes"]["boat"][1] = "a clean origami boat. it has " + "very " * 80 + "long oars."
    edited.write_text(json.dumps(found, indent=1))
    ran = _excel("prompts", "check", edited, "--classes", "world")
    assert ran.exit_code == 1 and "classes.boat[1]" in ran.stdout and "tokens long" in ran.stdout
    unknown = _excel("prompts", "check", edited)
    assert isinstance(unknown.exception, SettingError) and "whose descriptions are these" in str(unknown.exception)
