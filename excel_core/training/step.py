"""One step of training: targets from the crops' own CAMs, two losses, one update (method 5, eqs. 11-13)."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from excel_core.cams.cam_model import CamModel, Encoded
from excel_core.cams.pseudo_labels import refine_batch
from excel_core.config import RefineSpec, TrainSpec
from excel_core.models.calibration import Relation, relation_of
from excel_core.models.clip import normalise_pixels, quantised_pixels
from excel_core.models.segmenter import Segmentation, Segmenter
from excel_core.training.losses import IGNORE, diversity_loss, pair_labels, segmentation_loss
from excel_core.training.samples import Sample

__all__ = ["StepResult", "learning_rate", "make_optimiser", "training_step"]


@dataclass(frozen=True)
class StepResult:
    """losses (3,): total, L_seg, L_div; labels (B, S, S) int64, the targets of L_seg. Both on the device."""

    losses: Tensor
    labels: Tensor


@dataclass(frozen=True)
class _Crops:
    """A batch on the device: pixels (B, 3, S, S) float32 in 0…255, valid (B, S, S) bool, labels (B, S, S) int64, and class
    indices of each image."""

    pixels: Tensor
    valid: Tensor
    labels: Tensor
    classes: Sequence[tuple[int, ...]]


def make_optimiser(segmenter: Segmenter, spec: TrainSpec) -> torch.optim.Optimizer:
    """AdamW over every trained parameter, with weight decay on all of them, biases and norms too (published)."""
    return torch.optim.AdamW(segmenter.parameters(), lr=spec.learning_rate, betas=spec.betas, weight_decay=spec.weight_decay)


def learning_rate(iteration: int, spec: TrainSpec) -> float:
    """Rate of step `iteration`, set before it: linear warm-up from 1e-6 of the rate, then (1 - t/T)^power (published)."""
    if iteration < spec.warmup:
        return spec.learning_rate * (1 - (1 - iteration / spec.warmup) * (1 - 1e-6))
    return spec.learning_rate * (1 - iteration / spec.iterations) ** spec.power  # type: ignore[no-any-return]


def training_step(
    cam_model: CamModel,
    network: nn.Module,
    optimiser: torch.optim.Optimizer,
    batch: Sequence[Sample],
    iteration: int,
    spec: TrainSpec,
    refine: RefineSpec,
) -> StepResult:
    """One optimiser step on this process' share of a batch; `network` is the segmenter, bare or in DDP."""
    crops = _on_device(batch, cam_model.clip.device)
    for parameters in optimiser.param_groups:
        parameters["lr"] = learning_rate(iteration, spec)
    bf16 = spec.precision == "bf16"
    # 1. The frozen encoder, once; then neck and head, with gradients.
    with torch.autocast(cam_model.clip.device.type, dtype=torch.bfloat16, enabled=bf16):
        with torch.inference_mode():
            network_input = normalise_pixels(crops.pixels / 255, cam_model.spec.normalisation)
            encoded = cam_model.encode(network_input, refine.affinity.layers)
        with torch.no_grad():  # a copy outside inference mode, whose tensors autograd refuses
            layers = cam_model.layers(encoded)
        output: Segmentation = network(layers, encoded.activations.grid)
    # 2. Targets. The relation comes from the one forward pass with dropout (published); only L_div sends gradients through it.
    relation = relation_of(output.features.float(), cam_model.spec.calibration)
    with torch.no_grad():
        targets = _Targets(cam_model, encoded, crops, relation.detach(), spec, refine)
        dynamic = spec.dynamic_from is not None and iteration >= spec.dynamic_from
        labels = targets.labels(dynamic)
        # Eq. 11 as printed compares with static labels; the published code with the labels of L_seg.
        pair_source = targets.labels(dynamic=False) if dynamic and spec.pair_targets == "static" else labels
    # 3. Losses.
    logits = F.interpolate(output.logits.float(), size=labels.shape[-2:], mode="bilinear", align_corners=False)
    if spec.own_argmax_from is not None and iteration >= spec.own_argmax_from and spec.supervision == "labels":
        pair_source = logits.argmax(dim=1)  # published for VOC's last iterations; not in the paper
    pairs = pair_labels(pair_source, encoded.activations.grid, spec.radius)
    loss_seg = segmentation_loss(logits, labels, spec.segmentation_loss)
    loss_div = diversity_loss(relation.probability, pairs, spec.diversity_loss)
    loss = loss_seg + spec.diversity_weight * loss_div
    optimiser.zero_grad(set_to_none=True)
    loss.backward()
    optimiser.step()
    return StepResult(torch.stack([loss, loss_seg, loss_div]).detach(), labels)


@dataclass(frozen=True)
class _Targets:
    """Makes the labels of a batch: static or dynamic pseudo labels, or the true ones in the fully supervised mode."""

    cam_model: CamModel
    encoded: Encoded
    crops: _Crops
    relation: Relation
    spec: TrainSpec
    refine: RefineSpec

    def labels(self, dynamic: bool) -> Tensor:
        """Labels (B, S, S) int64: of static CAMs, or of CAMs and attention under the relation (`dynamic`)."""
        if self.spec.supervision == "masks":
            return self.crops.labels
        cam_model, relation = self.cam_model, self.relation if dynamic else None
        device = cam_model.clip.device.type
        with torch.autocast(device, dtype=torch.bfloat16, enabled=self.spec.precision == "bf16"):
            cams = cam_model.cams(self.encoded, relation).float()
            attention = cam_model.attention(self.encoded.activations, self.refine, relation).float()
        colours = self.crops.pixels
        # Published: PAR sees the crop normalised, de-normalised and truncated to 8 bits.
        if self.refine.par.image == "network_input":
            colours = quantised_pixels(colours, cam_model.spec.normalisation)
        labels = refine_batch(colours, self.crops.classes, cams, attention, self.refine)
        # Published, by accident: padding is labelled like any other pixel.
        return labels.masked_fill(~self.crops.valid, IGNORE) if self.spec.padding == "ignored" else labels


def _on_device(batch: Sequence[Sample], device: torch.device) -> _Crops:
    pixels = torch.stack([sample.pixels for sample in batch]).to(device, non_blocking=True).float()
    valid = torch.stack([sample.valid for sample in batch]).to(device, non_blocking=True)
    labels = torch.stack([sample.labels for sample in batch]).to(device, non_blocking=True).long()
    return _Crops(pixels, valid, labels, [sample.classes for sample in batch])
