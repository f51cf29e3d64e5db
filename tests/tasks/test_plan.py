"""A plan says what would run and why, and is right about it."""

import shutil

import pytest

from excel_core.config.presets import with_settings
from tasks.chain import follow
from tasks.engine.build import complete_output, run_stage
from tasks.engine.outputs import read_marker
from tasks.engine.stage import RunEnvironment
from tasks.history.plan import plan_run


def _steps(run, place):
    return {step.name: step for step in plan_run(run, place, "report")}


def test_nothing_runs_of_a_complete_run(chain, small_run):
    steps = _steps(small_run, chain[1])
    assert not any(step.runs for step in steps.values())
    assert steps["cams"].parts == 4 and steps["describe"].parts == 10 and steps["train"].parts == 0
    assert "sweep (components: SVC, seed 0)" in steps


def test_everything_runs_in_an_empty_store(small_run, tmp_path):
    steps = _steps(small_run, RunEnvironment(store=tmp_path))
    assert all(step.runs and step.seconds is None for step in steps.values())
    assert steps["world"].why == "was never built" and steps["dataset"].why.startswith("reads world")
    assert steps["describe"].missing == 10 and steps["cams"].missing is None


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
    steps = _steps(with_settings(small_run, [setting]), chain[1])
    assert steps[stage].runs and steps[stage].why.split("; ")[0] == why
    assert steps[stage].seconds > 0 and steps[stage].bytes > 0
    assert steps["report"].runs and not steps["describe"].runs


def test_the_plan_counts_the_parts_that_are_missing(chain, small_run, tmp_path):
    """And building what it names, and only that, completes the run."""
    place = RunEnvironment(store=shutil.copytree(chain[1].store, tmp_path / "store"))
    own = follow(small_run, place, "report", complete_output)
    next((own["train"].folder).glob("*.safetensors")).write_bytes(b"half")
    assert _steps(small_run, place)["train"].why == "its output is damaged"
    parts = read_marker(own["refine"].folder)["origin"]["parts"]
    lost = place.store / "refine-parts" / min(parts.values())
    shutil.rmtree(lost), shutil.rmtree(own["refine"].folder)
    step = _steps(small_run, place)["refine"]
    assert (step.parts, step.missing) == (4, 1)
    assert _steps(small_run, place)["train"].why.startswith("reads refine")  # whose labels choose its crops
    built = []

    def build(work):
        return run_stage(work, lambda piece: _noted(piece, built))

    assert follow(small_run, place, "report", build)["report"].content
    assert [name for name in built if name.startswith("refine")] == [f"refine {_name(lost, chain)}", "refine"]
    assert not any(name.startswith(("cams", "describe", "world")) for name in built)


def _noted(piece, built):
    from tasks.engine.build import find_or_build

    built.extend([] if complete_output(piece) else [piece.name])
    return find_or_build(piece)


def _name(lost, chain):
    """The name of the part in folder `lost`."""
    parts = read_marker(chain[0]["refine"].folder)["origin"]["parts"]
    return next(name for name, identity in parts.items() if identity == lost.name)
