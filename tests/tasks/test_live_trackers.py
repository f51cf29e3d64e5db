"""A run told to a tracker while it trains: no step twice, none left out, no run ended by a tracker, nothing in a key."""

import os
import shutil
import time

import pandas as pd
import pytest

from excel_core.config.presets import with_settings
from excel_core.errors import SettingError
from excel_core.files import read_json
from tasks.engine.code_digest import reached_definitions
from tasks.engine.stage import RunEnvironment
from tasks.trackers import live
from tasks.trackers.target import LogTarget, absolute, check_target, parse_target
from tests.tasks.tracked_training import LEARNT, train

SCORE = "mIoU/segmentation/held_out_1/multi_scale_crf"
pytestmark = pytest.mark.filterwarnings("default")  # of the tools' packages


class Written:
    """A tracker that remembers, of all that were opened: what the real ones are told."""

    opened = []  # noqa: RUF012
    refusals = 0

    def __init__(self, info, place):
        if Written.refusals:
            Written.refusals -= 1
            raise ConnectionError("Nobody is there. At least today")
        self.info, self.points, self.ending = info, [], None
        before = next((other for id in info.goes_on for other in Written.opened if other.info.id == id), None)
        self.last = dict(before.last) if before else {}
        Written.opened.append(self)

    def write(self, points):
        self.points += points

    def close(self, protocols, ending):
        self.ending = ending
        return "here"

    @property
    def steps(self):
        return [point.iteration for point in self.points if "train/loss" in point.values]


@pytest.fixture
def written(monkeypatch):
    monkeypatch.setitem(live.LIVE_TRACKERS, "tensorboard", Written)
    Written.opened, Written.refusals = [], 0
    return Written


@pytest.fixture
def environment(chain, tmp_path):
    """A copy of the small run's store."""
    return RunEnvironment(store=shutil.copytree(chain[1].store, tmp_path / "store"))


def test_losses_while_it_trains_and_all_of_it_in_the_end(chain, small_run, environment, written):
    run = with_settings(small_run, LEARNT)
    record, said = train(run, environment, LogTarget("tensorboard", "x"))
    (tracker,) = written.opened
    table = pd.read_csv(record.output("train") / "losses.csv")
    assert tracker.steps == [1, 2, 3, 4, 5, 6] and tracker.ending == "complete" and said == ["logged: here"]
    assert [point.values["train/loss"] for point in tracker.points] == pytest.approx(list(table["loss"]))
    assert set(tracker.points[0].values) == {f"train/{name}" for name in table.columns if name != "iteration"}
    assert tracker.info.settings["train.iterations"] == "6"


def test_a_complete_run_is_told_from_the_store(chain, small_run, environment, written):
    record, _ = train(small_run, environment, LogTarget("tensorboard", "x"), last="evaluate")
    (tracker,) = written.opened
    miou = read_json(record.output("evaluate") / "metrics.json")["results"]["segmentation.held_out_1.multi_scale_crf"]["miou"]
    assert tracker.steps == [1, 2, 3, 4] and tracker.points[-1].values[SCORE] == miou


def test_a_resumed_training_goes_on_without_double_steps(small_run, environment, written):
    run, target = with_settings(small_run, LEARNT), LogTarget("tensorboard", "x")
    first, said = train(run, environment, target, stop_at=3)
    assert (written.opened[0].steps, written.opened[0].ending, said) == ([1, 2, 3], "stopped", [])
    second, _ = train(run, environment, target, stop_at=5)
    train(run, environment, target)
    assert [tracker.info.goes_on for tracker in written.opened] == [(), (first.id,), (first.id, second.id)]
    assert [tracker.steps for tracker in written.opened[:2]] == [[1, 2, 3], [4, 5]]
    again = train(with_settings(run, ["train.seed=5"]), environment, target)[0]
    assert written.opened[-1].info.goes_on == () and written.opened[-1].info.id == again.id  # another training


def test_a_tracker_that_was_not_told_before_gets_the_whole_training(small_run, environment, written):
    run = with_settings(small_run, LEARNT)
    train(run, environment, None, stop_at=3)
    assert not written.opened
    train(run, environment, LogTarget("tensorboard", "x"))
    assert written.opened[0].steps == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("refusals", [1, 2])
def test_a_tracker_that_fails_is_a_line_and_ends_no_run(small_run, environment, written, refusals):
    written.refusals = refusals
    record, said = train(with_settings(small_run, LEARNT), environment, LogTarget("tensorboard", "x"))
    assert record.state == "complete" and (record.output("train") / "segmenter.safetensors").exists()
    assert said[0] == "warning: --log tensorboard:x: Nobody is there; the run goes on without it" and len(said) == 2
    if refusals == 1:  # at the end it is there again, and gets all
        assert said[1] == "logged: here" and written.opened[0].steps == [1, 2, 3, 4, 5, 6]


def test_no_key_knows_of_a_tracker():
    modules = {module for module, _ in reached_definitions("tasks.stages.train", "train_segmenter")}
    assert "excel_core.training.loop" in modules
    assert not [module for module in modules if module.startswith(("tasks.trackers", "tasks.engine"))]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("comet:x", "--log 'comet': expected TOOL:PLACE; valid: tensorboard:FOLDER, mlflow:FOLDER or "),
        ("tensorboard", "expected TOOL:PLACE"),
        ("mlflow: ", "expected TOOL:PLACE"),
        ("tensorboard:FILE/x", "a.txt is a file; name a folder"),
        ("mlflow:ftp://host/x", "expected a folder, http://HOST:PORT or https://HOST"),
        ("mlflow:http://me:geheim@127.0.0.1:5000", "MLFLOW_TRACKING_PASSWORD in the environment instead"),
        ("mlflow:http://192.0.2.1:5000", "MLflow's key would go to another machine over plain http"),
        ("wandb:a/b/c", "no name of a project"),
        ("wandb:excel", "W&B has no key here; set WANDB_API_KEY"),
    ],
)
def test_what_cannot_be_a_tracker_is_refused_before_work(tmp_path, monkeypatch, text, message):
    monkeypatch.setattr("tasks.trackers.target.PACKAGES", dict.fromkeys(("tensorboard", "mlflow", "wandb"), ()))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "a-token")
    for name in ("WANDB_API_KEY", "WANDB_MODE", "NETRC", "EXCEL_INSECURE_HTTP"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "a.txt").touch()
    with pytest.raises(SettingError) as refused:
        check_target(parse_target(text.replace("FILE", str(tmp_path / "a.txt"))))
    assert message in str(refused.value) and "geheim" not in str(refused.value)


def test_what_can_be_one_is_taken(tmp_path, monkeypatch):
    monkeypatch.setattr("tasks.trackers.target.PACKAGES", dict.fromkeys(("tensorboard", "mlflow", "wandb"), ()))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "a-token")
    for text in (
        f"tensorboard:{tmp_path}/new/logs",
        f"mlflow:{tmp_path}",
        "mlflow:https://host/x",
        "mlflow:http://127.0.0.1:5",
    ):
        check_target(parse_target(text))
    monkeypatch.setenv("EXCEL_INSECURE_HTTP", "other, 192.0.2.1")
    check_target(parse_target("mlflow:http://192.0.2.1:5000"))
    for text in ("mlflow:http://[::1:5000", "mlflow:http://host:port"):
        with pytest.raises(SettingError, match="expected a folder, http://HOST:PORT"):
            check_target(parse_target(text))
    assert parse_target("tensorboard:~/logs").place == os.path.expanduser("~/logs")
    monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
    check_target(parse_target("wandb:team/excel"))
    monkeypatch.setenv("WANDB_BASE_URL", "http://192.0.2.9")
    with pytest.raises(SettingError, match="WANDB_BASE_URL .*W&B's key would go to another machine"):
        check_target(parse_target("wandb:excel"))
    monkeypatch.setenv("WANDB_MODE", "offline")
    check_target(parse_target("wandb:excel"))
    monkeypatch.chdir(tmp_path)
    assert absolute("tensorboard:logs") == f"tensorboard:{tmp_path}/logs" and absolute("wandb:excel") == "wandb:excel"


def _tensorboard_steps(folder, name="train/loss"):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    return [event.step for event in events.Scalars(name)]


def test_tensorboard_sees_a_training_go_on(small_run, environment, tmp_path):
    pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    run, target = with_settings(small_run, LEARNT), LogTarget("tensorboard", str(tmp_path / "logs"))
    first, _ = train(run, environment, target, stop_at=3)
    assert _tensorboard_steps(tmp_path / "logs" / first.id) == [1, 2, 3]
    with next((tmp_path / "logs" / first.id).iterdir()).open("ab") as events:
        events.write(b"\x18\0\0\0\0\0\0\0\xa3")  # cut off by a power cut
    _, said = train(run, environment, target)
    assert said == [f"logged: tensorboard --logdir {tmp_path / 'logs'}"]
    assert _tensorboard_steps(tmp_path / "logs" / first.id) == [1, 2, 3, 4, 5, 6]
    assert [path.name for path in (tmp_path / "logs").iterdir()] == [first.id]


def test_mlflow_sees_a_training_go_on(small_run, environment, tmp_path):
    mlflow = pytest.importorskip("mlflow")
    pytest.importorskip("sqlalchemy")
    run, target = with_settings(small_run, LEARNT), LogTarget("mlflow", str(tmp_path / "ml"))
    train(run, environment, target, stop_at=3)
    client = mlflow.tracking.MlflowClient(tracking_uri=f"sqlite:///{tmp_path / 'ml' / 'mlflow.db'}")

    def runs():
        return client.search_runs([client.get_experiment_by_name("excel").experiment_id])

    assert [(found.info.status, found.data.metrics["train/loss"] > 0) for found in runs()] == [("KILLED", True)]
    record, _ = train(run, environment, target)
    (found,) = runs()
    assert found.info.status == "FINISHED" and found.data.tags["excel.run"] == record.id
    steps = sorted(metric.step for metric in client.get_metric_history(found.info.run_id, "train/loss"))
    assert steps == [1, 2, 3, 4, 5, 6] and found.data.params["train.iterations"] == "6"
    train(run, environment, target)  # complete: another run of the store is another one there
    assert len(runs()) == 2


def test_a_server_that_is_not_there_is_a_line(small_run, environment, monkeypatch):
    pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    record, said = train(with_settings(small_run, LEARNT), environment, LogTarget("mlflow", "http://127.0.0.1:9"))
    assert record.state == "complete" and len(said) == 2
    assert all(line.startswith("warning: --log mlflow:http://127.0.0.1:9: ") and "\n" not in line for line in said)


def test_wandb_offline_has_the_whole_training_in_each_part(small_run, environment, tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    run, target = with_settings(small_run, LEARNT), LogTarget("wandb", "excel-test")
    train(run, environment, target, stop_at=3)
    _, said = train(run, environment, target)
    assert said[-1].startswith("logged: wandb sync ")
    deadline = time.monotonic() + 30  # a process of W&B's own writes them

    def whole():
        return [f for f in tmp_path.glob("wandb/offline-run-*/run-*.wandb") if b"train/loss" in f.read_bytes()]

    while len(whole()) < 2 and time.monotonic() < deadline:
        time.sleep(0.1)
    assert len(whole()) == 2
