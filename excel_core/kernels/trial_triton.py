# mypy: disable-error-code="no-untyped-def,untyped-decorator"
"""The smallest kernel in Triton, to see whether any compiles and runs."""

import torch
import triton
import triton.language as tl

__all__ = ["trial"]


@triton.jit
def _double(values, COUNT: tl.constexpr):
    lanes = tl.arange(0, COUNT)
    tl.store(values + lanes, 2 * tl.load(values + lanes))


def trial(device: torch.device) -> None:
    """Run it; RuntimeError where its result is wrong, else whatever Triton raises."""
    values = torch.arange(16, device=device)
    _double[(1,)](values, 16)
    if values.tolist() != list(range(0, 32, 2)):
        raise RuntimeError("a kernel's result is wrong")
