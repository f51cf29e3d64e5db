"""The stage `describe` with a language model: what is asked for again after an edit, what it cost, and what stays of it."""

import json

import pytest
import yaml

from excel_core.config.presets import preset, with_settings
from excel_core.errors import DescriptionError
from excel_core.files import read_json
from excel_core.text.class_sets import PROMPTS_FOLDER
from excel_core.text.descriptions import load_descriptions
from excel_core.text.prompts import load_prompts
from tasks.engine.executor import build_stage, find_or_build
from tasks.engine.stage import RunEnvironment
from tasks.history.llm_cost import llm_cost_line
from tasks.history.run_record import start_record
from tasks.stages.describe import DescribeResult
from tests.pipeline_runs import follow
from tests.tasks.chat_server import MODEL, chat_server, says

CLASSES = ("house", "tree", "car")


class Described:
    """A class file of one's own, a store and a server; `run` says which classes it was asked for."""

    def __init__(self, folder, server):
        self.file, self.store, self.server = folder / "mine.yaml", folder / "store", server
        self.entries = {name: {"name": name, "synonyms": name} for name in CLASSES}
        self.settings = ["describe.provider=openai", f"describe.base_url={server.url}", "describe.n=4", "describe.retries=0"]

    def run(self, *settings, flow_run="", recorded=False):
        """`recorded`: by a run of this process, as a command's is."""
        whole = {"name": "mine", "template": "a clean origami {}.", "background": ["sky"]}
        self.file.write_text(yaml.safe_dump(whole | {"classes": list(self.entries.values())}))
        before = len(self.server.requests)
        run = with_settings(preset("demo"), [f"dataset.prompts={self.file}", *self.settings, *settings])
        environment = RunEnvironment(store=self.store)
        if recorded:
            start_record("excel", run, environment, flow_run_id=flow_run)

        def build_step(step):
            return find_or_build(step, flow_run={"flow_run_id": flow_run})

        self.output = follow(run, environment, "describe", lambda job: build_stage(job, build_step))["describe"]
        return [seen.about for seen in self.server.requests[before:]]


@pytest.fixture
def described(tmp_path, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with chat_server() as server:
        yield Described(tmp_path, server)


def test_an_edit_asks_for_what_it_touches(described):
    assert described.run() == list(CLASSES) and described.run() == []
    described.entries["tree"]["about"] = "a plant, not a diagram"
    assert described.run() == ["tree"]
    described.entries["tree"]["synonyms"] = "tree bush"
    assert described.run() == []
    described.entries["boat"] = {"name": "boat", "synonyms": "boat"}
    assert described.run() == ["boat"]  # although the others' requests now name it
    assert described.run("describe.concurrency=1", "describe.timeout=50", "describe.input_price=1") == []
    assert described.run("describe.model=another") == [*CLASSES, "boat"]
    assert described.run("describe.n=5") == [*CLASSES, "boat"]
    assert described.run() == []


def test_another_instruction_asks_again(described, tmp_path):
    described.run()
    path = tmp_path / "describe.md"
    path.write_text((PROMPTS_FOLDER / "describe.md").read_text() + "Write in riddles.\n")
    assert described.run(f"describe.instruction={path}") == list(CLASSES)
    assert "riddles" in described.server.requests[-1].body["messages"][1]["content"]


def test_tokens_and_cost_are_counted(described):
    described.server.script["car"] = [says(lambda beginning, n, turn: [])]  # one round of repair
    described.run("describe.input_price=2", "describe.output_price=10")
    cost = described.output.result_as(DescribeResult).cost
    assert (cost.requests, cost.prompt_tokens, cost.completion_tokens) == (4, 400, 160)
    assert cost.usd == pytest.approx((400 * 2 + 160 * 10) / 1e6)


def test_what_it_leaves_is_a_file_to_use(described):
    described.run()
    path = described.output.folder / "descriptions.json"
    found = load_descriptions(path, load_prompts(described.file), 4)
    assert found.provenance["provider"] == "openai" and found.provenance["server"] == described.server.url
    for name in CLASSES:
        assert found.class_provenance[name]["model"] == MODEL and len(found.class_provenance[name]["date"]) == 10
    (described.file.with_suffix(".json")).write_text(path.read_text())
    described.settings = ["describe.n=4"]
    assert described.run() == []
    assert read_json(described.output.folder / "descriptions.json")["classes"] == json.loads(path.read_text())["classes"]


def test_a_class_that_fails_is_named_and_asked_for_again_alone(described):
    described.server.script["car"] = [says([]), says([])]
    with pytest.raises(DescriptionError, match="class 'car': .*0 of 4 descriptions are usable after a round of repair"):
        described.run()
    assert described.run() == ["car"]
    assert described.output.result["classes"] == 3


def test_the_line_at_a_runs_end_counts_what_this_run_spent(described):
    prices = ("describe.input_price=2", "describe.output_price=10")
    described.run(*prices, flow_run="earlier")  # by another process: no record of this one names it
    assert llm_cost_line(described.output) == (
        "describe: 0 classes asked; 3 classes found, which took 300 + 120 tokens, 0.0018 USD when they were asked"
    )
    described.entries["tree"]["about"] = "a plant"
    described.run(flow_run="this", recorded=True)  # without prices: no cost of what is asked now
    assert llm_cost_line(described.output) == (
        "describe: 1 class asked, 100 + 40 tokens; 2 classes found, which took 200 + 80 tokens, 0.0012 USD when they were asked"
    )
    described.run("describe.model=dear", "describe.input_price=9999", "describe.output_price=0", flow_run="this")
    assert llm_cost_line(described.output) == "describe: 3 classes asked, 300 + 120 tokens, 3.00 USD"


def test_bundled_descriptions_cost_nothing(described):
    described.run()
    described.file.with_suffix(".json").write_text((described.output.folder / "descriptions.json").read_text())
    described.settings = ["describe.n=4"]
    described.run()
    assert llm_cost_line(described.output) == ""
