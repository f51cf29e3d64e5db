"""PAR, boxes and the stages cams, refine and dynamic on a GPU, each beside the way without Triton, and where their time goes.

    python -m bench.gpu_par --photos FOLDER [--only NAME] [--images 512] [--tiny]

Needs torch and Triton, and for the stages what the store is written with (zarr, pyarrow). A ViT-B/16 of seeded random weights
looks at the photos (*.jpg) of a folder, repeated to `--images` of them. The stages are called without cache and Prefect, from
files to files. Prints one JSON line per figure.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

import excel_core.cams.affinity
import excel_core.cams.cam_model
import excel_core.cams.par
from bench.device import classes_of
from bench.plain_vit import random_clip
from excel_core.cams.affinity import box_masks
from excel_core.cams.cam_model import CamModel
from excel_core.cams.packed_labels import packed_labels
from excel_core.cams.par import pixel_adaptive_refinement
from excel_core.cams.pseudo_labels import class_slots, refine_batch
from excel_core.cams.seeds import static_cams
from excel_core.config import ParSpec
from excel_core.config.presets import preset
from excel_core.datasets.images import read_image
from excel_core.datasets.jpeg import torchvision_decodes_alike
from excel_core.datasets.palette import save_labels_png

Case = dict[str, Any]
CLASSES, BACKGROUND = 20, 25
USES_TRITON = (excel_core.cams.par, excel_core.cams.affinity, excel_core.cams.cam_model)  # modules that ask `has_triton`


def cases(photos: Path, images: int = 512, tiny: bool = False, only: str = "") -> Iterator[Case]:
    """Every figure: what, ours, before (None where nothing compares), unit, peak_mib."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    paths = sorted(photos.rglob("*.jpg"))[:128]
    groups: dict[str, Callable[[], Iterator[Case]]] = {
        "kernels": lambda: kernels(device, tiny),
        "packed": lambda: packed(device, paths, tiny),
        "host": lambda: host(paths, tiny),
        "encoder": lambda: encoder(device, paths, tiny),
        "stages": lambda: stages(device, paths, images, tiny),
    }
    for name, group in groups.items():
        if only in name:
            try:
                yield from group()
            except ImportError as error:
                yield {"what": name, "skipped": str(error)}


def kernels(device: torch.device, tiny: bool) -> Iterator[Case]:
    """PAR and boxes of training's batches, and of photos of one native size."""
    for batch, (H, W), K in [(16, (320, 320), 3), (8, (375, 500), 3)]:
        if tiny:
            batch, H, W = 1, H // 8, W // 8
        image, maps = _smooth(batch, 3, H, W, 0).to(device) * 255, _smooth(batch, K, H, W, 1).to(device)
        results = {}
        for precision in ("fp32", "fp16"):
            spec = ParSpec(precision=precision)

            def par(image: Tensor = image, maps: Tensor = maps, spec: ParSpec = spec) -> Tensor:
                return pixel_adaptive_refinement(image, maps, spec)

            ours, peak = rate(par, batch, device)
            with without_triton():
                before, _ = rate(par, batch, device, 0.3)
                expected = par()
            results[precision] = par()
            same = float((results[precision].argmax(1) == expected.argmax(1)).float().mean())
            away = float((results[precision] - expected).abs().max())
            name = f"PAR {precision}, {batch} of {H}x{W}, {K} maps"
            yield case(name, ours, before, "images/s", peak, equal_labels=same, largest_difference=away)
    cams = _smooth(64, 1, 20, 20, 2)[:, 0].to(device)
    ours, peak = rate(lambda: box_masks(cams, 0.79), 64, device)
    with without_triton():
        before, _ = rate(lambda: box_masks(cams, 0.79), 64, device, 0.3)
    yield case("boxes of 64 maps of 20x20", ours, before, "maps/s", peak)
    for batch in (4,):
        pixels, grid = _smooth(batch, 3, 320, 320, 0).to(device) * 255, _smooth(batch, CLASSES, 20, 20, 3).to(device)
        attention = torch.rand(batch, 400, 400, device=device) ** 8
        slots = class_slots(classes_of(batch), 4).to(device)
        spec = preset("voc").refine

        def label(
            pixels: Any = pixels, slots: Any = slots, grid: Any = grid, attention: Any = attention, spec: Any = spec
        ) -> Tensor:
            return refine_batch(pixels, slots, grid, attention, spec)

        ours, peak = rate(label, batch, device)
        with without_triton():
            before, _ = rate(label, batch, device, 0.3)
        yield case(f"training's labels, batch {batch} at 320", ours, before, "images/s", peak)
        if device.type == "cuda":
            graph = torch.cuda.CUDAGraph()
            label()
            torch.cuda.synchronize()
            with torch.cuda.graph(graph):
                label()
            yield case(
                f"training's labels in a CUDA graph, batch {batch}",
                *rate(graph.replay, batch, device)[:1],
                before,
                "images/s",
                0,
            )


def packed(device: torch.device, paths: list[Path], tiny: bool) -> Iterator[Case]:
    """Affinity and PAR of photos of different sizes, from CAMs to labels on the host, by how many go together."""
    if device.type == "cpu":
        return
    run = preset("voc")
    images = [read_image(path) for path in paths[: 4 if tiny else 64]]
    for count in (2, 8, 16):
        part = images[:count]
        inputs, attention = (
            torch.randn(len(part), 3, 320, 320, device=device),
            torch.rand(len(part), 400, 400, device=device) ** 8,
        )
        cams, labels = _smooth(len(part), 3, 20, 20, 3).to(device), {}
        for precision in ("fp32", "fp16"):
            par = run.refine.par.model_copy(update={"precision": precision})
            crf = run.refine.crf.model_copy(update={"enabled": False})
            spec = run.refine.model_copy(update={"par": par, "crf": crf})

            def label(
                part: Any = part, inputs: Any = inputs, cams: Any = cams, attention: Any = attention, spec: Any = spec
            ) -> Any:
                return packed_labels(part, inputs, classes_of(len(part)), cams, attention, spec)

            ours, peak = rate(label, len(part), device)
            labels[precision] = label().labels.numpy()[-1]
            same = float((labels[precision] == labels["fp32"]).mean())
            name = f"affinity + PAR {precision} of {count} photos of their own sizes"
            yield case(name, ours, None, "images/s", peak, equal_labels=same)


def host(paths: list[Path], tiny: bool) -> Iterator[Case]:
    """What threads do in a second beside each other: decode photos, write label maps, read and write CAMs and attention."""
    from excel_core.stores import CamReader, CamWriter, join_cams

    repeats = 1 if tiny else 4
    some = paths[: 2 if tiny else 64]
    decoders: dict[str, Callable[[Path], Any]] = {"Pillow": read_image}
    if torchvision_decodes_alike():
        decoders["torchvision"] = partial(read_image, by_torchvision=True)
    labels = [(np.asarray(read_image(path))[..., 0] // 100).astype(np.uint8) for path in some]
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        for threads in (1, 8, torch.get_num_threads()):
            with ThreadPoolExecutor(threads) as pool:
                for name, decode in decoders.items():
                    speed = _through(pool, decode, some * repeats)
                    yield case(f"photos decoded by {name}, {threads} threads", speed, None, "images/s", 0)
                files = [(folder / f"{i}.png", each) for i, each in enumerate(labels * repeats)]
                speed = _through(pool, lambda pair: save_labels_png(*pair), files)
                size = sum(path.stat().st_size for path, _ in files) / len(files)
                yield case(f"label maps written, {threads} threads", speed, None, "maps/s", 0, bytes=round(size))
        count, batch = (8, 8) if tiny else (256, 32)
        ids, random = [str(i) for i in range(count)], np.random.default_rng(0)
        cams = torch.from_numpy(random.random((batch, 2, 20, 20), dtype=np.float32)).half()
        attention = (torch.from_numpy(random.standard_normal((batch, 400, 400), dtype=np.float32)) * 2).softmax(-1).half()
        for name, kept in (("CAMs", None), ("CAMs and attention", attention)):
            target = folder / name
            (target / "all").mkdir(parents=True)
            first = CamWriter(folder / f"{name}, first", ids, [[1, 2]] * count)
            first.add(batch, cams, kept)
            first.close()  # by now all is imported
            started = time.perf_counter()
            with ThreadPoolExecutor(torch.get_num_threads()) as pool:
                writer = CamWriter(target, ids, [[1, 2]] * count, pool.submit)
                for _ in range(0, count, batch):
                    writer.add(batch, cams, kept)
                writer.close()
            seconds = time.perf_counter() - started
            size = sum(path.stat().st_size for path in target.rglob("*") if path.is_file()) / count
            yield case(f"{name} written, a shard of {count}", count / seconds, None, "images/s", 0, bytes=round(size))
            (target / "cams.zarr").rename(target / "shard")
            (target / "all" / "cams.zarr").mkdir()
            (target / "shard").rename(target / "all" / "cams.zarr" / "shard")
            join_cams(target / "all", {"shard": target})
            reader = CamReader(target / "all")
            groups = [ids[i : i + batch] for i in range(0, count, batch)]
            for threads in (1, 4):
                with ThreadPoolExecutor(threads) as pool:
                    speed = batch * _through(pool, reader.read_together, groups)
                    yield case(f"{name} read, {threads} threads", speed, None, "images/s", 0)


def encoder(device: torch.device, paths: list[Path], tiny: bool) -> Iterator[Case]:
    """CAMs of network inputs that are there already, and what makes network inputs of decoded photos."""
    run, batch = preset("voc"), 2 if tiny else 32
    clip = random_clip(blocks=6, width=64, joint=32) if tiny else random_clip()
    clip.model.to(device)
    text = F.normalize(torch.randn(CLASSES + BACKGROUND, clip.joint_width), dim=-1).to(device)
    images = [read_image(path) for path in paths[:batch]]
    for precision in ("fp32", "fp16"):
        model = CamModel(clip, text, CLASSES, run.cams.model_copy(update={"precision": precision}))
        with torch.inference_mode():
            inputs = model.prepare(images)
            if precision == "fp32":
                speed, peak = rate(lambda model=model: model.prepare(images), batch, device)
                yield case("network inputs of decoded photos", speed, None, "images/s", peak)
            for kept, refine in (("CAMs", None), ("CAMs and attention", run.refine)):
                speed, peak = rate(lambda m=model, x=inputs, r=refine: static_cams(m, x, r), batch, device)
                row = case(f"{kept} of ready inputs, {precision}, batch {batch}", speed, None, "images/s", peak)
                yield row | {"kernels": kernel_times(lambda m=model, x=inputs, r=refine: static_cams(m, x, r))}


def stages(device: torch.device, paths: list[Path], images: int, tiny: bool) -> Iterator[Case]:
    """cams, refine and dynamic of a shard, from files to files."""
    from bench.stage_jobs import StageJobs

    with tempfile.TemporaryDirectory() as scratch:
        jobs = StageJobs(Path(scratch), paths, 4 if tiny else images, device, tiny)
        for precision in ("fp32", "fp16"):
            for keep in (True, False):
                edits = {"cams": {"precision": precision, "batch_size": 32}, "shards": {"keep_attention": keep}}
                yield jobs.case(f"cams {precision}, attention {'kept' if keep else 'not kept'}", "cams", edits)
        for par, crf, keep in (
            ("fp32", False, True), ("fp16", False, True), ("fp16", False, False), ("fp32", True, True), ("fp16", True, True)
        ):  # fmt: skip
            edits = {"cams": {"precision": "fp16", "batch_size": 32}, "shards": {"keep_attention": keep}}
            edits["refine"] = {"par": {"precision": par}, "crf": {"enabled": crf}}
            what = f"refine {'with' if crf else 'without'} CRF, PAR {par}, attention {'kept' if keep else 'encoded again'}"
            yield jobs.case(what, "refine", edits)
        for crf in (False, True):
            edits = {"cams": {"precision": "fp16", "batch_size": 32}, "refine": {"crf": {"enabled": crf}}}
            yield jobs.case(f"dynamic {'with' if crf else 'without'} CRF", "dynamic", edits)


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


def _smooth(batch: int, channels: int, H: int, W: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(batch, channels, 12, 12, generator=generator)
    noise = 0.02 * torch.rand(batch, channels, H, W, generator=generator)
    return (F.interpolate(coarse, size=(H, W), mode="bicubic") + noise).clamp(0, 1)


def _through(pool: ThreadPoolExecutor, call: Callable[[Any], Any], items: list[Any]) -> float:
    """Items per second."""
    started = time.perf_counter()
    list(pool.map(call, items))
    return len(items) / (time.perf_counter() - started)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--only", default="", help="kernels, packed, host, encoder or stages")
    parser.add_argument("--tiny", action="store_true", help="small pictures and a small tower, to try the script itself")
    arguments = parser.parse_args()
    for row in cases(arguments.photos, arguments.images, arguments.tiny, arguments.only):
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
