"""Tables of the paper from small runs: what they need is built once, and ours is what the rows' own runs say."""

import tarfile
from collections import Counter

import pytest

from excel_core.config.presets import preset, with_edits, with_settings
from excel_core.datasets.palette import load_labels_png
from excel_core.exports.voc_submission import VOC_ARCHIVE
from excel_core.files import read_json
from excel_core.paper.tables import paper_table_rows
from tasks.engine.stage import RunEnvironment
from tasks.pipeline import complete_outputs, pipeline
from tasks.stages.paper import table_runs
from tests.pipeline_runs import complete, files_made, files_named, follow, follow_and_note
from tests.voc_folder import NAMES, VAL, write_list, write_voc

SMALL_VOC = [
    "dataset.partial=true", "dataset.train_split=train", "clip.model=excel-tiny", "describe.n=2", "knowledge.attributes=16",
    "cams.image_size=48", "predict.image_size=48", "predict.scales=[1.0]", "train.crop=48", "train.iterations=2",
    "train.batch_size=2", "train.dynamic_from=1", "train.own_argmax_from=1", "train.segmenter.width=16",
    "refine.par.iterations=2", "refine.crf.enabled=false",
]  # fmt: skip


def _asking(run, table):
    return with_edits(run, {"paper": {"table": table}})


def _made(run, environment):
    """table.json, and the names of what was not there before."""
    outputs, built = follow_and_note(run, environment, "paper")
    output = outputs["paper"]
    return read_json(output.folder / "table.json"), built, output


def _complete(run, environment):
    """How many of the outputs that the table is made of are there already, by stage."""
    there = Counter()

    def look(job):
        output = complete(job)
        there.update([] if output is None else [job.stage.name])
        return output

    follow(run, environment, "paper", look)
    return there


@pytest.fixture(scope="module")
def table_3(small_run, chain):
    """Table 3's document, what was built for it, and its output; with how many of its outputs there were before."""
    run = _asking(small_run, "table-3")
    before = _complete(run, chain[1])
    return *_made(run, chain[1]), before


def test_ours_is_what_the_rows_runs_say(table_3, small_run, chain):
    document, *_ = table_3
    assert (document["format"], document["table"], document["limit"]) == ("excel-paper/1", "table-3", None)
    assert [row["row"] for row in document["rows"]] == ["baseline", "SVC", "SVC + TSE", "SVC + LVC", "SVC + TSE + LVC"]
    for number, row in zip(paper_table_rows(small_run, "table-3"), document["rows"], strict=True):
        outputs = complete_outputs(number.run, chain[1], "evaluate")
        result = read_json(outputs["evaluate"].folder / "metrics.json")["results"][number.result]
        assert row["ours"] == result["miou"] and [row["low"], row["high"]] == result["miou_interval"]
        assert row["protocol"] == result["protocol"] and row["published"] is None  # it is no VOC
    full = read_json(chain[0]["evaluate"].folder / "metrics.json")["results"]["segmentation.held_out_1.multi_scale"]
    assert document["rows"][-1]["ours"] == full["miou"]


def test_what_rows_share_is_built_once(table_3, small_run, chain):
    """Five trainings on three kinds of CAMs; whatever an earlier run of the store has made is taken from there."""
    _, built, _, before = table_3
    run = _asking(small_run, "table-3")
    needed = Counter(node.stage.name for node in pipeline(run, chain[1], "paper").nodes.values())
    expected = {"cams": 3, "refine": 3, "train": 5, "predict": 5, "evaluate": 5, "paper": 1}
    assert {stage: needed[stage] for stage in expected} == expected and before["train"] >= 1
    whole = Counter(name.partition(" (")[0] for name in built if " " not in name.partition(" (")[0])
    assert {stage: whole[stage] for stage in expected} == {stage: expected[stage] - before[stage] for stage in expected}
    assert len(built) == len(set(built))
    again, nothing, _ = _made(_asking(small_run, "table-3"), chain[1])
    assert nothing == [] and again == table_3[0]


def test_costs_are_those_of_the_runs_own_stages(small_run, chain):
    run = _asking(small_run, "table-7")
    document, built, _ = _made(run, chain[1])
    assert built == ["paper"]
    rows = {row["row"]: row for row in document["rows"]}
    stages = ["dataset", "describe", "knowledge", "cams", "refine", "train", "dynamic", "predict", "evaluate"]
    free = "training-free: knowledge, cams, refine"
    assert list(rows) == [*stages, "all stages", free, "training"]
    for name in stages:
        assert rows[name]["ours"].endswith(" s") and float(rows[name]["host GiB"]) > 0.05
        assert rows[name]["GPU GiB"] == "–" and rows[name]["published"] is None
    outputs = chain[0]
    assert float(rows["train"]["ours"].removesuffix(" s")) == pytest.approx(outputs["train"].seconds, abs=0.06)
    seconds = sum(outputs[name].seconds for name in ("knowledge", "cams", "refine"))
    assert float(rows[free]["ours"].removesuffix(" s")) == pytest.approx(seconds, abs=0.06)
    assert float(rows["all stages"]["host GiB"]) == max(float(rows[name]["host GiB"]) for name in stages)
    assert rows["training"]["ours"] == rows["train"]["ours"]


@pytest.fixture(scope="module")
def voc(tmp_path_factory):
    return RunEnvironment(store=tmp_path_factory.mktemp("store"), data=write_voc(tmp_path_factory.mktemp("data") / "VOC2012"))


@pytest.fixture(scope="module")
def voc_run():
    return with_settings(preset("voc"), SMALL_VOC)


def _list_tests(environment, ids):
    write_list(environment.data, "test", ids)
    return ids


@pytest.fixture
def tested(voc):
    """A list of two test images, which are there (as val's pictures under other names)."""
    ids = ("2008_000006", "2008_000011")
    for image, other in zip(ids, VAL, strict=True):
        (voc.data / "JPEGImages" / f"{image}.jpg").write_bytes((voc.data / "JPEGImages" / f"{other}.jpg").read_bytes())
    yield _list_tests(voc, ids)
    for image in ids:
        (voc.data / "JPEGImages" / f"{image}.jpg").unlink()
    (voc.data / "ImageSets" / "Segmentation" / "test.txt").unlink()


def test_without_test_images_the_table_says_where_they_are(voc, voc_run):
    run = _asking(voc_run, "table-1")
    document, built, output = _made(run, voc)
    rows = {row["row"]: row for row in document["rows"]}
    assert rows["VOC val, no CRF"]["published"] == 0.772 and 0 < rows["VOC val, no CRF"]["ours"] < 1
    assert rows["VOC val, CRF"]["protocol"]["refinement"] == "CRF"
    for name, published in (("VOC test, no CRF", 0.773), ("VOC test, CRF", 0.785)):
        assert rows[name]["ours"] is None and rows[name]["published"] == published
        assert "get them from VOC's server" in rows[name]["note"] and "archive" not in rows[name]
    assert not (output.folder / "submissions").exists() and not any("test" in name for name in built)
    _list_tests(voc, ["2008_000006"])  # a list alone is no data
    assert len(table_runs(run, voc)) == 1
    (voc.data / "ImageSets" / "Segmentation" / "test.txt").unlink()


def test_test_images_are_packed_for_the_server(voc, voc_run, tested):
    document, built, output = _made(_asking(voc_run, "table-1"), voc)
    rows = {row["row"]: row for row in document["rows"]}
    assert files_made(output) == files_named("paper")
    assert not any(name.startswith(("cams", "refine", "train")) for name in built)  # found, as the first table left them
    predicted = follow(table_runs(_asking(voc_run, "table-1"), voc)[-1], voc, "predict", complete)["predict"]
    for name, variant in (("VOC test, no CRF", "multi_scale"), ("VOC test, CRF", "multi_scale_crf")):
        assert rows[name]["archive"] == f"submissions/{variant}/{VOC_ARCHIVE}"
        assert rows[name]["protocol"]["split"] == "test" and rows[name]["protocol"]["images"] == 2
        with tarfile.open(output.folder / rows[name]["archive"]) as archive:
            members = {member.name: archive.extractfile(member).read() for member in archive}
        folder = "results/VOC2012/Segmentation/comp6_test_cls"
        assert members == {
            f"{folder}/{image}.png": (predicted.folder / variant / "test" / f"{image}.png").read_bytes() for image in tested
        }
        assert load_labels_png(predicted.folder / variant / "test" / f"{tested[0]}.png").max() <= len(NAMES)


def test_a_variant_that_is_not_made_is_said(voc, voc_run, tested):
    document, _, _ = _made(_asking(with_settings(voc_run, ["predict.crf=false"]), "table-1"), voc)
    notes = {row["row"]: row["note"] for row in document["rows"]}
    assert notes["VOC val, CRF"] == "not scored: the run has no segmentation.val.multi_scale_crf"
    assert notes["VOC test, CRF"] == "not made: the run has no multi_scale_crf"


def test_seeds_need_no_training_where_nothing_learnt_is_asked_for(voc, voc_run):
    assert "train" not in {node.stage.name for node in pipeline(_asking(voc_run, "table-5"), voc, "paper").nodes.values()}
    document, _, _ = _made(_asking(voc_run, "table-5"), voc)
    assert [row["published"] for row in document["rows"]] == [0.112, 0.658, 0.697, 0.746]
    assert all(0 <= row["low"] <= row["ours"] <= row["high"] for row in document["rows"])
    for row in document["rows"]:
        assert (row["protocol"]["split"], row["protocol"]["refinement"]) == ("train", "affinity+PAR")


def test_the_limit_is_what_the_run_was_cut_to(voc, voc_run):
    limited = with_edits(voc_run, {"dataset": {"max_images": 2}, "paper": {"table": "table-2", "limit": 2}})
    document, _, _ = _made(limited, voc)
    assert document["limit"] == 2 and document["rows"][0]["note"] == "published in its README"
    assert document["rows"][1]["note"] == "not scored: the run has no seeds.static.train.crf"  # switched off here
    protocols = [row.get("protocol", {}) for row in document["rows"]]
    assert [protocol.get("images") for protocol in protocols] == [2, None, 2, 2]
    methods = [protocol.get("method") for protocol in protocols]
    assert methods == ["clip_es:reference", None, "excel:reference", "excel:reference"]
    by_hand = with_edits(voc_run, {"dataset": {"max_images": 2}, "paper": {"table": "table-2"}})
    assert _made(by_hand, voc)[0]["limit"] == 2  # by dataset.max_images alone


def test_the_counterpart_on_masks_says_so_and_the_weak_rows_do_not(voc, voc_run):
    document, built, _ = _made(_asking(voc_run, "table-6"), voc)
    assert [name for name in built if name.startswith("train")] == ["train (true masks: fully supervised, no CRF)"]
    for row in document["rows"]:
        supervised = row["row"].startswith("true masks: fully supervised")
        assert ("fully supervised" in row["protocol"]["what"]) == supervised
        assert (row["published"] is None) == supervised and (row["note"] != "") == supervised
