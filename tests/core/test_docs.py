"""README, docs/ and CONTRIBUTING say what the repository has: links, commands, settings, pictures."""

import re
import runpy
import shlex
from pathlib import Path

import click
import pytest
import typer
import yaml

from bench.scale_page import PRICES, scale_page
from bench.tables import speed_page
from excel_core.config import RunSpec
from excel_core.config.methods import METHODS
from excel_core.config.presets import PRESETS, preset, with_settings
from flows.cli import app
from tests.conftest import ROOT

MAX_README_WORDS = 900
MAX_LINE = 128  # characters, as in code
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")]
PAGES += sorted((ROOT / "docs").glob("*.md"))
TEXTS = {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in PAGES}
LINK = re.compile(r"\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
COMMAND = re.compile(r"^(?:\$ )?(excel .+)$|`(excel [^`]+)`", re.MULTILINE)
STAGES = "|".join(name for name in RunSpec.model_fields if name not in ("preset", "method"))
SETTING = re.compile(rf"(?:--set |`|')((?:{STAGES})\.[a-z_.]+)(=[^\s`']+)?[\s`']")
FILE_SUFFIXES = (".md", ".json", ".zarr", ".py", ".csv", ".png")


def test_readme_is_short():
    assert len(TEXTS["README.md"].split()) <= MAX_README_WORDS


def _anchors(text):
    """Headings as the site and GitHub name them."""
    plain = [re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in HEADING.findall(text)]
    return set(plain)


@pytest.mark.parametrize("page", TEXTS)
def test_relative_links_resolve(page):
    for link in LINK.findall(TEXTS[page]):
        if link.startswith(("http://", "https://")):
            continue
        name, _, anchor = link.partition("#")
        target = (ROOT / page).parent / name if name else ROOT / page
        assert target.exists(), f"{page}: {link}"
        if anchor:
            assert anchor in _anchors(target.read_text(encoding="utf-8")), f"{page}: {link}"


@pytest.mark.parametrize("page", TEXTS)
def test_named_files_exist(page):
    if page == "CHANGELOG.md":
        return  # names what is gone
    for path in re.findall(r"`((?:excel_core|tasks|flows|artifacts|prompts|tests|bench)/[\w/.-]*)`", TEXTS[page]):
        if "mine" not in path:  # what a contributor would add
            assert (ROOT / path).exists(), f"{page}: {path}"


def test_named_functions_are_in_their_files():
    row = re.compile(r"^\|(?: [^|`]+ \|)? `([\w/]+\.py)` \| ((?:`[\w.]+`(?:, )?)+) \|", re.MULTILINE)
    rows = [(path, name) for page in ("docs/architecture.md", "CONTRIBUTING.md") for path, name in row.findall(TEXTS[page])]
    assert len(rows) > 40
    for path, names in rows:
        source = (ROOT / path).read_text(encoding="utf-8")
        for name in re.findall(r"[\w.]+", names):
            *_, last = name.split(".")
            assert re.search(rf"^( {{4}})?(def|class) {last}\b|^{last}\b.* = ", source, re.MULTILINE), f"{path}: {name}"


def test_stages_are_told_and_drawn_as_the_pipeline_has_them():
    from tasks.engine.stage import RunEnvironment
    from tasks.pipeline import STAGES

    rows = re.findall(r"^\| ([a-z_, ]+) \| .+ \|$", TEXTS["docs/store.md"], re.MULTILINE)
    told = {name for row in rows for name in row.split(", ")} - {"stage"}
    assert told == set(STAGES)
    diagrams = runpy.run_path(str(ROOT / "docs/diagrams.py"))
    environment = RunEnvironment(store=Path("store"))
    reads = {name: set(STAGES[name].dependencies(preset("demo"), environment)) for name in diagrams["STAGES"]}
    drawn = {(start, end) for end in reads for start in reads[end] if (start, end) in diagrams["EDGES"]}
    assert drawn == set(diagrams["EDGES"])
    everywhere = {"world", "dataset", "knowledge", "ablation"}  # in words, or for some runs alone
    left_out = {(start, end) for end in reads if end != "report" for start in reads[end] - everywhere} - drawn
    assert not left_out


def _commands(text):
    """Every `excel …` line of a page, split as a shell would, without comments and what a reader has to fill in."""
    for block, inline in COMMAND.findall(text):
        words = shlex.split(block or inline, comments=True)
        yield [word for word in words if word not in ("…", "·")]


@pytest.mark.parametrize("page", TEXTS)
def test_commands_exist_with_their_options(page):
    for words in _commands(TEXTS[page]):
        _check_command(page, words)


def _check_command(page, words):
    command = typer.main.get_command(app)
    rest = words[1:]
    while isinstance(command, click.Group) or hasattr(command, "commands"):
        if not rest or rest[0].startswith("-") or rest[0].isupper():
            return
        assert rest[0] in command.commands, f"{page}: excel has no command {rest[0]!r}: {' '.join(words)}"
        command, rest = command.commands[rest[0]], rest[1:]
    options = {option for one in command.params for option in (*one.opts, *one.secondary_opts)} | {"--help"}
    for word in rest:
        if word.startswith("-"):
            assert word.partition("=")[0] in options, f"{page}: {word} is no option of {' '.join(words)}"


@pytest.mark.parametrize("page", sorted(set(TEXTS) - {"docs/settings.md"}))
def test_settings_exist_and_take_these_values(page):
    for name, value in SETTING.findall(TEXTS[page]):
        if name.endswith(FILE_SUFFIXES):
            continue
        spec = preset("voc")
        for field in name.split("."):
            assert field in type(spec).model_fields, f"{page}: there is no setting {name}"
            spec = getattr(spec, field)
        if value.strip("=…"):
            with_settings(preset("voc"), [name + value])  # SettingError where it does not take the value


def test_examples_in_python_use_the_interface():
    import excel_core

    examples = re.findall(r"```python\n(.*?)```", TEXTS["docs/python.md"], re.DOTALL)
    assert len(examples) == 2
    for example in examples:
        compile(example, "docs/python.md", "exec")
        assert set(re.findall(r"\bexcel\.(\w+)", example)) <= set(excel_core.__all__)
    told = set(re.findall(r"`(\w+)`", TEXTS["docs/python.md"]))
    functions = {name for name in excel_core.__all__ if name.islower()} - {"load_image"}
    assert functions <= told


def test_presets_and_methods_are_all_told():
    commands = TEXTS["docs/commands.md"]
    assert all(f"`{name}`" in commands for name in (*PRESETS, *METHODS))


def test_pictures_and_settings_are_what_their_sources_say():
    layers, flow = (runpy.run_path(str(ROOT / "docs/diagrams.py"))[name]() for name in ("layers_svg", "data_flow_svg"))
    assert (ROOT / "docs/layers.svg").read_text(encoding="utf-8") == layers, "run: make docs"
    assert (ROOT / "docs/data_flow.svg").read_text(encoding="utf-8") == flow, "run: make docs"
    settings = runpy.run_path(str(ROOT / "docs/settings.py"))["settings_page"]()
    assert TEXTS["docs/settings.md"] == settings, "run: python docs/settings.py"


def test_measurements_are_told_as_they_were_written():
    folder = ROOT / "docs/bench"
    assert TEXTS["docs/speed.md"] == speed_page(folder), "run: python -m bench.tables docs/bench > docs/speed.md"
    assert TEXTS["docs/scale.md"] == scale_page(folder, PRICES), "run: python -m bench.scale_page docs/bench > docs/scale.md"


def test_lines_are_short():
    """Of pages that people write; tables, commands and what a run has printed are as long as they are."""
    written = {f"docs/{name}.md" for name in ("demo_benchmark", "demo_results", "demo_seeds", "voc_benchmark")}
    for page in set(TEXTS) - {"CHANGELOG.md"} - written:
        outside = re.sub(r"^```.*?^```$", "", TEXTS[page], flags=re.DOTALL | re.MULTILINE)
        long = [line for line in outside.splitlines() if len(line) > MAX_LINE and not line.startswith("|")]
        assert not long, f"{page}: {long[0]}"


def test_promises_have_their_tests_and_figures():
    page = runpy.run_path(str(ROOT / "docs/reliability.py"))
    assert TEXTS["docs/reliability.md"] == page["reliability_page"](), "run: python docs/reliability.py"
    for promise in page["PROMISES"]:
        file, _, function = promise.test.partition("::")
        assert f"def {function}(" in (ROOT / file).read_text(encoding="utf-8"), promise.test


def test_site_shows_every_page():
    nav = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    listed = set(re.findall(r": ([\w]+\.md)$", nav, re.MULTILINE))
    assert {path.name for path in (ROOT / "docs").glob("*.md")} <= listed


def test_citation_names_the_paper():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["references"] == [citation["preferred-citation"]]
    assert citation["preferred-citation"]["title"] in " ".join(TEXTS["docs/method.md"].split())
