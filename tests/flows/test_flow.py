"""The flow on a real Prefect server: states, cache, damage, artifacts, and each stage as a flow of its own."""

import re
import shutil
from pathlib import Path

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    ArtifactCollectionFilter,
    ArtifactCollectionFilterKey,
    ArtifactFilter,
    ArtifactFilterKey,
    FlowRunFilter,
    FlowRunFilterName,
    LogFilter,
    LogFilterFlowRunId,
)
from prefect.client.schemas.sorting import ArtifactSort
from prefect.logging.handlers import APILogWorker

from bench.region_proposals import write_region_proposals
from excel_core.config.presets import preset, with_settings
from excel_core.errors import ModelError, SettingError
from excel_core.files import read_json
from flows import stages
from flows.ablation import ablation, upgrades
from flows.excel import excel
from tasks.engine import progress
from tasks.engine.output import read_marker
from tasks.engine.stage import RunEnvironment
from tasks.history.run_record import read_records
from tasks.pipeline import pipeline
from tasks.trackers import live, target
from tests.conftest import SMALL_DEMO
from tests.flows.server import task_states

pytestmark = pytest.mark.usefixtures("prefect_server")

STAGES = set(pipeline(with_settings(preset("demo"), SMALL_DEMO), RunEnvironment(store=Path())).own_ids)
FAMILIES = ("seeds-static-train", "seeds-lvc-train", *(f"segmentation-held-out-{i}" for i in (1, 2, 3)))


def _run(name, store, settings=(), flow=excel, **options):
    flow.with_options(flow_run_name=name)("demo", settings=[*SMALL_DEMO, *settings], store=str(store), **options)


@pytest.fixture(scope="module")
def store(tmp_path_factory, prefect_server):
    """A store in which the small demo ran as flow run 'first'."""
    path = tmp_path_factory.mktemp("flow") / "store"
    _run("first", path)
    return path


def test_every_stage_is_a_task_run(store):
    states = task_states("first")
    parts = {f"{stage} train-{i + 1}of4" for stage in ("cams", "refine", "dynamic") for i in range(4)}
    rows = {"sweep (components: SVC, seed 0)", "sweep held_out_2-1of1 (components: SVC, seed 0)", "ablation"}
    assert {name for name, state in states.items() if state == "Completed"} >= STAGES | parts | rows


def test_a_second_run_is_cached_but_shows_its_artifacts(store):
    _run("second", store)
    states = task_states("second")
    assert {state for name, state in states.items() if not name.startswith("artifacts")} == {"Cached"}
    assert [state for name, state in states.items() if name.startswith("artifacts")] == ["Completed"]
    assert set(states) >= STAGES and not any("of4" in name for name in states)  # nobody asks for a part


def test_a_record_says_what_became_of_the_run(store):
    first, second = read_records(store)[:2]
    assert (first.state, second.state) == ("complete", "complete") and first.own == second.own
    assert first.cached == [] and second.cached == second.outputs
    assert first.flow_run_name == "first" and first.headline["seeds.lvc.train.crf"] > 0
    origin = read_marker(store / "cams" / first.own["cams"]).origin
    assert origin.flow_run_name == "first" and origin.flow_run_id == first.flow_run_id


def test_damaged_outputs_alone_are_built_again(store):
    refined = next((store / "refine").glob("*/SegmentationClassPseudo"))
    next(refined.glob("*.png")).write_bytes(b"half")  # a second name of the part's file
    shutil.rmtree(next((store / "report").glob("*/index.html")).parent)
    _run("third", store)
    states = task_states("third")
    built = {name for name, state in states.items() if state == "Completed" and not name.startswith("artifacts")}
    assert built - {"refine", "report"} == {next(name for name in built if name.startswith("refine train-"))}


def test_an_edit_reruns_what_it_touches(store):
    _run("fourth", store, ["predict.scales=[1.0]"])
    states = task_states("fourth")
    assert {name for name in STAGES if states[name] == "Completed"} == {"predict", "evaluate", "report"}
    parts = {name.split()[1].split("-")[0] for name in states if name.startswith("evaluate ") and states[name] == "Completed"}
    assert parts == {"segmentation"}


def test_a_stage_alone_runs_what_it_needs(store):
    _run("alone", store, flow=stages.cams)
    states = {name: state for name, state in task_states("alone").items() if not name.startswith("artifacts")}
    assert states == dict.fromkeys(("world", "dataset", "describe", "knowledge", "cams"), "Cached")


def _shown(name):
    """Artifacts of a flow run by key, with those to which its page of unchanged ones leads."""
    with get_client(sync_client=True) as client:
        by = FlowRunFilter(name=FlowRunFilterName(any_=[name]))
        artifacts = {artifact.key: artifact for artifact in client.read_artifacts(flow_run_filter=by)}
    unchanged = [artifact.data for key, artifact in artifacts.items() if key.startswith("excel-unchanged-")]
    linked = {key for page in unchanged for key in re.findall(r"\[(excel-[a-z0-9-]+)\]", page)}
    with get_client(sync_client=True) as client:
        by_key = ArtifactCollectionFilter(key=ArtifactCollectionFilterKey(any_=sorted(linked)))
        latest = client.read_latest_artifacts(artifact_filter=by_key) if linked else []
    return {artifact.key: artifact.data for artifact in [*latest, *artifacts.values()]}


@pytest.mark.parametrize(
    ("stage", "shown"),
    [
        ("dataset", {"dataset"}),
        ("describe", {"texts"}),
        ("knowledge", {"knowledge", "attributes"}),
        ("cams", {"cams"}),
        ("refine", {"refine"}),
        ("train", {"losses"}),
        ("dynamic", {"dynamic"}),
        ("predict", {"predict"}),
        ("evaluate", {"results", "ablation", "ablation-chart"}),
        ("report", {"results", "gallery", "losses", "knowledge", "attributes"}),
    ],
)
def test_a_stage_alone_shows_what_it_made(stage, shown, store):
    _run(f"{stage} shown", store, flow=getattr(stages, stage))
    made = _shown(f"{stage} shown")
    stages_page = "excel-stages-demo" if stage == "report" else f"excel-stages-{stage}-demo"
    families = {f"excel-classes-demo-{family}" for family in FAMILIES} if stage in ("evaluate", "report") else set()
    assert {f"excel-{name}-demo" for name in shown} | families | {stages_page} <= made.keys()
    if stage in ("cams", "refine", "dynamic", "predict"):
        page = made[f"excel-{stage}-demo"]
        pictures = {"cams": 3 * 2, "refine": 3 * 6, "dynamic": 3 * 6, "predict": 3 * 2}[stage]
        assert page.count("](data:image/webp;base64,") >= pictures and str(store / stage) in page and "truth" not in page
    if stage == "describe":
        page = made["excel-texts-demo"]
        texts = read_json(next(store.glob("describe/*/descriptions.json")))["classes"]
        assert page.count("\n## ") == len(texts) == 10 and page.count("\n* ") == sum(len(lines) for lines in texts.values())
    if stage == "dataset":
        page = made["excel-dataset-demo"]
        assert "| train | 12 | 0 | 0 |" in page and page.count("\n| ") >= 2 + 4 + 2 + 10


def test_other_texts_are_shown_beside_the_earlier_ones(store):
    _run("fewer texts", store, ["describe.n=4", "knowledge.attributes=16"], flow=stages.knowledge)
    made = _shown("fewer texts")
    page = made["excel-texts-diff-demo"]
    assert "0 of 10 classes are as in run" in page and page.count("\n## ") == 10 and "\n* −" in page
    assert "cosine of T_c" in page and "excel-knowledge-demo" in made


def test_training_reads_its_images_in_forked_workers(store):
    """Prefect's services, which are at work in this process by now, end with it alone."""
    _run("with workers", store, ["train.workers=2", "train.iterations=5"], flow=stages.train)
    assert task_states("with workers")["train"] == "Completed"


def test_artifacts_are_in_the_ui(store):
    with get_client(sync_client=True) as client:
        names = ("results", "ablation", "ablation-chart", "gallery", "attributes", "losses", "knowledge", "stages")
        keys = {f"excel-{name}-demo" for name in names} | {f"excel-classes-demo-{family}" for family in FAMILIES}
        found = client.read_artifacts(
            artifact_filter=ArtifactFilter(key=ArtifactFilterKey(any_=sorted(keys))), sort=ArtifactSort.CREATED_DESC
        )
    assert {artifact.key for artifact in found} == keys
    gallery = next(artifact for artifact in found if artifact.key == "excel-gallery-demo")
    assert "data:image/webp;base64," in gallery.data and len(gallery.data) < 200_000
    table = next(artifact for artifact in found if artifact.key == "excel-results-demo")
    assert "CAM seed" in table.data


def test_the_stages_artifact_names_the_run_that_made_them(store):
    made_by = read_records(store)[0].flow_run_id
    with get_client(sync_client=True) as client:
        key = ArtifactFilter(key=ArtifactFilterKey(any_=["excel-stages-demo"]))
        newest, *_ = client.read_artifacts(artifact_filter=key, sort=ArtifactSort.CREATED_DESC)
    assert f"/runs/flow-run/{made_by}" in newest.data and "cached" in newest.data


def test_the_ablation_is_a_flow_that_shares_what_is_there(store):
    few = ["ablation.groups=[components, attributes]", "ablation.attributes=[16]", "ablation.seeds=2"]
    _run("rows", store, few, flow=ablation)
    states = task_states("rows")
    assert states["sweep (components: SVC, seed 0)"] == states["train"] == "Cached"
    assert states["sweep (attributes: 16 attributes, seed 1)"] == "Completed"
    assert states["train (components: SVC + TSE + LVC, seed 1)"] == "Completed"
    found = read_json(next(path for path in store.glob("ablation/*/ablation.json") if '"seeds": 2' in path.read_text()))
    rows = {row["name"]: row for row in found["rows"]}
    assert len(rows) == 8 and rows["SVC"]["std"] is None and rows["SVC + TSE + LVC"]["std"] is not None
    assert all(row["low"] <= row["miou"] <= row["high"] for row in rows.values())


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
    assert task_states(f"wrong {message}") == {} and not (tmp_path / "s").exists()


def test_upgrades_are_a_flow_that_scores_each_alone(store, tmp_path):
    write_region_proposals(next(store.glob("world/[!.]*")) / "JPEGImages", tmp_path)
    _run("upgrades", store, [f"refine.votes.masks={tmp_path}", "ablation.resamples=100"], flow=upgrades)
    states = task_states("upgrades")
    assert states["sweep (upgrades: CAMs: as it is, seed 0)"] == states["train"] == states["quality"] == "Cached"
    assert states["evaluate (upgrades: pseudo labels: mask votes (+SAM), seed 0)"] == "Completed"
    found = read_json(next(path for path in store.glob("ablation/*/ablation.json") if "+SAM" in path.read_text()))
    labels = {row["name"]: row for row in found["rows"] if row["group"] == "upgrades: pseudo labels"}
    assert len(labels) == 7 and all(row["low"] <= row["miou"] <= row["high"] for row in labels.values())
    assert set(found["ranking"]["spearman"]) == {"train"}
    with get_client(sync_client=True) as client:
        key = ArtifactFilter(key=ArtifactFilterKey(any_=["excel-ablation-upgrades-demo"]))
        newest, *_ = client.read_artifacts(artifact_filter=key, sort=ArtifactSort.CREATED_DESC)
    assert "mask votes (+SAM)" in newest.data and "difference" in newest.data


def test_a_tracker_is_told_of_a_run_and_is_in_no_key(store, tmp_path, monkeypatch, caplog):
    """A stand-in for TensorBoard, which is an extra (tests/tasks/test_live_trackers.py has the real ones). The address that it
    is given is in the file that repeats the run."""
    names = set()

    class Told:
        def __init__(self, info, place):
            self.last = {}
            names.add(f"{info.name} at {place}")

        def write(self, points):
            names.update(name for point in points for name in point.values)

        def close(self, protocols, ending):
            return f"{ending}: look here"

    monkeypatch.setitem(live.LIVE_TRACKERS, "tensorboard", Told)
    monkeypatch.setitem(target.PACKAGES, "tensorboard", ())
    monkeypatch.chdir(tmp_path)
    with caplog.at_level("INFO", logger="prefect.flow_runs"):
        _run("logged", store, log="tensorboard:logs")
    built = {name for name, state in task_states("logged").items() if state != "Cached"}
    assert all(name.startswith("artifacts") for name in built)
    assert {"logged at logs", "train/loss", "mIoU/segmentation/held_out_1/multi_scale_crf"} <= names
    assert "logged: complete: look here" in caplog.messages
    assert f"log: tensorboard:{tmp_path}/logs" in read_records(store)[-1].config


def test_every_stage_says_how_far_it_is_and_what_it_came_to(store, tmp_path, capsys, caplog, monkeypatch):
    monkeypatch.setattr(progress, "MIN_SECONDS", 0.0)
    with caplog.at_level("INFO", logger="prefect.flow_runs"):
        _run("lines", tmp_path / "s", ["evaluate.ablation=false", "train.checkpoint_every=2"])
    lines = [line for line in capsys.readouterr().err.splitlines() if re.match(r"\w+: ", line)]
    rate = r"([\d.]+/s|[\d.]+ s each)"
    assert any(re.fullmatch(rf"cams: \d+/12, \d\d %, [\d.]+ s, {rate}, [\d.]+ s to go", line) for line in lines)
    assert any(re.fullmatch(rf"train: 2/4, 50 %, [\d.]+ s, {rate}, [\d.]+ s to go, loss [\d.]+", line) for line in lines)
    assert any(re.fullmatch(rf"train: 4/4, 100 %, [\d.]+ s, {rate}, loss [\d.]+", line) for line in lines)
    results = {line.partition(": ")[0]: line for line in lines if "/" not in line}
    seconds = r"(, [\d.]+ s|, \d+ min \d\d s)$"
    for stage, words in {
        "dataset": "24 images",
        "describe": "10 classes, .* descriptions",
        "refine": "12 images",
        "train": "4 iterations, loss [0-9.]+",
        "evaluate": r"mIoU 0\.\d+ seeds\.static\.train\.crf, .*",
    }.items():
        assert re.match(f"{stage}: {words}{seconds}", results[stage]), results[stage]
    with get_client(sync_client=True) as client:
        (run,) = client.read_flow_runs(flow_run_filter=FlowRunFilter(name=FlowRunFilterName(any_=["lines"])))
        APILogWorker.drain_all(timeout=30)
        logs = client.read_logs(log_filter=LogFilter(flow_run_id=LogFilterFlowRunId(any_=[run.id])))
    assert set(results.values()) <= {log.message for log in logs}
