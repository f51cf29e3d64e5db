"""excel's hot functions and its static chain beside the published way, at ViT-B/16's size on real photos: `make bench`.

    python -m bench.speed [--photos DIR] [--rounds 5] [--json FILE] [--only NAME]

Weights are random but seeded: speed does not depend on them. PHOTOS is a folder in VOC's layout with labels.csv; no mask is
opened. Every case checks that both ways compute the same.
"""

import argparse
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from functools import cached_property
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import flows  # noqa: F401  before torch

import numpy as np  # isort: skip
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from bench import published
from bench.alternating import Case, measure
from bench.tables import speed_row
from excel_core.affinity import affinity_cams
from excel_core.cams import patch_text_cams
from excel_core.clip import FrozenClip
from excel_core.config import RunSpec, SegmenterSpec
from excel_core.crf import dense_crf
from excel_core.datasets.images import read_image
from excel_core.datasets.labels import read_labels_csv
from excel_core.palette import save_labels_png
from excel_core.par import pixel_adaptive_refinement
from excel_core.presets import preset
from excel_core.seeds import Vision, refine_maps
from excel_core.segmenter import Segmenter
from excel_core.training import Sample, learning_rate, training_step
from tasks.inputs.prompt_files import class_set

PHOTOS = Path(__file__).parent.parent.parent / "shared" / "data" / "VOC2012"
CLASSES, BACKGROUND, SIDE = 20, 25, 320
Labels = NDArray[np.uint8]


class Scene:
    """What the cases share, made when it is first asked for."""

    def __init__(self, photos: Path, count: int = 8) -> None:
        self.run: RunSpec = preset("voc")
        names = class_set(self.run, None).class_names
        labels = list(read_labels_csv(photos / "labels.csv", names).items())
        chosen = labels[:: max(1, len(labels) // count)][:count]
        self.paths = [photos / "JPEGImages" / f"{image}.jpg" for image, _ in chosen]
        self.classes = [tuple(names.index(name) for name in kept) for _, kept in chosen]

    @cached_property
    def images(self) -> list[Labels]:
        return [read_image(path) for path in self.paths]

    @cached_property
    def clip(self) -> FrozenClip:
        from open_clip.model import CLIP

        torch.manual_seed(0)
        vision = {"image_size": 224, "layers": 12, "width": 768, "patch_size": 16}
        text = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 1, "layers": 1}
        return FrozenClip(CLIP(512, vision, text, quick_gelu=True), None, "ViT-B/16, random")

    @cached_property
    def text(self) -> Tensor:
        return F.normalize(torch.randn(CLASSES + BACKGROUND, 512, generator=torch.Generator().manual_seed(1)), dim=-1)

    @cached_property
    def vision(self) -> Vision:
        return Vision(self.clip, self.text, CLASSES, self.run.cams)

    @cached_property
    def inputs(self) -> list[Tensor]:
        return [self.vision.prepare([image]) for image in self.images]

    def maps(self, index: int) -> Tensor:
        """Smooth maps of the image's classes with a background, (1, K+1, H, W)."""
        generator = torch.Generator().manual_seed(index)
        grid = torch.rand(1, len(self.classes[index]), 20, 20, generator=generator)
        full = F.interpolate(grid, size=self.images[index].shape[:2], mode="bilinear", align_corners=False)
        return torch.cat([1 - full.amax(dim=1, keepdim=True), full], dim=1)

    def probabilities(self, index: int, labels: int) -> NDArray[np.float32]:
        """(labels, H, W), each pixel summing to 1, from logits on a grid of patches."""
        generator = torch.Generator().manual_seed(index)
        grid = 3 * torch.randn(1, labels, 20, 20, generator=generator)
        full = F.interpolate(grid, size=self.images[index].shape[:2], mode="bilinear", align_corners=False)
        return torch.softmax(full, dim=1)[0].numpy()

    def crop(self, index: int) -> Tensor:
        """A photo as a training crop, (3, SIDE, SIDE) uint8."""
        square = Image.fromarray(self.images[index]).resize((SIDE, SIDE))
        return torch.from_numpy(np.array(square)).permute(2, 0, 1)


def cases(scene: Scene, rounds: int) -> Iterator[Case]:
    """Everything that is compared, the small before the large. A round takes the next photo."""
    spec, vision, count = scene.run, scene.vision, len(scene.paths)
    half = {"rounds": max(3, rounds // 2)}

    def pick(call: Callable[[int], Any]) -> Callable[[int], Any]:
        return torch.inference_mode()(lambda number: call(number % count))

    def pixels(i: int) -> Tensor:
        return torch.from_numpy(scene.images[i]).permute(2, 0, 1)[None].float()

    yield Case(
        "PAR of a photo, labels of the photo and background",
        pick(lambda i: pixel_adaptive_refinement(pixels(i), scene.maps(i), spec.refine.par)),
        pick(lambda i: published.par(pixels(i), scene.maps(i))),
        lambda ours, theirs: {"largest difference": float((ours - theirs).abs().max())},
        rounds=rounds,
    )

    def own(i: int) -> NDArray[np.float32]:
        """Probabilities (K+1, H, W) of background and the image's classes."""
        maps = scene.maps(i)[0]
        return (maps / maps.sum(dim=0)).numpy()

    def own_among_all(i: int) -> NDArray[np.float32]:
        """The same as the published code hands them over: all 21 labels, most of them nowhere."""
        full = np.zeros((CLASSES + 1, *scene.images[i].shape[:2]), np.float32)
        full[[0, *(c + 1 for c in scene.classes[i])]] = own(i)
        return full

    def own_labels(i: int, refined: NDArray[np.float32]) -> Labels:
        return np.array([0, *(c + 1 for c in scene.classes[i])])[refined.argmax(axis=0)]

    yield Case(
        "CRF of a pseudo label, one core",
        pick(lambda i: own_labels(i, dense_crf(scene.images[i], own(i), spec.refine.crf))),
        pick(lambda i: published.crf_of_all_labels(scene.images[i], own_among_all(i)).argmax(axis=0)),
        _same_labels,
        rounds=rounds,
    )
    yield Case(
        "CRF of all 21 labels, one core",
        pick(lambda i: dense_crf(scene.images[i], scene.probabilities(i, CLASSES + 1), spec.refine.crf).argmax(axis=0)),
        pick(lambda i: published.crf_of_all_labels(scene.images[i], scene.probabilities(i, CLASSES + 1)).argmax(axis=0)),
        _same_labels,
        rounds=rounds,
    )
    cores = len(os.sched_getaffinity(0))
    everywhere = scene.images, [own(i) for i in range(count)], [own_among_all(i) for i in range(count)]

    def in_threads(number: int) -> list[Labels]:
        with ThreadPoolExecutor(cores) as pool:
            work = [pool.submit(dense_crf, image, mine, spec.refine.crf) for image, mine in zip(*everywhere[:2], strict=True)]
            return [own_labels(i, found.result()) for i, found in enumerate(work)]

    yield Case(
        f"CRF of {count} pseudo labels: threads on {cores} cores, published on one",
        in_threads,
        lambda number: [
            published.crf_of_all_labels(*one).argmax(axis=0) for one in zip(everywhere[0], everywhere[2], strict=True)
        ],
        lambda ours, theirs: {
            "equal labels": min(_same_labels(a, b)["equal labels"] for a, b in zip(ours, theirs, strict=True))
        },
        items=count,
        **half,
    )
    with ProcessPoolExecutor(cores, mp_context=get_context("spawn")) as pool:
        yield Case(
            f"CRF of {count} pseudo labels: threads on {cores} cores, published in as many processes",
            in_threads,
            lambda number: [one.argmax(axis=0) for one in pool.map(published.crf_of_all_labels, everywhere[0], everywhere[2])],
            _same_label_maps,
            items=count,
            **half,
        )

    def cams_of(i: int) -> Tensor:
        return vision.cams(vision.encode(scene.inputs[i], whole=False))

    yield Case(
        "encoder with SVC and CAMs, a photo",
        pick(cams_of),
        pick(
            lambda i: published.surgery(
                vision.clip.project(published.encode(vision.clip, scene.inputs[i]).calibrated), scene.text, CLASSES
            )
        ),
        lambda ours, theirs: {"largest difference": float((ours.flatten(2) - theirs).abs().max())},
        rounds=rounds,
    )
    features = torch.randn(1, 401, 512, generator=torch.Generator().manual_seed(2))
    yield Case(
        "feature surgery, a photo",
        pick(lambda i: patch_text_cams(features, scene.text, CLASSES, spec.cams)),
        pick(lambda i: published.surgery(features, scene.text, CLASSES)),
        lambda ours, theirs: {"largest difference": float((ours - theirs).abs().max())},
        rounds=4 * rounds,
    )
    grids = torch.rand(3, 20, 20, generator=torch.Generator().manual_seed(3))
    attention = torch.rand(400, 400, generator=torch.Generator().manual_seed(4)).softmax(-1)
    yield Case(
        "affinity of three classes",
        pick(lambda i: affinity_cams(grids, attention, spec.refine.affinity)),
        pick(lambda i: torch.stack([published.affinity(cam, attention, spec.refine.affinity.threshold) for cam in grids])),
        lambda ours, theirs: {
            "largest difference": float(
                ((ours - ours.amin((1, 2), True)) / (ours.amax((1, 2), True) - ours.amin((1, 2), True)) - theirs).abs().max()
            )
        },
        rounds=4 * rounds,
    )
    yield from _chains(scene, rounds, pick)
    for dynamic in (False, True):
        yield _training(scene, dynamic, half["rounds"])


def _chains(scene: Scene, rounds: int, pick: Callable[[Callable[[int], Any]], Callable[[int], Any]]) -> Iterator[Case]:
    """From the photo's file to the PNG of its pseudo label, without CRF."""
    run, vision, folder = scene.run, scene.vision, Path(tempfile.mkdtemp(prefix="excel-bench-"))
    layers = run.refine.affinity.layers

    def save(labels: NDArray[Any]) -> Labels:
        save_labels_png(folder / "label.png", found := labels.astype(np.uint8))
        return found

    def labelled(i: int, image: Labels, cams: Tensor, kept: Tensor) -> Labels:
        maps = refine_maps(image, cams, kept, run.refine)["par"]
        return save(np.array([0, *(c + 1 for c in scene.classes[i])])[maps.argmax(dim=0).numpy()])

    def ours(i: int) -> Labels:
        image = read_image(scene.paths[i])
        encoded = vision.encode(vision.prepare([image]), layers, whole=False)
        cams = vision.cams(encoded)[0, list(scene.classes[i])]
        return labelled(i, image, cams, vision.attention(encoded.path, run.refine)[0])

    def in_two_stages(i: int) -> Labels:
        """As a run does it, whose CAMs are kept in half precision, so that a new refinement encodes for attention alone."""
        image = read_image(scene.paths[i])
        cams = vision.cams(vision.encode(vision.prepare([image]), whole=False))[0, list(scene.classes[i])].half().float()
        image = read_image(scene.paths[i])
        path = vision.encode_original(vision.prepare([image]), layers)
        return labelled(i, image, cams, vision.attention(path, run.refine)[0])

    def theirs(i: int) -> Labels:
        image = read_image(scene.paths[i])
        batch = vision.prepare([image])
        return save(published.chain(vision.clip, scene.text, image, scene.classes[i], batch, run).numpy())

    yield Case("static chain, photo to PNG", pick(ours), pick(theirs), _same_labels, rounds=rounds)
    yield Case("static chain in two stages, photo to PNG", pick(in_two_stages), pick(theirs), _same_labels, rounds=rounds)


def _training(scene: Scene, dynamic: bool, rounds: int) -> Case:
    """A step at the published batch, in float32, before or after LVC begins; weights go on from step to step on each side."""
    spec = scene.run.train.model_copy(update={"segmenter": SegmenterSpec(dropout=0), "precision": "fp32", "warmup": 0})
    chosen = [i % len(scene.paths) for i in range(spec.batch_size)]
    crops, classes = [scene.crop(i) for i in chosen], [scene.classes[i] for i in chosen]
    valid = torch.ones(SIDE, SIDE, dtype=torch.bool)
    batch = [Sample(crop, valid, kept) for crop, kept in zip(crops, classes, strict=True)]
    pixels = torch.stack(crops).float()
    sides = {}
    for side in ("ours", "published"):
        torch.manual_seed(3)
        segmenter = Segmenter(12, 768, CLASSES, spec.segmenter).train()
        sides[side] = segmenter, torch.optim.AdamW(segmenter.parameters(), lr=spec.learning_rate)
    at = spec.dynamic_from if dynamic else 0

    def ours(number: int) -> float:
        return float(training_step(scene.vision, *sides["ours"], batch, at, spec, scene.run.refine)[0])

    def theirs(number: int) -> float:
        segmenter, optimiser = sides["published"]
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(at, spec)
        step = (scene.clip, segmenter, optimiser, scene.text, pixels, classes, scene.run, dynamic)
        return float(published.training_step(*step))

    return Case(
        f"training step, batch {spec.batch_size}, {'with LVC' if dynamic else 'before LVC'}",
        ours,
        theirs,
        lambda a, b: {"relative difference of the loss": abs(a - b) / abs(b)},
        rounds=rounds,
    )


def _same_labels(ours: NDArray[Any], theirs: NDArray[Any]) -> dict[str, float]:
    return {"equal labels": float((ours == theirs).mean())}


def _same_label_maps(ours: list[Labels], theirs: list[Labels]) -> dict[str, float]:
    return {"equal labels": min(_same_labels(*both)["equal labels"] for both in zip(ours, theirs, strict=True))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, default=PHOTOS)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--only", help="cases whose name contains this")
    arguments = parser.parse_args()
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    results = []
    scene = Scene(arguments.photos)
    for case in cases(scene, arguments.rounds):
        if arguments.only and arguments.only not in case.name:
            continue
        results.append(measure(case))
        print(speed_row(results[-1]), flush=True)
    if arguments.json:
        about = {"torch": torch.__version__, "threads": torch.get_num_threads(), "photos": len(scene.paths)}
        arguments.json.write_text(json.dumps({"format": "excel-speed/1", **about, "cases": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
