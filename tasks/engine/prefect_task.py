"""A piece of work as a Prefect task: cached under its identity, in the store beside the outputs it names."""

from typing import Any

from prefect import task
from prefect.cache_policies import CachePolicy
from prefect.context import TaskRunContext
from prefect.logging import get_run_logger
from prefect.runtime import flow_run

from tasks.engine.build import find_or_build
from tasks.engine.outputs import StageOutput
from tasks.engine.progress import say
from tasks.engine.stage import Work

__all__ = ["work_task"]


class WorkIdentity(CachePolicy):
    """Prefect's cache key is the work's identity, computed from the task's own argument."""

    def compute_key(self, task_ctx: Any, inputs: dict[str, Any], flow_parameters: dict[str, Any], **kwargs: Any) -> str | None:
        """`kind/identity`."""
        work: Work = inputs["work"]
        return f"{work.kind}/{work.identity()}"


@task(cache_policy=WorkIdentity(), persist_result=True, result_serializer="json", task_run_name="{work.name}")
def _build_work(work: Work) -> StageOutput:
    context = TaskRunContext.get()
    origin = {
        "flow_run_id": str(flow_run.id or ""),
        "flow_run_name": str(flow_run.name or ""),
        "task_run_id": str(context.task_run.id) if context else "",
    }
    log = get_run_logger()

    def note(text: str) -> None:
        log.warning(text)
        say(text)

    return find_or_build(work, note, origin)


def work_task(work: Work) -> Any:
    """The Prefect task for `work`, to be called with it inside a flow. A cached result whose files are gone or damaged is a
    miss. On a GPU it carries the tag `gpu`, whose concurrency limit keeps tasks on one GPU apart."""
    tags = {"gpu"} if work.on_gpu else set()
    return _build_work.with_options(name=work.kind, result_storage=work.place.store / "prefect-results", tags=tags)
