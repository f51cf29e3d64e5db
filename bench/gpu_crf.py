"""The dense CRF on a GPU beside that on all CPU cores: images per second, memory and equal labels of photos at native size.

    python -m bench.gpu_crf [--photos DIR] [--count 32] [--json FILE] [--profile]

PHOTOS is a folder in VOC's layout; without one, rendered pictures of VOC's size take its place. Probabilities are smooth and
random, all labels somewhere. `before` is the compiled lattice in a thread per core, as without Triton.
"""

import argparse
import json
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import excel_core  # noqa: F401  before torch

import numpy as np  # isort: skip
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from bench.plain_vit import random_clip
from excel_core.cams.cam_model import CamModel
from excel_core.cams.crf import dense_crf
from excel_core.cams.crf_on_device import dense_crf_batch
from excel_core.config import CrfSpec
from excel_core.config.presets import preset
from excel_core.datasets.images import read_image
from excel_core.models.segmenter import Segmenter
from excel_core.prediction.trained_segmenter import TrainedSegmenter
from excel_core.world.scenes import render_scene

PHOTOS = Path(__file__).parent.parent.parent / "shared" / "data" / "VOC2012"
BATCHES = {4: (1, 8, 32), 21: (1, 8, 32), 81: (8,)}  # photos at once, by number of labels
SECONDS = 0.8  # that a figure is measured for
SPEC = CrfSpec(least_probability=0.0)


def photos(folder: Path, count: int) -> list[NDArray[np.uint8]]:
    """`count` photos spread over the folder, or rendered pictures."""
    paths = sorted((folder / "JPEGImages").glob("*.jpg"))
    if paths:
        return [read_image(path) for path in paths[:: max(1, len(paths) // count)][:count]]
    return [render_scene(seed, 500).image[:375] for seed in range(count)]


def cases(images: list[NDArray[np.uint8]]) -> Iterator[dict[str, Any]]:
    """A figure each: what, ours and before in images per second, equal labels, peak MiB."""
    for labels, batches in BATCHES.items():
        scores = [_probabilities(labels, image.shape[:2], seed) for seed, image in enumerate(images[: max(batches)])]
        few = min(len(scores), max(2, 64 // labels))
        expected, before = _on_cpu(images[:few], scores[:few])
        for batch in batches:
            device_images = [torch.from_numpy(image).cuda() for image in images[:batch]]
            device_scores = [torch.from_numpy(values).cuda() for values in scores[:batch]]
            call = partial(dense_crf_batch, device_images, device_scores, SPEC)
            refined = call()
            seconds, peak = _timed(call)
            pairs = list(zip(refined, expected, strict=False))
            yield {
                "what": f"CRF of {labels} labels, {batch} photos at once",
                "unit": "images/s",
                "ours": round(len(refined) / seconds, 1),
                "before": round(before, 2),
                "equal_labels": min(float((ours.argmax(0).cpu().numpy() == theirs).mean()) for ours, theirs in pairs),
                "same_bytes": all(torch.equal(one, two) for one, two in zip(refined, call(), strict=True)),
                "peak_mib": round(peak / 2**20),
            }


def parts(images: list[NDArray[np.uint8]], labels: int) -> Iterator[dict[str, Any]]:
    """Milliseconds a photo of the two lattices and of the mean field, eight photos at once."""
    from excel_core.cams import crf_on_device
    from excel_core.kernels import lattice_triton

    device_images = [torch.from_numpy(image).cuda() for image in images[:8]]
    sizes = [image.shape[0] * image.shape[1] for image in device_images]
    numbers = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes)).cuda()
    positions = torch.cat([crf_on_device._positions(image) for image in device_images], dim=1)
    colours = torch.cat([image.reshape(-1, 3).T.float() for image in device_images], dim=1)
    features = torch.cat([positions / SPEC.bilateral_sigma, colours / SPEC.bilateral_colour_sigma])
    smoothness = lattice_triton.build_device_lattice(positions, numbers)
    appearance = lattice_triton.build_device_lattice(features, numbers)
    logits = torch.randn(labels, sum(sizes), device="cuda")
    terms = [(smoothness, SPEC.gaussian_weight), (appearance, SPEC.bilateral_weight)]
    calls: dict[str, Callable[[], Any]] = {
        "lattice of positions": lambda: lattice_triton.build_device_lattice(positions, numbers),
        "lattice of positions and colours": lambda: lattice_triton.build_device_lattice(features, numbers),
        f"mean field, {labels} labels": lambda: lattice_triton.mean_field_on_device(logits, terms, SPEC.iterations),
    }
    for name, call in calls.items():
        yield {"what": f"{name}, 8 photos", "unit": "ms/photo", "ours": round(1000 * _timed(call)[0] / len(sizes), 3)}
    corners = appearance.neighbours.shape[2] / len(sizes)
    yield {"what": "corners of positions and colours, a photo", "ours": round(corners)}


@torch.inference_mode()
def predict(images: list[NDArray[np.uint8]]) -> Iterator[dict[str, Any]]:
    """Photos to label maps by a ViT-B/16 with a segmenter of random weights, as stage `predict` does it, without files: one
    scale, all scales with flips, and the CRF. Before: photo by photo, the CRF on all CPU cores."""
    torch.manual_seed(0)
    clip, run = random_clip(), preset("voc")
    clip.model.cuda()
    text = F.normalize(torch.randn(45, clip.joint_width), dim=-1).cuda()
    segmenter = Segmenter(len(clip.blocks), clip.width, 20, run.train.segmenter).eval().cuda()
    together = images[:16]
    for precision in ("fp32", "fp16"):
        spec = run.cams.model_copy(update={"precision": precision})
        trained = TrainedSegmenter.of(CamModel(clip, text, 20, spec), segmenter, [str(i) for i in range(20)], run)

        def ours(trained: TrainedSegmenter = trained) -> list[Any]:
            single, multi = trained.segment_together(together), trained.segment_together(together, multi_scale=True)
            refined = trained.refine_together(together, multi)
            return [values.argmax(dim=0).byte().cpu() for maps in (single, multi, refined) for values in maps]

        def before(trained: TrainedSegmenter = trained) -> list[Any]:
            with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
                calls = []
                for image in together:
                    maps = [trained.segment(image), trained.segment(image, multi_scale=True)]
                    probabilities = torch.softmax(maps[1], dim=0).cpu().numpy()
                    calls.append(pool.submit(dense_crf, image, probabilities, trained.crf))
                    calls += [pool.submit(lambda logits: logits.argmax(dim=0).byte().cpu(), logits) for logits in maps]
                return [call.result() for call in calls]

        logits = trained.segment_together(together, multi_scale=True)
        alone = [trained.segment(image, multi_scale=True) for image in together]
        equal = min(float((a.argmax(0) == b.argmax(0)).float().mean()) for a, b in zip(logits, alone, strict=True))
        (seconds, peak), before_seconds = _timed(ours), _timed(before)[0]
        yield {
            "what": f"predict at all scales with CRF, {precision}",
            "unit": "images/s",
            "ours": round(len(together) / seconds, 1),
            "before": round(len(together) / before_seconds, 1),
            "equal_labels": equal,
            "peak_mib": round(peak / 2**20),
        }


def profile(images: list[NDArray[np.uint8]], labels: int) -> str:
    """The kernels that take the time, of eight photos."""
    device_images = [torch.from_numpy(image).cuda() for image in images[:8]]
    scores = [torch.from_numpy(_probabilities(labels, image.shape[:2], 0)).cuda() for image in images[:8]]
    with torch.profiler.profile() as recorded:
        dense_crf_batch(device_images, scores, SPEC)
        torch.cuda.synchronize()
    rows = sorted(recorded.key_averages(), key=lambda row: -row.self_device_time_total)[:16]
    return "\n".join(f"{row.self_device_time_total / 1000:8.2f} ms {row.count:5d} x {row.key[:70]}" for row in rows)


def _probabilities(labels: int, size: tuple[int, ...], seed: int) -> NDArray[np.float32]:
    logits = 3 * torch.randn(1, labels, 20, 20, generator=torch.Generator().manual_seed(seed))
    return F.interpolate(logits, size=size, mode="bilinear", align_corners=False).softmax(1)[0].numpy()


def _on_cpu(images: list[NDArray[np.uint8]], scores: list[NDArray[np.float32]]) -> tuple[list[NDArray[np.int64]], float]:
    """Labels (H, W) of each photo by the CPU, and images per second on all its cores."""
    dense_crf(images[0], scores[0], SPEC)  # compiles
    started = time.perf_counter()
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        refined = list(pool.map(partial(dense_crf, spec=SPEC), images, scores))
    return [values.argmax(axis=0) for values in refined], len(images) / (time.perf_counter() - started)


def _timed(call: Callable[[], Any]) -> tuple[float, int]:
    """(seconds of a call, the median of SECONDS; peak bytes of its tensors)."""
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    seconds: list[float] = []
    while sum(seconds) < SECONDS or len(seconds) < 3:
        started = time.perf_counter()
        call()
        torch.cuda.synchronize()
        seconds.append(time.perf_counter() - started)
    return float(np.median(seconds)), torch.cuda.max_memory_allocated()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, default=PHOTOS)
    parser.add_argument("--count", type=int, default=32)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--profile", action="store_true", help="also print which kernels take the time")
    arguments = parser.parse_args()
    images = photos(arguments.photos, arguments.count)
    figures = []
    for figure in chain(cases(images), parts(images, 4), parts(images, 21), predict(images)):
        figures.append(figure)
        print(json.dumps(figure), flush=True)
    if arguments.profile:
        for labels in (4, 21):
            print(profile(images, labels), flush=True)
    if arguments.json:
        arguments.json.write_text(
            json.dumps({"format": "excel-gpu-crf/1", "figures": figures}, indent=1) + "\n", encoding="utf-8"
        )


if __name__ == "__main__":
    main()
