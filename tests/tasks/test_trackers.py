"""A run in TensorBoard, MLflow and W&B, read back by their own packages. They are extras: without one, its test is skipped."""

import pytest

from excel_core.config.setting_text import without_folders
from excel_core.errors import SettingError
from excel_core.files import read_json
from tasks.trackers.tracked_run import tracked_run
from tasks.trackers.tracker import track_run

SCORE = "mIoU/segmentation/held_out_1/multi_scale_crf"
pytestmark = pytest.mark.filterwarnings("default")  # of those packages


@pytest.fixture(scope="module")
def tracked(record):
    return tracked_run(record)


@pytest.fixture(scope="module")
def miou(record):
    return read_json(record.output("evaluate") / "metrics.json")["results"]["segmentation.held_out_1.multi_scale_crf"]["miou"]


def test_what_is_told_of_a_run(record, tracked, miou):
    assert [point.iteration for point in tracked.points] == [1, 2, 3, 4, 4]
    assert all(point.values["train/loss"] > 0 for point in tracked.points[:4])
    assert tracked.points[-1].values[SCORE] == miou and tracked.protocols[SCORE]["refinement"] == "CRF"
    assert tracked.info.settings["train.iterations"] == "4" and str(record.store) not in str(tracked)


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("ViT-B-16:/data/my weights/x.pt", "ViT-B-16:x.pt"),
        ("~/clip/x.pt", "x.pt"),
        ("['/a/b.json', 'c']", "['b.json', 'c']"),
        ("hf-hub:timm/vit_base", "hf-hub:timm/vit_base"),
        ("facebook/sam-vit-base", "facebook/sam-vit-base"),
        ("0.5", "0.5"),
    ],
)
def test_a_setting_is_told_without_the_folders_of_this_machine(value, told):
    assert without_folders(value) == told


def test_what_has_nothing_to_tell_is_refused(record, tracked, tmp_path):
    part = record.model_copy(update={"own": {"cams": record.own["cams"]}})
    with pytest.raises(SettingError, match="has neither a training nor scores; its stages: cams"):
        tracked_run(part)
    with pytest.raises(SettingError, match="--to comet: valid: tensorboard, mlflow, wandb"):
        track_run(tracked, "comet", str(tmp_path))
    assert not list(tmp_path.iterdir())


def test_a_tool_that_is_not_installed_is_named(tracked, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "wandb", None)
    with pytest.raises(
        SettingError, match=r"--to wandb needs wandb, which is not installed: pip install 'excel-wsss\[trackers\]'"
    ):
        track_run(tracked, "wandb", str(tmp_path))


def test_tensorboard_reads_it(tracked, miou, tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    for _ in range(2):  # the second time there is nothing new
        assert track_run(tracked, "tensorboard", str(tmp_path)) == f"tensorboard --logdir {tmp_path}"
    events = accumulator.EventAccumulator(str(tmp_path / tracked.info.id))
    events.Reload()
    losses = events.Scalars("train/loss")
    assert [event.step for event in losses] == [1, 2, 3, 4]
    assert [event.value for event in losses] == pytest.approx([point.values["train/loss"] for point in tracked.points[:4]])
    (score,) = events.Scalars(SCORE)
    assert score.value == pytest.approx(miou) and "settings/text_summary" in events.Tags()["tensors"]


def test_mlflow_reads_it(tracked, miou, tmp_path):
    mlflow = pytest.importorskip("mlflow")
    pytest.importorskip("sqlalchemy")
    for _ in range(2):  # a second run goes into the same experiment
        said = track_run(tracked, "mlflow", str(tmp_path))
    client = mlflow.tracking.MlflowClient(tracking_uri=said.removeprefix("mlflow ui --backend-store-uri "))
    runs = client.search_runs([client.get_experiment_by_name("excel").experiment_id])
    assert len(runs) == 2 and {run.info.status for run in runs} == {"FINISHED"}
    assert runs[0].data.metrics[SCORE] == pytest.approx(miou) and runs[0].data.params["train.iterations"] == "4"
    assert len(client.get_metric_history(runs[0].info.run_id, "train/loss")) == 4


def test_wandb_reads_it(tracked, tmp_path):
    pytest.importorskip("wandb")
    said = track_run(tracked, "wandb", str(tmp_path))
    assert said.startswith(f"wandb sync {tmp_path}")
    (written,) = tmp_path.glob("wandb/offline-run-*/run-*.wandb")
    content = written.read_bytes()
    assert SCORE.encode() in content and b"train.iterations" in content
