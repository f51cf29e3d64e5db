"""WeCLIP and WeCLIP+ through all stages, in miniature: what they leave, what their numbers say, and which masks they open."""

import numpy as np
import pandas as pd
import pytest

from excel_core.config.presets import preset, with_settings
from excel_core.datasets.palette import load_labels_png
from excel_core.files import read_json
from excel_core.stores import CamReader
from excel_core.world.scenes import CLASSES
from tasks.engine.executor import Step, complete_output
from tasks.engine.stage import RunEnvironment
from tasks.stages import train
from tests.pipeline_runs import follow, follow_and_watch_masks

SMALL = [
    "dataset.train_scenes=6", "dataset.val_scenes=2", "train.iterations=4", "train.batch_size=2", "train.warmup=1",
    "train.segmenter.width=16", "train.segmenter.layers=1", "shards.images=4", "refine.par.iterations=2",
    "report.gallery_images=1", "predict.image_size=96", "cams.image_size=96",
]  # fmt: skip
CHANGES = {"weclip": ["train.dynamic_from=2"], "weclip_plus": ["train.own_labels_from=2"]}


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    return RunEnvironment(store=tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module", params=CHANGES)
def chain(request, environment):
    """(method, its outputs by stage, masks that were opened by stage)."""
    run = with_settings(preset("demo", request.param), SMALL + CHANGES[request.param])
    return request.param, *follow_and_watch_masks(run, environment, "report")


def test_no_mask_is_opened_but_to_score(chain):
    _, outputs, opened = chain
    assert set(opened) == set(outputs)
    assert {stage for stage, masks in opened.items() if masks} - {"world"} == {"evaluate"}  # the world draws them


def test_every_number_names_method_and_protocol(chain):
    method, outputs, _ = chain
    metrics = read_json(outputs["evaluate"].folder / "metrics.json")
    assert metrics["method"] == f"{method}:reference"
    protocols = {key: result["protocol"] for key, result in metrics["results"].items()}
    assert all(protocol["method"] == f"{method}:reference" for protocol in protocols.values())
    scales = {"weclip": "1.0,0.75", "weclip_plus": "1.0,1.5"}[method]
    assert protocols["segmentation.held_out_1.multi_scale_crf"]["scales"] == f"{scales} + flip, longer side 96"
    assert protocols["segmentation.held_out_1.single_scale"]["scales"] == "single, longer side 96"
    learnt = protocols["seeds.lvc.train.par"]
    guided = ", guided by the head" if method == "weclip_plus" else ""
    assert learnt["what"] == f"GradCAM seed with the learnt affinity{guided}, the pseudo labels"
    assert learnt["scales"] == "single, longer side 96" and learnt["refinement"] == "affinity+PAR"


def test_losses_have_the_methods_own_columns(chain):
    method, outputs, _ = chain
    losses = pd.read_csv(outputs["train"].folder / "losses.csv")
    own = {"weclip": [], "weclip_plus": ["dice", "first_by_second", "second_by_first"]}[method]
    columns = ["iteration", "loss", "segmentation", "diversity", "learning_rate", *own]
    assert list(losses.columns) == columns and len(losses) == 4 and np.isfinite(losses).all(axis=None)
    terms = losses["segmentation"] + 0.1 * losses["diversity"]
    if own:
        terms += losses["dice"] + 0.1 * (losses["first_by_second"] + losses["second_by_first"])
    assert np.allclose(losses["loss"], terms, rtol=1e-5)


def test_seeds_are_of_image_level_classes_at_the_photos_shape(chain):
    _, outputs, _ = chain
    for stage in ("cams", "dynamic"):
        reader = CamReader(outputs[stage].folder)
        for image in reader.ids:
            classes, cams = reader.read(image)
            assert cams.shape == (len(classes), 12, 12)
            if stage == "dynamic":
                labels = load_labels_png(outputs[stage].folder / "SegmentationClassPseudo" / f"{image}.png")
                assert labels.shape == (128, 128) and set(np.unique(labels)) <= {0, *(c + 1 for c in classes)}


def test_label_maps_have_the_photos_size(chain):
    _, outputs, _ = chain
    for variant in ("single_scale", "multi_scale", "multi_scale_crf"):
        files = sorted((outputs["predict"].folder / variant).rglob("*.png"))
        assert len(files) == 6
        assert all(load_labels_png(file).shape == (128, 128) and load_labels_png(file).max() <= len(CLASSES) for file in files)


def test_the_second_encoder_counts_where_it_is_used(chain, environment, monkeypatch):
    """Other weights of it make another training, not other seeds before it."""
    method, outputs, _ = chain
    run = with_settings(preset("demo", method), SMALL + CHANGES[method])
    monkeypatch.setattr(train, "dino_fingerprint", lambda name: "other weights")
    missing = []

    def note(job):
        if complete_output(Step(job)) is None:
            missing.append(job.stage.name)
        return outputs[job.stage.name]

    follow(run, environment, "train", note)
    assert missing == (["train"] if method == "weclip_plus" else [])
