"""Logits enlarged to the crop, with a gradient that is the same each time, to the last bit."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["enlarged"]


def enlarged(values: Tensor, size: tuple[int, int]) -> Tensor:
    """values (B, C, h, w) → (B, C, H, W) of `size`, bilinear with half-pixel centres."""
    if values.is_cuda:
        return _Enlarge.apply(values, size)  # type: ignore[no-any-return]
    return F.interpolate(values, size=size, mode="bilinear", align_corners=False)


class _Enlarge(torch.autograd.Function):
    """torch's own backward adds up gradients in whatever order the threads of a GPU arrive, so that no training could be
    repeated. Here it is two products with the weights of rows and columns."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, size: tuple[int, int]) -> Tensor:
        ctx.small = values.shape[-2:]
        return F.interpolate(values, size=size, mode="bilinear", align_corners=False)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (gradient,) = gradients
        rows, columns = (_weights(small, large, gradient) for small, large in zip(ctx.small, gradient.shape[-2:], strict=True))
        return rows @ (gradient @ columns.mT), None


def _weights(small: int, large: int, like: Tensor) -> Tensor:
    """(small, large): how much each of the small number of values counts in each of the large one."""
    unit = torch.eye(small, dtype=like.dtype, device=like.device)[None]
    return F.interpolate(unit, size=large, mode="linear", align_corners=False)[0]
