"""The pipeline's table says what the stages do: what they read, what they make, and what the flow calls."""

from contextlib import contextmanager
from types import SimpleNamespace

import pytest

import flows.excel
from excel_core.config.presets import with_settings
from excel_core.errors import SettingError
from flows.chain_run import ChainRun
from flows.request import ResolvedRun, RunRequest
from tasks.engine.executor import in_turn
from tasks.history.run_record import start_record
from tasks.pipeline import STAGES, pipeline
from tests.pipeline_runs import files_made, files_named


def test_a_stage_reads_what_the_table_says_and_nothing_else(watched_chain, small_run):
    _, environment, read = watched_chain
    graph = pipeline(small_run, environment)
    assert set(read) == {node.stage.name for node in graph.nodes.values()} >= {"sweep", "sweep_lvc", "ablation"}
    for name, looked_at in read.items():
        nodes = [node for node in graph.nodes.values() if node.stage.name == name]
        listed = {inner for node in nodes for inner in node.inputs}
        assert looked_at == listed, name
        assert set(STAGES[name].reads) <= listed


def test_a_stage_makes_what_the_table_says_and_nothing_else(chain):
    for name, output in chain[0].items():
        # By train.keep_every, and by many images alone.
        asked_for = {"train": {"kept/"}, "report": {"images/"}}.get(name, set())
        assert files_made(output) == files_named(name) - asked_for, name
    for name in ("sweep", "sweep_lvc", "ablation"):  # of variants of the run
        for folder in (chain[1].store / name).glob("[!.]*"):
            assert files_made(SimpleNamespace(folder=folder)) == files_named(name), name


def test_inputs_come_before_what_reads_them(chain, small_run):
    for last in STAGES:
        run = with_settings(small_run, ["train.keep_every=2"]) if last == "curve" else small_run
        order = list(pipeline(run, chain[1], last).nodes.values())
        for position, node in enumerate(order):
            assert set(node.inputs.values()) <= {earlier.id for earlier in order[:position]}
        assert order[-1].stage.name == last


def test_a_variant_that_changes_nothing_a_stage_reads_is_the_runs_own(chain, small_run):
    """The ablation's variants share every stage that their settings leave alone."""
    graph = pipeline(small_run, chain[1])
    count = {name: sum(node.stage.name == name for node in graph.nodes.values()) for name in STAGES}
    assert count["world"] == count["dataset"] == count["describe"] == count["cams"] == count["evaluate"] == 1
    assert count["sweep"] > 1 and count["knowledge"] > 1


@pytest.fixture
def flow_calls(monkeypatch, small_run, chain):
    """Runs the body of the flow `excel` and gives its calls in order: a stage's name, and the stages whose outputs it gets."""
    calls = []

    @contextmanager
    def recording(run, environment, last, runner, log):
        def stage(name, *inputs):
            calls.append((name, [output.stage for output in inputs]))
            return chain[0][name]

        stage.outputs, stage.cached = chain[0], set()
        yield stage

    monkeypatch.setattr(flows.excel, "chain_run", recording)
    monkeypatch.setattr(flows.excel, "publish_report", lambda *arguments: [])
    monkeypatch.setattr(RunRequest, "resolve", lambda request: ResolvedRun(small_run, chain[1]))
    flows.excel.excel.fn(preset="demo")
    return calls


def test_the_flow_and_the_table_say_the_same(flow_calls):
    assert [name for name, _ in flow_calls] == [name for name in STAGES if name in dict(flow_calls)]
    trained = {"train", "dynamic", "predict"}
    for name, inputs in flow_calls:
        reads = (set(STAGES[name].reads) | (trained if name == "report" else set())) - {"world"}
        assert reads <= set(inputs) and len(inputs) == len(set(inputs))
        assert set(inputs) - reads <= ({"refine"} if name == "train" else {"refine", "dynamic", "predict"}), name
    assert set(dict(flow_calls)) == {"report", *trained, *STAGES["report"].reads} - {"world"}


def test_a_call_without_an_input_of_the_table_is_refused(chain, small_run):
    outputs, environment = chain
    record = start_record("excel", small_run, environment)
    try:
        stage = ChainRun(small_run, environment, "report", record, in_turn)
        with pytest.raises(TypeError, match="stage 'cams' reads knowledge too: give it their outputs"):
            stage("cams", outputs["dataset"])
        with pytest.raises(TypeError, match="stage 'report' reads cams, dataset, .*refine too"):
            stage("report")
        assert stage.outputs == {}
    finally:
        (environment.store / "records" / f"{record.id}.json").unlink()


@pytest.mark.parametrize(
    ("settings", "last", "message"),
    [
        (["evaluate.kinds=[static]"], "report", "evaluate.kinds=static: a report needs .*lvc"),
        (["train.supervision=masks"], "ablation", "train.supervision=masks: the ablation is about image-level labels"),
        (
            ["train.enabled=false"],
            "predict",
            "trains no segmenter .*which predict needs; stages that it has: .*refine, evaluate",
        ),
        (["train.enabled=false", "evaluate.ablation=false"], "report", "trains no segmenter .*which report needs"),
        (["train.enabled=false"], "report", "the ablation is about parts of the method excel"),
        (["train.from_checkpoint=x.pth"], "curve", "curve: train.from_checkpoint trains nothing"),
    ],
)
def test_stages_that_do_not_go_together_are_refused(chain, small_run, settings, last, message):
    with pytest.raises(SettingError, match=message):
        pipeline(with_settings(small_run, settings), chain[1], last)
