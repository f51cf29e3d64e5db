"""The chain as Prefect tasks, inside a flow."""

from excel_core.config import RunSpec
from tasks.chain import follow
from tasks.prefect_task import run_as_task
from tasks.stage import Place, StageOutput

__all__ = ["run_until"]


def run_until(last: str, run: RunSpec, place: Place, runner: str = "sequential") -> tuple[dict[str, StageOutput], Place]:
    """Run the chain up to `last` as Prefect tasks. Every `runner` gives the same outputs; today all run sequentially."""
    place.store.mkdir(parents=True, exist_ok=True)
    return follow(run, place, last, run_as_task)
