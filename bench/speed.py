"""excel's hot functions and its static chain beside the published way, at ViT-B/16's size on real photos: `make bench`.

    python -m bench.speed [--photos DIR] [--rounds 5] [--json FILE] [--only NAME]

Weights are random but seeded: speed does not depend on them. PHOTOS is a folder in VOC's layout with labels.csv; no mask is
opened. Every case checks that both ways compute the same. A round takes the next photo.
"""

import argparse
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import flows  # noqa: F401  before torch

import numpy as np  # isort: skip
import torch
from numpy.typing import NDArray
from torch import Tensor

from bench import published
from bench.alternating import Case, measure
from bench.peers import peer_cases
from bench.scene import CLASSES, PHOTOS, Scene
from bench.tables import speed_row
from bench.weclip import weclip_cases
from excel_core.cams.affinity import affinity_cams, rescaled
from excel_core.cams.crf import dense_crf
from excel_core.cams.par import pixel_adaptive_refinement
from excel_core.cams.patch_text import patch_text_cams
from excel_core.cams.pseudo_labels import refine_maps
from excel_core.cams.seeds import patch_attention, static_cams
from excel_core.config import SegmenterSpec
from excel_core.datasets.images import read_image
from excel_core.datasets.palette import save_labels_png
from excel_core.models.segmenter import Segmenter
from excel_core.stores import CamReader, join_cams, write_cams
from excel_core.training.batches import Batch
from excel_core.training.optimiser import learning_rate
from excel_core.training.samples import plain_sample
from excel_core.training.step import training_step

CORES = len(os.sched_getaffinity(0))
Labels = NDArray[np.uint8]
Call = Callable[[int], Any]


def cases(scene: Scene, rounds: int) -> Iterator[Case]:
    """Everything that is compared, the small before the large."""
    few = max(3, rounds // 2)
    yield from _refinement(scene, rounds)
    yield from _crf(scene, rounds, few)
    yield from _tower(scene, rounds)
    yield from peer_cases(scene, rounds)
    yield from _chains(scene, rounds)
    for dynamic in (False, True):
        yield _training(scene, dynamic, few)
    yield from weclip_cases(scene, few)


def _by_photo(scene: Scene, call: Call) -> Call:
    """`call`, a function of a photo's number, as a function of the round: photos take turns."""
    return torch.inference_mode()(lambda number: call(number % len(scene.paths)))


def _refinement(scene: Scene, rounds: int) -> Iterator[Case]:
    spec = scene.run.refine
    yield Case(
        "PAR of a photo, labels of the photo and background",
        _by_photo(scene, lambda i: pixel_adaptive_refinement(scene.pixels[i], scene.maps[i], spec.par)),
        _by_photo(scene, lambda i: published.par(scene.pixels[i], scene.maps[i])),
        _largest_difference,
        rounds=rounds,
    )
    grids = torch.rand(3, 20, 20, generator=torch.Generator().manual_seed(3))
    attention = torch.rand(400, 400, generator=torch.Generator().manual_seed(4)).softmax(-1)
    yield Case(
        "affinity of three classes",
        lambda number: rescaled(affinity_cams(grids, attention, spec.affinity), spec.affinity.epsilon),
        lambda number: torch.stack([published.affinity(cam, attention, spec.affinity.threshold) for cam in grids]),
        _largest_difference,
        rounds=4 * rounds,
    )


def _crf(scene: Scene, rounds: int, few: int) -> Iterator[Case]:
    spec, count = scene.run.refine.crf, len(scene.paths)
    for image, probabilities in zip(scene.images, scene.probabilities, strict=True):
        dense_crf(image, probabilities, spec)  # compiles for each number of labels
    yield Case(
        "CRF of a pseudo label, one core",
        _by_photo(scene, lambda i: scene.label_of(i, dense_crf(scene.images[i], scene.probabilities[i], spec).argmax(axis=0))),
        _by_photo(scene, lambda i: published.crf_of_all_labels(scene.images[i], scene.among_all_labels[i]).argmax(axis=0)),
        _equal_labels,
        rounds=count,
    )
    yield Case(
        "CRF of all 21 labels, one core",
        _by_photo(scene, lambda i: dense_crf(scene.images[i], scene.spread[i], spec).argmax(axis=0)),
        _by_photo(scene, lambda i: published.crf_of_all_labels(scene.images[i], scene.spread[i]).argmax(axis=0)),
        _equal_labels,
        rounds=rounds,
    )

    def in_threads(number: int) -> list[Labels]:
        with ThreadPoolExecutor(CORES) as pool:
            refined = list(pool.map(partial(dense_crf, spec=spec), scene.images, scene.probabilities))
        return [scene.label_of(i, scores.argmax(axis=0)) for i, scores in enumerate(refined)]

    def on_one(number: int) -> list[Labels]:
        pairs = zip(scene.images, scene.among_all_labels, strict=True)
        return [published.crf_of_all_labels(image, scores).argmax(axis=0) for image, scores in pairs]

    name = f"CRF of {count} pseudo labels: threads on {CORES} cores, published "
    yield Case(f"{name}on one", in_threads, on_one, _equal_label_maps, items=count, rounds=few)
    with ProcessPoolExecutor(CORES, mp_context=get_context("spawn")) as pool:

        def in_processes(number: int) -> list[Labels]:
            refined = pool.map(published.crf_of_all_labels, scene.images, scene.among_all_labels)
            return [scores.argmax(axis=0) for scores in refined]

        yield Case(f"{name}in as many processes", in_threads, in_processes, _equal_label_maps, items=count, rounds=few)


def _tower(scene: Scene, rounds: int) -> Iterator[Case]:
    cam_model, spec = scene.cam_model, scene.run.cams

    def theirs(i: int) -> Tensor:
        encoded = published.encode(cam_model.clip, scene.inputs[i])
        return published.surgery(cam_model.clip.project(encoded.calibrated), scene.text, CLASSES)

    yield Case(
        "encoder with SVC and CAMs, a photo",
        _by_photo(scene, lambda i: static_cams(cam_model, scene.inputs[i]).cams.flatten(2)),
        _by_photo(scene, theirs),
        _largest_difference,
        rounds=rounds,
    )
    features = torch.randn(1, 401, 512, generator=torch.Generator().manual_seed(2))
    yield Case(
        "feature surgery, a photo",
        lambda number: patch_text_cams(features, scene.text, CLASSES, spec),
        lambda number: published.surgery(features, scene.text, CLASSES),
        _largest_difference,
        rounds=4 * rounds,
    )


def _chains(scene: Scene, rounds: int) -> Iterator[Case]:
    """From the photo's file to the PNG of its pseudo label, without CRF."""
    run, cam_model, folder = scene.run, scene.cam_model, Path(tempfile.mkdtemp(prefix="excel-bench-"))

    def save(labels: NDArray[Any]) -> Labels:
        save_labels_png(folder / "label.png", png_labels := labels.astype(np.uint8))
        return png_labels

    def save_refined(i: int, maps: dict[str, Tensor]) -> Labels:
        return save(scene.label_of(i, maps["par"].argmax(dim=0).numpy()))

    def ours(i: int) -> Labels:
        image = read_image(scene.paths[i])
        seeds = static_cams(cam_model, [image], run.refine)
        return save_refined(i, seeds.refined_maps(0, image, run.refine, scene.classes[i]))

    def in_two_stages(i: int, keep_attention: bool) -> Labels:
        """As a run does it: CAMs, and with `keep_attention` the attention, go through a store."""
        shard = Path(tempfile.mkdtemp(dir=folder))
        seeds = static_cams(cam_model, [read_image(scene.paths[i])], run.refine if keep_attention else None)
        cams = seeds.cams[0, list(scene.classes[i])].numpy()
        attention_to_keep = [] if seeds.attention is None else [seeds.attention[0].half().numpy()]
        write_cams(shard / "one", ["photo"], [scene.classes[i]], [cams], attention_to_keep)
        (shard / "cams.zarr").mkdir()
        (shard / "one" / "cams.zarr").rename(shard / "cams.zarr" / "one")
        join_cams(shard, {"one": shard / "one"})

        image, reader = read_image(scene.paths[i]), CamReader(shard)
        stored, network_input = reader.attention("photo"), cam_model.prepare([image])
        if stored is None:
            attention = patch_attention(cam_model, network_input, run.refine)[0]
        else:
            attention = torch.from_numpy(stored).float()
        stored_cams = torch.from_numpy(reader.read("photo")[1])
        return save_refined(i, refine_maps(image, network_input[0], stored_cams, attention, run.refine))

    def theirs(i: int) -> Labels:
        image = read_image(scene.paths[i])
        network_input = cam_model.prepare([image])
        return save(published.chain(cam_model.clip, scene.text, image, scene.classes[i], network_input, run).numpy())

    for name, way in {
        "static chain, photo to PNG": ours,
        "static chain in two stages, photo to PNG": partial(in_two_stages, keep_attention=True),
        "static chain in two stages, attention not kept": partial(in_two_stages, keep_attention=False),
    }.items():
        yield Case(name, _by_photo(scene, way), _by_photo(scene, theirs), _equal_labels, rounds=rounds)


def _training(scene: Scene, dynamic: bool, rounds: int) -> Case:
    """A step at the published batch, in float32, before or after LVC begins; weights go on from step to step on each side."""
    spec = scene.run.train.model_copy(update={"segmenter": SegmenterSpec(dropout=0), "precision": "fp32", "warmup": 0})
    chosen = [i % len(scene.paths) for i in range(spec.batch_size)]
    crops, classes = [scene.crop(i) for i in chosen], [scene.classes[i] for i in chosen]
    batch = Batch.of([plain_sample(crop, crop_classes) for crop, crop_classes in zip(crops, classes, strict=True)])
    pixels = torch.stack(crops).float()
    sides = {}
    for side in ("ours", "published"):
        torch.manual_seed(3)
        segmenter = Segmenter(12, 768, CLASSES, spec.segmenter).train()
        sides[side] = segmenter, torch.optim.AdamW(segmenter.parameters(), lr=spec.learning_rate)
    iteration = spec.dynamic_from if dynamic else 0

    def ours(number: int) -> float:
        return float(training_step(scene.cam_model, *sides["ours"], batch, iteration, spec, scene.run.refine).losses[0])

    def theirs(number: int) -> float:
        segmenter, optimiser = sides["published"]
        for parameters in optimiser.param_groups:
            parameters["lr"] = learning_rate(iteration, spec)
        step = (scene.clip, segmenter, optimiser, scene.text, pixels, classes, scene.run, dynamic)
        return float(published.training_step(*step))

    return Case(
        f"training step, batch {spec.batch_size}, {'with LVC' if dynamic else 'before LVC'}",
        ours,
        theirs,
        lambda a, b: {"relative difference of the loss": abs(a - b) / abs(b)},
        rounds=rounds,
    )


def _largest_difference(ours: Tensor, theirs: Tensor) -> dict[str, float]:
    return {"largest difference": float((ours - theirs).abs().max())}


def _equal_labels(ours: NDArray[Any], theirs: NDArray[Any]) -> dict[str, float]:
    return {"equal labels": float((ours == theirs).mean())}


def _equal_label_maps(ours: list[Labels], theirs: list[Labels]) -> dict[str, float]:
    return {"equal labels": min(float((a == b).mean()) for a, b in zip(ours, theirs, strict=True))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, default=PHOTOS)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--only", help="cases whose name contains this")
    arguments = parser.parse_args()
    torch.set_num_threads(CORES)
    results = []
    scene = Scene(arguments.photos)
    for case in cases(scene, arguments.rounds):
        if arguments.only and arguments.only not in case.name:
            continue
        results.append(measure(case))
        print(speed_row(results[-1]), flush=True)
    if arguments.json:
        machine = {"torch": torch.__version__, "threads": torch.get_num_threads(), "photos": len(scene.paths)}
        arguments.json.write_text(
            json.dumps({"format": "excel-speed/1", **machine, "cases": results}, indent=1) + "\n", encoding="utf-8"
        )


if __name__ == "__main__":
    main()
