"""WeCLIP and WeCLIP+: necks, seeds and one training step, against computations by hand (peers.md 3 and 4)."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from excel_core.cams.affinity import affinity_cams, box_masks, guided_cams, kept_layers, without_boxes
from excel_core.cams.cam_model import CamModel
from excel_core.cams.gradcam_model import encoded_gradcam, learnt_gradcam
from excel_core.config import AffinitySpec, CalibrationSpec, CamSpec, RefineSpec, SegmenterSpec, TrainSpec
from excel_core.config.presets import preset, with_settings
from excel_core.errors import ModelError, StoreError
from excel_core.exports.onnx_graph import write_onnx
from excel_core.models.calibration import relation_of
from excel_core.models.checkpoints import Architecture, load_segmenter, save_segmenter
from excel_core.models.clip_weights import load_clip
from excel_core.models.dino_weights import dino_from_state, load_dino
from excel_core.models.segmenter import Segmenter
from excel_core.prediction.trained_segmenter import TrainedSegmenter, load_portable, save_portable
from excel_core.training.batches import Batch
from excel_core.training.losses import IGNORE
from excel_core.training.optimiser import make_optimiser
from excel_core.training.samples import plain_sample
from excel_core.training.step import training_step
from excel_core.world.train_dino import DinoTrainSpec, fresh_state

PLUS = TrainSpec.model_validate(
    {
        "segmenter": {"width": 16, "layers": 1, "heads": 2, "blocks": "last_but_one", "dropout": 0},
        "iterations": 8, "batch_size": 2, "crop": 48, "warmup": 0, "dynamic_from": 0, "own_argmax_from": None,
        "guided_from": 0, "own_labels_from": 4, "dice_weight": 1.0, "mutual_weight": 0.1, "crop_rule": "random",
        "learning_rate": 1e-2,
    }
)  # fmt: skip
REFINE = RefineSpec.model_validate(
    {
        "affinity": {"layers": 3, "dynamic_layers": 2, "scale": "mean", "threshold": 0.4},
        "par": {"iterations": 2, "image": "normalised"},
    }
)
SPEC = CamSpec.model_validate({"producer": "gradcam", "image_size": 48, "calibration": {"probability": "inner_product"}})


@pytest.fixture
def dino():
    torch.manual_seed(5)
    return dino_from_state(fresh_state(DinoTrainSpec(depth=1, grid=4)), heads=3)


@pytest.fixture
def cam_model(small_clip, dino):
    text = F.normalize(torch.randn(5, 16, generator=torch.Generator().manual_seed(0)), dim=1)
    return CamModel(small_clip, text, 3, SPEC, dino)


def _segmenter(spec=PLUS, dino_width=96):
    torch.manual_seed(0)
    return Segmenter(4, 32, 3, spec.segmenter, dino_width).train()


@pytest.fixture
def batch():
    """Two crops with one and two classes."""
    generator = torch.Generator().manual_seed(2)
    coarse = torch.rand(2, 3, 6, 6, generator=generator)
    pixels = (F.interpolate(coarse, size=(48, 48), mode="bicubic") * 255).clamp(0, 255).byte()
    return Batch.of([plain_sample(pixels[0], [1]), plain_sample(pixels[1], [0, 2])])


# Necks and head.


def test_trained_parameters_are_as_many_as_published():
    def millions(method, blocks, second):
        spec = preset("voc", method).train.segmenter
        with torch.device("meta"):
            segmenter = Segmenter(blocks, 768, 20, spec, second)
        return sum(parameter.numel() for parameter in segmenter.parameters()) / 1e6

    assert millions("weclip", 12, None) == pytest.approx(5.99, abs=0.005)
    assert millions("weclip_plus", 12, 384) == pytest.approx(2.93, abs=0.005)


@pytest.mark.parametrize(("blocks", "read"), [("all", [0, 1, 2, 3]), ("before_last", [0, 1, 2]), ("last_but_one", [2])])
def test_the_neck_reads_the_blocks_that_the_spec_names(blocks, read):
    spec = SegmenterSpec(width=16, layers=1, heads=2, dropout=0, blocks=blocks)
    segmenter = Segmenter(4, 32, 3, spec)
    assert len(segmenter.neck.adapters) == len(read) and segmenter.reads_last_block == (blocks == "all")
    layers = torch.randn(4, 1, 10, 32, generator=torch.Generator().manual_seed(0))
    before = segmenter(layers, (3, 3)).logits
    for block in range(4):
        other = layers.clone()
        other[block, :, 1:] += 1
        assert torch.equal(segmenter(other, (3, 3)).logits, before) == (block not in read)


def test_two_necks_share_one_head_and_are_averaged():
    segmenter = _segmenter().eval()
    layers = torch.randn(4, 2, 10, 32, generator=torch.Generator().manual_seed(0))
    second = torch.randn(2, 96, 4, 4, generator=torch.Generator().manual_seed(1))
    output = segmenter(layers, (3, 3), second)
    clip_neck = segmenter.neck(layers[2:3, :, 1:], (3, 3))
    own = segmenter.second_neck(second.flatten(2).mT[None], (4, 4))
    dino_neck = F.interpolate(own, size=(3, 3), mode="bilinear", align_corners=False)
    assert torch.allclose(output.features, torch.cat([clip_neck, dino_neck], dim=1), atol=1e-6)
    by_hand = []
    for features in (clip_neck, dino_neck):
        tokens = segmenter.head(features.flatten(2).mT)
        by_hand.append(segmenter.classifier(tokens.mT.reshape(features.shape)))
    assert torch.allclose(output.by_encoder, torch.stack(by_hand), atol=1e-5)
    assert torch.allclose(output.logits, (by_hand[0] + by_hand[1]) / 2, atol=1e-5)
    relation = relation_of(output.features, CalibrationSpec(probability="inner_product"))
    products = [neck.flatten(2).mT @ neck.flatten(2) for neck in (clip_neck, dino_neck)]
    assert torch.allclose(relation.probability, torch.sigmoid(products[0] + products[1]), atol=1e-5)


def test_a_segmenter_goes_with_its_second_encoder(small_clip, dino, tmp_path):
    spec, names = PLUS.segmenter, ("a", "b", "c")
    shape = Architecture.of(small_clip, names, spec, dino)
    save_segmenter(tmp_path / "s.safetensors", shape, shape.build())
    assert load_segmenter(tmp_path / "s.safetensors", shape).second_neck is not None
    with pytest.raises(StoreError, match="second: expected None, got"):
        load_segmenter(tmp_path / "s.safetensors", Architecture.of(small_clip, names, spec))


def test_architectures_of_earlier_versions_are_read(small_clip, tmp_path):
    shape = Architecture.of(small_clip, ("a",), SegmenterSpec())
    stored = shape.to_json()
    del stored["second"], stored["segmenter"]["blocks"]
    shape.require(stored, tmp_path)
    with pytest.raises(StoreError, match="another architecture"):
        Architecture.of(small_clip, ("a",), SegmenterSpec(blocks="before_last")).require(stored, tmp_path)


def test_a_file_of_both_encoders_runs_alone(cam_model, tmp_path):
    """From the repository's own encoders, whose descriptions are known, to a file and back: the same labels."""
    run = with_settings(preset("demo", "weclip_plus"), ["predict.image_size=96", "train.segmenter.width=16"])
    clip, second = load_clip("excel-tiny"), load_dino("dino-tiny")
    model = CamModel(clip, torch.zeros(3, clip.joint_width), 3, run.cams, second)
    torch.manual_seed(0)
    segmenter = Segmenter(len(clip.blocks), clip.width, 3, run.train.segmenter, second.width).eval()
    trained = TrainedSegmenter.of(model, segmenter, ("a", "b", "c"), run)
    save_portable(tmp_path / "s.safetensors", trained)
    photo = np.random.default_rng(0).integers(0, 255, (60, 90, 3), dtype=np.uint8)
    back = load_portable(tmp_path / "s.safetensors")
    for multi_scale in (False, True):
        ours, theirs = (each.segment(photo, multi_scale) for each in (trained, back))
        assert ours.shape == (4, 60, 90) and torch.equal(ours, theirs)
    with pytest.raises(ModelError, match="looks at the photo's own shape"):
        write_onnx(tmp_path / "s.onnx", trained)


# Seeds.


def test_guided_seeds_keep_the_boxes_of_the_seeds_themselves():
    generator = torch.Generator().manual_seed(0)
    cams, guidance = torch.rand(2, 6, 6, generator=generator), torch.rand(2, 6, 6, generator=generator)
    attention = torch.rand(36, 36, generator=generator)
    spec = RefineSpec(affinity=AffinitySpec(threshold=0.9))
    boxed = affinity_cams(cams, attention, spec.affinity) * 0
    matrix = affinity_cams(torch.eye(36).reshape(36, 6, 6), attention, AffinitySpec(boxes=False)).flatten(1).T
    for k in range(2):
        columns = box_masks(cams[k], 0.9).flatten()
        boxed[k] = ((matrix * columns) @ (cams[k] * guidance[k]).flatten()).reshape(6, 6)
    guided = guided_cams(cams, guidance, spec.affinity)
    assert torch.allclose(affinity_cams(guided, attention, without_boxes(spec).affinity), boxed, atol=1e-5)
    assert torch.equal(guided_cams(cams, guidance, AffinitySpec(boxes=False)), cams * guidance)


@torch.no_grad()
def test_seeds_of_a_photo_do_not_depend_on_the_others(cam_model):
    segmenter, slots = _segmenter().eval(), torch.tensor([[1, -1], [0, 2]])
    inputs = torch.randn(2, 3, 48, 48, generator=torch.Generator().manual_seed(3))
    together = learnt_gradcam(cam_model, segmenter, inputs, slots, REFINE, guided=True)
    alone = learnt_gradcam(cam_model, segmenter, inputs[1:], slots[1:], REFINE, guided=True)
    assert torch.allclose(together.cams[1], alone.cams[0], atol=1e-5)
    assert torch.allclose(together.attention[1], alone.attention[0], atol=1e-6)
    assert not together.cams[0, 1].any()  # an empty slot
    unguided = learnt_gradcam(cam_model, segmenter, inputs, slots, REFINE, guided=False)
    assert (together.cams <= unguided.cams + 1e-6).all() and not torch.allclose(together.cams, unguided.cams)


def test_gradcam_may_skip_a_block(cam_model, batch):
    with torch.no_grad():
        encoded = cam_model.encode(torch.randn(2, 3, 48, 48), kept_layers(REFINE.affinity), last_block=False)
        seeds = encoded_gradcam(cam_model, encoded, batch.slots).seeds
        one_less = replace(cam_model, spec=SPEC.model_copy(update={"gradcam_skips": 1}))
        skipping = encoded_gradcam(one_less, encoded, batch.slots)
        # As if the block before the last had changed nothing.
        outputs = (*encoded.activations.outputs[:2], encoded.activations.outputs[1])
        same = replace(encoded, activations=replace(encoded.activations, outputs=outputs))
        assert torch.equal(skipping.seeds, encoded_gradcam(cam_model, same, batch.slots).seeds)
    assert not torch.allclose(skipping.seeds, seeds)


# One step.


@pytest.mark.parametrize("iteration", [0, 4])
def test_a_step_trains_necks_and_head_alone(cam_model, batch, iteration):
    segmenter = _segmenter()
    frozen = [*cam_model.clip.model.parameters(), *cam_model.dino.model.parameters(), cam_model.dino.positions]
    before, frozen_before = [p.detach().clone() for p in segmenter.parameters()], [p.detach().clone() for p in frozen]
    result = training_step(cam_model, segmenter, make_optimiser(segmenter, PLUS), batch, iteration, PLUS, REFINE)
    total, seg, div, dice, first, second = result.losses.tolist()
    assert torch.isfinite(result.losses).all() and min(seg, div, dice, first, second) > 0
    assert total == pytest.approx(seg + dice + 0.1 * div + 0.1 * (first + second), rel=1e-5)
    assert all(not torch.equal(p, old) for p, old in zip(segmenter.parameters(), before, strict=True))
    assert all(torch.equal(p, old) for p, old in zip(frozen, frozen_before, strict=True))
    assert all(p.grad is None for p in frozen)
    if iteration == 0:  # before own labels: those of each photo's classes
        assert set(result.labels[0].unique().tolist()) <= {0, 2} and set(result.labels[1].unique().tolist()) <= {0, 1, 3}


def test_one_encoder_learns_too_and_masks_of_padding_are_ignored(cam_model, batch):
    spec = PLUS.model_copy(
        update={"mutual_weight": 0.0, "dice_weight": 0.0, "guided_from": None, "own_labels_from": None, "padding": "ignored"}
    )
    planes = batch.planes.clone()
    planes[:, 3, :10] = 0  # padding
    one_encoder = replace(cam_model, dino=None)
    segmenter = _segmenter(spec, None)
    result = training_step(one_encoder, segmenter, make_optimiser(segmenter, spec), Batch(planes, batch.slots), 0, spec, REFINE)
    assert (result.labels[:, :10] == IGNORE).all() and (result.labels[:, 10:] != IGNORE).all()
    total, seg, div, *others = result.losses.tolist()
    assert others == [0, 0, 0] and total == pytest.approx(seg + 0.1 * div, rel=1e-5)
