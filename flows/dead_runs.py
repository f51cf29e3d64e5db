"""Runs that were killed: their records and, where the server knows them, their flow and task runs become crashed."""

from pathlib import Path
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterId,
    TaskRunFilter,
    TaskRunFilterState,
    TaskRunFilterStateType,
)
from prefect.client.schemas.objects import StateType
from prefect.exceptions import ObjectNotFound
from prefect.states import Crashed

from tasks.history.run_record import read_records

__all__ = ["close_dead_runs"]

MESSAGE = "its process was killed"


def close_dead_runs(store: Path) -> list[str]:
    """Close every run of the store whose process is gone while it is still said to run → their ids."""
    dead = [record for record in read_records(store) if record.dead]
    for record in dead:
        if record.flow_run_id:
            with get_client(sync_client=True) as client:
                _crash(client, UUID(record.flow_run_id))
        record.end("crashed", MESSAGE)
    return [record.id for record in dead]


def _crash(client: SyncPrefectClient, flow_run: UUID) -> None:
    try:
        state = client.read_flow_run(flow_run).state
    except ObjectNotFound:  # it ran against another server
        return
    if state is None or not state.is_final():
        client.set_flow_run_state(flow_run, Crashed(message=MESSAGE), force=True)
    unfinished = TaskRunFilterStateType(any_=[StateType.PENDING, StateType.RUNNING])
    for task_run in client.read_task_runs(
        flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[flow_run])),
        task_run_filter=TaskRunFilter(state=TaskRunFilterState(type=unfinished)),
    ):
        client.set_task_run_state(task_run.id, Crashed(message=MESSAGE), force=True)
