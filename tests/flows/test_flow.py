"""The flow on a real Prefect server: states, cache, damage, artifacts, and each stage as a flow of its own."""

import shutil

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey, FlowRunFilter, FlowRunFilterName
from prefect.client.schemas.sorting import ArtifactSort

from excel_core.errors import ModelError, SettingError
from flows import stages
from flows.excel import excel
from tasks.chain import STAGES
from tests.conftest import SMALL_DEMO

pytestmark = pytest.mark.usefixtures("prefect_server")


def _run(name, store, settings=(), flow=excel):
    flow.with_options(flow_run_name=name)("demo", settings=[*SMALL_DEMO, *settings], store=str(store))


def _task_states(name):
    with get_client(sync_client=True) as client:
        runs = client.read_task_runs(flow_run_filter=FlowRunFilter(name=FlowRunFilterName(any_=[name])))
    return {run.name: run.state.name for run in runs}


@pytest.fixture(scope="module")
def store(tmp_path_factory, prefect_server):
    """A store in which the small demo ran as flow run 'first'."""
    path = tmp_path_factory.mktemp("flow") / "store"
    _run("first", path)
    return path


def test_every_stage_is_a_task_run(store):
    states = _task_states("first")
    assert {name for name, state in states.items() if state == "Completed"} >= set(STAGES)


def test_a_second_run_is_cached_but_shows_its_artifacts(store):
    _run("second", store)
    states = _task_states("second")
    assert {states[name] for name in STAGES} == {"Cached"}
    assert [state for name, state in states.items() if name not in STAGES] == ["Completed"]


def test_damaged_outputs_alone_are_built_again(store):
    refined = next((store / "refine").glob("*/SegmentationClassPseudo"))
    next(refined.glob("*.png")).write_bytes(b"half")
    shutil.rmtree(next((store / "report").glob("*/index.html")).parent)
    _run("third", store)
    states = _task_states("third")
    assert {name for name in STAGES if states[name] == "Completed"} == {"refine", "report"}


def test_an_edit_reruns_what_it_touches(store):
    _run("fourth", store, ["evaluate.scales=[1.0]"])
    states = _task_states("fourth")
    assert {name for name in STAGES if states[name] == "Completed"} == {"evaluate", "report"}


def test_a_stage_alone_runs_what_it_needs(store):
    _run("alone", store, flow=stages.cams)
    assert _task_states("alone") == dict.fromkeys(("world", "dataset", "describe", "knowledge", "cams"), "Cached")


def test_artifacts_are_in_the_ui(store):
    with get_client(sync_client=True) as client:
        keys = {"excel-results-demo", "excel-ablation-demo", "excel-gallery-demo", "excel-classes-demo"}
        found = client.read_artifacts(
            artifact_filter=ArtifactFilter(key=ArtifactFilterKey(any_=sorted(keys))), sort=ArtifactSort.CREATED_DESC
        )
    assert {artifact.key for artifact in found} == keys
    gallery = next(artifact for artifact in found if artifact.key == "excel-gallery-demo")
    assert "data:image/jpeg;base64," in gallery.data and len(gallery.data) < 2**20
    table = next(artifact for artifact in found if artifact.key == "excel-results-demo")
    assert "CAM seed" in table.data


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"settings": ["train.iteration=1"]}, SettingError, "valid fields: .*train.iterations"),
        ({"clip": "ViT-B-99:openai"}, ModelError, "unknown CLIP model"),
        ({"preset": "voc"}, SettingError, "needs a data folder"),
        ({"preset": "voc", "data": "/nowhere"}, SettingError, "'/nowhere' does not exist"),
    ],
)
def test_wrong_settings_end_before_any_task(arguments, error, message, tmp_path):
    flow = excel.with_options(flow_run_name=f"wrong {message}")
    with pytest.raises(error, match=message):
        flow(**({"preset": "demo"} | arguments), store=str(tmp_path / "s"))
    assert _task_states(f"wrong {message}") == {} and not (tmp_path / "s").exists()
