"""`train.supervision=masks`: training and scores alone read masks, through mask readers; every number says so, and nothing
weakly supervised is mixed with it."""

import os
import re
import shutil

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from excel_core.config.presets import preset, with_settings
from excel_core.datasets.masks import VocMaskReader
from excel_core.errors import DataError, SettingError
from excel_core.files import read_json
from excel_core.prediction.trained_segmenter import load_portable
from flows.request import RunRequest
from tasks.engine.executor import build_stage
from tasks.engine.stage import RunEnvironment
from tasks.history.compare import compare_runs
from tasks.history.run_record import start_record
from tasks.photos.export import ExportRequest, export_run
from tasks.pipeline import pipeline
from tests.mask_watch import opened_masks
from tests.pipeline_runs import follow, follow_and_note
from tests.voc_folder import TRAIN, write_list, write_voc

MASKS = "train.supervision=masks"
SMALL_VOC = [
    "dataset.partial=true", "clip.model=excel-tiny", "describe.n=2", "knowledge.attributes=8", "cams.image_size=48",
    "train.crop=48", "train.iterations=2", "train.batch_size=2", "train.segmenter.width=16", "refine.crf.enabled=false",
]  # fmt: skip


@pytest.fixture(scope="module")
def run(small_run):
    return with_settings(small_run, [MASKS, "evaluate.ablation=false"])


@pytest.fixture(scope="module")
def masked(run, chain):
    """(outputs, by stage: masks opened, and images that the mask reader was asked for) of the small run, taught by masks."""
    opened, asked = {}, {}
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(
            VocMaskReader, "read", lambda reader, image, *size: (asked[stage].add(image), _read(reader, image, *size))[1]
        )

        def build(job):
            nonlocal stage
            stage = job.stage.name
            asked.setdefault(stage, set())
            with opened_masks() as found:
                output = build_stage(job)
            opened[stage] = {path.rpartition("/")[2].removesuffix(".png") for path in found}
            return output

        stage = ""
        follow(run, chain[1], "dataset")  # the world is verified here, masks too, where no test did so before
        outputs = follow(run, chain[1], "report", build)
    return outputs, opened, asked


_read = VocMaskReader.read


def test_training_reads_masks_of_its_split_through_the_door_alone(masked):
    outputs, opened, asked = masked
    assert {stage for stage, found in opened.items() if found} == {"train", "evaluate"}
    listed = (outputs["refine"].folder / "ImageSets" / "Segmentation" / "train.txt").read_text().split()
    assert opened["train"] == asked["train"] and asked["train"] <= set(listed) and len(asked["train"]) == 8  # 4 x 2 crops


def test_it_learns_something_else(masked, chain):
    losses = [pd.read_csv(outputs["train"].folder / "losses.csv")["loss"] for outputs in (masked[0], chain[0])]
    assert (losses[0] != losses[1]).all()
    assert masked[0]["cams"] == chain[0]["cams"] and masked[0]["refine"] == chain[0]["refine"]  # no training in there


def test_every_number_with_a_training_in_it_says_so(masked):
    outputs, _, _ = masked
    metrics = read_json(outputs["evaluate"].folder / "metrics.json")
    assert metrics["supervision"] == "masks"
    for key, result in metrics["results"].items():
        trained = not key.startswith("seeds.static.")
        protocol = result["protocol"]
        assert protocol["what"].count("fully supervised") == trained
        assert protocol.get("supervision") == ("true masks: fully supervised" if trained else None)
    assert outputs["train"].result["supervision"] == "true masks: fully supervised"
    page = (outputs["report"].folder / "index.html").read_text()
    assert re.search(r"<title>[^<]*excel demo, fully supervised", page)
    assert re.search(r"<h1[^>]*>\s*excel demo, fully supervised", page)


@pytest.fixture(scope="module")
def records(masked, chain, run, small_run):
    found = []
    for spec, outputs in ((run, masked[0]), (small_run, chain[0])):
        record = start_record("excel", spec, chain[1])
        record.own = {name: output.key for name, output in outputs.items()}
        found.append(record)
    return found


def test_exports_say_so(records, tmp_path):
    """The files that leave the store: weights, and label maps in which a training had a hand."""
    export_run(records[0], ExportRequest("safetensors"), tmp_path / "model")
    assert load_portable(tmp_path / "model" / "segmenter.safetensors").supervision == "masks"
    said = [read_json(tmp_path / "model" / "export.json")["supervision"]]
    for what, split in (("segmentation", "held_out_1"), ("pseudo", "train")):
        export_run(records[0], ExportRequest("palette", what=what, split=split), tmp_path / what)
        said.append(read_json(tmp_path / what / "export.json")["supervision"])
    assert said == ["true masks: fully supervised"] * 3
    export_run(records[1], ExportRequest("palette", split="held_out_1"), tmp_path / "weak")
    assert "supervision" not in read_json(tmp_path / "weak" / "export.json")


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_it_is_not_compared_with_a_weak_run(records, order):
    a, b = (records[i] for i in order)
    with pytest.raises(SettingError, match=f"run {records[0].id} was trained on true masks, .* they are not compared"):
        compare_runs(a, b)
    assert compare_runs(a, a)["miou"]["difference"] == 0


def test_there_is_no_ablation_beside_it(run, chain):
    with pytest.raises(SettingError, match="train.supervision=masks: the ablation .*--set evaluate.ablation=false"):
        RunRequest(preset="demo", settings=[MASKS]).spec()
    RunRequest(preset="demo", settings=[MASKS, "evaluate.ablation=false"]).spec()
    with pytest.raises(SettingError, match="train.supervision=masks: the ablation is about image-level labels"):
        pipeline(run, chain[1], "ablation")


@pytest.mark.parametrize("spec", [[], ["train.crop_rule=random"]])
def test_it_needs_no_pseudo_labels(run, chain, spec):
    assert "refine" not in pipeline(with_settings(run, spec), chain[1], "train").own_ids


def test_several_processes_train_on_masks_too(masked, run, chain, tmp_path):
    alone = masked[0]["train"]
    environment = RunEnvironment(store=shutil.copytree(chain[1].store, tmp_path / "store"), processes=2)
    shutil.rmtree(environment.store / "train" / alone.key)
    process_group = follow(run, environment, "train")["train"]
    assert process_group.key == alone.key
    losses = [pd.read_csv(output.folder / "losses.csv") for output in (process_group, alone)]
    assert (losses[0] - losses[1]).abs().to_numpy().max() < 1e-5
    a, b = (load_file(output.folder / "segmenter.safetensors")["classifier.weight"] for output in (process_group, alone))
    torch.testing.assert_close(a, b, atol=1e-5, rtol=0)


@pytest.fixture
def voc(tmp_path):
    return write_voc(tmp_path / "VOC2012")


def _resolve(data, *settings, store=None):
    request = RunRequest(preset="voc", data=str(data), settings=[*SMALL_VOC, *settings], store=store and str(store))
    return request.resolve().environment


def test_missing_masks_are_refused_before_work_starts(voc, tmp_path):
    """VOC has masks of a part of train_aug; of train, of all."""
    with opened_masks() as opened:
        with pytest.raises(DataError) as error:
            _resolve(voc, MASKS, store=tmp_path / "store")
        message = str(error.value)
        assert "train.supervision=masks: 2 of 5 images of 'train_aug' have no mask" in message and "\n" not in message
        assert "2008_000002 first" in message and "--set dataset.train_split=NAME" in message
        assert _resolve(voc, MASKS, "dataset.train_split=train").data == voc
        assert _resolve(voc, MASKS, "dataset.max_images=3").data == voc  # the first have masks
        assert _resolve(voc).data == voc
    assert not opened and not (tmp_path / "store").exists()


def test_where_no_list_tells_the_stage_refuses(voc, tmp_path):
    """A folder of photos with masks of some of them."""
    photos = tmp_path / "photos"
    (photos / "SegmentationClass").mkdir(parents=True)
    for image in TRAIN[:2]:
        shutil.copy(voc / "JPEGImages" / f"{image}.jpg", photos)
    (photos / "labels.csv").write_text(f"image,labels\n{TRAIN[0]}.jpg,person\n{TRAIN[1]}.jpg,dog\n")
    shutil.copy(voc / "SegmentationClass" / "2007_000032.png", photos / "SegmentationClass")
    small = [setting for setting in SMALL_VOC if "partial" not in setting]
    settings = [*small, MASKS, "knowledge.mode=none"]
    request = RunRequest(preset="photos", data=str(photos), settings=settings, store=str(tmp_path / "store"))
    run, environment = request.resolve()
    with pytest.raises(DataError, match="1 of 2 images of 'train' have no mask in SegmentationClass, 2007_000039 first"):
        follow(run, environment, "train")
    assert not list((tmp_path / "store").glob("train/*"))


def test_an_edited_mask_trains_again_and_a_weak_run_does_not_care(voc, tmp_path):
    environment = RunEnvironment(store=tmp_path / "store", data=voc)
    runs = {
        name: with_settings(preset("voc"), [*SMALL_VOC, "dataset.train_split=train", f"train.supervision={name}"])
        for name in ("masks", "labels")
    }

    def built(name):
        return follow_and_note(runs[name], environment, "train", parts=False)[1]

    assert built("masks")[-1] == built("labels")[-1] == "train"
    assert built("masks") == built("labels") == []
    path = voc / "SegmentationClass" / f"{TRAIN[0]}.png"
    os.utime(path, ns=(1, 1))
    assert built("masks") == ["train"] and built("labels") == []
    os.utime(voc / "SegmentationClass" / "2007_000033.png", ns=(1, 1))  # of val
    assert built("masks") == []
    write_list(voc, "train", TRAIN[:2])
    assert "train" in built("masks")
