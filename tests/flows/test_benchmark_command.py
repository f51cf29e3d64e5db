"""`excel benchmark` as a user runs it: two methods on a tiny demo on a real Prefect server, and what is refused in one line."""

import csv
import json
from functools import partial

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey

from excel_core.errors import SettingError
from excel_core.evaluation.benchmark import method_runs
from flows.request import BenchmarkRequest
from tasks.history.run_record import read_records
from tests.conftest import SMALL_DEMO
from tests.voc_folder import write_voc

# Neither method of the small demo trains a segmenter.
SETS = [
    part for setting in SMALL_DEMO if setting.split(".")[0] in ("dataset", "refine", "shards") for part in ("--set", setting)
]


@pytest.fixture
def excel(command_line):
    """`excel benchmark ARGUMENTS`."""
    return partial(command_line, "benchmark")


@pytest.mark.usefixtures("prefect_server")
def test_two_methods_on_a_tiny_demo(excel, tmp_path):
    store = tmp_path / "store"
    arguments = ("demo", "--methods", "maskclip,clip_es", "--seeds", 1, "--store", store, *SETS)
    code, out, err = excel(*arguments)
    assert code == 0, err
    files = {line.rpartition("/")[2]: line for line in out.splitlines() if line.startswith(f"{store}/benchmark/")}
    assert set(files) == {"index.html", "benchmark.json", "benchmark.csv", "benchmark.md"}
    with open(files["benchmark.json"], encoding="utf-8") as file:
        document = json.load(file)
    assert [method["name"] for method in document["methods"]] == ["maskclip", "clip_es"]
    assert (document["preset"], document["clip"], document["seeds"]) == ("demo", "excel-tiny", 1)
    assert {number["kind"] for number in document["numbers"]} == {"static"}  # neither trains a segmenter
    assert all(0 <= number["miou"] <= 1 and number["protocol"]["images"] == 12 for number in document["numbers"])
    with open(files["benchmark.csv"], encoding="utf-8", newline="") as file:
        assert len(list(csv.DictReader(file))) == len(document["numbers"])
    assert "Benchmark of demo" in out and "not trained" in out and "− maskclip" in out
    (record,) = read_records(store)
    assert record.state == "complete" and "train" not in {kind.partition("/")[0] for kind in record.outputs}
    with get_client(sync_client=True) as client:
        keys = ["excel-benchmark-demo", "excel-benchmark-overview-demo", "excel-benchmark-gallery-seeds-demo"]
        filtered = ArtifactFilter(key=ArtifactFilterKey(any_=keys))
        pages = {artifact.key: artifact.data for artifact in client.read_artifacts(artifact_filter=filtered)}
    assert set(pages) == set(keys)
    assert (
        files["index.html"] in pages["excel-benchmark-demo"] and "## CAM seeds, training-free" in pages["excel-benchmark-demo"]
    )
    assert pages["excel-benchmark-gallery-seeds-demo"].startswith("![") and "](data:image/webp;" in pages[keys[2]]
    again = excel(*arguments)
    assert again[0] == 0 and again[1].startswith("every stage is complete; nothing to run") and len(read_records(store)) == 1


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_voc(tmp_path_factory.mktemp("data") / "VOC2012", size=64)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["demo", "--methods", "excel,clipes"],
            "unknown method 'clipes'; valid methods: excel[:reference|paper|clean], maskclip",
        ),
        (["demo", "--methods", "excel,"], "unknown method ''; valid methods: excel[:reference"),
        (["demo", "--methods", "clip_es,excel,reference"], "excel is named twice; name each method once"),
        (["demo", "--methods", "excel", "--methods", "excel:reference"], "excel is named twice"),
        (["demo", "--seeds", "0"], "--seeds 0: expected 1 to 20"),
        (["demos"], "unknown preset 'demos'; valid presets: voc, coco, photos, demo"),
        (["--methods", "excel,clip_es"], "preset 'voc' needs a data folder: pass --data DIR"),  # PRESET may be left out
        (["voc", "--data", "/nowhere"], "data folder '/nowhere' does not exist"),
        (["voc", "--data", "{data}", "--clip", "excel-tiny"], "the list train_aug, which comes with excel, has 10,582 images"),
        (["demo", "--methods", "excel,clip_es", "--set", "train.iteration=4"], "valid fields: train.enabled"),
        (
            ["demo", "--methods", "clip_es,maskclip", "--set", "train.iterations=4"],
            "train.iterations: none of clip_es, maskclip uses it",
        ),
        (
            ["demo", "--methods", "excel", "--set", "clip_es.refine.crf.enabled=false"],
            "clip_es is not among the methods; these are excel",
        ),
        (
            ["demo", "--methods", "excel,clip_es", "--set", "clip_es.train.iterations=4"],
            "clip_es: train.iterations: method clip_es:reference (train.enabled=false) does not use it",
        ),
        (
            ["demo", "--methods", "excel,clip_es", "--set", "clip_es.dataset.max_images=4"],
            "all methods see the same images; leave clip_es out to set it for all",
        ),
        (["demo", "--set", "benchmark.seeds=2"], "methods, seeds and limit are told by --methods, --seeds and --limit"),
        (
            ["demo", "--methods", "excel,clip_es", "--set", "evaluate.kinds=[segmentation]"],
            "clip_es: evaluate.kinds: it trains no",
        ),
        (["demo", "--methods", "excel", "--set", "train.supervision=masks"], "excel: train.supervision=masks"),
        (["demo", "--methods", "excel,clip_es", "--clip", "ViT-X:none"], "ViT-X"),
        (["demo", "--methods", "clip_es,excel", "--clip", "RN50:openai"], "RN50"),
    ],
)
def test_what_cannot_be_is_one_line_before_work_starts(excel, data, tmp_path, arguments, message):
    code, out, err = excel(*(argument.format(data=data) for argument in arguments), "--store", tmp_path / "store")
    assert code == 2 and message in err and err.startswith("error: ") and err.count("\n") == 1
    assert out == "" and not (tmp_path / "store").exists()


def _methods(data, *settings, methods=(), limit=2):
    request = BenchmarkRequest(
        preset="voc", data=str(data), methods=list(methods), limit=limit, clip="excel-tiny", settings=list(settings)
    )
    run, environment = request.resolve()
    assert environment.data == data
    return method_runs(run)


def test_a_users_own_setting_wins_over_the_limit(data):
    runs = _methods(data, methods=["excel", "clip_es"])
    assert (runs["excel"].train.iterations, runs["excel"].dataset.max_images, runs["clip_es"].dataset.partial) == (20, 2, True)
    runs = _methods(data, "train.iterations=6", "dataset.max_images=3", methods=["clip_es", "excel", "excel:clean"])
    assert [one.dataset.max_images for one in runs.values()] == [3, 3, 3]
    assert runs["excel"].train.iterations == runs["excel:clean"].train.iterations == 6


def test_an_edit_may_be_of_the_comparison_itself():
    def trained(*settings):
        run, _ = BenchmarkRequest(preset="demo", methods=["excel"], settings=list(settings)).resolve()
        train = method_runs(run)["excel"].train
        return run.benchmark.seeds, train.iterations, train.dynamic_from

    assert trained() == (2, 150, 75)
    assert trained("benchmark.iterations=60") == (2, 60, 30)
    assert trained("benchmark.iterations=null") == (2, 300, 150)
    assert trained("train.iterations=80") == (2, 80, 75)  # a user's own wins


def test_all_methods_as_published_where_none_is_named(data):
    from excel_core.config.methods import METHODS

    runs = _methods(data, "weclip_plus.dino.model=dino-tiny")  # published weights are not on every machine
    assert list(runs) == list(METHODS) and all(one.method.endswith(":reference") for one in runs.values())
    assert all(one.clip.model == "excel-tiny" for one in runs.values())


def test_an_unknown_method_is_refused_to_a_caller_too():
    with pytest.raises(SettingError, match="unknown method 'x'; valid methods: excel"):
        BenchmarkRequest.checked(methods=["x"])
    with pytest.raises(SettingError, match="--methods 3"):
        BenchmarkRequest.checked(methods=3)
    assert BenchmarkRequest.checked(methods="excel, clip_es").methods == ["excel", "clip_es"]
