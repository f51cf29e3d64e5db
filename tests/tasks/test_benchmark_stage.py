"""The stage `benchmark` on small runs: what methods share is built once, and every number is that of the methods' own runs."""

import re

import numpy as np
import pytest
from PIL import Image

from excel_core.config.presets import with_edits
from excel_core.datasets.palette import load_labels_png
from excel_core.files import read_json
from excel_core.models.checkpoints import trained_parameters
from tasks.engine.stage import MaskAccess, mask_access
from tasks.pipeline import STAGES, pipeline
from tasks.stages import benchmark
from tests.mask_watch import opened_masks
from tests.pipeline_runs import complete, files_made, files_named, follow_and_note

METHODS = ("excel", "clip_es")


@pytest.fixture(scope="module")
def run(small_run):
    """The small demo by two methods: one that trains, and one that has seeds alone."""
    asked = {"methods": METHODS, "seeds": 2, "gallery_images": 2, "resamples": 100}
    return with_edits(small_run, {"benchmark": asked})


@pytest.fixture(scope="module")
def compared(run, chain):
    """benchmark.json, the stage's output, and what was built for it beside the excel run's own stages."""
    outputs, built = follow_and_note(run, chain[1], "benchmark", parts=False)
    return read_json(outputs["benchmark"].folder / "benchmark.json"), outputs["benchmark"], built


@pytest.fixture(scope="module")
def job(run, chain, compared):
    """The stage's job, with the outputs that it compares."""
    graph, outputs = pipeline(run, chain[1], "benchmark"), {}
    for node in graph.nodes.values():
        outputs[node.id] = complete(graph.job(node, outputs))
    return graph.job(graph.nodes[graph.own_ids["benchmark"]], outputs)


@pytest.fixture(scope="module")
def by_input(job):
    return job.inputs


def test_what_methods_share_is_built_once(run, chain, compared):
    nodes = pipeline(run, chain[1], "benchmark").nodes.values()
    stages = {
        variant: {node.stage.name for node in nodes if node.variant.startswith(variant)}
        for variant in ("excel, seed 1", "clip_es", "clip_es, seed 1")
    }
    # Of the second seed, what k-means and training reach.
    assert stages["excel, seed 1"] == {"knowledge", "cams", "refine", "train", "dynamic", "predict", "evaluate"}
    assert stages["clip_es"] == {"describe", "knowledge", "cams", "refine", "evaluate"} and not stages["clip_es, seed 1"]
    # Of the first one, which the session's run has, nothing but its scores without the ablation.
    _, _, built = compared
    assert {name for name in built if "excel, seed 0" in name} <= {"evaluate (excel, seed 0)"}
    assert len(built) == len(set(built)) and "world" not in built and "dataset" not in built and built[-1] == "benchmark"


def test_numbers_are_those_of_the_runs_own_scores(compared, by_input):
    document, output, _ = compared
    for method in METHODS:
        metrics = [
            read_json(by_input[name].folder / "metrics.json")["results"]
            for name in by_input
            if re.fullmatch(rf"{method}, seed \d", name)
        ]
        assert len(metrics) == (2 if method == "excel" else 1)
        numbers = {(n["kind"], n["step"]): n for n in document["numbers"] if n["method"] == method}
        kinds = {kind for kind, _ in numbers}
        assert kinds == ({"static", "lvc", "segmentation"} if method == "excel" else {"static"})
        for (kind, step), number in numbers.items():
            family = "segmentation" if kind == "segmentation" else f"seeds.{kind}"
            splits = ("held_out_1", "held_out_2", "held_out_3") if kind == "segmentation" else ("train",)
            by_seed = [np.mean([one[f"{family}.{split}.{step}"]["miou"] for split in splits]) for one in metrics]
            assert number["miou"] == pytest.approx(np.mean(by_seed)) and number["seeds"] == len(metrics)
            assert (number["std"] is None) == (len(metrics) == 1) and number["low"] <= number["high"]
            assert number["protocol"]["images"] == 12 and number["protocol"]["method"] == f"{method}:reference"
            assert number["protocol"]["split"] == ", ".join(splits)
    assert output.result["miou"]["clip_es"] == {"static": pytest.approx(numbers["static", "crf"]["miou"], abs=1e-4)}


def test_the_other_method_is_compared_with_the_first(compared):
    document, *_ = compared
    of = {(number["method"], number["kind"], number["step"]): number for number in document["numbers"]}
    difference = of["clip_es", "static", "raw"]["difference"]
    assert difference["against"] == ["excel", "raw"]
    assert difference["difference"] == pytest.approx(
        of["clip_es", "static", "raw"]["miou"] - of["excel", "static", "raw"]["miou"]
    )
    assert difference["low"] <= difference["high"] and of["excel", "static", "raw"]["difference"] is None


def test_costs_are_those_of_the_stages(compared, by_input):
    excel, clip_es = compared[0]["costs"]
    assert [cost["stage"] for cost in excel["stages"]] == list(benchmark.COSTLY)
    assert [cost["stage"] for cost in clip_es["stages"]] == ["describe", "knowledge", "cams", "refine"]
    for cost in excel["stages"]:
        outputs = [by_input[f"excel, seed {seed}, {cost['stage']}"] for seed in (0, 1)]
        assert cost["seconds"] == min(output.seconds for output in outputs)
        assert cost["peak_host_bytes"] == max(output.peak_host_bytes for output in outputs) and cost["peak_gpu_bytes"] is None
    assert excel["seconds"] == pytest.approx(sum(cost["seconds"] for cost in excel["stages"]))
    segmenter = by_input["excel, seed 0, train"].folder / "segmenter.safetensors"
    assert excel["trained_parameters"] == trained_parameters(segmenter) > 10_000 and clip_es["trained_parameters"] is None


def test_the_parameters_counted_are_the_segmenters_own(chain):
    from safetensors.torch import load_file

    path = chain[0]["train"].folder / "segmenter.safetensors"
    assert trained_parameters(path) == sum(tensor.numel() for tensor in load_file(path).values())


def test_methods_are_told_with_their_trainings(compared):
    assert compared[0]["methods"] == [
        {"name": "excel", "kinds": ["static", "lvc", "segmentation"], "iterations": 4},
        {"name": "clip_es", "kinds": ["static"], "iterations": None},
    ]


def test_its_files_are_those_of_the_table(compared):
    _, output, _ = compared
    assert files_made(output) == files_named("benchmark")
    page = (output.folder / "index.html").read_text()
    assert "http" not in page.replace("http-equiv", "") and page.count("<img") > 10 and "not trained" in page
    for path in output.folder.glob("*.png"):
        with Image.open(path) as picture:
            assert picture.width >= 800, path.name


def test_the_gallery_shows_copies_of_truths_where_methods_differ_most(compared, by_input, run):
    document, output, _ = compared
    for name, rows in document["gallery"].items():
        assert 0 < len(rows) <= 2 and [row["spread"] for row in rows] == sorted((row["spread"] for row in rows), reverse=True)
        copies = [by_input[f"{method}, seed 0"].folder / "truth" for method in METHODS]
        for row in rows:
            assert any((copy / row["split"] / f"{row['id']}.png").is_file() for copy in copies), name
        page = (output.folder / "index.html").read_text()
        assert all(row["id"] in page for row in rows)
    truth = next(copies[0].glob("*/*.png"))
    assert load_labels_png(truth).max() > 0


def test_it_opens_no_mask(compared, job, tmp_path):
    document, output, _ = compared
    assert STAGES["benchmark"].masks is MaskAccess.NEVER
    with opened_masks() as opened, mask_access(job):
        benchmark.compare_methods(job, tmp_path)
    assert opened == set()
    assert read_json(tmp_path / "benchmark.json") == document  # the same work gives the same
    assert (tmp_path / "index.html").read_bytes() == (output.folder / "index.html").read_bytes()
