"""A step as a Prefect task run. The marker in the store is the only cache: Prefect keeps no results."""

from collections.abc import Callable
from typing import Any

from prefect import task
from prefect._internal.concurrency.services import _QueueServiceBase
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.context import TaskRunContext
from prefect.futures import PrefectFuture
from prefect.logging import get_run_logger
from prefect.runtime import flow_run
from prefect.states import Completed
from prefect.task_runners import TaskRunner

from tasks.engine.executor import Step, complete_output, find_or_build
from tasks.engine.output import StageOutput
from tasks.engine.progress import say
from tasks.engine.shared_outputs import is_shared

__all__ = ["run_step", "step_task", "submit_steps"]


def _end_service(service: Any, end: Callable[[Any], None] = _QueueServiceBase._at_exit) -> None:
    """Send what is waiting, where the service runs."""
    if service._done_event is not None:
        end(service)


# A forked process, such as a data loader's worker, ends what was registered to end with its parent. Prefect 3.8's services do
# not run there, fail an assertion, and give the worker exit status 1, at which training stops.
_QueueServiceBase._at_exit = _end_service  # type: ignore[assignment]


@task(cache_policy=NO_CACHE, persist_result=False, task_run_name="{step.name}")
def _run(step: Step) -> Any:
    """Reuse or build the step's output; a task run that found it complete ends in the state Cached."""
    output = _complete(step)
    return _build(step) if output is None else _cached(output)


@task(cache_policy=NO_CACHE, persist_result=False, task_run_name="{name}")
def _run_in_turn(name: str, steps: list[Step]) -> Any:
    """`_run` of several steps → their outputs. Every one that can finish does before the first error is raised."""
    complete = [_complete(step) for step in steps]
    if None not in complete:
        return _cached(complete)
    outputs: list[StageOutput] = []
    errors: list[Exception] = []
    for step, output in zip(steps, complete, strict=True):
        try:
            outputs.append(output or _build(step))
        except Exception as error:
            errors.append(error)
    if errors:
        raise errors[0]
    return outputs


def _complete(step: Step) -> StageOutput | None:
    """The step's complete output, which the storage behind the store has too."""
    output = complete_output(step.on_this_machine())
    return output if output is not None and is_shared(output.place) else None


def _cached(outputs: Any) -> State[Any]:
    return Completed(name="Cached", message="complete in the store", data=outputs)


def _build(step: Step) -> StageOutput:
    """Build the step's output; what is to be told of it is told to the task run's log."""
    context = TaskRunContext.get()
    log = get_run_logger()

    def notify(text: str) -> None:
        log.warning(text)
        say(text)

    ids = {
        "flow_run_id": str(flow_run.id or ""),
        "flow_run_name": str(flow_run.name or ""),
        "task_run_id": str(context.task_run.id) if context else "",
    }
    return find_or_build(step.on_this_machine(), notify, ids)


def step_task(step: Step) -> Any:
    """The Prefect task for `step`, to be submitted with it. On a GPU it carries the tag `gpu`, whose concurrency limit keeps
    tasks on one GPU apart."""
    return _run.with_options(name=step.kind, tags=_tags(step))


def submit_steps(runner: TaskRunner[Any], steps: list[Step]) -> PrefectFuture[Any]:
    """Submit parts of one stage as one task run. Its result: the output of a single one, a list of several."""
    first, *other_steps = [step.to_send() for step in steps]
    if not other_steps:
        future: PrefectFuture[Any] = runner.submit(step_task(first), {"step": first})
        return future
    task_of_several = _run_in_turn.with_options(name=first.kind, tags=_tags(first))
    parameters = {"name": f"{first.name} and {len(other_steps)} more", "steps": [first, *other_steps]}
    future = runner.submit(task_of_several, parameters)
    return future


def _tags(step: Step) -> set[str]:
    return {"gpu"} if step.on_gpu else set()


def run_step(step: Step) -> StageOutput:
    """Run the step as a task run of the flow at hand, in this thread."""
    run: Callable[[Step], StageOutput | State[StageOutput]] = step_task(step)
    returned = run(step)
    # A call gives back the state itself where the task returned one, unlike `future.result()`.
    return returned.result() if isinstance(returned, State) else returned
