"""A step as a Prefect task run. The marker in the store is the only cache: Prefect keeps no results."""

from collections.abc import Callable
from typing import Any

from prefect import task
from prefect._internal.concurrency.services import _QueueServiceBase
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.context import TaskRunContext
from prefect.logging import get_run_logger
from prefect.runtime import flow_run
from prefect.states import Completed

from tasks.engine.executor import Step, complete_output, find_or_build
from tasks.engine.output import StageOutput
from tasks.engine.progress import say
from tasks.engine.shared_outputs import is_shared

__all__ = ["run_step", "step_task"]


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
    step = step.on_this_machine()
    output = complete_output(step)
    if output is not None and is_shared(output.place):
        return Completed(name="Cached", message="complete in the store", data=output)
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
    return find_or_build(step, notify, ids)


def step_task(step: Step) -> Any:
    """The Prefect task for `step`, to be submitted with it. On a GPU it carries the tag `gpu`, whose concurrency limit keeps
    tasks on one GPU apart."""
    return _run.with_options(name=step.kind, tags={"gpu"} if step.on_gpu else set())


def run_step(step: Step) -> StageOutput:
    """Run the step as a task run of the flow at hand, in this thread."""
    run: Callable[[Step], StageOutput | State[StageOutput]] = step_task(step)
    returned = run(step)
    # A call gives back the state itself where the task returned one, unlike `future.result()`.
    return returned.result() if isinstance(returned, State) else returned
