"""Two runs of the same settings on one store at the same time."""

from collections import Counter

import pytest

from tasks.history.run_record import read_records
from tests.conftest import SMALL_DEMO
from tests.flows.flow_process import FlowProcess, builds
from tests.flows.store_files import contents, file_digests

pytestmark = pytest.mark.usefixtures("prefect_server")


def test_two_runs_share_the_work(tmp_path):
    store, alone = tmp_path / "store", tmp_path / "alone"
    two = [FlowProcess.start(tmp_path / f"{i}.log", store, SMALL_DEMO, "dynamic") for i in range(2)]
    for flow in two:
        flow.process.join()
        assert flow.process.exitcode == 0, flow.log.with_suffix(".out").read_text()
    begun = Counter(what for flow in two for what in builds(flow.begun()))
    assert begun and set(begun.values()) == {1}  # nothing twice
    third = FlowProcess.start(tmp_path / "alone.log", alone, SMALL_DEMO, "dynamic")
    third.process.join()
    assert third.process.exitcode == 0 and set(builds(third.begun())) == begun.keys()
    assert contents(store) == contents(alone) and file_digests(store) == file_digests(alone)
    records = read_records(store)
    assert [record.state for record in records] == ["complete"] * 2
    assert records[0].outputs == records[1].outputs and records[0].flow_run_id != records[1].flow_run_id
