"""The stages that a run needs, as a graph, and how outputs are handed from one to the next."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from excel_core.config import RunSpec
from tasks.engine.fingerprint import digest_of
from tasks.engine.lock import store_in_use
from tasks.engine.output import StageOutput
from tasks.engine.stage import Job, RunEnvironment, Stage

__all__ = ["Graph", "Node", "make_graph"]


@dataclass(frozen=True)
class Node:
    """A stage under a run, or under a variant of it that another stage needs; `inputs` maps input names to nodes' ids.

    Two nodes whose settings agree, back to the first stage, have the same `id`: they are one node.
    """

    stage: Stage
    run: RunSpec
    id: str
    inputs: dict[str, str] = field(hash=False)
    variant: str = ""  # what the variant is called; "" for the run itself


@dataclass(frozen=True)
class Graph:
    """Nodes by id, inputs before what reads them. `own_ids`: ids of the run's own stages by name, without its variants'."""

    environment: RunEnvironment
    nodes: dict[str, Node]
    own_ids: dict[str, str]

    def job(self, node: Node, outputs: Mapping[str, StageOutput]) -> Job:
        """The node's job, its inputs taken from `outputs`, which maps nodes' ids to outputs."""
        inputs = {name: outputs[id] for name, id in node.inputs.items()}
        return Job(node.stage, node.run, self.environment, inputs, node.variant)

    def follow(self, build: Callable[[Job], StageOutput | None]) -> dict[str, StageOutput]:
        """Call `build` on each job in order, leaving out those with an input that was not built → the run's own outputs by
        stage name. No output is removed meanwhile."""
        outputs: dict[str, StageOutput] = {}
        with store_in_use(self.environment.store):
            for node in self.nodes.values():
                if all(id in outputs for id in node.inputs.values()):
                    output = build(self.job(node, outputs))
                    if output is not None:
                        outputs[node.id] = output
        return {name: outputs[id] for name, id in self.own_ids.items() if id in outputs}


def make_graph(stages: Mapping[str, Stage], run: RunSpec, environment: RunEnvironment, last: str) -> Graph:
    """Every node that stage `last` of `run` needs, itself included."""
    nodes: dict[str, Node] = {}
    own_ids: dict[str, str] = {}

    def add(stage: Stage, stage_run: RunSpec, variant: str) -> str:
        inputs = {}
        for name, dependency in stage.dependencies(stage_run, environment).items():
            # An input that is not called as its stage is a variant, and what it needs in turn is called like it.
            called = name if name not in stages else "" if dependency.run == run else variant
            inputs[name] = add(stages[dependency.stage], dependency.run, called)
        # What keys depend on beside settings and inputs, as far as the run decides it.
        outside = [stage_run.clip.model, stage_run.describe.file, stage_run.dataset.model_dump(mode="json")]
        id = digest_of([stage.name, stage.key.settings(stage_run), inputs, *outside])
        nodes.setdefault(id, Node(stage, stage_run, id, inputs, variant))
        if stage_run == run:
            own_ids[stage.name] = id
        return id

    add(stages[last], run, "")
    return Graph(environment, nodes, own_ids)
