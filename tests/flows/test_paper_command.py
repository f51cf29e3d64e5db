"""`excel paper` as a user runs it: a table of drawn VOC pictures on a real Prefect server, and what is refused in one line."""

import json
import shutil
from functools import partial

import pytest
import torch
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey
from prefect.client.schemas.sorting import ArtifactSort

from excel_core.errors import SettingError
from excel_core.models.clip_weights import load_clip
from flows.request import PaperRequest
from tasks.history.run_record import read_records
from tasks.stages.paper import table_runs
from tests.core.coco_folder import document, write
from tests.core.published_toys import published_state, seeded_segmenter
from tests.voc_folder import write_voc

SMALL = ["cams.image_size=64", "describe.n=6", "refine.par.iterations=2", "refine.crf.enabled=false"]
SETS = [part for setting in SMALL for part in ("--set", setting)]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_voc(tmp_path_factory.mktemp("data") / "VOC2012", size=64)


@pytest.fixture
def excel(command_line):
    """`excel paper ARGUMENTS`."""
    return partial(command_line, "paper")


@pytest.mark.usefixtures("prefect_server")
def test_a_table_of_two_images_a_split(excel, data, tmp_path):
    store, given = tmp_path / "store", ("--data", data, "--clip", "excel-tiny", *SETS)
    code, out, err = excel("5", *given, "--limit", 2, "--store", store, "--json", tmp_path / "taken" / "t.json")
    assert code == 0, err
    path = store / "paper" / "table-5.json"
    assert f"table: {path}" in out.splitlines()
    table = json.loads(path.read_text())
    assert table == json.loads((tmp_path / "taken" / "t.json").read_text())
    assert (table["format"], table["table"], table["limit"], table["clip"]) == ("excel-paper/1", "table-5", 2, "excel-tiny")
    assert [row["published"] for row in table["rows"]] == [0.112, 0.658, 0.697, 0.746]
    assert all(0 <= row["ours"] <= 1 and row["protocol"]["images"] == 2 for row in table["rows"])
    assert "Table 5: calibration" in out and "(74.6)" in out and "no reproduction: 2 images a split" in out
    (record,) = read_records(store)
    assert record.state == "complete" and "train" not in {kind.partition("/")[0] for kind in record.outputs}
    with get_client(sync_client=True) as client:
        key = ArtifactFilter(key=ArtifactFilterKey(any_=["excel-paper-table-5"]))
        artifact = client.read_artifacts(artifact_filter=key, sort=ArtifactSort.CREATED_DESC)[0]
    assert "## Table 5: calibration" in artifact.data and "(74.6)" in artifact.data and "no reproduction" in artifact.data


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """Of VOC's 20 classes, and of seven."""
    clip, folder = load_clip("excel-tiny"), tmp_path_factory.mktemp("published")
    for classes in (20, 7):
        torch.save(published_state(clip, seeded_segmenter(clip, classes, width=16)), folder / f"{classes}.pth")
    return folder


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["table-9", "--data", "{data}"], "unknown table 'table-9'; valid: table-1, table-2"),
        (["table-3"], "name the data: --data DIR for PASCAL VOC 2012, --coco DIR for MS COCO"),
        (["table-3", "--data", "{data}", "--coco", "{data}"], "--coco: table-3 is about VOC alone"),
        (["table-3", "--data", "/nowhere/VOC2012"], "data folder '/nowhere/VOC2012' does not exist"),
        (["table-1", "--data", "{data}", "--set", "voc.dataset.partial=true", "--coco", "{data}"], "not COCO as downloaded"),
        (
            ["table-1", "--data", "{data}", "--limit", "2", "--set", "coco.train.iterations=2"],
            "no COCO is named; add --coco DIR",
        ),
        (["table-3", "--data", "{data}"], "dataset.train_split: the list train_aug, which comes with excel, has 10,582 images"),
        (["table-2", "--data", "{data}", "--limit", "2", "--checkpoint", "{checkpoints}/7.pth"], "is of 7 classes, of none"),
        (["table-2", "--data", "{data}", "--limit", "2", "--checkpoint", "gone.pth"], "gone.pth"),
        (["table-5", "--data", "{data}", "--limit", "2", "--checkpoint", "{checkpoints}/20.pth"], "table-5 needs no training"),
        (["7", "--data", "{data}", "--limit", "2", "--checkpoint", "{checkpoints}/20.pth"], "measures the training itself"),
        (["table-6", "--data", "{data}", "--limit", "5"], "2 of 5 images of 'train_aug' have no mask"),
        (["table-3", "--data", "{data}", "--limit", "2", "--set", "train.supervision=masks"], "table-6 has a row of masks"),
        (
            ["table-3", "--data", "{data}", "--limit", "2", "--set", "paper.table=table-2"],
            "--limit are told by name; leave the",
        ),
        (["table-3", "--data", "{data}", "--limit", "2", "--set", "train.iteration=4"], "valid fields: train.enabled"),
    ],
)
def test_what_cannot_be_is_one_line_before_work_starts(excel, data, checkpoints, tmp_path, arguments, message):
    filled = [argument.format(data=data, checkpoints=checkpoints) for argument in arguments]
    narrow = ("--set", "train.segmenter.width=16")
    code, out, err = excel(*filled, "--clip", "excel-tiny", *narrow, "--store", tmp_path / "store")
    assert code == 2 and message in err and err.startswith("error: ") and err.count("\n") == 1
    assert out == "" and not (tmp_path / "store").exists()


def test_test_images_that_are_listed_and_missing_are_refused(excel, data, tmp_path):
    """Some are there, so the table is about to ask for label maps of all."""
    copy = shutil.copytree(data, tmp_path / "VOC2012")
    (copy / "ImageSets" / "Segmentation" / "test.txt").write_text("2007_000033\n2008_000006\n2008_000011\n")
    given = ("--data", copy, "--clip", "excel-tiny", "--set", "dataset.train_split=train", "--store", tmp_path / "store")
    code, _, err = excel("table-1", *given)
    assert code == 2 and "dataset.test_splits: ImageSets/Segmentation/test.txt lists 3 images, of which 2 are not in" in err


def _runs(data, table, *settings, coco=None, checkpoint=None, limit=2):
    folders = {"data": str(data), "coco": coco and str(coco), "checkpoint": checkpoint}
    return PaperRequest(table=table, **folders, limit=limit, clip="excel-tiny", settings=[*SMALL, *settings]).resolve()


@pytest.fixture
def coco(tmp_path):
    for split in ("train2014", "val2014"):
        write(tmp_path / "coco", split, document())
    return tmp_path / "coco"


def test_a_users_own_setting_wins_over_the_limits(data):
    [(run, _)] = _runs(data, "table-3")
    assert (run.train.iterations, run.train.dynamic_from, run.dataset.max_images, run.paper.limit) == (20, 9, 2, 2)
    [(run, _)] = _runs(data, "table-3", "train.iterations=6", "train.dynamic_from=null", "dataset.max_images=3")
    assert (run.train.iterations, run.train.dynamic_from, run.train.own_argmax_from) == (6, None, 16)
    assert run.dataset.max_images == 3 and run.paper.table == "table-3"


def test_a_setting_may_be_of_one_data_set(data, coco):
    settings = ("voc.train.iterations=7", "coco.train.iterations=8", "voc.dataset.partial=true", "train.crop=64")
    runs = [run for run, _ in _runs(data, "table-1", *settings, coco=coco)]
    assert [run.preset for run in runs] == ["voc", "coco"]
    assert [(run.train.iterations, run.train.crop, run.dataset.partial) for run in runs] == [(7, 64, True), (8, 64, False)]
    assert [run.train.warmup for run in runs] == [0, 0] and {run.dataset.max_images for run in runs} == {2}


def test_a_checkpoint_is_of_the_full_method(data, coco, checkpoints):
    path = str(checkpoints / "20.pth")
    runs = [run for run, _ in _runs(data, "table-1", "train.segmenter.width=16", coco=coco, checkpoint=path)]
    assert [run.train.from_checkpoint for run in runs] == [path, None]  # of VOC's twenty classes
    [(run, place)] = _runs(data, "table-3", "train.segmenter.width=16", checkpoint=path)
    assert [row.train.from_checkpoint for row in table_runs(run, place)] == [None] * 4 + [path]
    with pytest.raises(SettingError, match="--checkpoint: table-7"):
        _runs(data, "table-7", "train.segmenter.width=16", f"train.from_checkpoint={path}")
