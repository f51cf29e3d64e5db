"""A plan says what would run and why, and is right about it."""

import shutil

import pytest

from excel_core.config.presets import with_settings
from tasks.engine.output import read_marker
from tasks.engine.stage import RunEnvironment
from tasks.history.plan import plan_run
from tasks.pipeline import pipeline
from tests.pipeline_runs import complete, follow, follow_and_note


def _stages(run, environment):
    return {stage.name: stage for stage in plan_run(pipeline(run, environment))}


def test_nothing_runs_of_a_complete_run(chain, small_run):
    stages = _stages(small_run, chain[1])
    assert not any(stage.runs for stage in stages.values())
    assert stages["cams"].parts == 4 and stages["describe"].parts == 10 and stages["train"].parts == 0
    assert "sweep (components: SVC, seed 0)" in stages


def test_everything_runs_in_an_empty_store(small_run, tmp_path):
    stages = _stages(small_run, RunEnvironment(store=tmp_path))
    assert all(stage.runs and stage.seconds is None for stage in stages.values())
    assert stages["world"].why == "was never built" and stages["dataset"].why.startswith("reads world")
    assert stages["describe"].missing == 10 and stages["cams"].missing is None


@pytest.mark.parametrize(
    ("setting", "stage", "why"),
    [
        ("cams.calibration.depth=2", "cams", "cams.calibration.depth: 5 → 2"),
        ("refine.crf.iterations=3", "refine", "refine.crf.iterations: 10 → 3"),
        ("train.learning_rate=0.1", "train", "train.learning_rate: 0.001 → 0.1"),
        ("knowledge.attributes=8", "knowledge", "attributes: 64 → 8"),
        ("predict.scales=[1.0]", "predict", "predict.scales: [0.7, 1.0] → [1.0]"),
    ],
)
def test_a_setting_is_named_as_the_reason(chain, small_run, setting, stage, why):
    stages = _stages(with_settings(small_run, [setting]), chain[1])
    assert stages[stage].runs and stages[stage].why.split("; ")[0] == why
    assert stages[stage].seconds > 0 and stages[stage].bytes > 0
    assert stages["report"].runs and not stages["describe"].runs


def test_the_plan_counts_the_parts_that_are_missing(chain, small_run, tmp_path):
    """And building what it names, and only that, completes the run."""
    environment = RunEnvironment(store=shutil.copytree(chain[1].store, tmp_path / "store"))
    own = follow(small_run, environment, "report", complete)
    next((own["train"].folder).glob("*.safetensors")).write_bytes(b"half")
    assert _stages(small_run, environment)["train"].why == "its output is damaged"
    parts = read_marker(own["refine"].folder).origin.parts
    lost = environment.store / "refine-parts" / min(parts.values())
    shutil.rmtree(lost), shutil.rmtree(own["refine"].folder)
    step = _stages(small_run, environment)["refine"]
    assert (step.parts, step.missing) == (4, 1)
    assert _stages(small_run, environment)["train"].why.startswith("reads refine")  # whose labels choose its crops
    outputs, built = follow_and_note(small_run, environment, "report")
    assert outputs["report"].content
    assert [name for name in built if name.startswith("refine")] == [f"refine {_name(lost, chain)}", "refine"]
    assert not any(name.startswith(("cams", "describe", "world")) for name in built)


def _name(lost, chain):
    """The name of the part in folder `lost`."""
    parts = read_marker(chain[0]["refine"].folder).origin.parts
    return next(name for name, key in parts.items() if key == lost.name)
