"""Dask's workers on the GPUs of this machine: one each, which sees that GPU alone."""

import os
from typing import Any

import torch
from distributed import LocalCluster

__all__ = ["GpuCluster", "gpu_names"]

VISIBLE = "CUDA_VISIBLE_DEVICES"


def gpu_names() -> list[str]:
    """The GPUs that this process sees, as the variable CUDA_VISIBLE_DEVICES names them: numbers, or identifiers."""
    named = [name.strip() for name in os.environ.get(VISIBLE, "").split(",") if name.strip()]
    return named or [str(number) for number in range(max(1, torch.cuda.device_count()))]


class GpuCluster(LocalCluster):
    """A worker for each of `gpus`, with the resource GPU; a worker that dies is started again on its GPU."""

    def __init__(self, gpus: list[str], **options: Any) -> None:
        self._gpus = gpus
        super().__init__(**options | {"n_workers": 0, "resources": {"GPU": 1}})
        self.scale(len(gpus))

    def new_worker_spec(self) -> dict[Any, Any]:
        """LocalCluster's, with the environment of the worker's GPU."""
        [(name, spec)] = super().new_worker_spec().items()
        env = spec["options"].get("env", {}) | {VISIBLE: self._gpus[int(name) % len(self._gpus)]}
        return {name: spec | {"options": spec["options"] | {"env": env}}}
