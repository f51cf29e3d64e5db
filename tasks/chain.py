"""The stages, which of them a run needs, and how outputs are handed from one to the next."""

from collections.abc import Callable
from dataclasses import dataclass, field

from excel_core.config import RunSpec
from tasks import (
    ablation,
    cams,
    curve,
    dataset,
    describe,
    dynamic,
    evaluate,
    figures,
    knowledge,
    paper,
    predict,
    refine,
    report,
    sweep,
    train,
    world,
)
from tasks.engine.build import complete_output
from tasks.engine.identity import digest_of
from tasks.engine.outputs import StageOutput
from tasks.engine.stage import RunEnvironment, Stage, Work

__all__ = ["STAGES", "Graph", "Node", "complete_outputs", "follow", "graph", "report_work", "work_of"]

STAGES: dict[str, Stage] = {
    stage.name: stage
    for stage in (
        world.STAGE, dataset.STAGE, describe.STAGE, knowledge.STAGE, cams.STAGE, refine.STAGE, train.STAGE, dynamic.STAGE,
        predict.STAGE,
        sweep.STAGE, sweep.LEARNT, curve.STAGE, ablation.STAGE, figures.STAGE, evaluate.STAGE, report.STAGE, paper.STAGE,
    )
}  # fmt: skip
Outputs = dict[str, StageOutput]


@dataclass(frozen=True)
class Node:
    """A stage under a run, or under a variant of it that another stage needs; `inputs` maps input names to nodes' keys.

    Two nodes whose specs, back to the first stage, agree have the same `key`: they are one node.
    """

    stage: Stage
    run: RunSpec
    key: str
    inputs: dict[str, str] = field(hash=False)
    variant: str = ""  # what the variant is called; "" for the run itself


@dataclass(frozen=True)
class Graph:
    """Nodes by key, inputs before what reads them; `own`: the keys of the run's own stages, without its variants'."""

    nodes: dict[str, Node]
    own: dict[str, str]


def graph(run: RunSpec, place: RunEnvironment, last: str) -> Graph:
    """Every node that stage `last` of `run` needs, itself included."""
    nodes: dict[str, Node] = {}
    own: dict[str, str] = {}

    def add(stage: Stage, variant: RunSpec, label: str) -> str:
        inputs = {}
        for name, need in stage.all_needs(variant, place).items():
            called = name if name not in STAGES else "" if need.run == run else label
            inputs[name] = add(STAGES[need.stage], need.run, called)
        outside = [variant.clip.model, variant.describe.file, variant.dataset.model_dump(mode="json")]
        parts = [stage.name, stage.spec(variant), inputs, *outside]
        key = digest_of(parts)
        nodes.setdefault(key, Node(stage, variant, key, inputs, label))
        if variant == run:
            own[stage.name] = key
        return key

    add(STAGES[last], run, "")
    return Graph(nodes, own)


def work_of(node: Node, place: RunEnvironment, outputs: Outputs) -> Work:
    """The node's work, its inputs taken from `outputs` by key."""
    inputs = {name: outputs[key] for name, key in node.inputs.items()}
    return Work(node.stage, node.run, place, inputs, variant=node.variant)


def follow(run: RunSpec, place: RunEnvironment, last: str, build: Callable[[Work], StageOutput | None]) -> Outputs:
    """Call `build` on each needed node, leaving out those with an input that was not built → the run's own outputs by
    stage name."""
    found, outputs = graph(run, place, last), {}
    for key, node in found.nodes.items():
        if all(needed in outputs for needed in node.inputs.values()):
            output = build(work_of(node, place, outputs))
            if output is not None:
                outputs[key] = output
    return {name: outputs[key] for name, key in found.own.items() if key in outputs}


def complete_outputs(run: RunSpec, place: RunEnvironment, last: str) -> Outputs:
    """The outputs that are complete already; nothing is run."""
    return follow(run, place, last, complete_output)


def report_work(run: RunSpec, place: RunEnvironment, outputs: Outputs) -> Work:
    """The work of the report, from finished outputs and with its folder: what `tasks.report.build_view` reads."""
    stage = STAGES["report"]
    inputs = {name: outputs[name] for name in stage.all_needs(run, place)}
    return Work(stage, run, place, inputs, folder=outputs["report"].folder)
