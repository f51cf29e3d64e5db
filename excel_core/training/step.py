"""One step of training: targets from the crops' own CAMs, two losses, one update (method 5, eqs. 11-13)."""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from excel_core.cams.cam_model import CamModel, Encoded
from excel_core.cams.pseudo_labels import refine_batch
from excel_core.config import RefineSpec, TrainSpec
from excel_core.models.calibration import Relation, relation_of
from excel_core.models.clip import normalise_pixels, quantised_pixels
from excel_core.models.segmenter import Segmentation
from excel_core.training.batches import Batch
from excel_core.training.enlarge import enlarged
from excel_core.training.losses import IGNORE, diversity_loss, pair_labels, segmentation_loss
from excel_core.training.optimiser import learning_rate, set_learning_rate
from excel_core.training.precision import float32_products, tower_precision, trained_autocast

__all__ = ["Phase", "StepResult", "run_step", "training_step"]


@dataclass(frozen=True)
class StepResult:
    """losses (3,): total, L_seg, L_div; labels (B, S, S) int64, the targets of L_seg. Both on the device."""

    losses: Tensor
    labels: Tensor


@dataclass(frozen=True)
class Phase:
    """What changes in the course of a training. `dynamic`: labels of the learnt relation (LVC). `own_argmax`: pairs by the
    head's own labels, published for VOC's last iterations; not in the paper."""

    dynamic: bool
    own_argmax: bool

    @classmethod
    def at(cls, iteration: int, spec: TrainSpec) -> "Phase":
        """The phase of an iteration."""
        dynamic = spec.dynamic_from is not None and iteration >= spec.dynamic_from
        own_argmax = spec.own_argmax_from is not None and iteration >= spec.own_argmax_from
        return cls(dynamic, own_argmax and spec.supervision == "labels")


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
    # 1. The frozen encoder, once; then neck and head, with gradients.
    with torch.inference_mode():
        network_input = normalise_pixels(pixels / 255, cam_model.spec.normalisation)
        encoded = cam_model.encode(network_input, refine.affinity.layers)
    with trained_autocast(spec, device):
        with torch.no_grad():  # a copy outside inference mode, whose tensors autograd refuses
            layers = cam_model.layers(encoded)
        with _repeatable_attention(device):
            output: Segmentation = network(layers, encoded.activations.grid)
    # 2. Targets. The relation comes from the one forward pass with dropout (published); only L_div sends gradients through it.
    relation = relation_of(output.features.float(), cam_model.spec.calibration)
    with torch.no_grad():
        targets = _Targets(cam_model, encoded, batch, relation.detach(), spec, refine)
        labels = targets.labels(phase.dynamic)
        # Eq. 11 as printed compares with static labels; the published code with the labels of L_seg.
        pair_source = targets.labels(dynamic=False) if phase.dynamic and spec.pair_targets == "static" else labels
    # 3. Losses.
    logits = enlarged(output.logits.float(), (labels.shape[-2], labels.shape[-1]))
    if phase.own_argmax:
        pair_source = logits.argmax(dim=1)
    pairs = pair_labels(pair_source, encoded.activations.grid, spec.radius)
    loss_seg = segmentation_loss(logits, labels, spec.segmentation_loss)
    loss_div = diversity_loss(relation.probability, pairs, spec.diversity_loss)
    loss = loss_seg + spec.diversity_weight * loss_div
    optimiser.zero_grad(set_to_none=True)
    loss.backward()
    optimiser.step()
    return StepResult(torch.stack([loss, loss_seg, loss_div]).detach(), labels)


def _repeatable_attention(device: torch.device) -> AbstractContextManager[None]:
    """The head's attention written out on a GPU: fused, its gradients are added up in whatever order threads arrive, so that
    no training could be repeated to the last bit."""
    return sdpa_kernel(SDPBackend.MATH) if device.type == "cuda" else nullcontext()


@dataclass(frozen=True)
class _Targets:
    """Makes the labels of a batch: static or dynamic pseudo labels, or the true ones in the fully supervised mode."""

    cam_model: CamModel
    encoded: Encoded
    batch: Batch
    relation: Relation
    spec: TrainSpec
    refine: RefineSpec

    def labels(self, dynamic: bool) -> Tensor:
        """Labels (B, S, S) int64: of static CAMs, or of CAMs and attention under the relation (`dynamic`)."""
        if self.spec.supervision == "masks":
            return self.batch.labels.long()
        cam_model, relation = self.cam_model, self.relation if dynamic else None
        cams = cam_model.cams(self.encoded, relation)
        attention = cam_model.attention(self.encoded.activations, self.refine, relation)
        colours = self.batch.pixels.float()
        # Published: PAR sees the crop normalised, de-normalised and truncated to 8 bits.
        if self.refine.par.image == "network_input":
            colours = quantised_pixels(colours, cam_model.spec.normalisation)
        labels = refine_batch(colours, self.batch.slots, cams, attention, self.refine)
        # Published, by accident: padding is labelled like any other pixel.
        return labels.masked_fill(~self.batch.valid, IGNORE) if self.spec.padding == "ignored" else labels
