"""What excel computes for the golden arrays of WeCLIP: weclip.npz with weclip_head.npz (peers.md 8), key by key.

Everything goes through the functions that training and the stages call, under the run of `weclip:reference` on VOC and COCO.
Sizes are the arrays'. Losses and gradients are computed from the golden labels: one pixel that tips would move them.
"""

from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from excel_core.cams.affinity import (
    affinity_cams,
    affinity_matrix,
    block_excess,
    box_masks,
    chosen_blocks,
    kept_layers,
    scale_attention,
    upsample_with_background,
)
from excel_core.cams.cam_model import CamModel, Encoded
from excel_core.cams.crf import dense_crf
from excel_core.cams.gradcam import GradCam
from excel_core.cams.par import pixel_adaptive_refinement
from excel_core.cams.pseudo_labels import class_slots, label_steps, refine_maps
from excel_core.cams.seeds import learnt_gradcam
from excel_core.config import RefineSpec, RunSpec, SegmenterSpec
from excel_core.evaluation.parity import Arrays
from excel_core.models.calibration import Relation, relation_of
from excel_core.models.clip import FrozenClip, normalise_pixels
from excel_core.models.dino import FrozenDino
from excel_core.models.published_names import HEAD, NECK, PUBLISHED_HEADS, State, published_name, require_names
from excel_core.models.segmenter import Segmentation, Segmenter
from excel_core.prediction.longest_side import GridLogits, grid_logits, longest_side_input
from excel_core.training.batches import Batch
from excel_core.training.enlarge import enlarged
from excel_core.training.losses import pair_labels
from excel_core.training.optimiser import learning_rate, make_optimiser, set_learning_rate
from excel_core.training.samples import plain_sample
from excel_core.training.step import mutual_losses, step_losses, training_step

__all__ = [
    "COCO_IMAGE", "GoldenStep", "Model", "golden_batch", "golden_model", "labels_key", "seed_keys", "step_keys", "test_keys",
    "weclip_keys",
]  # fmt: skip

PUBLISHED_SWITCH = 15_000  # forwards before the first dynamic labels, which the goldens count themselves
TEST_SIDE = 224  # longer side of the test input, in place of 512
COCO_IMAGE = 2  # the image that the COCO keys are about
EMPTY_GROUPS = (0.1, 0.0, 1.0)  # rates of the published optimiser's three groups without parameters, in shares of the real one
WECLIP_BIASES = {"classifier_bias": "classifier.bias", "clip_fuse_bias": "neck.fuse.bias"}


@dataclass(frozen=True)
class Model:
    """The golden weights under a run: a CAM model, and a segmenter without dropout in training mode."""

    run: RunSpec
    cam_model: CamModel
    segmenter: Segmenter

    def copy(self) -> Segmenter:
        """The segmenter, to be trained without a trace."""
        return deepcopy(self.segmenter)


def golden_model(run: RunSpec, clip: FrozenClip, text: Tensor, classes: int, head: State, dino: FrozenDino | None) -> Model:
    """Text (C+Z, D), a published neck and head under their names → Model. ModelError for names that do not fit."""
    layers = {key.split(".")[3] for key in head if key.startswith(f"{HEAD}transformer.resblocks.")}
    spec = SegmenterSpec(
        width=len(head[f"{NECK}linear_fuse.bias"]),
        layers=len(layers),
        heads=PUBLISHED_HEADS,
        dropout=0,
        blocks=run.train.segmenter.blocks,
    )
    segmenter = Segmenter(len(clip.blocks), clip.width, classes, spec, None if dino is None else dino.width)
    names = {key: published_name(key) for key in segmenter.state_dict()}
    require_names(list(names.values()), list(head), "the golden head")
    segmenter.load_state_dict({key: head[name] for key, name in names.items()})
    run = run.model_copy(update={"train": run.train.model_copy(update={"segmenter": spec})})
    return Model(run, CamModel(clip, text, classes, run.cams, dino), segmenter.train())


def golden_batch(golden: Arrays) -> Batch:
    """The golden crops (B, S, S, 3) with their classes."""
    crops = torch.from_numpy(golden["crop"]).permute(0, 3, 1, 2)
    return Batch.of([plain_sample(crop, golden[f"classes_{i}"].tolist()) for i, crop in enumerate(crops)])


def weclip_keys(golden: Arrays, head: State, clip: FrozenClip, voc: RunSpec, coco: RunSpec) -> Iterator[tuple[str, Tensor]]:
    """(key, what excel computes for it); `voc` and `coco` are the runs of the method's reference on the two."""
    classes, train = golden["logits"].shape[1] - 1, voc.train.model_copy(update={"dynamic_from": PUBLISHED_SWITCH})
    voc = voc.model_copy(update={"train": train})
    model = golden_model(voc, clip, torch.from_numpy(golden["text"]), classes, head, None)
    batch = golden_batch(golden)
    with torch.no_grad():
        network_input, encoded, output = forward(model, batch)
        relation = relation_of(output.features, model.run.cams.calibration)
    yield "input", network_input
    yield "block_outputs", torch.stack(encoded.activations.outputs[: len(clip.blocks) - 1])
    yield from (("neck", output.features), ("logits", output.logits), ("relation", relation.probability))

    with torch.no_grad():
        cam = model.cam_model.gradcam(encoded, batch.slots)
    for n in range(len(batch.slots)):
        yield from seed_keys(golden, model, cam, n)
        for mode in ("static", "dynamic"):
            chosen = relation if mode == "dynamic" else None
            attention = model.cam_model.gradcam_attention(encoded.activations, cam, voc.refine, chosen)[n]
            maps = _own(cam.seeds, golden, n)
            for key, value in refined_keys(maps, attention, network_input[n], voc.refine):
                yield f"{mode}_{key}_{n}", value
        yield from chosen_keys(model, encoded, cam, relation, n, "dynamic_{}_" + str(n))
    for mode in ("static", "dynamic"):
        labels = torch.from_numpy(golden[f"{mode}_pseudo_labels"]).long()
        yield f"affinity_labels_{mode}", pair_labels(labels, encoded.activations.grid, train.radius)
        steps = [key for key in golden if key.startswith(f"train_{mode}_") and key.endswith("_losses")]
        for key in steps:
            iteration = int(key.split("_")[2])
            yield from step_keys(golden, model, batch, GoldenStep(f"train_{mode}_{iteration}", iteration, WECLIP_BIASES))
            # The step's own labels, whatever those of the golden step are.
            yield f"{mode}_pseudo_labels", own_step_labels(model, batch, iteration)
    yield from test_keys(golden, model, "075")
    coco_model = replace(model, run=coco, cam_model=_coco_model(golden, model, coco))
    yield from _coco_keys(golden, coco_model, _one(encoded), golden["relation"])


def forward(model: Model, batch: Batch) -> tuple[Tensor, Encoded, Segmentation]:
    """Network input (B, 3, S, S), the frozen encoders, and the trained part, as a training step computes them."""
    cam_model, refine = model.cam_model, model.run.refine
    with torch.no_grad():
        network_input = normalise_pixels(batch.pixels.float() / 255, cam_model.spec.normalisation)
        encoded = cam_model.encode(network_input, kept_layers(refine.affinity), last_block=False)
        features = cam_model.segmenter_input(encoded)
    output: Segmentation = model.segmenter(*features)
    return network_input, encoded, output


def _own(slots: Tensor, golden: Arrays, n: int) -> Tensor:
    """Slots (B, K, ...) → those of image n's classes."""
    return slots[n, : len(golden[f"classes_{n}"])]


def seed_keys(golden: Arrays, model: Model, cam: GradCam, n: int) -> Iterator[tuple[str, Tensor]]:
    """GradCAM of image n of a batch."""
    count, slots = len(golden[f"classes_{n}"]), cam.seeds.shape[1]
    yield f"probabilities_{n}", torch.cat([cam.probabilities[n, :count], cam.probabilities[n, slots:]])
    yield f"gradcam_weights_{n}", _own(cam.weights, golden, n)
    yield f"gradcam_raw_{n}", _own(cam.raw, golden, n)
    yield f"gradcam_{n}", _own(cam.seeds, golden, n)
    yield f"box_mask_{n}", box_masks(_own(cam.seeds, golden, n), model.run.refine.affinity.threshold).byte()


def refined_keys(cams: Tensor, attention: Tensor, colours: Tensor, refine: RefineSpec) -> Iterator[tuple[str, Tensor]]:
    """CAMs (K, h, w), attention (M, M), network input (3, S, S) → the steps from them to PAR."""
    yield "attention_used", attention
    yield "affinity", affinity_matrix(attention, refine.affinity)
    refined = affinity_cams(cams, attention, refine.affinity)
    yield "refined", refined
    maps = upsample_with_background(refined, (colours.shape[-2], colours.shape[-1]), refine.background_power)
    yield "cams_with_background", maps
    yield "par", pixel_adaptive_refinement(colours[None], maps[None], refine.par)[0]


def chosen_keys(
    model: Model, encoded: Encoded, cam: GradCam, relation: Relation, n: int, name: str
) -> Iterator[tuple[str, Tensor]]:
    """By how much R exceeds each block's attention, and which blocks image n keeps; `name` has a place for the key."""
    affinity = model.run.refine.affinity
    maps = torch.cat([encoded.activations.attention, cam.attention[None]])
    scaled = scale_attention(maps, model.cam_model.clip.heads, model.run.cams.calibration, affinity)
    excess = block_excess(scaled[-(affinity.dynamic_layers or affinity.layers) :], relation.probability)
    yield name.format("excess"), excess[:, n]
    yield name.format("blocks_kept"), chosen_blocks(excess)[:, n].byte()


@dataclass(frozen=True)
class GoldenStep:
    """One golden training step: the beginning of its keys, its iteration, its biases by the end of the key, and the order of
    its losses among those of `StepResult`."""

    name: str
    iteration: int
    biases: Mapping[str, str]
    losses: Sequence[int] = (0, 1, 2)


def labels_key(step: GoldenStep, golden: Arrays) -> str:
    """The golden pseudo labels that a step's pairs come from."""
    words = step.name.split("_")
    return f"{words[1]}_pseudo_labels" if f"{words[1]}_pseudo_labels" in golden else "pseudo_labels"


def own_step_labels(model: Model, batch: Batch, iteration: int) -> Tensor:
    """The labels (B, S, S) that the training's step makes and is trained on."""
    spec, segmenter = model.run.train, model.copy()
    optimiser = make_optimiser(segmenter, spec)
    return training_step(model.cam_model, segmenter, optimiser, batch, iteration, spec, model.run.refine).labels.byte()


def step_keys(golden: Arrays, model: Model, batch: Batch, step: GoldenStep) -> Iterator[tuple[str, Tensor]]:
    """Labels by the training step itself; losses, gradients and one AdamW step from the golden labels."""
    spec, iteration = model.run.train, step.iteration
    yield f"{step.name}_target", own_step_labels(model, batch, iteration)
    model = replace(model, segmenter=model.copy())
    optimiser = make_optimiser(model.segmenter, spec)
    set_learning_rate(optimiser, rate := learning_rate(iteration, spec))
    _, encoded, output = forward(model, batch)
    probability = relation_of(output.features, model.run.cams.calibration).probability
    target, pseudo = (torch.from_numpy(golden[key]).long() for key in (f"{step.name}_target", labels_key(step, golden)))
    size = (target.shape[-2], target.shape[-1])
    by_encoder = [enlarged(logits, size) for logits in output.by_encoder]
    pairs = pair_labels(pseudo, encoded.activations.grid, spec.radius)
    given = [torch.from_numpy(golden[key]).long() for key in ("labels_by_clip", "labels_by_dino") if key in golden]
    mutual = mutual_losses(by_encoder, batch.valid, spec, given or None)
    losses = step_losses(enlarged(output.logits, size), probability, target, pairs, mutual, spec)
    losses[0].backward()
    parameters = dict(model.segmenter.named_parameters())
    yield f"{step.name}_losses", losses.detach()[list(step.losses)].double()
    yield f"{step.name}_pairs", torch.stack([(pairs == 1).sum() + 1, (pairs == 0).sum() + 1])
    yield f"{step.name}_learning_rate", torch.tensor([*(share * rate for share in EMPTY_GROUPS), rate], dtype=torch.float64)
    necks = [model.segmenter.neck, *([model.segmenter.second_neck] if model.segmenter.second_neck is not None else [])]
    parts = [*necks, nn.ModuleList([model.segmenter.head, model.segmenter.classifier])]
    yield f"{step.name}_grad_norms", torch.stack([_gradient_norm(part) for part in parts]).double()
    for key, name in step.biases.items():
        gradient = parameters[name].grad
        assert gradient is not None
        yield f"{step.name}_grad_{key}", gradient.clone()
    optimiser.step()
    for key, name in step.biases.items():
        yield f"{step.name}_{key}", parameters[name].detach()


def _gradient_norm(part: nn.Module) -> Tensor:
    gradients = [parameter.grad for parameter in part.parameters() if parameter.grad is not None]
    return torch.stack([gradient.norm() for gradient in gradients]).norm()


@torch.no_grad()
def test_keys(golden: Arrays, model: Model, second_scale: str) -> Iterator[tuple[str, Tensor]]:
    """The test photo (H, W, 3): its segmentation at both scales, by CRF, and its seeds."""
    image, run = golden["test_image"], model.run
    size, classes = (image.shape[0], image.shape[1]), golden["test_classes"].tolist()
    spec = run.predict.model_copy(update={"image_size": TEST_SIDE})
    segmenter = model.copy().eval()
    network_input = longest_side_input(model.cam_model, image, spec)
    logits: GridLogits = grid_logits(model.cam_model, segmenter, network_input, spec)
    yield "test_input_1", network_input[0]
    yield "test_logits_1", logits.by_scale[0]
    yield f"test_logits_{second_scale}", logits.by_scale[1]
    yield "test_single_logits", logits.single
    yield "test_mean_logits", logits.mean
    single, mean = (_at(values, size) for values in (logits.single, logits.mean))
    yield "test_single_labels", single.argmax(dim=0).byte()
    yield "test_multi_labels", mean.argmax(dim=0).byte()
    crf = dense_crf(image, torch.softmax(mean, dim=0).numpy(), run.refine.crf)
    yield "test_crf_labels", torch.from_numpy(crf.argmax(axis=0).astype(np.uint8))
    guided, slots = run.train.guided_from is not None, class_slots([classes])
    seeds = learnt_gradcam(model.cam_model, segmenter, network_input, slots, run.refine, guided)
    assert seeds.attention is not None
    maps = refine_maps(image, network_input[0], seeds.cams[0], seeds.attention[0], run.refine)
    yield "test_seed_cams_with_background", maps["affinity"]
    yield "test_seed_labels", torch.from_numpy(label_steps(image, classes, {"par": maps["par"]}, run.refine)["par"])


def _at(logits: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(logits[None], size=size, mode="bilinear", align_corners=False)[0]


def _one(encoded: Encoded) -> Encoded:
    """The encoded image of the COCO keys alone."""
    activations, n = encoded.activations, slice(COCO_IMAGE, COCO_IMAGE + 1)
    outputs = tuple(output[n] for output in activations.outputs)
    alone = replace(activations, outputs=outputs, attention=activations.attention[:, n])
    return Encoded(alone, encoded.calibrated[n])


def _coco_model(golden: Arrays, model: Model, coco: RunSpec) -> CamModel:
    text = torch.from_numpy(golden["coco_text"])
    background = len(golden["coco_probabilities"]) - len(golden["coco_classes"])
    return CamModel(model.cam_model.clip, text, len(text) - background, coco.cams)
