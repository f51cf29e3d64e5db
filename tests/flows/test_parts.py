"""Parts as task runs of a real server: their states, their progress, the run's record. Everything in the flow's process."""

import shutil

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterFlowRunId,
    ArtifactFilterKey,
    FlowRunFilter,
    FlowRunFilterName,
)

from flows import chain_run, stages
from tasks.history.run_record import read_records
from tasks.pipeline import STAGES
from tests.conftest import SMALL_DEMO
from tests.flows.server import task_states

pytestmark = pytest.mark.usefixtures("prefect_server")
SHARDS = [f"train-{i}of4" for i in (1, 2, 3, 4)]


def _run(name, store, flow=stages.refine):
    flow.with_options(flow_run_name=name)("demo", settings=SMALL_DEMO, store=str(store))


def _progress(run, stage):
    """(share, description) of the progress artifacts of one flow run."""
    with get_client(sync_client=True) as client:
        (found,) = client.read_flow_runs(flow_run_filter=FlowRunFilter(name=FlowRunFilterName(any_=[run])))
        key, by = f"excel-progress-{stage}", ArtifactFilterFlowRunId(any_=[found.id])
        artifacts = client.read_artifacts(artifact_filter=ArtifactFilter(key=ArtifactFilterKey(any_=[key]), flow_run_id=by))
    return [(artifact.data, artifact.description) for artifact in artifacts]


@pytest.fixture(scope="module")
def store(tmp_path_factory, prefect_server):
    """A store in which the small demo ran up to `refine`, with a progress artifact of every stage that has parts."""
    path = tmp_path_factory.mktemp("parts") / "store"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chain_run, "UPDATE_SECONDS", 0.0)
        _run("parts", path)
    return path


def test_every_part_is_a_task_run(store):
    states = task_states("parts")
    classes = {path.name for path in (store / "describe-parts").glob("[!.]*")}
    assert set(states.values()) == {"Completed"} and len(classes) == 10
    assert {f"{stage} {shard}" for stage in ("cams", "refine") for shard in SHARDS} <= states.keys()
    assert len([name for name in states if name.startswith("describe ")]) == len(classes)
    whole = {name for name in states if " " not in name and not name.startswith("artifacts")}
    assert whole == {"world", "dataset", "describe", "knowledge", "cams", "refine"}


def test_progress_is_shown_while_it_runs(store):
    assert _progress("parts", "cams") == [(100.0, "cams: share of its images or iterations that is done")]
    for stage in ("refine", "describe"):
        assert [share for share, _ in _progress("parts", stage)] == [100.0]


def test_damaged_parts_alone_are_built_again(store):
    (refine,) = (store / "refine").glob("[!.]*")
    shutil.rmtree(refine)
    hurt = sorted((store / "refine-parts").glob("[!.]*"))[0]
    next(hurt.glob("*/*.png")).write_bytes(b"half")
    kept = {path: path.stat().st_ino for path in (store / "refine-parts").glob("[!.]*/stage.json") if path.parent != hurt}
    _run("parts again", store)
    states = task_states("parts again")
    parts = [state for name, state in states.items() if name.startswith("refine ")]
    assert sorted(parts) == ["Cached", "Cached", "Cached", "Completed"] and states["refine"] == "Completed"
    assert states["cams"] == "Cached" and not [name for name in states if name.startswith("cams ")]
    assert kept == {path: path.stat().st_ino for path in kept}


def test_runs_leave_records(store):
    records = {record.flow_run_name: record for record in read_records(store)}
    first, again = records["parts"], records["parts again"]
    assert {record.state for record in (first, again)} == {"complete"}
    assert first.cached == [] and len(again.cached) == len(STAGES_TO_REFINE) - 1
    assert list(first.own) == list(again.own) == STAGES_TO_REFINE and first.own == again.own
    with get_client(sync_client=True) as client:
        assert client.read_flow_run(first.flow_run_id).name == "parts"


STAGES_TO_REFINE = [name for name in STAGES if name != "proposals"][:6]  # masks do not vote here


def test_the_parts_of_describe_run_side_by_side(store, monkeypatch, tmp_path):
    """All eight threads must be inside at once to get on."""
    import threading

    work = STAGES["describe"].work
    together, build = threading.Barrier(8, timeout=60), work.build_part
    first = iter(range(8))

    def meet(job, part, folder):
        if next(first, None) is not None:
            together.wait()
        return build(job, part, folder)

    monkeypatch.setitem(vars(work), "build_part", meet)
    _run("side by side", tmp_path / "store", stages.describe)
    assert set(task_states("side by side").values()) == {"Completed"}
