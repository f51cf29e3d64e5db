"""`excel up` to `excel down` as a user meets them: other processes, a real server, deployments run by a worker."""

import json
import os
import re
import signal
import time

import httpx
import pytest
import yaml

from flows import stages
from flows.ablation import ablation, upgrades
from flows.benchmark import benchmark
from flows.compare import compare
from flows.excel import excel
from flows.local.processes import is_running, marked
from flows.local.state import read_state
from flows.paper import paper
from flows.score import score
from tests.conftest import ROOT, SMALL_DEMO
from tests.up import PATIENCE, brought_up, command

FLOWS = {
    "excel": excel,
    "ablation": ablation,
    "upgrades": upgrades,
    "benchmark": benchmark,
    "paper": paper,
    "score": score,
    "compare": compare,
} | {name: getattr(stages, name) for name in stages.__all__}


@pytest.fixture(scope="module")
def up(tmp_path_factory):
    """A finished `excel up`; `excel down` at the end."""
    with brought_up(tmp_path_factory.mktemp("up") / "store") as installation:
        yield installation


def _start(up, deployment, **parameters):
    found = up.get(f"deployments/name/{deployment}")
    return up.post(f"deployments/{found['id']}/create_flow_run", parameters=parameters)["id"]


def _until(check):
    until = time.monotonic() + PATIENCE
    while not (found := check()):
        assert time.monotonic() < until
        time.sleep(0.3)
    return found


def _final_state(up, run):
    def final():
        state = up.get(f"flow_runs/{run}")["state"]
        return state if state["type"] in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED") else None

    return _until(final)


def _of_run(up, kind, run):
    return up.post(f"{kind}/filter", flow_runs={"id": {"any_": [run]}})


def _task_states(up, run):
    """Of a finished run, by name; the server hears of task runs through a queue of its own."""
    before, now = None, {}
    while now != before or not set(now.values()) <= {"Completed", "Cached", "Failed", "Crashed"}:
        before, now = now, {found["name"]: found["state_name"] for found in _of_run(up, "task_runs", run)}
        time.sleep(0.5)
    return now


def test_up_says_what_it_did_and_how_to_go_on(up):
    assert up.state.server and up.state.worker
    for words in ("prefect work-pool create excel --type process", "prefect --no-prompt deploy --all", "excel down --store"):
        assert words in up.output
    assert up.get("work_pools/excel")["type"] == "process" and up.get("concurrency_limits/tag/gpu")["concurrency_limit"] == 1
    assert [found["name"] for found in up.post("automations/filter")] == ["excel-zombies"]
    assert up.get("admin/settings")["server"]["analytics_enabled"] is False


def test_every_deployment_is_there_with_its_form(up):
    names = {found["id"]: found["name"] for found in up.post("flows/filter")}
    found = {(names[one["flow_id"]], one["name"]): one for one in up.post("deployments/filter")}
    wanted = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]
    assert set(found) == {(one["entrypoint"].rpartition(":")[2], one["name"]) for one in wanted}
    assert {("excel", name) for name in ("demo", "photos", "full-voc", "full-coco")} <= set(found)
    assert {(stage, f"{data}-{stage}") for stage in stages.__all__ for data in ("voc", "coco")} <= set(found)
    comparisons = ("ablation", "upgrades", "benchmark", "score")
    assert {(flow, f"{data}-{flow}") for flow in comparisons for data in ("demo", "voc")} <= set(found)
    assert {("score", "coco-score"), ("compare", "compare-runs")} <= set(found)
    assert len({name for _, name in found}) == len(found)  # the UI lists names alone
    tables = [f"table-{number}" for number in range(1, 8)]
    assert {("paper", name) for name in (*tables, "figures")} <= set(found) and len(found) == 42
    assert [found["paper", name]["parameters"] for name in tables] == [{"table": name} for name in tables]
    for (flow, _), one in found.items():
        form = {key: value for key, value in FLOWS[flow].parameters.model_dump().items() if value}
        assert one["parameter_openapi_schema"] == form
        assert one["enforce_parameter_schema"] and not one["schedules"] and one["work_pool_name"] == "excel"
        assert [list(step) for step in one["pull_steps"]] == [["prefect.deployments.steps.set_working_directory"]]


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"edits": {"train": {"iterations": 0}}}, "0 is less than the minimum of 1"),
        ({"edits": {"train": {"padding": "none"}}}, "edits.train.padding"),
        ({"edits": {"train": {"epochs": 3}}}, "'epochs' was unexpected"),
        ({"runner": "threads"}, "sequential|dask"),
        ({"settings": ["train.iterations"]}, "settings[0]"),
        ({"settings": ["train.iteration=3"]}, "'train.iteration=3' does not match"),
        ({"settings": "train.iteration=3"}, "padding|"),  # the valid ones
        ({"settings": ["train.segmenter=3"]}, "settings[0]"),
        ({"data": None}, "None is not of type 'string'"),
        ({"preset": "vco"}, "'vco' is not one of ['voc', 'coco', 'photos', 'demo']"),
    ],
)
def test_wrong_values_are_refused_before_there_is_a_run(parameters, words, up):
    with pytest.raises(httpx.HTTPStatusError) as refused:
        _start(up, "excel/demo", **parameters)
    assert refused.value.response.status_code == 409 and words in refused.value.response.json()["detail"]


@pytest.mark.parametrize("deployment", ["excel/full-voc", "excel/full-coco", "excel/photos", "cams/voc-cams"])
def test_a_run_without_its_data_is_refused_before_there_is_a_run(deployment, up):
    with pytest.raises(httpx.HTTPStatusError) as refused:
        _start(up, deployment)
    assert refused.value.response.status_code == 409
    assert "'data' is a required property" in refused.value.response.json()["detail"]


@pytest.mark.parametrize(
    ("parameters", "words"),
    [({"table": "table-8"}, "'table-8' is not one of ['table-1'"), ({"limit": 0}, "0 is less than the minimum of 1")],
)
def test_a_table_is_refused_before_there_is_a_run(parameters, words, up):
    with pytest.raises(httpx.HTTPStatusError) as refused:
        _start(up, "paper/table-3", **parameters)
    assert refused.value.response.status_code == 409 and words in refused.value.response.json()["detail"]


def test_prefects_own_command_refuses_too(up):
    ran = command("prefect", "deployment", "run", "excel/demo", "-p", "device=tpu", PREFECT_HOME=str(up.home))
    assert ran.returncode == 1 and "'tpu' is not one of" in ran.stdout + ran.stderr
    assert up.post("flow_runs/count") == 0


@pytest.mark.parametrize("variables", [{"command": "touch /tmp/x"}, {"env": {"LD_PRELOAD": "/x"}}, {"working_dir": "/"}])
def test_a_run_may_not_bring_a_command_or_an_environment(variables, up):
    """Not even with the key, neither itself nor from its deployment, whose variables Prefect looks at when a run is made."""
    deployment = f"deployments/{up.get('deployments/name/excel/demo')['id']}"

    def refused(**run):
        with pytest.raises(httpx.HTTPStatusError) as raised:
            up.post(f"{deployment}/create_flow_run", **run)
        answer = raised.value.response
        return answer.status_code == 422 and "Additional properties are not allowed" in answer.json()["detail"]

    assert refused(job_variables=variables)
    up.ask("PATCH", deployment, {"job_variables": variables})
    try:
        assert refused()
    finally:
        up.ask("PATCH", deployment, {"job_variables": {}})
    assert up.post("flow_runs/count") == 0


def test_the_demo_deployment_runs_the_whole_chain(up):
    parameters = ("-p", f"store={json.dumps(str(up.store))}", "-p", f"settings={json.dumps(SMALL_DEMO)}")
    ran = command("prefect", "deployment", "run", "excel/demo", *parameters, "--watch", PREFECT_HOME=str(up.home))
    assert ran.returncode == 0, ran.stdout + ran.stderr
    (run,) = up.post("flow_runs/filter")
    assert run["state_name"] == "Completed" and run["work_pool_name"] == "excel"
    tasks = _task_states(up, run["id"])
    assert {tasks.get(name) for name in ("world", *stages.__all__)} == {"Completed"}
    assert {found["type"] for found in _of_run(up, "artifacts", run["id"])} >= {"table", "markdown"}
    page = next(up.store.glob("report/*/index.html"))
    gallery = next(found["data"] for found in _of_run(up, "artifacts", run["id"]) if found["key"] == "excel-gallery-demo")
    (link,) = re.findall(r"\[The full report\]\((/reports/[^)]+)\)", gallery)
    assert str(page) in gallery
    assert httpx.get(f"{up.state.ui}{link}").content == page.read_bytes()  # without the key: the link is enough
    assert httpx.get(f"{up.state.ui}{link.replace('index.html', 'stage.json')}").status_code == 404


def test_a_stage_deployment_takes_the_workers_store(up):
    run = _start(up, "cams/voc-cams", preset="demo", data="built-in", settings=SMALL_DEMO)
    assert _final_state(up, run)["name"] == "Completed"
    states = _task_states(up, run)
    assert {states.get(name) for name in ("world", "dataset", "describe", "knowledge", "cams")} == {"Cached"}


def test_data_of_another_layout_are_refused_with_a_word(up):
    run = _start(up, "train/coco-train", data=str(ROOT), clip="excel-tiny")
    state = _final_state(up, run)
    assert state["name"] == "Failed" and "not COCO as downloaded: looked for annotations" in state["message"]
    assert not _task_states(up, run)  # refused before work starts


def test_a_table_of_no_data_is_refused_with_a_word(up):
    run = _start(up, "paper/table-2", clip="excel-tiny", limit=2)
    state = _final_state(up, run)
    assert state["name"] == "Failed" and "name the data: --data DIR for PASCAL VOC 2012" in state["message"]
    assert not _task_states(up, run)


def test_a_killed_run_is_crashed(up):
    edits = {"train": {"iterations": 100_000, "batch_size": 2, "segmenter": {"width": 16}}}
    run = _start(up, "train/voc-train", preset="demo", data="built-in", settings=SMALL_DEMO[:2], edits=edits)
    _until(lambda: any(one["name"] == "train" and one["state_name"] == "Running" for one in _of_run(up, "task_runs", run)))
    processes = marked(f"{up.state.mark}/worker")
    os.kill(next(one.pid for one, env in processes.items() if env.get("PREFECT__FLOW_RUN_ID") == run), signal.SIGKILL)
    assert _final_state(up, run)["name"] == "Crashed"


def _names(up):
    flows = {found["id"]: found["name"] for found in up.post("flows/filter")}
    return {(flows[one["flow_id"]], one["name"]) for one in up.post("deployments/filter")}


def test_up_again_repairs_what_is_missing(up):
    os.kill(up.state.worker.pid, signal.SIGKILL)
    _until(lambda: not is_running(up.state.worker))
    up.ask("DELETE", "concurrency_limits/tag/gpu")
    pool = up.get("work_pools/excel")["base_job_template"]
    loose = {"job_configuration": {"command": "{{ command }}"}, "variables": {"properties": {"command": {"type": "string"}}}}
    up.ask("PATCH", "work_pools/excel", {"base_job_template": loose})
    (up.home / "prefect.db").chmod(0o644)
    of_stage = up.get("deployments/name/cams/voc-cams")
    up.post("deployments/", name="voc", flow_id=of_stage["flow_id"], entrypoint=of_stage["entrypoint"])
    assert ("cams", "voc") in _names(up)
    ran = command("excel", "up", "--store", up.store, "--gpus", 2)
    assert ran.returncode == 0, ran.stderr
    assert "server: runs already" in ran.stdout and "deployments: is there already" in ran.stdout
    assert "gpu limit: made" in ran.stdout and "worker: started" in ran.stdout
    assert "pool: made" in ran.stdout and up.get("work_pools/excel")["base_job_template"] == pool
    assert "other users of this machine could read it" in ran.stdout and (up.home / "prefect.db").stat().st_mode & 0o77 == 0
    assert ("cams", "voc") not in _names(up)  # the name that an earlier excel gave it
    now = read_state(up.store)
    assert now.server == up.state.server and now.worker != up.state.worker and is_running(now.worker)
    assert up.get("concurrency_limits/tag/gpu")["concurrency_limit"] == 2


def test_down_leaves_no_process_and_no_running_run(up):
    settings = [*SMALL_DEMO[:2], "train.iterations=100000"]
    run = _start(up, "train/voc-train", preset="demo", data="built-in", settings=settings)
    _until(lambda: up.get(f"flow_runs/{run}")["state_name"] == "Running")
    name = up.get(f"flow_runs/{run}")["name"]
    ran = command("excel", "down", "--store", up.store)
    assert ran.returncode == 0 and f"run {name}: ended" in ran.stdout
    assert "worker: ended" in ran.stdout and "server: ended" in ran.stdout
    assert not marked(f"{up.state.mark}/worker") and not marked(f"{up.state.mark}/server")
    assert not is_running(up.state.server) and read_state(up.store) is None
    with pytest.raises(httpx.ConnectError):
        up.get("health")
