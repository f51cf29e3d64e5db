"""The stages of a run inside its flow: each is called by name, every step is a Prefect task run, and the run is recorded."""

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.logging import get_run_logger
from prefect.runtime import flow_run

from artifacts.stages import result_line
from excel_core.config import RunSpec
from excel_core.datasets.left_out import left_out_lines
from excel_core.errors import StoreError
from excel_core.files import read_json
from flows.api_key import key_of_run
from flows.config_file import config_of_current_run
from flows.dead_runs import close_dead_runs
from flows.runners import parts_builder
from tasks.engine.executor import BuildParts, Step, build_stage, complete_output, part_steps
from tasks.engine.failures import plain_failures
from tasks.engine.lock import store_in_use
from tasks.engine.output import StageOutput
from tasks.engine.prefect_task import run_step
from tasks.engine.progress import listening, say
from tasks.engine.stage import Job, RunEnvironment
from tasks.history.named_folder import link_outputs, write_config
from tasks.history.run_record import RunRecord, start_record
from tasks.pipeline import STAGES, pipeline
from tasks.stages.dataset import left_out_things
from tasks.trackers.live import logged_live
from tasks.trackers.target import parse_target

__all__ = ["ChainRun", "chain_run"]

UPDATE_SECONDS = 5.0  # between two updates of a progress artifact


class ChainRun:
    """Calls the stages of a run up to stage `last`. `cached`: the run's own stages that it did not have to build."""

    def __init__(
        self, run: RunSpec, environment: RunEnvironment, last: str, record: RunRecord, build_parts: BuildParts
    ) -> None:
        self.run, self.environment, self.last = run, environment, last
        self.cached: set[str] = set()
        self._graph = pipeline(run, environment, last)
        self._record = record
        self._build_parts = build_parts
        self._built: dict[str, StageOutput] = {}  # by node

    def __call__(self, name: str, *inputs: StageOutput) -> StageOutput:
        """Stage `name`, from the outputs of the stages that it reads. What it reads beside them (the drawn world, variants of
        the run) is built first. TypeError where an output is missing that tasks/pipeline.py names, so that a flow and the table
        say the same."""
        missing = set(STAGES[name].reads) - {"world"} - {output.stage for output in inputs}
        if missing:
            raise TypeError(f"stage {name!r} reads {', '.join(sorted(missing))} too: give it their outputs")
        return self._build_node(self._graph.own_ids[name])

    def until_last(self) -> StageOutput:
        """The last stage, and whatever it needs."""
        return self._build_node(self._graph.own_ids[self.last])

    def build(self, job: Job) -> StageOutput:
        """A job beside the run's own, such as a score of an earlier run's label maps, noted in the record as the others are."""
        whole = Step(job)
        was_complete = complete_output(whole) is not None
        if not was_complete:
            self._record.begin(f"{step.kind}/{step.key}" for step in (whole, *part_steps(job)))
        output = build_stage(job, run_step, self._build_parts)
        self._record.use(output, cached=was_complete)
        _tell(result_line(job.name, output.result, output.seconds, was_complete))
        return output

    @property
    def id(self) -> str:
        """The run's id in the store's records."""
        return self._record.id

    def job(self, name: str) -> Job:
        """The job of one of the run's own stages, whose inputs are complete."""
        return self._graph.job(self._graph.nodes[self._graph.own_ids[name]], self._built)

    @property
    def outputs(self) -> dict[str, StageOutput]:
        """The run's own outputs by stage name."""
        return {name: self._built[node] for name, node in self._graph.own_ids.items() if node in self._built}

    def _build_node(self, id: str) -> StageOutput:
        if id not in self._built:
            node = self._graph.nodes[id]
            for needed in node.inputs.values():
                self._build_node(needed)
            output = self.build(self._graph.job(node, self._built))
            if f"{output.stage}/{output.key}" in self._record.cached and node.run == self.run:
                self.cached.add(node.stage.name)
            self._built[id] = output
        return self._built[id]


def _tell(line: str) -> None:
    """To the flow run's log, which the UI shows, and to whoever watches the terminal."""
    get_run_logger().info(line)
    say(line)


@contextmanager
def chain_run(run: RunSpec, environment: RunEnvironment, last: str, runner: str, log: str | None = None) -> Iterator[ChainRun]:
    """Around the body of a flow that runs the pipeline up to stage `last`. Every `runner` computes the same; `log` names a
    tracker that is told of the run."""
    environment.store.mkdir(parents=True, exist_ok=True)
    with (
        plain_failures("run", environment.store),
        store_in_use(environment.store),
        _recorded(run, environment) as record,
        key_of_run(run, environment, last),
        parts_builder(runner, environment) as build_parts,
        listening(_Progress()),
        logged_live(parse_target(log) if log else None, record, _tell),
    ):
        chain = ChainRun(run, environment, last, record, build_parts)
        yield chain
        record.note_own(chain.outputs)
        for stage, file in (("score", "score.json"), ("evaluate", "metrics.json")):
            if stage in chain.outputs:
                scored = read_json(chain.outputs[stage].folder / file)
                record.headline = {key: result["miou"] for key, result in scored["results"].items()}


@contextmanager
def _recorded(run: RunSpec, environment: RunEnvironment) -> Iterator[RunRecord]:
    """The run's record, ended as the block ends."""
    close_dead_runs(environment.store)
    flow, store = flow_run.flow_name or "", environment.store
    config = config_of_current_run(flow, store)
    record = start_record(flow, run, environment, str(flow_run.id or ""), flow_run.name or "", config)
    with record.at_work():
        try:
            write_config(record)
            record.left_out = left_out_lines(left_out_things(run, environment))
            for line in record.left_out:
                say(line)
            yield record
            link_outputs(record)
        except BaseException as error:
            was_stopped = not isinstance(error, Exception)
            with suppress(OSError, StoreError):  # of a disk that is full or a store that was removed; `error` tells more
                record.end("stopped" if was_stopped else "failed", f"{type(error).__name__}: {error}".splitlines()[0])
            raise
        record.end("complete")


class _Progress:
    """Progress artifacts `excel-progress-<stage>`, one for each job that outlasts the first UPDATE_SECONDS."""

    def __init__(self) -> None:
        self.artifacts: dict[str, Any] = {}
        self.updated: dict[str, float] = {}

    def __call__(self, job: str, done: int, total: int) -> None:
        time_now = time.monotonic()
        last_update = self.updated.setdefault(job, time_now)
        is_end = done == total and job in self.artifacts
        if time_now - last_update < UPDATE_SECONDS and not is_end:
            return
        self.updated[job] = time_now
        percent = 100 * done / max(1, total)
        if job in self.artifacts:
            update_progress_artifact(self.artifacts[job], percent, _sync=True)  # type: ignore[call-arg]
        else:
            key = f"excel-progress-{job.partition(' ')[0].replace('_', '-')}"  # a variant's name has signs no key may have
            text = f"{job}: share of its images or iterations that is done"
            self.artifacts[job] = create_progress_artifact(percent, key=key, description=text, _sync=True)  # type: ignore[call-arg]
