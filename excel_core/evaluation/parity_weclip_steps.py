"""Golden training steps of WeCLIP and WeCLIP+ (peers.md 8): labels by the training's own step; losses, gradients and one update
of AdamW from the golden labels, since one pixel that tips would move them by more than their tolerance."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from excel_core.evaluation.parity import Arrays
from excel_core.evaluation.parity_weclip_model import Model, forward
from excel_core.models.calibration import relation_of
from excel_core.training.batches import Batch
from excel_core.training.enlarge import enlarged
from excel_core.training.losses import pair_labels
from excel_core.training.optimiser import learning_rate, make_optimiser, set_learning_rate
from excel_core.training.step import mutual_losses, step_losses, training_step

__all__ = ["GoldenStep", "own_step_labels", "step_keys"]

BIASES = {"classifier_bias": "classifier.bias", "clip_fuse_bias": "neck.fuse.bias"}
EMPTY_GROUPS = (0.1, 0.0, 1.0)  # rates of the published optimiser's three groups without parameters, in shares of the real one


@dataclass(frozen=True)
class GoldenStep:
    """One golden training step: the beginning of its keys, its iteration, the golden labels that its pairs come from, the
    biases of which it has gradients alone, by the end of their key, and the order of its losses among those of `StepResult`."""

    name: str
    iteration: int
    pair_source: str
    gradients_alone: dict[str, str] = field(default_factory=dict)
    losses: Sequence[int] = (0, 1, 2)


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
    target, pseudo = (torch.from_numpy(golden[key]).long() for key in (f"{step.name}_target", step.pair_source))
    size = (target.shape[-2], target.shape[-1])
    by_encoder = [enlarged(logits, size) for logits in output.by_encoder]
    pairs = pair_labels(pseudo, encoded.activations.grid, spec.radius)
    golden_labels = [torch.from_numpy(golden[key]).long() for key in ("labels_by_clip", "labels_by_dino") if key in golden]
    mutual = mutual_losses(by_encoder, batch.valid, spec, golden_labels or None)
    losses = step_losses(enlarged(output.logits, size), probability, target, pairs, mutual, spec)
    losses[0].backward()
    parameters = dict(model.segmenter.named_parameters())
    yield f"{step.name}_losses", losses.detach()[list(step.losses)].double()
    yield f"{step.name}_pairs", torch.stack([(pairs == 1).sum() + 1, (pairs == 0).sum() + 1])
    yield f"{step.name}_learning_rate", torch.tensor([*(share * rate for share in EMPTY_GROUPS), rate], dtype=torch.float64)
    necks = [model.segmenter.neck, *([model.segmenter.second_neck] if model.segmenter.second_neck is not None else [])]
    modules = [*necks, nn.ModuleList([model.segmenter.head, model.segmenter.classifier])]
    yield f"{step.name}_grad_norms", torch.stack([_gradient_norm(part) for part in modules]).double()
    for key, name in (BIASES | step.gradients_alone).items():
        gradient = parameters[name].grad
        assert gradient is not None
        yield f"{step.name}_grad_{key}", gradient.clone()
    optimiser.step()
    for key, name in BIASES.items():
        yield f"{step.name}_{key}", parameters[name].detach()


def _gradient_norm(part: nn.Module) -> Tensor:
    gradients = [parameter.grad for parameter in part.parameters() if parameter.grad is not None]
    norm: Tensor = torch.stack([gradient.norm() for gradient in gradients]).norm()
    return norm
