"""A stage as a Prefect task: cached under the stage's identity, in the store beside the outputs it names."""

from typing import Any

from prefect import task
from prefect.cache_policies import CachePolicy
from prefect.logging import get_run_logger

from excel_core.config import RunSpec
from tasks.stage import Place, Stage, StageOutput, run_stage, stage_identity

__all__ = ["run_as_task"]


class StageIdentity(CachePolicy):
    """Prefect's cache key is the stage's identity, computed from the task's own arguments."""

    def compute_key(self, task_ctx: Any, inputs: dict[str, Any], flow_parameters: dict[str, Any], **kwargs: Any) -> str | None:
        """`stage/identity`."""
        stage: Stage = inputs["stage"]
        return f"{stage.name}/{stage_identity(stage, inputs['run'], inputs['place'], inputs['inputs'])}"


@task(cache_policy=StageIdentity(), persist_result=True, result_serializer="json", task_run_name="{stage.name}")
def _stage_task(stage: Stage, run: RunSpec, place: Place, inputs: dict[str, StageOutput]) -> StageOutput:
    return run_stage(stage, run, place, inputs, note=get_run_logger().info)


def run_as_task(stage: Stage, run: RunSpec, place: Place, inputs: dict[str, StageOutput]) -> StageOutput:
    """Run a stage as a Prefect task within a flow. A cached result whose files are gone or damaged is a miss."""
    named = _stage_task.with_options(name=stage.name, result_storage=place.store / "prefect-results")
    return named(stage, run, place, inputs)
