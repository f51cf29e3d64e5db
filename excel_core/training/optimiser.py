"""AdamW with the published schedule, and what a checkpoint holds of it, whichever device trains."""

from typing import Any

import torch
from torch import Tensor

from excel_core.config import TrainSpec
from excel_core.models.segmenter import Segmenter

__all__ = ["learning_rate", "load_optimiser", "make_optimiser", "set_learning_rate", "stored_optimiser"]

# Options of torch's AdamW that follow from the device; in a checkpoint they are a CPU's.
DEVICE_OPTIONS = ("lr", "fused", "capturable")


def make_optimiser(segmenter: Segmenter, spec: TrainSpec) -> torch.optim.Optimizer:
    """AdamW over every trained parameter, with weight decay on all of them, biases and norms too (published). On a GPU one
    launch for all, with the rate on the device, so that a CUDA graph may hold it."""
    parameters = list(segmenter.parameters())
    gpu = parameters[0].is_cuda
    rate = torch.tensor(spec.learning_rate, device=parameters[0].device) if gpu else spec.learning_rate
    return torch.optim.AdamW(
        parameters, lr=rate, betas=spec.betas, weight_decay=spec.weight_decay, fused=gpu or None, capturable=gpu
    )


def set_learning_rate(optimiser: torch.optim.Optimizer, rate: float) -> None:
    """Set the rate of the next step, in place where it is on the device."""
    for parameters in optimiser.param_groups:
        if isinstance(parameters["lr"], Tensor):
            parameters["lr"].fill_(rate)
        else:
            parameters["lr"] = rate


def learning_rate(iteration: int, spec: TrainSpec) -> float:
    """Rate of step `iteration`, set before it: linear warm-up from 1e-6 of the rate, then (1 - t/T)^power (published)."""
    if iteration < spec.warmup:
        return spec.learning_rate * (1 - (1 - iteration / spec.warmup) * (1 - 1e-6))
    return spec.learning_rate * (1 - iteration / spec.iterations) ** spec.power  # type: ignore[no-any-return]


def stored_optimiser(optimiser: torch.optim.Optimizer) -> dict[str, Any]:
    """The optimiser's state for a checkpoint, in the form that a CPU gives it."""
    state = optimiser.state_dict()
    groups = [{**group, "lr": float(group["lr"]), "fused": None, "capturable": False} for group in state["param_groups"]]
    return {**state, "param_groups": groups}


def load_optimiser(optimiser: torch.optim.Optimizer, stored: dict[str, Any]) -> None:
    """Go on from what `stored_optimiser` gave, on the optimiser's own device."""
    own_options = [{option: group[option] for option in DEVICE_OPTIONS} for group in optimiser.param_groups]
    groups = [{**group, **options} for group, options in zip(stored["param_groups"], own_options, strict=True)]
    optimiser.load_state_dict({**stored, "param_groups": groups})
