"""Run a job: reuse what is complete, build what is missing, part by part.

The way down is five calls, each of which adds one thing:

    ChainRun (flows/chain_run.py)     the graph, and the record of the run
    build_stage                       parts
    run_step (prefect_task.py)        a Prefect task run, here or on a worker
    find_or_build                     the cache: lock, verify, guard, measure, commit
    tasks/stages/NAME.py              the work itself
"""

import os
import shutil
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from excel_core.errors import StoreError
from excel_core.sync import make_folder
from tasks.engine.code_digest import code_digest
from tasks.engine.failures import plain_failures
from tasks.engine.fingerprint import digest_of
from tasks.engine.lock import locked
from tasks.engine.memory import MemoryWatch, largest
from tasks.engine.object_store import cache_folder
from tasks.engine.output import (
    PARTIAL,
    Origin,
    StageOutput,
    StageResult,
    commit,
    commit_interrupted,
    empty_folder,
    find_output,
    remove_output,
    resume_folder,
)
from tasks.engine.progress import Counter, say
from tasks.engine.shared_outputs import bring_here, is_shared, share
from tasks.engine.stage import Job, Part, Sharded, Whole, mask_access

__all__ = [
    "BuildParts", "BuildStep", "Outputs", "Step", "build_stage", "complete_output", "find_or_build", "in_turn", "part_steps",
]  # fmt: skip

KEY_DIGITS = 32
LAYOUTS = ("excel_core.datasets.layouts", "LAYOUTS")  # registries that a run's settings choose from
PRODUCERS = tuple(("excel_core.cams.producers", name) for name in ("PRODUCERS", "LEARNT", "ENCODED"))


@dataclass(frozen=True)
class Step:
    """What is built and cached as one: a part of a job, or the job as a whole once its parts are complete."""

    job: Job
    part: Part | None = None
    parts: dict[str, StageOutput] = field(default_factory=dict)

    @property
    def kind(self) -> str:
        """The store's folder: a stage's outputs and its parts lie apart."""
        return f"{self.job.stage.name}-parts" if self.part else self.job.stage.name

    @property
    def name(self) -> str:
        """What logs and task runs call it."""
        name = f"{self.job.stage.name} {self.part.name}" if self.part else self.job.stage.name
        return f"{name} ({self.job.variant})" if self.job.variant else name

    @property
    def items(self) -> int:
        """Images or texts of a part."""
        return self.part.items if self.part else 0

    @property
    def on_gpu(self) -> bool:
        """Whether it computes on a GPU. Joining parts never does, nor do stages that only read and write."""
        joins = self.part is None and isinstance(self.job.stage.work, Sharded)
        return self.job.environment.device == "cuda" and self.job.stage.on_device and not joins

    @property
    def folder(self) -> Path:
        """Where its output is or will be."""
        return self.job.environment.store / self.kind / self.key

    @property
    def partial_folder(self) -> Path:
        """Where its output is while it is built."""
        return self.folder.with_name(f"{self.key}{PARTIAL}")

    @cached_property
    def key(self) -> str:
        """Digest of `key_parts`."""
        return digest_of(self.key_parts)[:KEY_DIGITS]

    @cached_property
    def key_parts(self) -> dict[str, Any]:
        """Plain data over everything that the output depends on."""
        stage, work = self.job.stage, self.job.stage.work
        if self.part is not None:
            assert isinstance(work, Sharded)
            return {"stage": self.kind, "key": self.part.key, "code": self._code(work.build_part)}
        parts: dict[str, Any] = {}
        if isinstance(work, Sharded):
            parts = {part.name: part.key for part in work.parts(self.job)}
            code = {"part": self._code(work.build_part), "join": self._code(work.join)}
            inputs = {}
        else:
            code = {"build": self._code(work.build)}
            inputs = {name: output.content for name, output in sorted(self.job.inputs.items())}
        return {
            "stage": stage.name,
            "settings": stage.key.settings(self.job.run),
            "inputs": stage.key.inputs(self.job) if stage.key.inputs else inputs,
            "parts": parts,
            "outside": stage.key.outside(self.job.run, self.job.environment),
            "code": code,
        }

    @property
    def outputs_read(self) -> list[StageOutput]:
        """Every output that its work reads: inputs, and the parts that it joins."""
        return [*self.job.inputs.values(), *self.parts.values()]

    def to_send(self) -> "Step":
        """A part's step without what its work does not read: the contents of its inputs' own parts, which are as many as it has
        siblings."""
        inputs = {name: output.model_copy(update={"parts": {}}) for name, output in self.job.inputs.items()}
        return replace(self, job=replace(self.job, inputs=inputs))

    def on_this_machine(self) -> "Step":
        """The same step in this machine's copy of a store that is shared; a worker may have another folder than the run."""
        remote, environment = self.job.environment.remote, self.job.environment
        store = environment.store if remote is None else cache_folder(remote)
        if store == environment.store:
            return self
        inputs = {name: output.in_store(store) for name, output in self.job.inputs.items()}
        job = replace(self.job, environment=environment.model_copy(update={"store": store}), inputs=inputs)
        return replace(self, job=job, parts={name: output.in_store(store) for name, output in self.parts.items()})

    def _code(self, function: Callable[..., Any]) -> str:
        """Digest of the function's code; of the layouts' readers and the CAM producers, it holds those that this run uses."""
        run = self.job.run
        producers = ((table, run.cams.producer) for table in PRODUCERS)
        return code_digest(function, choices=((LAYOUTS, run.dataset.layout), *producers))

    def build(self, folder: Path) -> StageResult:
        """Do the work itself."""
        work = self.job.stage.work
        if isinstance(work, Whole):
            result: StageResult = work.build(self.job, folder)
        elif self.part is not None:
            result = work.build_part(self.job, self.part, folder)
        else:
            result = work.join(self.job, self.parts, folder)
        return result


Outputs = dict[str, StageOutput]
BuildStep = Callable[[Step], StageOutput]
BuildParts = Callable[[list[Step], BuildStep, Counter], Outputs]


def complete_output(step: Step) -> StageOutput | None:
    """The step's complete, verified output, or None. Files that only the storage behind the store has stay there."""
    return find_output(step.folder)


def part_steps(job: Job) -> list[Step]:
    """A step for each of the job's parts, in order; none for whole work."""
    work = job.stage.work
    return [Step(job, part) for part in work.parts(job)] if isinstance(work, Sharded) else []


def build_stage(job: Job, build_step: BuildStep | None = None, build_parts: BuildParts | None = None) -> StageOutput:
    """The job's output: reused when it is complete, else its parts are built, where it has any, and then itself."""
    build_step = build_step or find_or_build
    whole = Step(job)
    if complete_output(whole) is not None:
        shutil.rmtree(resume_folder(whole.folder), ignore_errors=True)  # of a run that was killed right after it was complete
    elif steps := part_steps(job):
        with Counter(job.name, sum(step.items for step in steps)) as counter:
            whole = replace(whole, parts=(build_parts or in_turn)(steps, build_step, counter))
    return build_step(whole)


def in_turn(steps: list[Step], build_step: BuildStep, counter: Counter) -> Outputs:
    """One part after the other, in this thread."""
    outputs = {}
    for step in steps:
        assert step.part is not None
        done = counter.done + step.items
        outputs[step.part.name] = build_step(step)
        counter.to(done)
    return outputs


def find_or_build(step: Step, notify: Callable[[str], None] = say, flow_run: dict[str, str] | None = None) -> StageOutput:
    """The step's output: the complete one, or a new one. A second run at the same time waits for the first and takes its.

    The seconds of joined work are the sum over its parts, the peak of memory is the largest of them."""
    final, store = step.folder, step.job.environment.store
    remote = step.job.environment.remote  # what is there alone is not here yet
    folders_read = [output.place for output in step.outputs_read if remote is None or output.place.exists()]
    with plain_failures(step.name, store, folders_read):
        make_folder(final.parent)
        waiting = f"another run is building {step.kind}; waiting for it"
        with locked(final.with_name(f".{final.name}.lock"), waiting, notify):
            output = find_output(final, is_locked=True) or _build(step, notify, flow_run or {})
            return output if is_shared(final) else _shared(step, output)


def _build(step: Step, notify: Callable[[str], None], flow_run: dict[str, str]) -> StageOutput:
    """Do the work, measured, and commit what it made; or finish the commit of a run that was killed. The lock is held."""
    final, partial = step.folder, step.partial_folder
    if final.exists():
        notify(f"{step.name}: {final} is damaged, or of an earlier version, and is built again")
        remove_output(final)
    if (output := commit_interrupted(partial, final)) is not None:
        return output
    _require_parts(step)
    for output in step.outputs_read:
        bring_here(output.place)
    empty_folder(partial)
    started = time.perf_counter()
    with MemoryWatch(step.on_gpu) as watch:
        result = _build_guarded(step)
    seconds = time.perf_counter() - started + sum(part.seconds for part in step.parts.values())
    peak = largest([watch.peak, *(part.peak for part in step.parts.values())])
    description = {
        "stage": step.kind,
        "key": final.name,
        "result": result.model_dump(mode="json", exclude_none=True),
        "seconds": round(seconds, 3),
        "parts": {name: part.content for name, part in step.parts.items()},
        "peak_host_bytes": peak.host_bytes,
        "peak_gpu_bytes": peak.gpu_bytes,
    }
    return commit(partial, final, description, _origin(step, flow_run))


def _shared(step: Step, output: StageOutput) -> StageOutput:
    """The output as the storage behind the store has it, which gets this one unless another machine's is there."""
    share(step.folder, [part.place for part in step.parts.values()])
    return find_output(step.folder, is_locked=True) or output


def _require_parts(step: Step) -> None:
    """StoreError where a whole would be joined from no parts: it was complete when the run looked, and is not any more."""
    if step.part is None and not step.parts and part_steps(step.job):
        raise StoreError(f"{step.name}: {step.folder} was removed or damaged during the run; run again")


def _build_guarded(step: Step) -> StageResult:
    """Do the work under the mask guard."""
    with mask_access(step.job):
        return step.build(step.partial_folder)


def _origin(step: Step, flow_run: dict[str, str]) -> Origin:
    return Origin(
        key_parts=step.key_parts,
        inputs={name: output.key for name, output in step.job.inputs.items()},
        parts={name: output.key for name, output in step.parts.items()},
        items=step.items,
        kind=step.part.kind if step.part else "",
        finished=datetime.now(UTC).isoformat(timespec="seconds"),
        host=socket.gethostname(),
        pid=os.getpid(),
        **flow_run,
    )
