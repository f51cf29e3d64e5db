"""Runs of the pipeline as tests need them: without Prefect, and with the names of what was not in the store before."""

from collections.abc import Callable

from excel_core.config import RunSpec
from tasks.engine.executor import Step, build_stage, complete_output, find_or_build
from tasks.engine.output import StageOutput
from tasks.engine.stage import Job, RunEnvironment
from tasks.pipeline import pipeline

__all__ = ["complete", "follow", "follow_and_note"]

Outputs = dict[str, StageOutput]


def follow(
    run: RunSpec, environment: RunEnvironment, last: str, build: Callable[[Job], StageOutput | None] = build_stage
) -> Outputs:
    """Call `build` on every job up to stage `last`, in order → the run's own outputs by stage name."""
    return pipeline(run, environment, last).follow(build)


def complete(job: Job) -> StageOutput | None:
    """The job's output where it is complete already: a `build` that runs nothing."""
    return complete_output(Step(job))


def follow_and_note(run: RunSpec, environment: RunEnvironment, last: str, parts: bool = True) -> tuple[Outputs, list[str]]:
    """The run's own outputs, and the names of the steps that were built for them, in order; `parts`: parts among these."""
    built: list[str] = []

    def build_step(step: Step) -> StageOutput:
        if complete_output(step) is None and (parts or step.part is None):
            built.append(step.name)
        return find_or_build(step)

    return follow(run, environment, last, lambda job: build_stage(job, build_step)), built
