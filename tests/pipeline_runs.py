"""Runs of the pipeline as tests need them: without Prefect, and with the names of what was not in the store before."""

from collections.abc import Callable, ValuesView
from dataclasses import replace

from excel_core.config import RunSpec
from tasks.engine.executor import Step, build_stage, complete_output, find_or_build
from tasks.engine.output import StageOutput
from tasks.engine.stage import Job, RunEnvironment
from tasks.history.run_record import RunRecord, start_record
from tasks.pipeline import STAGES, pipeline
from tests.mask_watch import opened_masks

__all__ = [
    "complete", "files_made", "files_named", "follow", "follow_and_note", "follow_and_watch", "follow_and_watch_masks",
    "recorded",
]  # fmt: skip

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


class _Watched(dict[str, StageOutput]):
    """Inputs of a job. `read`: which of them the job looks at; keys are made of all, by `items`, which is no look at one."""

    read: set[str]

    def __getitem__(self, name: str) -> StageOutput:
        self.read.add(name)
        return super().__getitem__(name)

    def values(self) -> ValuesView[StageOutput]:
        self.read |= set(self)
        return super().values()


def follow_and_watch(run: RunSpec, environment: RunEnvironment, last: str) -> tuple[Outputs, dict[str, set[str]]]:
    """The run's own outputs, and which inputs each stage looked at, if only under a variant of the run."""
    read: dict[str, set[str]] = {}

    def build(job: Job) -> StageOutput:
        inputs = _Watched(job.inputs)
        inputs.read = read.setdefault(job.stage.name, set())
        return build_stage(replace(job, inputs=inputs))

    return follow(run, environment, last, build), read


def follow_and_watch_masks(run: RunSpec, environment: RunEnvironment, last: str) -> tuple[Outputs, dict[str, set[str]]]:
    """The run's own outputs, and the masks that each stage opened."""
    opened: dict[str, set[str]] = {}

    def build(job: Job) -> StageOutput:
        with opened_masks() as masks:
            output = build_stage(job)
        opened.setdefault(job.stage.name, set()).update(masks)
        return output

    return follow(run, environment, last, build), opened


def recorded(run: RunSpec, environment: RunEnvironment, last: str = "report", flow: str = "excel") -> tuple[RunRecord, Outputs]:
    """A complete run, as a flow leaves its record → record, and the run's own outputs."""
    record = start_record(flow, run, environment)

    def build(job: Job) -> StageOutput:
        cached = complete(job) is not None
        output = build_stage(job)
        record.use(output, cached)
        return output

    outputs = follow(run, environment, last, build)
    record.note_own(outputs)
    record.end("complete")
    return record, outputs


def files_named(stage: str) -> set[str]:
    """The top-level files and folders (with a slash) that the pipeline's table says a stage makes."""
    return set(STAGES[stage].makes.partition(":")[0].split(", "))


def files_made(output: StageOutput) -> set[str]:
    """Those that an output has, beside its marker."""
    return {f"{path.name}/" if path.is_dir() and path.suffix != ".zarr" else path.name for path in output.folder.iterdir()} - {
        "stage.json"
    }
