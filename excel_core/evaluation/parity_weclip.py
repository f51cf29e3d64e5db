"""What excel computes for the golden arrays of WeCLIP and WeCLIP+: weclip*.npz with their heads (peers.md 8), key by key.

Everything goes through the functions that training and the stages call, under the methods' `reference` on VOC and COCO.
Sizes are the arrays'.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from excel_core.cams.affinity import guided_cams, without_boxes
from excel_core.cams.crf import dense_crf
from excel_core.cams.gradcam_model import encoded_gradcam, gradcam_attention, learnt_gradcam
from excel_core.cams.pseudo_labels import cams_of_slots, class_slots, label_steps, refine_maps
from excel_core.config import RunSpec
from excel_core.config.presets import preset
from excel_core.evaluation.parity import Arrays, load_goldens, require_shapes
from excel_core.evaluation.parity_weclip_model import Model, forward, golden_batch, golden_model
from excel_core.evaluation.parity_weclip_seeds import chosen_keys, coco_keys, enlarged_keys, own_classes, seed_keys, spread_keys
from excel_core.evaluation.parity_weclip_steps import GoldenStep, own_step_labels, step_keys
from excel_core.evaluation.peer_set import PeerSet, image_numbers
from excel_core.models.calibration import relation_of
from excel_core.models.clip import FrozenClip
from excel_core.models.dino_weights import dino_from_state
from excel_core.models.photo_input import longest_side_size
from excel_core.models.published_names import State
from excel_core.prediction.longest_side import grid_logits, longest_side_input, scaled_input
from excel_core.training.losses import pair_labels

__all__ = ["compute_weclip", "compute_weclip_plus"]

PUBLISHED_SWITCH = 15_000  # forwards before the first dynamic labels, which the goldens count themselves
DINO_HEADS = 3  # of the golden DINO, which no shape tells
DINO_BIAS = {"dino_fuse_bias": "second_neck.fuse.bias"}
PLUS_LOSSES = (0, 1, 3, 2, 4, 5)  # published order: dice before the affinity


def compute_weclip(golden: Arrays, clip: FrozenClip, folder: Path) -> PeerSet:
    """Every key of weclip.npz, with the weights of weclip_head.npz beside it."""
    inputs = _required(golden, clip, folder / "weclip.npz", ("static_pseudo_labels", "dynamic_pseudo_labels", "logits"))
    head = _state(folder / "weclip_head.npz")
    return PeerSet(dict(_weclip_keys(golden, head, clip)), inputs)


def compute_weclip_plus(golden: Arrays, clip: FrozenClip, folder: Path) -> PeerSet:
    """Every key of weclip_plus.npz, with the weights of weclip_plus_head.npz and weclip_plus_dino.npz beside it."""
    needed = ("pseudo_labels", "labels_by_clip", "labels_by_dino", "mean_logits", "coco_probabilities_of_head")
    inputs = _required(golden, clip, folder / "weclip_plus.npz", needed) | {"coco_probabilities_of_head"}
    head, dino = (_state(folder / f"weclip_plus_{part}.npz") for part in ("head", "dino"))
    return PeerSet(dict(_weclip_plus_keys(golden, head, dino, clip)), inputs)


def _required(golden: Arrays, clip: FrozenClip, path: Path, others: Sequence[str]) -> frozenset[str]:
    """The keys that everything is computed from. StoreError for one that is missing or not of its shape."""
    numbers = image_numbers(golden, "classes", path.stem)
    shapes: dict[str, tuple[int | None, ...]] = {f"classes_{n}": (None,) for n in numbers}
    shapes |= {"crop": (len(numbers), None, None, 3), "text": (None, clip.joint_width), "relation": (len(numbers), None, None)}
    shapes |= {"test_image": (None, None, 3), "test_classes": (None,), "coco_classes": (None,), "coco_probabilities": (None,)}
    shapes["test_input_1"] = (3, None, None)
    require_shapes(golden, shapes | {"coco_text": (None, clip.joint_width)}, path)
    require_shapes(golden, {key: (None,) * golden[key].ndim if key in golden else () for key in others}, path)
    words = {"ids", "crop_box", "loss_names", "test_id"}
    return frozenset(words | shapes.keys() - {"relation", "coco_probabilities", "test_input_1"} | {"coco_text"})


def _state(path: Path) -> State:
    return {key: torch.from_numpy(value) for key, value in load_goldens(path).items()}


def _weclip_keys(golden: Arrays, head: State, clip: FrozenClip) -> Iterator[tuple[str, Tensor]]:
    """(key, what excel computes for it) of weclip.npz."""
    run, coco = preset("voc", "weclip"), preset("coco", "weclip")
    run = run.model_copy(update={"train": run.train.model_copy(update={"dynamic_from": PUBLISHED_SWITCH})})
    model = golden_model(run, clip, torch.from_numpy(golden["text"]), golden["logits"].shape[1] - 1, head, None)
    batch = golden_batch(golden)
    with torch.no_grad():
        network_input, encoded, output = forward(model, batch)
        relation = relation_of(output.features, model.run.cams.calibration)
        cam = encoded_gradcam(model.cam_model, encoded, batch.slots)
    yield "input", network_input
    yield "block_outputs", torch.stack(encoded.activations.outputs)
    yield from (("neck", output.features), ("logits", output.logits), ("relation", relation.probability))
    modes = {"static": None, "dynamic": relation}
    for n in range(len(batch.slots)):
        yield from seed_keys(golden, model, cam, n)
        for mode, chosen in modes.items():
            attention = gradcam_attention(model.cam_model, encoded.activations, cam, run.refine, chosen)[n]
            cams = own_classes(cam.seeds, golden, n)
            steps = dict(spread_keys(cams, attention, run.refine))
            steps |= dict(enlarged_keys(cams, attention, network_input[n], run.refine))
            if mode == "dynamic":
                steps.pop("cams_with_background")  # which the set has of static seeds alone
            yield from ((f"{mode}_{key}_{n}", value) for key, value in steps.items())
        yield from chosen_keys(model, encoded.activations, cam, relation, n, "dynamic_{}_" + str(n))
    for mode in modes:
        source = f"{mode}_pseudo_labels"
        yield f"affinity_labels_{mode}", _pairs(golden, source, encoded.activations.grid, run)
        for iteration in _iterations(golden, f"train_{mode}_"):
            yield source, own_step_labels(model, batch, iteration)
            step = GoldenStep(f"train_{mode}_{iteration}", iteration, source)
            yield from step_keys(golden, model, batch, step)
    yield from _test_keys(golden, model, "075")
    yield from coco_keys(golden, model, network_input, coco)


def _weclip_plus_keys(golden: Arrays, head: State, dino: State, clip: FrozenClip) -> Iterator[tuple[str, Tensor]]:
    """(key, what excel computes for it) of weclip_plus.npz."""
    run, coco = preset("voc", "weclip_plus"), preset("coco", "weclip_plus")
    second, text = dino_from_state(dino, DINO_HEADS, "the golden DINO"), torch.from_numpy(golden["text"])
    model = golden_model(run, clip, text, golden["mean_logits"].shape[1] - 1, head, second)
    batch = golden_batch(golden)
    with torch.no_grad():
        network_input, encoded, output = forward(model, batch)
        relation = relation_of(output.features, model.run.cams.calibration)
        cam = encoded_gradcam(model.cam_model, encoded, batch.slots)
        probabilities = torch.softmax(output.logits, dim=1)
    yield "input", network_input
    yield from (("block10", encoded.activations.outputs[-2]), ("block11", encoded.activations.outputs[-1]))
    yield from _second_encoder_keys(model, network_input)
    clip_neck, dino_neck = output.features.chunk(2, dim=1)
    yield from (("clip_neck", clip_neck), ("dino_neck", dino_neck), ("relation", relation.probability))
    yield from zip(("clip_logits", "dino_logits"), output.by_encoder, strict=True)
    yield from (("mean_logits", output.logits), ("mean_probabilities", probabilities))
    guidance = cams_of_slots(probabilities[:, 1:], batch.slots)
    guided, refine = guided_cams(cam.seeds, guidance, run.refine.affinity), without_boxes(run.refine)
    for n in range(len(batch.slots)):
        yield from seed_keys(golden, model, cam, n)
        cams = own_classes(guided, golden, n)
        # VOC spreads from everywhere.
        yield from ((f"guided_cam_{n}", cams), (f"column_mask_{n}", torch.ones_like(cams, dtype=torch.uint8)))
        attention = gradcam_attention(model.cam_model, encoded.activations, cam, refine, relation)[n]
        yield from ((f"{key}_{n}", value) for key, value in spread_keys(cams, attention, refine))
        yield from ((f"{key}_{n}", value) for key, value in enlarged_keys(cams, attention, network_input[n], refine))
        yield from chosen_keys(model, encoded.activations, cam, relation, n, "{}_" + str(n))
    size = (batch.planes.shape[-2], batch.planes.shape[-1])
    for key, logits in zip(("labels_by_clip", "labels_by_dino"), output.by_encoder, strict=True):
        yield key, _enlarged(logits, size).argmax(dim=1).byte()
    yield "affinity_labels", _pairs(golden, "pseudo_labels", encoded.activations.grid, run)
    for iteration in _iterations(golden, "train_"):
        if run.train.own_labels_from is not None and iteration < run.train.own_labels_from:
            yield "pseudo_labels", own_step_labels(model, batch, iteration)
        step = GoldenStep(f"train_{iteration}", iteration, "pseudo_labels", DINO_BIAS, PLUS_LOSSES)
        yield from step_keys(golden, model, batch, step)
    yield from _test_keys(golden, model, "15")
    yield from coco_keys(golden, model, network_input, coco)


@torch.no_grad()
def _second_encoder_keys(model: Model, network_input: Tensor) -> Iterator[tuple[str, Tensor]]:
    dino, neck = model.cam_model.dino, model.segmenter.second_neck
    assert dino is not None and neck is not None
    yield "dino_input", dino.resized(network_input)
    features = dino.features(network_input)
    patches = features.flatten(2).mT
    yield "dino_features", patches
    yield "dino_neck_own_grid", neck(patches[None], (features.shape[-2], features.shape[-1]))


def _iterations(golden: Arrays, beginning: str) -> list[int]:
    """Iterations of the golden training steps whose keys begin so."""
    keys = [key.removeprefix(beginning) for key in golden if key.startswith(beginning) and key.endswith("_losses")]
    return sorted(int(key.removesuffix("_losses")) for key in keys)


def _pairs(golden: Arrays, labels: str, grid: tuple[int, int], run: RunSpec) -> Tensor:
    return pair_labels(torch.from_numpy(golden[labels]).long(), grid, run.train.radius)


def _enlarged(logits: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(logits, size=size, mode="bilinear", align_corners=False)


def _test_side(photo: tuple[int, int], network_input: tuple[int, ...], patch: int) -> int:
    """The longer side that was asked for: that of the network input, or a pixel more where the published rounding lost one."""
    longer = max(network_input)
    is_shorter = longest_side_size(photo, longer, patch, whole_patches=False) != network_input
    return longer + 1 if is_shorter and longest_side_size(photo, longer + 1, patch, False) == network_input else longer


@torch.no_grad()
def _test_keys(golden: Arrays, model: Model, second_scale: str) -> Iterator[tuple[str, Tensor]]:
    """The test photo (H, W, 3): its segmentation at both scales, by CRF, and its seeds."""
    image, run = golden["test_image"], model.run
    size, classes = (image.shape[0], image.shape[1]), golden["test_classes"].tolist()
    side = _test_side(size, golden["test_input_1"].shape[-2:], model.cam_model.clip.patch)
    spec = run.predict.model_copy(update={"image_size": side})
    segmenter = model.copy().eval()
    network_input = longest_side_input(model.cam_model, image, spec)
    scaled = scaled_input(network_input, spec.scales[1], model.cam_model.clip.patch, whole_patches=False)
    yield f"test_input_{second_scale}_shape", torch.tensor(scaled.shape[-2:])
    logits = grid_logits(model.cam_model, segmenter, network_input, spec)
    yield "test_input_1", network_input[0]
    yield "test_logits_1", logits.by_scale[0]
    yield f"test_logits_{second_scale}", logits.by_scale[1]
    yield "test_single_logits", logits.single
    yield "test_mean_logits", logits.mean
    single, mean = (_enlarged(values[None], size)[0] for values in (logits.single, logits.mean))
    yield "test_single_labels", single.argmax(dim=0).byte()
    yield "test_multi_labels", mean.argmax(dim=0).byte()
    crf = dense_crf(image, torch.softmax(mean, dim=0).numpy(), run.refine.crf)
    yield "test_crf_labels", torch.from_numpy(crf.argmax(axis=0).astype(np.uint8))
    guided, slots = run.train.guided_from is not None, class_slots([classes])
    seeds = learnt_gradcam(model.cam_model, segmenter, network_input, slots, run.refine, guided)
    assert seeds.attention is not None
    refine = without_boxes(run.refine) if guided else run.refine
    maps = refine_maps(image, network_input[0], seeds.cams[0], seeds.attention[0], refine)
    yield "test_seed_cams_with_background", maps["affinity"]
    yield "test_seed_labels", torch.from_numpy(label_steps(image, classes, {"par": maps["par"]}, run.refine)["par"])
