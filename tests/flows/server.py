"""What the server knows of a run."""

import time

from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterName
from prefect.client.schemas.objects import TaskRun

__all__ = ["task_runs", "task_states"]

STILL = 0.5  # seconds without news after which the server has heard everything
PATIENCE = 60.0


def task_runs(name: str) -> list[TaskRun]:
    """The task runs of the finished flow run `name`, which no other flow run is called.

    The server hears of task runs through a queue of its own, so this waits until nothing more arrives.
    """
    by = FlowRunFilter(name=FlowRunFilterName(any_=[name]))
    before, deadline = None, time.monotonic() + PATIENCE
    with get_client(sync_client=True) as client:
        assert len(client.read_flow_runs(flow_run_filter=by)) == 1, f"one flow run must be called {name!r}"
        while time.monotonic() < deadline:
            found = client.read_task_runs(flow_run_filter=by, limit=200)
            now = {run.id: run.state.type for run in found}
            if now == before and all(kind.value in {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"} for kind in now.values()):
                break
            before = now
            time.sleep(STILL)
    return found


def task_states(name: str) -> dict[str, str]:
    """State of each task run of the finished flow run `name`, whose task runs have names of their own."""
    runs = task_runs(name)
    assert len({run.name for run in runs}) == len(runs)
    return {run.name: run.state.name for run in runs}
