"""The stages in order, and how outputs are handed from one to the next."""

from collections.abc import Callable

from excel_core.config import RunSpec
from tasks import cams, dataset, describe, dynamic, evaluate, knowledge, refine, report, train, world
from tasks.stage import Place, Stage, StageOutput, Work, complete_output, stage_identity

__all__ = ["STAGES", "complete_outputs", "follow", "needed_stages", "report_work"]

STAGES: dict[str, Stage] = {
    module.STAGE.name: module.STAGE
    for module in (world, dataset, describe, knowledge, cams, refine, train, dynamic, evaluate, report)
}
Outputs = dict[str, StageOutput]
Runner = Callable[[Stage, RunSpec, Place, Outputs], StageOutput | None]


def needed_stages(run: RunSpec, last: str) -> list[Stage]:
    """The stages that `last` needs, itself included, in order; the world only for the world's layout."""
    needed = {last}
    for stage in reversed(STAGES.values()):
        if stage.name in needed:
            needed.update(stage.inputs)
    if run.dataset.layout == "world" and "dataset" in needed:
        needed.add("world")
    return [stage for stage in STAGES.values() if stage.name in needed]


def follow(run: RunSpec, place: Place, last: str, runner: Runner) -> tuple[Outputs, Place]:
    """Call `runner` on each needed stage with its inputs; stop where it returns None. → outputs, and the place with the
    world as its data once that is drawn."""
    outputs: Outputs = {}
    for stage in needed_stages(run, last):
        output = runner(stage, run, place, {name: outputs[name] for name in stage.inputs})
        if output is None:
            break
        outputs[stage.name] = output
        if stage.name == "world":
            place = place.model_copy(update={"data": output.folder})
    return outputs, place


def complete_outputs(run: RunSpec, place: Place, last: str) -> Outputs:
    """The outputs that are complete already, from the first stage on; nothing is run."""

    def look(stage: Stage, run: RunSpec, place: Place, inputs: Outputs) -> StageOutput | None:
        return complete_output(stage, stage_identity(stage, run, place, inputs), place.store)

    return follow(run, place, last, look)[0]


def report_work(run: RunSpec, place: Place, outputs: Outputs) -> Work:
    """What `tasks.report.build_view` reads, from finished outputs; the world, where there is one, is the data."""
    if "world" in outputs:
        place = place.model_copy(update={"data": outputs["world"].folder})
    return Work(run, place, {name: outputs[name] for name in STAGES["report"].inputs}, outputs["report"].folder)
