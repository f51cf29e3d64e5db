"""A flow that is killed again and again ends with the very bytes of one that was not, and redoes nothing it had finished."""

import random
import secrets
import time
from itertools import pairwise
from uuid import UUID

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterId,
    TaskRunFilter,
    TaskRunFilterState,
    TaskRunFilterStateType,
)
from prefect.client.schemas.objects import StateType

from flows import stages
from flows.dead_runs import MESSAGE
from tasks.history.run_record import read_records
from tests.conftest import SMALL_DEMO
from tests.flows.flow_process import FlowProcess, builds, iterations
from tests.flows.store_files import committed, contents, file_digests

pytestmark = pytest.mark.usefixtures("prefect_server")
KILLS, FURTHEST, PAUSE = 20, 14, 0.4  # builds and iterations that an attempt begins, and seconds from there to the kill
EVERY = 4
UNFINISHED = [state for state in StateType if state not in (StateType.COMPLETED, StateType.CRASHED)]
SETTINGS = [
    *SMALL_DEMO,
    "dataset.train_scenes=16",
    "train.iterations=24",
    "train.dynamic_from=8",
    "train.own_argmax_from=16",
    f"train.checkpoint_every={EVERY}",
]


def _kill_once(rng, log, store):
    """Start the flow, kill it at some moment after its work began → (it, whether that was before its end)."""
    flow = FlowProcess.start(log, store, SETTINGS, "evaluate")
    last = rng.randint(1, FURTHEST)
    while flow.alive and len(flow.begun()) < last:
        time.sleep(0.01)
    flow.process.join(rng.uniform(0, PAUSE))
    killed = flow.alive
    flow.kill() if killed else flow.process.join()
    assert killed or flow.process.exitcode == 0, log.with_suffix(".out").read_text()
    return flow, killed and read_records(store)[-1].state != "complete"  # it was, and had only to tell the server and exit


def _check_training(attempts):
    """Each attempt went on where the last checkpoint of the one before was."""
    trained = [found for found in map(iterations, attempts) if found]
    for before, after in pairwise(trained):
        last = before[-1]
        expected = {last // EVERY * EVERY} | ({last + 1} if (last + 1) % EVERY == 0 else set())
        assert after[0] in expected, (before, after)
    assert all(found == list(range(found[0], found[-1] + 1)) for found in trained)
    assert not trained or trained[0][0] == 0


def _check_runs(store, kills, last_was_killed):
    """Whoever was killed is crashed, in the records and on the server, with the task runs that it was in; but for one that
    was complete and had only to say so."""
    records = read_records(store)
    assert [record.state for record in records] == ["crashed"] * kills + ["complete"]
    with get_client(sync_client=True) as client:
        states = [client.read_flow_run(UUID(record.flow_run_id)).state for record in records]
        unfinished = client.read_task_runs(
            flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[UUID(record.flow_run_id) for record in records])),
            task_run_filter=TaskRunFilter(state=TaskRunFilterState(type=TaskRunFilterStateType(any_=UNFINISHED))),
        )
    assert [state.name for state in states[:-1]] == ["Crashed"] * kills
    assert states[-1].name == "Completed" or last_was_killed
    assert {(record.message, state.message) for record, state in zip(records[:-1], states, strict=False)} <= {(MESSAGE,) * 2}
    assert not unfinished or last_was_killed


def test_twenty_kills_change_no_byte(tmp_path):
    """At moments of a random seed, which is printed; a store that is complete before the last kill is compared and
    followed by a fresh one."""
    seed = secrets.randbits(32)
    print(f"seed {seed}")
    rng, kills, stores = random.Random(seed), 0, 0
    whole = tmp_path / "whole"
    stages.evaluate("demo", settings=SETTINGS, store=str(whole))
    while kills < KILLS:
        stores += 1
        store, log = tmp_path / f"store{stores}", tmp_path / f"store{stores}.log"
        finished, attempts, killed = {}, [], True
        while killed:
            if kills < KILLS:
                flow, killed = _kill_once(rng, log, store)
            else:
                flow, killed = FlowProcess.start(log, store, SETTINGS, "evaluate"), False
                flow.process.join()
            kills += killed
            attempts.append(flow.begun())
            print(f"{'killed' if killed else 'ended'} in: {(attempts[-1] or ['nothing'])[-1]}")
            now = committed(store)  # all of them complete, whatever was left half-done
            assert {name: now[name] for name in finished} == finished
            assert not set(builds(attempts[-1])) & finished.keys()  # nor begun again
            finished = now
        assert not list(store.glob("*/*.partial")) and not list(store.glob("*/*.resume"))
        assert contents(store) == contents(whole) and file_digests(store) == file_digests(whole)
        _check_training(attempts)
        _check_runs(store, len(attempts) - 1, flow.process.exitcode != 0)
    print(f"{kills} kills over {stores} stores")
