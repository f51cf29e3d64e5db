"""One step of training: targets from the crops' own CAMs, the losses, one update (method 5, eqs. 11-13; peers.md 3 and 4)."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from excel_core.cams.affinity import kept_layers
from excel_core.cams.cam_model import CamModel
from excel_core.config import RefineSpec, TrainSpec
from excel_core.models.calibration import relation_of
from excel_core.models.clip import normalise_pixels
from excel_core.models.segmenter import Segmentation
from excel_core.training.batches import Batch
from excel_core.training.enlarge import enlarged
from excel_core.training.losses import IGNORE, dice_loss, diversity_loss, pair_labels, segmentation_loss
from excel_core.training.optimiser import learning_rate, set_learning_rate
from excel_core.training.precision import float32_products, tower_precision, trained_autocast
from excel_core.training.targets import Targets, own_labels

__all__ = ["Phase", "StepResult", "mutual_losses", "run_step", "step_losses", "training_step"]


@dataclass(frozen=True)
class StepResult:
    """losses (6,): total, L_seg, L_div, dice, and the mutual ones, first encoder by the second's labels and the reverse, 0
    where they are not in the sum; labels (B, S, S) int64, the targets of L_seg. Both on the device."""

    losses: Tensor
    labels: Tensor


@dataclass(frozen=True)
class Phase:
    """What changes in the course of a training. `dynamic`: labels of the learnt relation (LVC). `own_argmax`: pairs by the
    head's own labels, published for VOC's last iterations; not in the paper. `own_labels`: where the head is confident, L_seg's
    targets are its own; `guided`: seeds times the head's probabilities (both WeCLIP+)."""

    dynamic: bool
    own_argmax: bool
    own_labels: bool = False
    guided: bool = False

    @classmethod
    def at(cls, iteration: int, spec: TrainSpec) -> "Phase":
        """The phase of an iteration."""

        def begun(start: int | None) -> bool:
            return start is not None and iteration >= start

        by_labels = spec.supervision == "labels"
        return cls(
            begun(spec.dynamic_from),
            begun(spec.own_argmax_from) and by_labels,
            begun(spec.own_labels_from) and by_labels,
            begun(spec.guided_from) and by_labels,
        )


def training_step(
    cam_model: CamModel,
    network: nn.Module,
    optimiser: torch.optim.Optimizer,
    batch: Batch,
    iteration: int,
    spec: TrainSpec,
    refine: RefineSpec,
) -> StepResult:
    """One optimiser step on this process' share of a batch; `network` is the segmenter, bare or in DDP."""
    set_learning_rate(optimiser, learning_rate(iteration, spec))
    on_device = batch.to(cam_model.clip.device)
    with float32_products(spec, cam_model.clip.device):
        return run_step(cam_model, network, optimiser, on_device, Phase.at(iteration, spec), spec, refine)


def run_step(
    cam_model: CamModel,
    network: nn.Module,
    optimiser: torch.optim.Optimizer,
    batch: Batch,
    phase: Phase,
    spec: TrainSpec,
    refine: RefineSpec,
) -> StepResult:
    """What the device does in a step, for a batch that is there: nothing is copied to it or waited for, so that a CUDA graph
    may hold the whole of it."""
    cam_model, device, pixels = tower_precision(cam_model, spec), cam_model.clip.device, batch.pixels.float()
    # 1. The frozen encoders, once; then neck and head, with gradients.
    with torch.inference_mode():
        network_input = normalise_pixels(pixels / 255, cam_model.spec.normalisation)
        last_block = spec.segmenter.blocks == "all"  # else GradCAM alone needs it, and runs it itself
        encoded = cam_model.encode(network_input, kept_layers(refine.affinity), last_block=last_block)
    with trained_autocast(spec, device):
        with torch.no_grad():  # copies outside inference mode, whose tensors autograd refuses
            layers, grid, second = cam_model.segmenter_input(encoded)
        with _repeatable_attention(device):
            output: Segmentation = network(layers, grid, second)
    # 2. Targets. The relation comes from the one forward pass with dropout (published); only L_div sends gradients through it.
    relation = relation_of(output.features.float(), cam_model.spec.calibration)
    with torch.no_grad():
        guidance = torch.softmax(output.logits.detach().float(), dim=1) if phase.guided else None
        targets = Targets(cam_model, encoded, network_input, batch, relation.detach(), guidance, spec, refine)
        labels = targets.labels(phase.dynamic)
        # Eq. 11 as printed compares with static labels; the published code with the labels of L_seg.
        pair_source = targets.labels(dynamic=False) if phase.dynamic and spec.pair_targets == "static" else labels
    # 3. Losses.
    size = (labels.shape[-2], labels.shape[-1])
    by_encoder = [enlarged(logits.float(), size) for logits in output.by_encoder]
    logits = by_encoder[0] if len(by_encoder) == 1 else enlarged(output.logits.float(), size)
    if phase.own_labels:
        labels = own_labels(logits.detach(), labels, batch.slots, spec)
    if phase.own_argmax:
        pair_source = logits.argmax(dim=1)
    pairs = pair_labels(pair_source, grid, spec.radius)
    losses = step_losses(logits, relation.probability, labels, pairs, mutual_losses(by_encoder, batch.valid, spec), spec)
    optimiser.zero_grad(set_to_none=True)
    losses[0].backward()
    optimiser.step()
    return StepResult(losses.detach(), labels)


def step_losses(
    logits: Tensor, probability: Tensor, labels: Tensor, pairs: Tensor, mutual: Sequence[Tensor], spec: TrainSpec
) -> Tensor:
    """logits (B, C+1, S, S), R̂ (B, M, M), labels (B, S, S), `pair_labels` (B, M, M), `mutual_losses` → `StepResult.losses`."""
    loss_seg = segmentation_loss(logits, labels, spec.segmentation_loss)
    loss_div = diversity_loss(probability, pairs, spec.diversity_loss)
    loss = loss_seg + spec.diversity_weight * loss_div
    dice = torch.zeros_like(loss_seg)
    if spec.dice_weight:
        dice = dice_loss(logits, labels)
        loss = loss + spec.dice_weight * dice
    if spec.mutual_weight:
        loss = loss + spec.mutual_weight * sum(mutual)
    return torch.stack([loss, loss_seg, loss_div, dice, *mutual])


def mutual_losses(
    by_encoder: Sequence[Tensor], valid: Tensor, spec: TrainSpec, labels: Sequence[Tensor] | None = None
) -> list[Tensor]:
    """Logits (B, C+1, S, S) of two encoders, valid pixels (B, S, S) → L_seg of the first by the second's labels, and the
    reverse; two zeros without `mutual_weight`. `labels`: of the first and of the second, None: their argmax."""
    if not spec.mutual_weight:
        return [by_encoder[0].new_zeros(())] * 2
    if labels is None:
        labels = [logits.detach().argmax(dim=1) for logits in by_encoder]
    if spec.padding == "ignored":
        labels = [each.masked_fill(~valid, IGNORE) for each in labels]
    return [
        segmentation_loss(logits, by_other, spec.segmentation_loss)
        for logits, by_other in zip(by_encoder, reversed(labels), strict=True)
    ]


def _repeatable_attention(device: torch.device) -> AbstractContextManager[None]:
    """The head's attention written out on a GPU: fused, its gradients are added up in whatever order threads arrive, so that
    no training could be repeated to the last bit."""
    return sdpa_kernel(SDPBackend.MATH) if device.type == "cuda" else nullcontext()
