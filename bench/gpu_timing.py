"""How the GPU's figures are measured: items per second, peak memory, the kernels of a call, and the same without Triton."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor

import excel_core.cams.affinity
import excel_core.cams.cam_model
import excel_core.cams.par

__all__ = ["Case", "case", "kernel_times", "rate", "smooth", "without_triton"]

Case = dict[str, Any]
USES_TRITON = (excel_core.cams.par, excel_core.cams.affinity, excel_core.cams.cam_model)  # modules that ask `has_triton`


@contextmanager
def without_triton() -> Iterator[None]:
    """Compute with torch alone meanwhile."""
    patches = [patch.object(module, "has_triton", lambda device: False) for module in USES_TRITON]
    for each in patches:
        each.start()
    try:
        yield
    finally:
        for each in patches:
            each.stop()


def rate(call: Callable[[], Any], items: int, device: torch.device, seconds: float = 0.5) -> tuple[float, int]:
    """(items per second, peak bytes of the device's memory) over about so many seconds, after a warm-up."""
    cuda = device.type == "cuda"
    wait = torch.cuda.synchronize if cuda else lambda: None
    call()
    wait()
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    started, calls = time.perf_counter(), 0
    while time.perf_counter() - started < seconds:
        for _ in range(4):
            call()
        wait()
        calls += 4
    elapsed = time.perf_counter() - started
    return items * calls / elapsed, torch.cuda.max_memory_allocated() if cuda else 0


def kernel_times(call: Callable[[], Any]) -> list[str]:
    """What takes the GPU's time in a call: the first kernels, milliseconds and launches of each, and the sum of all."""
    if not torch.cuda.is_available():
        return []
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        call()
        torch.cuda.synchronize()
    events = sorted(profile.key_averages(), key=lambda event: -event.self_device_time_total)
    total, launches = sum(event.self_device_time_total for event in events), sum(event.count for event in events)
    longest = [f"{event.self_device_time_total / 1000:.2f} ms {event.count}x {event.key[:70]}" for event in events[:14]]
    return [f"{total / 1000:.2f} ms {launches}x in all", *longest]


def case(what: str, ours: float, before: float | None, unit: str, peak: int, **more: Any) -> Case:
    """A figure."""
    return {"what": what, "ours": ours, "before": before, "unit": unit, "peak_mib": round(peak / 2**20), **more}


def smooth(batch: int, channels: int, H: int, W: int, seed: int) -> Tensor:
    """Maps (batch, channels, H, W) in [0, 1] with some noise, of a seed."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(batch, channels, 12, 12, generator=generator)
    noise = 0.02 * torch.rand(batch, channels, H, W, generator=generator)
    return (F.interpolate(coarse, size=(H, W), mode="bicubic") + noise).clamp(0, 1)
