"""Runs that were killed: their records and, where the server knows them, their flow runs become crashed."""

from pathlib import Path
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.exceptions import ObjectNotFound
from prefect.states import Crashed

from tasks.run_record import read_records

__all__ = ["close_dead_runs"]


def close_dead_runs(store: Path) -> list[str]:
    """Close every run of the store whose process is gone while it is still said to run → their ids."""
    dead = [record for record in read_records(store) if record.dead]
    for record in dead:
        if record.flow_run_id:
            _crash(UUID(record.flow_run_id))
        record.end("crashed", "its process was killed")
    return [record.id for record in dead]


def _crash(flow_run: UUID) -> None:
    with get_client(sync_client=True) as client:
        try:
            state = client.read_flow_run(flow_run).state
        except ObjectNotFound:  # it ran against another server
            return
        if state is None or not state.is_final():
            client.set_flow_run_state(flow_run, Crashed(message="its process was killed"), force=True)
