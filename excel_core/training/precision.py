"""In what precision a training step computes, and that nothing of it stays set afterwards."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch

from excel_core.cams.cam_model import CamModel
from excel_core.config import TrainSpec

__all__ = ["float32_products", "tower_precision", "trained_autocast"]


@contextmanager
def float32_products(spec: TrainSpec, device: torch.device) -> Iterator[None]:
    """Products of float32 numbers within the block: exact in `fp32`, of TF32 (10 bits of mantissa) in the other precisions.

    torch's own default takes TF32 for convolutions alone. A CPU knows no TF32; there nothing is set.
    """
    if device.type != "cuda":
        yield
        return
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    exact = spec.precision == "fp32"
    _set_products("highest" if exact else "high", not exact)
    try:
        yield
    finally:
        _set_products(*before)


def _set_products(matrices: str, convolutions: bool) -> None:
    torch.set_float32_matmul_precision(matrices)
    torch.backends.cudnn.allow_tf32 = convolutions


def tower_precision(cam_model: CamModel, spec: TrainSpec) -> CamModel:
    """The CAM model in training's own precision, whatever that of CAMs on their own is."""
    precision = spec.precision if spec.precision in ("bf16", "fp16") else "fp32"
    return replace(cam_model, spec=cam_model.spec.model_copy(update={"precision": precision}))


def trained_autocast(spec: TrainSpec, device: torch.device) -> torch.autocast:
    """Around neck and head. In `fp16` they stay at TF32, for their gradients would leave float16's range."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=spec.precision == "bf16")
