"""Training-free labels of photos, from the file to the PNG: the published program's way on a GPU, a photo at a time.

What it is held against is the chain's stages `cams` and `refine` over the same photos (bench/gpu_chain.py).
"""

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench import published
from bench.scene import Scene
from excel_core.datasets.images import read_image
from excel_core.datasets.palette import save_labels_png

__all__ = ["published_label_rows"]


@torch.inference_mode()
def published_label_rows(photos: Path, device: torch.device, count: int = 24) -> Iterator[dict[str, Any]]:
    """A row: images a second by the published way."""
    scene = Scene(photos, count)
    clip, text = scene.clip, scene.text.to(device)
    clip.model.to(device)
    cam_model = scene.cam_model

    def label(number: int, folder: Path) -> None:
        image = read_image(scene.paths[number])
        network_input = cam_model.prepare([image]).to(device)
        labels = published.chain(clip, text, image, scene.classes[number], network_input, scene.run)
        save_labels_png(folder / f"{number}.png", labels.cpu().numpy().astype(np.uint8))

    with tempfile.TemporaryDirectory() as folder:
        for number in range(2):
            label(number, Path(folder))
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        started = time.perf_counter()
        for number in range(len(scene.paths)):
            label(number, Path(folder))
        seconds = time.perf_counter() - started
    peak = torch.cuda.max_memory_allocated(device) / 2**20
    yield {"what": "training-free label, photo to PNG, published way", "ours": len(scene.paths) / seconds, "unit": "images/s",
           "peak_mib": round(peak)}  # fmt: skip
