"""The benchmark's arithmetic against sums made by hand; which runs it compares; its tables, CSV and charts."""

import csv
import io

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from artifacts.benchmark.charts import class_chart_png, overview_png
from artifacts.benchmark.tables import benchmark_csv, benchmark_markdown, print_benchmark, sections
from excel_core.config.presets import preset, with_edits, with_settings
from excel_core.evaluation.benchmark import (
    Evaluated,
    before_edits,
    common_images,
    disagreement,
    is_seeded,
    method_runs,
    methods_numbers,
    parse_result_key,
    score_method,
    seed_run,
    unused_by_all,
)
from excel_core.evaluation.bootstrap import ResampledScore, image_draws, paired_difference, score_over_seeds

NAMES = ("background", "dog", "cat")
IMAGES = [f"i{number}" for number in range(7)]
RESAMPLES = 200


def _score(miou, *resampled):
    return ResampledScore(miou, np.array(resampled))


A = {"x": [_score(0.50, 0.4, 0.6), _score(0.54, 0.5, 0.5)], "y": [_score(0.30, 0.2, 0.3), _score(0.20, 0.1, 0.4)]}
B = {"x": [_score(0.60, 0.5, 0.9), _score(0.62, 0.7, 0.7)], "y": [_score(0.30, 0.2, 0.4), _score(0.32, 0.2, 0.8)]}


def test_a_score_over_splits_and_seeds():
    found = score_over_seeds(A)
    # Seeds: (0.50 + 0.30) / 2 = 0.40 and (0.54 + 0.20) / 2 = 0.37; resamples: 1.2 / 4 and 1.8 / 4.
    assert found["miou"] == pytest.approx(0.385) and found["std"] == pytest.approx(0.03 / np.sqrt(2)) and found["seeds"] == 2
    assert (found["low"], found["high"]) == pytest.approx((0.30 + 0.025 * 0.15, 0.45 - 0.025 * 0.15))
    assert found["by_split"] == pytest.approx({"x": 0.52, "y": 0.25})
    alone = score_over_seeds({"x": A["x"][:1]})
    assert alone["std"] is None and alone["seeds"] == 1 and alone["miou"] == 0.50


def test_a_difference_is_paired_by_seed_and_resample():
    found = paired_difference(A, B)
    # Seeds of b: 0.45 and 0.47, so differences 0.05 and 0.10; resamples of b: 1.6 / 4 and 2.8 / 4, so 0.10 and 0.25.
    assert found["difference"] == pytest.approx(0.075) and found["std"] == pytest.approx(0.05 / np.sqrt(2))
    assert (found["low"], found["high"]) == pytest.approx((0.10 + 0.025 * 0.15, 0.25 - 0.025 * 0.15))
    one = {split: seeds[:1] for split, seeds in A.items()}
    unpaired = paired_difference(one, B)  # 0.40 beside both of b's seeds
    assert unpaired["difference"] == pytest.approx(0.06) and unpaired["std"] == pytest.approx(0.02 / np.sqrt(2))


def _confusions(seed, better):
    """(I, C, C) pixels by image: random, with `better` more right ones."""
    rng = np.random.default_rng(seed)
    return rng.integers(1, 30, (len(IMAGES), 3, 3)) + better * np.eye(3, dtype=int)


def _evaluated(by_key, images=IMAGES):
    rows = [
        (key, image, truth, predicted, counts[number, truth, predicted])
        for key, counts in by_key.items()
        for number, image in enumerate(images)
        for truth in range(3)
        for predicted in range(3)
    ]
    table = pd.DataFrame(rows, columns=["result", "image", "truth", "predicted", "pixels"])
    results = {key: {"protocol": {"split": parse_result_key(key)[1], "what": "seed", "images": len(images)}} for key in by_key}
    return Evaluated(results, table)


def _miou(confusion):
    hit = np.diag(confusion)
    return np.mean(hit / (confusion.sum(0) + confusion.sum(1) - hit))


@pytest.fixture
def two_methods():
    """Confusions by method, seed and key, and the scores: `one` has two seeds and a CRF, `two` one seed and none."""
    raw, crf = "seeds.static.train.raw", "seeds.static.train.crf"
    tables = {
        "one": [{raw: _confusions(1, 10), crf: _confusions(2, 20)}, {raw: _confusions(3, 10), crf: _confusions(4, 20)}],
        "two": [{raw: _confusions(5, 60)}],
    }
    evaluated = {method: [_evaluated(one) for one in seeds] for method, seeds in tables.items()}
    images = common_images(one for seeds in evaluated.values() for one in seeds)
    return tables, {method: score_method(seeds, NAMES, images, RESAMPLES) for method, seeds in evaluated.items()}


def test_numbers_are_those_of_the_confusions_added_by_hand(two_methods):
    tables, methods = two_methods
    numbers = {(number["method"], number["step"]): number for number in methods_numbers(methods)}
    seeds = [_miou(one["seeds.static.train.crf"].sum(axis=0)) for one in tables["one"]]
    found = numbers["one", "crf"]
    assert found["miou"] == pytest.approx(np.mean(seeds)) and found["std"] == pytest.approx(np.std(seeds, ddof=1))
    assert found["last"] and not numbers["one", "raw"]["last"] and found["difference"] is None
    assert found["protocol"] == {"split": "train", "what": "seed", "images": 7}


def test_the_difference_is_that_of_the_same_resampled_images(two_methods):
    tables, methods = two_methods
    numbers = {(number["method"], number["step"]): number for number in methods_numbers(methods)}
    found, key = numbers["two", "raw"]["difference"], "seeds.static.train.raw"
    differences = []
    for counts in image_draws(len(IMAGES), RESAMPLES):
        drawn = [index for index, times in enumerate(counts) for _ in range(times)]
        one = np.mean([_miou(seed[key][drawn].sum(axis=0)) for seed in tables["one"]])
        differences.append(_miou(tables["two"][0][key][drawn].sum(axis=0)) - one)
    assert found["against"] == ["one", "raw"]
    assert (found["low"], found["high"]) == pytest.approx(tuple(np.quantile(differences, [0.025, 0.975])))
    assert found["low"] > 0  # sixty more right pixels an image are seen
    totals = [_miou(one[key].sum(axis=0)) for one in (*tables["one"], tables["two"][0])]
    assert found["difference"] == pytest.approx(totals[2] - (totals[0] + totals[1]) / 2)


def test_the_last_step_is_compared_with_the_last_where_names_differ():
    keys = {"first": "seeds.static.train.par", "second": "seeds.static.train.crf", "third": "seeds.static.train.crf"}
    evaluated = {method: [_evaluated({key: _confusions(8, 5)})] for method, key in keys.items()}
    evaluated["third"] = [_evaluated({"seeds.static.train.raw": _confusions(9, 5), keys["third"]: _confusions(8, 5)})]
    images = {("static", "train"): IMAGES}
    scored = {method: score_method(seeds, NAMES, images, RESAMPLES) for method, seeds in evaluated.items()}
    numbers = {(number["method"], number["step"]): number["difference"] for number in methods_numbers(scored)}
    assert numbers["second", "crf"]["against"] == ["first", "par"] and numbers["second", "crf"]["difference"] == 0
    assert numbers["third", "raw"] is None and numbers["third", "crf"]["against"] == ["first", "par"]


def test_methods_are_compared_on_the_images_that_all_have():
    key = "segmentation.val.single_scale"
    evaluated = [_evaluated({key: _confusions(1, 5)}), _evaluated({key: _confusions(2, 5)}, IMAGES[2:])]
    images = common_images(evaluated)
    assert images == {("segmentation", "val"): IMAGES[2:]}
    scored = score_method(evaluated[:1], NAMES, images, RESAMPLES)
    assert scored.protocols["segmentation", "single_scale"]["images"] == 5
    assert scored.scores["segmentation", "single_scale"]["val"][0].miou == pytest.approx(
        _miou(_confusions(1, 5)[2:].sum(axis=0))
    )


def test_images_are_ranked_by_how_far_methods_lie_apart(two_methods):
    tables, methods = two_methods
    rows = disagreement(methods, "static", {"train": IMAGES[:5]})
    assert {row["id"] for row in rows} == set(IMAGES[:5])
    spreads = [row["spread"] for row in rows]
    assert spreads == sorted(spreads, reverse=True)
    last = {"one": "seeds.static.train.crf", "two": "seeds.static.train.raw"}
    for row in rows:
        own = {method: _miou(tables[method][0][key][IMAGES.index(row["id"])]) for method, key in last.items()}
        assert row["miou"] == pytest.approx(own) and row["spread"] == pytest.approx(abs(own["one"] - own["two"]))
    assert disagreement(methods, "segmentation", {"val": IMAGES}) == []


def _run(*methods, name="demo", own=(), limit=None, seeds=3):
    asked = {"methods": methods, "own_settings": own, "limit": limit, "seeds": seeds}
    spec = with_edits(preset(name), {"benchmark": asked}).benchmark
    return with_edits(before_edits(name, methods[0], spec), {"benchmark": asked})


def test_each_method_is_its_preset_with_what_the_user_changed():
    run = with_settings(_run("excel", "excel:clean", "clip_es"), ["refine.par.iterations=3", "train.iterations=7"])
    runs = method_runs(run)
    assert list(runs) == ["excel", "excel:clean", "clip_es"]
    for method, one in runs.items():
        assert one.method == preset("demo", method).method and one.refine.par.iterations == 3
        assert one.refine.crf == preset("demo", method).refine.crf and not one.evaluate.ablation
    assert runs["excel"].train.iterations == runs["excel:clean"].train.iterations == 7
    assert runs["clip_es"].train == preset("demo", "clip_es").train  # it trains nothing
    assert runs["clip_es"].evaluate.kinds == ("static",) and runs["excel"].evaluate.kinds == preset("demo").evaluate.kinds


def test_a_setting_may_be_of_one_method():
    runs = method_runs(_run("excel", "excel:clean", "clip_es", own=("clip_es.refine.crf.enabled=false", "excel.train.crop=64")))
    assert [one.refine.crf.enabled for one in runs.values()] == [True, True, False]
    assert [one.train.crop for one in runs.values()][:2] == [64, 64]  # variants share their method's name


def test_a_setting_that_no_method_uses_is_found():
    run = with_settings(_run("clip_es", "maskclip"), ["train.iterations=7", "refine.par.iterations=3"])
    assert unused_by_all(run) == ["train.iterations"]
    run = with_settings(_run("clip_es", "excel"), ["train.iterations=7"])
    assert unused_by_all(run) == [] and method_runs(run)["excel"].train.iterations == 7


def test_a_second_encoder_is_set_for_the_methods_that_have_one():
    run = with_settings(_run("excel", "weclip_plus", name="voc"), ["dino.model=dino-tiny"])
    assert {method: one.dino.model for method, one in method_runs(run).items()} == {"excel": None, "weclip_plus": "dino-tiny"}
    assert unused_by_all(run) == []
    run = with_settings(_run("excel", "clip_es"), ["dino.model=dino-tiny"])
    assert unused_by_all(run) == ["dino.model"]


def test_the_limit_shortens_each_methods_own_schedule():
    runs = method_runs(_run("excel", "excel:paper", "clip_es", name="voc", limit=1058))
    plain = {method: preset("voc", method).train for method in runs}
    share = runs["excel"].train.iterations / plain["excel"].iterations
    assert 0.05 < share < 0.2 and {one.dataset.max_images for one in runs.values()} == {1058}
    assert runs["excel"].train.dynamic_from == pytest.approx(share * plain["excel"].dynamic_from, abs=1)
    assert runs["excel:paper"].train.dynamic_from == plain["excel:paper"].dynamic_from == 0
    assert runs["clip_es"].train == plain["clip_es"]


def test_trainings_of_the_demo_are_cut():
    runs, train = method_runs(_run("excel", "clip_es")), preset("demo").train
    assert runs["excel"].train == train.model_copy(
        update={"iterations": 150, "warmup": 25, "dynamic_from": 75, "own_argmax_from": 120}
    )
    assert runs["clip_es"].train == preset("demo", "clip_es").train
    whole = with_edits(preset("demo"), {"benchmark": {"methods": ("excel",), "iterations": None}})
    assert method_runs(whole)["excel"].train == train


def test_seeds_are_of_what_they_change():
    excel, clip_es = preset("demo"), preset("demo", "clip_es")
    assert [is_seeded(excel, kind) for kind in ("static", "lvc", "segmentation")] == [True, True, True]
    assert not is_seeded(clip_es, "static")
    plain = with_settings(excel, ["knowledge.mode=none"])
    assert [is_seeded(plain, kind) for kind in ("static", "lvc", "segmentation")] == [False, True, True]
    given = with_settings(plain, ["train.from_checkpoint=a.pth"])
    assert [is_seeded(given, kind) for kind in ("static", "lvc", "segmentation")] == [False, False, False]
    assert seed_run(excel, 0) == excel and seed_run(clip_es, 1) is None
    second = seed_run(excel, 2)
    assert (second.knowledge.seed, second.train.seed) == (excel.knowledge.seed + 2, excel.train.seed + 2)
    assert seed_run(plain, 1).evaluate.kinds == ("lvc", "segmentation")
    assert seed_run(plain, 1).knowledge == plain.knowledge  # shared with the first seed


def _number(method, kind, step, miou, last=False, std=None, difference=None):
    protocol = {"what": "=SUM(A1)", "split": "train", "refinement": step, "method": method, "images": 4}
    number = {"method": method, "kind": kind, "step": step, "last": last, "miou": miou, "std": std, "low": miou - 0.1}
    return number | {
        "high": miou + 0.1,
        "seeds": 2,
        "by_split": {"train": miou},
        "protocol": protocol,
        "difference": difference,
    }


@pytest.fixture
def document():
    higher = {"against": ["excel", "raw"], "difference": 0.1, "std": 0.01, "low": 0.05, "high": 0.15}
    unclear = {"against": ["excel", "par"], "difference": -0.1, "std": None, "low": -0.2, "high": 0.01}
    cost = {"seconds": 65.0, "peak_host_bytes": 2**30, "peak_gpu_bytes": None}
    stages = [{"stage": stage, **cost} for stage in ("cams", "train")]
    return {
        "format": "excel-benchmark/1", "preset": "voc", "clip": "excel-tiny", "limit": None, "seeds": 2, "resamples": 1000,
        "methods": [
            {"name": "excel", "kinds": ["static", "lvc", "segmentation"], "iterations": 30_000},
            {"name": "clip_es", "kinds": ["static"], "iterations": None},
        ],
        "numbers": [
            _number("excel", "static", "raw", 0.5), _number("excel", "static", "par", 0.6, True, 0.02),
            _number("excel", "lvc", "par", 0.7, True), _number("excel", "segmentation", "multi_scale_crf", 0.8, True),
            _number("clip_es", "static", "raw", 0.6, False, None, higher),
            _number("clip_es", "static", "crf", 0.5, True, None, unclear),
        ],
        "classes": {},
        "costs": [
            {"method": "excel", "trained_parameters": 5_990_000, "stages": stages, **cost},
            {"method": "clip_es", "trained_parameters": None, "stages": stages[:1], **cost},
        ],
        "gallery": {}, "skipped": {"segmentation.val": "split 'val' has no masks"},
    }  # fmt: skip


def test_the_summary_leaves_no_cell_empty(document):
    summary, *_ = sections(document)
    excel, clip_es = summary.rows
    assert excel == {
        "method": "excel", "raw": "50.0", "+ PAR": "60.0 ± 2.0", "+ CRF": "no such step", "after training": "70.0",
        "segmentation": "80.0", "time": "1 min 05 s", "host GiB": "1.00", "GPU GiB": "none", "trained": "5,990,000",
    }  # fmt: skip
    assert clip_es["raw"] == "60.0 *" and clip_es["+ PAR"] == "no such step" and clip_es["+ CRF"] == "50.0"
    assert clip_es["after training"] == clip_es["segmentation"] == "not trained" and clip_es["trained"] == "none"
    assert "not scored: segmentation.val: split 'val' has no masks" in summary.notes


def test_every_number_stands_with_its_interval_difference_and_protocol(document):
    seeds = next(section for section in sections(document) if section.title == "CAM seeds, training-free")
    rows = {(row["method"], row["step"]): row for row in seeds.rows}
    assert rows["excel", "+ PAR"]["mIoU"] == "60.0 ± 2.0 [50.0, 70.0]" and rows["excel", "raw"]["− excel"] == "the same"
    assert rows["clip_es", "raw"]["− excel"] == "+10.0 ± 1.0 [+5.0, +15.0] *"
    assert rows["clip_es", "+ CRF"]["− excel"] == "-10.0 [-20.0, +1.0] (+ PAR)"
    assert rows["clip_es", "raw"]["protocol"] == "refinement: raw · method: clip_es"
    assert "=SUM(A1) · train · images: 4" in seeds.notes
    cost = sections(document)[-1]
    assert [row["train"] for row in cost.rows] == ["1 min 05 s", "none"]


def test_one_method_alone_is_compared_with_nobody(document):
    document["methods"], document["costs"] = document["methods"][:1], document["costs"][:1]
    document["numbers"] = document["numbers"][:4]
    assert all("−" not in column for section in sections(document) for row in section.rows for column in row)
    assert "*" not in benchmark_markdown(document)


def test_markdown_and_terminal_have_every_table(document):
    page, out = benchmark_markdown(document), io.StringIO()
    print_benchmark(document, Console(file=out, width=160))
    for title in ("Benchmark of voc", "CAM seeds, training-free", "CAM seeds after training", "Segmentation", "Cost"):
        assert f"## {title}" in page and title in out.getvalue()
    assert "| excel | 50.0 | 60.0 ± 2.0 | no such step | 70.0 | 80.0 |" in page and "not trained" in out.getvalue()


def test_limit_seeds_and_iterations_are_told(document):
    assert "iterations of training: excel 30,000" in sections(document)[0].notes
    assert any(note.startswith("± standard deviation over 2 seeds") for note in sections(document)[0].notes)
    document["limit"], document["seeds"] = 12, 1
    notes = sections(document)[0].notes
    assert "to try it out: 12 images a split" in notes and not any("±" in note for note in notes)


def test_the_csv_has_a_line_a_number_and_no_formula(document):
    rows = list(csv.DictReader(io.StringIO(benchmark_csv(document))))
    assert len(rows) == 6
    assert [rows[4][field] for field in ("method", "step", "miou", "against", "difference", "difference_low")] == [
        "clip_es", "raw", "0.6", "excel raw", "0.1", "0.05",
    ]  # fmt: skip
    assert rows[5]["difference"] == "-0.1" and rows[0]["difference"] == ""  # a number may be negative
    assert rows[0]["protocol: what"] == "'=SUM(A1)" and rows[1]["trained_parameters"] == "5990000"


def test_charts_are_the_same_for_the_same_numbers(document):
    rows = [{"class": "dog", "iou": {"excel": 0.5, "clip_es": 0.7}}, {"class": "$cat", "iou": {"excel": 0.9, "clip_es": 0.1}}]
    first = class_chart_png(rows, ["excel", "clip_es"], "by class")
    assert first == class_chart_png(rows, ["excel", "clip_es"], "by class") and first.startswith(b"\x89PNG")
    assert first != class_chart_png(
        [{**rows[0], "iou": {"excel": 0.2, "clip_es": 0.7}}, rows[1]], ["excel", "clip_es"], "by class"
    )
    assert overview_png(document) == overview_png(document)


def test_a_method_has_its_colour_in_every_chart():
    """Also in those of kinds that the methods before it do not have."""
    rows = [{"class": "cat", "iou": {"weclip": 0.4}}]
    as_third = class_chart_png(rows, ["excel", "clip_es", "weclip"], "by class")
    assert as_third != class_chart_png(rows, ["weclip"], "by class")
    assert as_third == class_chart_png(rows, ["maskclip", "clip_es", "weclip"], "by class")
