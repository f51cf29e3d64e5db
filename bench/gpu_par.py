"""PAR, boxes and the stages cams, refine and dynamic on a GPU, each beside the way without Triton, and where their time goes.

    python -m bench.gpu_par --photos FOLDER [--only NAME] [--images 512] [--tiny]

Needs torch and Triton, and for the stages what the store is written with (zarr, pyarrow). A ViT-B/16 of seeded random weights
looks at the photos (*.jpg) of a folder, repeated to `--images` of them. The stages are called without cache and Prefect, from
files to files. Prints one JSON line per figure.
"""

import argparse
import json
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F

from bench.device import classes_of
from bench.gpu_host import host
from bench.gpu_timing import Case, case, kernel_times, rate, smooth, without_triton
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

CLASSES, BACKGROUND = 20, 25


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
    """PAR and boxes of training's batches, and of photos of one native size; training's labels."""
    shrink = 8 if tiny else 1
    for batch, (H, W), K in [(16, (320, 320), 3), (8, (375, 500), 3)]:
        yield from _par(device, 1 if tiny else batch, H // shrink, W // shrink, K)
    cams = smooth(64, 1, 20, 20, 2)[:, 0].to(device)
    ours, peak = rate(lambda: box_masks(cams, 0.79), 64, device)
    with without_triton():
        before, _ = rate(lambda: box_masks(cams, 0.79), 64, device, 0.3)
    yield case("boxes of 64 maps of 20x20", ours, before, "maps/s", peak)
    yield from _training_labels(device, 4)


def _par(device: torch.device, batch: int, H: int, W: int, K: int) -> Iterator[Case]:
    """PAR of K maps in each precision, beside torch's operations."""
    image, maps = smooth(batch, 3, H, W, 0).to(device) * 255, smooth(batch, K, H, W, 1).to(device)
    for precision in ("fp32", "fp16"):
        call = partial(pixel_adaptive_refinement, image, maps, ParSpec(precision=precision))
        ours, peak = rate(call, batch, device)
        with without_triton():
            before, _ = rate(call, batch, device, 0.3)
            expected = call()
        refined = call()
        same = float((refined.argmax(1) == expected.argmax(1)).float().mean())
        away = float((refined - expected).abs().max())
        name = f"PAR {precision}, {batch} of {H}x{W}, {K} maps"
        yield case(name, ours, before, "images/s", peak, equal_labels=same, largest_difference=away)


def _training_labels(device: torch.device, batch: int) -> Iterator[Case]:
    """From CAMs to the labels of a training step, alone and in a CUDA graph."""
    pixels, grid = smooth(batch, 3, 320, 320, 0).to(device) * 255, smooth(batch, CLASSES, 20, 20, 3).to(device)
    attention = torch.rand(batch, 400, 400, device=device) ** 8
    slots = class_slots(classes_of(batch), 4).to(device)
    label = partial(refine_batch, pixels, slots, grid, attention, preset("voc").refine)
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
        replayed, _ = rate(graph.replay, batch, device)
        yield case(f"training's labels in a CUDA graph, batch {batch}", replayed, before, "images/s", 0)


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
        cams, labels = smooth(len(part), 3, 20, 20, 3).to(device), {}
        for precision in ("fp32", "fp16"):
            par = run.refine.par.model_copy(update={"precision": precision})
            crf = run.refine.crf.model_copy(update={"enabled": False})
            spec = run.refine.model_copy(update={"par": par, "crf": crf})

            label = partial(packed_labels, part, inputs, classes_of(len(part)), cams, attention, spec)
            ours, peak = rate(label, len(part), device)
            labels[precision] = label().labels.numpy()[-1]
            same = float((labels[precision] == labels["fp32"]).mean())
            name = f"affinity + PAR {precision} of {count} photos of their own sizes"
            yield case(name, ours, None, "images/s", peak, equal_labels=same)


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
