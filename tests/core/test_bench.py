"""What `make bench` compares with computes the same, and the GPU script runs where only torch and the core's own needs are."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from bench import precision, published
from bench.peers import published_gradcam, with_logit_scale
from bench.plain_vit import random_clip
from bench.weclip import PublishedStep
from excel_core.cams.affinity import affinity_cams, mean_attention, rescaled, scale_attention
from excel_core.cams.cam_model import CamModel
from excel_core.cams.gradcam import gradcam_seeds
from excel_core.cams.par import pixel_adaptive_refinement
from excel_core.cams.patch_text import patch_text_cams
from excel_core.config.presets import preset, with_settings
from excel_core.models.calibration import Relation, calibrated_features, encoder_activations, layer_features
from excel_core.models.dino_weights import dino_from_state
from excel_core.models.segmenter import Segmenter
from excel_core.training.batches import Batch
from excel_core.training.optimiser import make_optimiser
from excel_core.training.samples import plain_sample
from excel_core.training.step import Phase, training_step
from excel_core.world.train_dino import DinoTrainSpec, fresh_state
from tests.conftest import ROOT

RUN = preset("voc")
CALIBRATION = RUN.cams.calibration


def _rand(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def clip():
    return random_clip(blocks=7, width=64, joint=16, patch=8, side=32)


def test_the_plain_tower_is_open_clips(clip):
    from open_clip.model import CLIP

    cam_model = {"image_size": 32, "layers": 7, "width": 64, "patch_size": 8}
    text = {"context_length": 1, "vocab_size": 1, "width": 1, "heads": 1, "layers": 1}
    model = CLIP(16, cam_model, text, quick_gelu=True)
    model.visual.load_state_dict(clip.visual.state_dict())
    image = _rand(2, 3, 32, 32)
    with torch.inference_mode():
        ours = clip.project(encoder_activations(clip, image, None).outputs[-1])[:, 0]
        torch.testing.assert_close(ours, model.eval().encode_image(image), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("learnt", [False, True])
def test_the_published_pass_gives_the_same(clip, learnt):
    image, raw = _rand(2, 3, 48, 48), _rand(2, 36, 36, seed=1) - 0.5 if learnt else None
    relation = None if raw is None else Relation(raw, torch.sigmoid(raw))
    with torch.inference_mode():
        path = encoder_activations(clip, image, CALIBRATION)
        calibrated = calibrated_features(clip, path, CALIBRATION, relation)
        theirs = published.encode(clip, image, raw)
    torch.testing.assert_close(calibrated, theirs.calibrated, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(path.attention, theirs.attention[-6:])
    torch.testing.assert_close(layer_features(path, calibrated, CALIBRATION), theirs.layers, atol=1e-4, rtol=1e-4)
    scaled = scale_attention(path.attention, clip.heads, CALIBRATION, RUN.refine.affinity)
    torch.testing.assert_close(mean_attention(scaled, RUN.refine.affinity), published.averaged(theirs.attention, clip.heads))


def test_the_published_refinement_gives_the_same():
    image, maps = _rand(2, 3, 20, 30) * 255, _rand(2, 3, 20, 30, seed=1)
    torch.testing.assert_close(pixel_adaptive_refinement(image, maps, RUN.refine.par), published.par(image, maps))
    features, text = torch.randn(2, 10, 8), F.normalize(torch.randn(30, 8), dim=-1)
    torch.testing.assert_close(patch_text_cams(features, text, 5, RUN.cams), published.surgery(features, text, 5))
    cams, attention, spec = _rand(2, 5, 5).double(), _rand(25, 25, seed=2).double(), RUN.refine.affinity
    for sharp in (attention, 1 + 1e-5 * attention):  # the second gives CAMs that are nearly flat
        ours = rescaled(affinity_cams(cams, sharp, spec), spec.epsilon)
        theirs = torch.stack([published.affinity(cam, sharp, spec.threshold) for cam in cams])
        torch.testing.assert_close(ours, theirs)
    assert theirs.amax() < 0.999, "flat enough for the least of a range to be seen"


def test_the_published_crf_is_pydensecrf_over_all_labels():
    from excel_core.cams.crf import dense_crf

    image = np.random.default_rng(0).integers(0, 255, (20, 30, 3), dtype=np.uint8)
    probabilities = _rand(4, 20, 30).softmax(0).numpy()
    np.testing.assert_allclose(
        dense_crf(image, probabilities, RUN.refine.crf), published.crf_of_all_labels(image, probabilities), atol=2e-3
    )


def test_precisions_are_compared_from_the_same_start_on_the_same_batches(clip):
    """Twice in float32 is twice the same; bf16 is another, on a CPU too."""
    cpu, text = torch.device("cpu"), F.normalize(torch.randn(45, 16, generator=torch.Generator().manual_seed(0)), dim=-1)
    cam_model = CamModel(clip, text, 20, RUN.cams.model_copy(update={"image_size": 32}))
    spec, images = precision.spec_of(RUN, steps=3, batch=2, side=32), precision.pictures(4, 40)
    assert (spec.dynamic_from, spec.own_argmax_from) == (1, 2)

    def trained(way):
        changed = spec.model_copy(update={"precision": way})
        return precision.trained(cam_model, precision.batches(images, spec, cpu), changed, RUN, images)

    plain, again, bf16 = trained("fp32"), trained("fp32"), trained("bf16")
    assert plain.labels.shape == (3, 2, 32, 32) and plain.segmented.shape == (4, 40, 40) and plain.losses.shape == (3, 3)
    same = precision.compared(plain, again, spec)
    assert all(found == {"largest": 0, "mean": 0} for found in same["relative_difference_of_loss"].values())
    assert same["equal_pseudo_labels"] == {"static": 1, "dynamic": 1} and same["equal_segmentation"] == 1
    other = precision.compared(plain, bf16, spec)
    for found in other["relative_difference_of_loss"].values():
        assert 0 < found["mean"] <= found["largest"]
    assert 0 < other["equal_pseudo_labels"]["static"] <= 1 and 0 < other["equal_segmentation"] <= 1
    assert plain.cost["peak_gpu_bytes"] is None and set(plain.cost) == set(bf16.cost)


def test_the_precision_command_prints_and_writes_what_it_found(tmp_path, monkeypatch, capsys):
    options = ["--device", "cpu", "--tiny", "--side", "32", "--batch", "1", "--steps", "1", "--json", tmp_path / "found.json"]
    monkeypatch.setattr(sys, "argv", ["precision", *map(str, options)])
    precision.main()
    printed, found = capsys.readouterr().out, json.loads((tmp_path / "found.json").read_text())
    assert found["format"] == "excel-precision/1" and found["equal_pseudo_labels"]["static"] is None  # LVC from the first step
    for text in ("1 steps of 1 at 32 px", "loss, total: relative difference", "equal labels, dynamic: ", "bf16: "):
        assert text in printed
    assert "equal labels, static" not in printed


ALONE = """
import runpy, sys
for name in ("prefect", "dask", "open_clip", "torchvision", "zarr", "pydensecrf", "sklearn"):
    sys.modules[name] = None  # as if it were not installed
runpy.run_module("bench.device", run_name="__main__", alter_sys=True)
"""


def test_the_device_script_needs_no_prefect_open_clip_or_zarr(tmp_path):
    options = ["--device", "cpu", "--tiny", "--side", "64", "--batches", "2", "--steps", "1", "--json", tmp_path / "gpu.json"]
    ran = subprocess.run([sys.executable, "-W", "ignore", "-c", ALONE, *options], cwd=ROOT, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert '"format": "excel-device/1"' in (tmp_path / "gpu.json").read_text()


@pytest.mark.parametrize("with_weights", [True, False])
def test_the_published_gradcam_gives_the_same(clip, with_weights):
    """Class after class through the whole block, as bench.peers has it; the tower is frozen again after it."""
    tokens = encoder_activations(clip, _rand(1, 3, 48, 32), None, 0).inputs[-1]
    text = F.normalize(1 + 0.1 * torch.randn(28, 16, generator=torch.Generator().manual_seed(2)), dim=1)
    ours = gradcam_seeds(with_logit_scale(clip), tokens, (6, 4), text, 3, torch.tensor([[2, 0]]))
    theirs, _ = published_gradcam(clip, tokens, text, (2, 0), with_weights)
    assert ours.seeds.max() > 0.9  # else nothing is compared
    torch.testing.assert_close(ours.seeds[0].flatten(1), theirs, atol=1e-4, rtol=0)
    assert not any(weight.requires_grad for weight in clip.visual.parameters())


@pytest.mark.parametrize("method", ["weclip", "weclip_plus"])
def test_the_published_training_step_gives_the_same_loss(clip, method):
    edits = [
        "refine.affinity.layers=5",
        "refine.affinity.dynamic_layers=4",
        "train.segmenter.width=16",
        "train.segmenter.dropout=0",
    ]
    run = with_settings(preset("voc", method), edits)
    torch.manual_seed(5)
    dino = dino_from_state(fresh_state(DinoTrainSpec(depth=1, grid=4)), heads=3) if method == "weclip_plus" else None
    text = F.normalize(torch.randn(45, 16, generator=torch.Generator().manual_seed(6)), dim=1)
    cam_model = CamModel(with_logit_scale(clip), text, 20, run.cams, dino)
    coarse = F.interpolate(_rand(2, 3, 6, 6, seed=7), size=(48, 48), mode="bicubic")
    crops, classes = (coarse * 255).clamp(0, 255).byte(), [(1,), (4, 0)]
    batch = Batch.of([plain_sample(crop, names) for crop, names in zip(crops, classes, strict=True)])
    for iteration in (100, 10_000):  # WeCLIP: static, then dynamic labels
        losses = {}
        for side in ("ours", "published"):
            torch.manual_seed(3)
            segmenter = Segmenter(7, 64, 20, run.train.segmenter, None if dino is None else dino.width).train()
            optimiser = make_optimiser(segmenter, run.train)
            if side == "ours":
                result = training_step(cam_model, segmenter, optimiser, batch, iteration, run.train, run.refine)
                losses[side] = float(result.losses[0])
            else:
                step = PublishedStep(cam_model, segmenter, optimiser, run)
                losses[side] = float(step.step(crops.float(), classes, Phase.at(iteration, run.train)))
        assert losses["ours"] == pytest.approx(losses["published"], rel=1e-3)
