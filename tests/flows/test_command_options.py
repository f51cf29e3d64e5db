"""What every command has: -h, -q, --json, the same short options everywhere; completion; and nothing in the current folder."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from PIL import Image

from excel_core.config.presets import preset
from flows.cli import app
from flows.cli.output import SHORT
from tasks.engine.stage import RunEnvironment
from tasks.history.run_record import read_records, start_record
from tests.conftest import ROOT

EXCEL = Path(sys.executable).with_name("excel")


def _commands(group=None):
    for name, command in (group or typer.main.get_command(app)).commands.items():
        yield from _commands(command) if hasattr(command, "commands") else [(name, command)]


@pytest.fixture
def store(tmp_path):
    """A store with the records of two complete runs and one that failed."""
    for name, state in (("calm-owl", "complete"), ("brave-newt", "complete"), ("odd-fish", "failed")):
        start_record("excel", preset("demo"), RunEnvironment(store=tmp_path / "store"), flow_run_name=name).end(state)
    return tmp_path / "store"


def test_a_short_option_means_the_same_in_every_command():
    commands = list(_commands())
    assert {"run", "runs", "gc", "diff", "segment"} <= {name for name, _ in commands}
    seen = {}
    for name, command in commands:
        names = [option for param in command.params for option in (*param.opts, *param.secondary_opts)]
        assert len(names) == len(set(names)), f"{name}: {names}"
        assert {"--json", "--quiet"} <= set(names), name
        for param in command.params:
            for long in set(param.opts) & set(SHORT):
                assert SHORT[long] in param.opts, f"{name} {long}"
            for short in (option for option in param.opts if len(option) == 2):
                long = next(option for option in param.opts if option.startswith("--"))
                assert seen.setdefault(short, long) == long, f"{name}: {short} is {seen[short]} elsewhere"
    assert "-h" not in seen


@pytest.mark.parametrize("arguments", [["-h"], ["run", "-h"], ["prompts", "-h"], ["prompts", "diff", "-h"]])
def test_help_is_short(command_line, arguments):
    code, out, _ = command_line(*arguments)
    assert code == 0 and "Usage: " in out and "-h" in out


def test_version(command_line):
    code, out, _ = command_line("--version")
    assert code == 0 and re.fullmatch(r"excel \d+\.\d+\.\d+\S*\n", out)


def test_runs_as_data_and_pinned(command_line, store, tmp_path):
    code, out, err = command_line("runs", "--store", store, "--json")
    listed = json.loads(out)
    assert code == 0 and err == "" and [run["name"] for run in listed["runs"]] == ["calm-owl", "brave-newt", "odd-fish"]
    assert [run["state"] for run in listed["runs"]] == ["complete", "complete", "failed"]
    assert command_line("runs", "pin", "calm-owl", "--store", store)[1].startswith("run calm-owl (2")
    assert [record.pinned for record in read_records(store)] == [True, False, False]
    code, out, _ = command_line("runs", "--store", store, "-j", tmp_path / "r.json")
    assert "pinned" in out and "calm-owl" in out and json.loads((tmp_path / "r.json").read_text())["runs"][0]["pinned"]
    code, out, _ = command_line("gc", "--keep", 1, "--store", store, "--json")
    assert json.loads(out) == {"garbage": [], "removed": []}  # one is pinned, one newest, one can go on
    command_line("runs", "unpin", "calm-owl", "--store", store)
    code, out, _ = command_line("gc", "--keep", 1, "--store", store, "--yes", "--json")
    ran = json.loads(out)
    assert code == 0 and len(ran["removed"]) == 1 and ran["garbage"][0]["why"].startswith("calm-owl (2")
    assert [record.flow_run_name for record in read_records(store)] == ["brave-newt", "odd-fish"]
    for arguments, message in (
        (["pin"], "excel runs pin: name the run"),
        (["drop", "x"], "excel runs drop: valid: pin, unpin"),
        (["pin", "x"], "has no run named 'x'; runs: brave-newt (2"),
    ):
        code, _, err = command_line("runs", *arguments, "--store", store)
        assert code == 2 and message in " ".join(err.split())


def test_quiet_prints_errors_alone(command_line, store):
    assert command_line("runs", "--store", store, "-q") == (0, "", "")
    assert command_line("gc", "--keep", 1, "-q", "--store", store) == (0, "", "")  # it asks nothing, and removes nothing
    assert len(read_records(store)) == 3
    code, out, err = command_line("compare", "a", "b", "--store", store, "--quiet")
    assert code == 2 and out == "" and "no run named 'a'" in err


def test_a_file_for_json_that_cannot_be_written_is_refused_first(command_line, store, tmp_path):
    for place, message in (
        (tmp_path, "is a folder; name a file"),
        (store / ".store.lock" / "x", "no folder that can be written"),
    ):
        (store / ".store.lock").touch()
        code, out, err = command_line("runs", "--store", store, "--json", place)
        assert code == 2 and out == "" and message in " ".join(err.split())


def test_json_never_takes_a_file_that_was_meant_to_be_read(command_line):
    world = ROOT / "prompts" / "descriptions" / "world.json"
    before = world.read_bytes()
    code, out, _ = command_line("prompts", "check", "--json", world)
    assert code == 0 and json.loads(out) == {"problems": {str(world): None}} and world.read_bytes() == before


def test_the_shell_completes_commands_choices_and_runs(store):
    def offered(line):
        env = os.environ | {"_EXCEL_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(line.count(" "))}
        ran = subprocess.run([EXCEL], capture_output=True, text=True, env=env | {"EXCEL_STORE": str(store)})
        return set(ran.stdout.split())

    assert {"run", "runs"} <= offered("excel ru")
    assert offered("excel run vo") == {"voc"} and offered("excel run demo --device c") == {"cpu", "cuda"}
    assert offered("excel compare ca") == {"calm-owl"}


def test_nothing_appears_in_the_current_folder_unasked(tmp_path):
    here, home = tmp_path / "here", tmp_path / "home"
    here.mkdir(), home.mkdir()
    Image.new("RGB", (40, 40), "teal").save(home / "p.png")
    code = (
        "import sys\nfrom flows.cli import main\n"
        "for words in ARGUMENTS:\n    sys.argv = ['excel', *words]\n"
        "    try: main()\n    except SystemExit as end: print(words[0], end.code)"
    )
    wishes = [
        ["segment", str(home / "p.png"), "--classes", "dog", "--clip", "excel-tiny", "--out", str(home / "out")],
        ["plan", "demo"], ["runs"], ["compare", "a", "b"], ["gc"], ["export", "latest", "--format", "coco", "--out", "x"],
        ["figures", str(home / "f")], ["run", "demo", "--set", "a.b=1"], ["run", "demo", "--name", "../x"],
    ]  # fmt: skip
    clean = {name: value for name, value in os.environ.items() if name not in ("EXCEL_STORE", "EXCEL_CACHE")}
    env = clean | {"HOME": str(home), "PYTHONPATH": str(ROOT)}
    ran = subprocess.run(
        [sys.executable, "-c", code.replace("ARGUMENTS", repr(wishes))], capture_output=True, text=True, cwd=here, env=env
    )
    assert ran.stdout.split("\n")[-2] == "run 2" and "segment 0" in ran.stdout, ran.stdout + ran.stderr
    assert list(here.iterdir()) == [] and (home / "out" / "photos.json").is_file()
