"""What the server knows of a run."""

from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterName

__all__ = ["task_states"]


def task_states(name: str) -> dict[str, str]:
    """State of each task run of the flow run `name`, whose task runs have names of their own."""
    with get_client(sync_client=True) as client:
        runs = client.read_task_runs(flow_run_filter=FlowRunFilter(name=FlowRunFilterName(any_=[name])), limit=200)
    assert len({run.name for run in runs}) == len(runs)
    return {run.name: run.state.name for run in runs}
