"""The chain as Prefect tasks, inside a flow: every piece of work a task run, progress and a record of the run beside it."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.runtime import flow_run

from excel_core.config import RunSpec
from excel_core.files import read_json
from flows.api_key import key_of_run
from flows.dead_runs import close_dead_runs
from flows.runners import parts_builder
from tasks.chain import follow
from tasks.engine.build import complete_output, run_stage
from tasks.engine.outputs import StageOutput
from tasks.engine.prefect_task import work_task
from tasks.engine.progress import listening
from tasks.engine.stage import RunEnvironment, Work
from tasks.history.run_record import RunRecord, start_record

__all__ = ["ChainRun", "run_until"]

PAUSE = 5.0  # seconds between two updates of a progress artifact


@dataclass(frozen=True)
class ChainRun:
    """A finished chain: the run's own outputs by stage name, and which of them were found complete."""

    outputs: dict[str, StageOutput]
    cached: frozenset[str] = field(default_factory=frozenset)


def run_until(last: str, run: RunSpec, place: RunEnvironment, runner: str = "sequential") -> ChainRun:
    """Run the chain up to `last`. Every `runner` computes the same."""
    place.store.mkdir(parents=True, exist_ok=True)
    close_dead_runs(place.store)
    cached = set()
    with (
        _recorded(run, place) as record,
        key_of_run(last, run, place),
        parts_builder(runner, place) as build_parts,
        listening(_Progress()),
    ):

        def build(work: Work) -> StageOutput:
            found = complete_output(work) is not None
            output = run_stage(work, lambda piece: work_task(piece)(piece), build_parts)
            record.use(output, cached=found)
            if found and work.run == run:
                cached.add(work.stage.name)
            return output

        outputs = follow(run, place, last, build)
        record.note_own(outputs)
        if "evaluate" in outputs:
            metrics = read_json(outputs["evaluate"].folder / "metrics.json")
            record.headline = {key: result["miou"] for key, result in metrics["results"].items()}
    return ChainRun(outputs, frozenset(cached))


@contextmanager
def _recorded(run: RunSpec, place: RunEnvironment) -> Iterator[RunRecord]:
    """The run's record, ended as the block ends."""
    record = start_record(flow_run.flow_name or "", run, place, str(flow_run.id or ""), flow_run.name or "")
    try:
        yield record
    except BaseException as error:
        stopped = not isinstance(error, Exception)
        record.end("stopped" if stopped else "failed", f"{type(error).__name__}: {error}".splitlines()[0])
        raise
    record.end("complete")


class _Progress:
    """Progress artifacts `excel-progress-<stage>`, one for each work of a stage that outlasts the first pause."""

    def __init__(self) -> None:
        self.artifacts: dict[str, Any] = {}
        self.updated: dict[str, float] = {}

    def __call__(self, work: str, done: int, total: int) -> None:
        now = time.monotonic()
        first = self.updated.setdefault(work, now)
        if now - first < PAUSE and not (done == total and work in self.artifacts):
            return
        self.updated[work] = now
        percent = 100 * done / max(1, total)
        if work in self.artifacts:
            update_progress_artifact(self.artifacts[work], percent, _sync=True)  # type: ignore[call-arg]
        else:
            key = f"excel-progress-{work.partition(' ')[0].replace('_', '-')}"  # a variant's name has signs no key may have
            text = f"{work}: share of its images or iterations that is done"
            self.artifacts[work] = create_progress_artifact(percent, key=key, description=text, _sync=True)  # type: ignore[call-arg]
