"""Training on a GPU, part by part: loader, step, loop, and what each precision does to the losses.

    python -m bench.gpu_train --photos FOLDER [--parts loader,step,loop,losses] [--steps 30] [--tiny]

One line of JSON for each figure. `before` is, in the same process: of the loader, samples that the main thread puts together;
of the step, launches one by one, and `bench/published.py` beside it; of the loop, the same without CUDA graphs. A ViT-B/16 of
seeded random weights looks at real photos, each with one to three classes and made-up labels for the crop rule.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader, Dataset

from bench import published
from bench.plain_vit import random_clip
from excel_core.cams.cam_model import CamModel
from excel_core.config import RunSpec, TrainSpec
from excel_core.config.presets import preset
from excel_core.datasets.images import AS_STORED, read_header
from excel_core.datasets.palette import save_labels_png
from excel_core.models.checkpoints import Architecture
from excel_core.training.batches import Batch, Batches
from excel_core.training.captured import CapturedSteps
from excel_core.training.loading import loaded
from excel_core.training.loop import train
from excel_core.training.optimiser import make_optimiser
from excel_core.training.samples import LabelFile, Sample, TrainingImage
from excel_core.training.step import training_step

CLASSES, BACKGROUND = 20, 25
PRECISIONS = ("fp32", "tf32", "bf16", "fp16")
SINGLE = ("fp32", "bf16")  # also measured one by one
PHASES = {"before LVC": 60, "with LVC": 14_000, "own argmax": 24_000}  # an iteration of VOC's schedule in each
LOADER_SECONDS = 1.5
Row = dict[str, Any]


def cases(photos: Path, parts: Sequence[str], steps: int, tiny: bool = False) -> Iterator[Row]:
    """The figures of the parts, in order: what, ours, before, unit, peak MiB of tensors and of torch's reserve."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    run, cam_model = preset("voc"), _cam_model(device, tiny)
    if tiny:
        run = run.model_copy(update={"train": run.train.model_copy(update={"crop": 96})})
    with tempfile.TemporaryDirectory() as folder:
        images = _images(sorted(photos.glob("*.jpg")), Path(folder))
        rows: dict[str, Callable[[], Iterator[Row]]] = {
            "loader": lambda: _loader(images, run.train, device),
            "step": lambda: _step(cam_model, images, run, steps),
            "loop": lambda: _loop(cam_model, images, run, Path(folder), tiny),
            "losses": lambda: _losses(cam_model, images, run),
        }
        for part in parts:
            yield from rows[part]()


def _cam_model(device: torch.device, tiny: bool) -> CamModel:
    clip = random_clip(blocks=6, width=64, joint=32) if tiny else random_clip()
    clip.model.to(device)
    text = F.normalize(torch.randn(CLASSES + BACKGROUND, clip.joint_width, generator=torch.Generator().manual_seed(1)), dim=-1)
    return CamModel(clip, text.to(device), CLASSES, preset("voc").cams)


def _images(paths: Sequence[Path], folder: Path) -> list[TrainingImage]:
    """Photos with one to three classes and labels of three upright stripes, 600 in all."""
    images = []
    for i, path in enumerate(paths):
        header = read_header(path)
        classes = tuple(range(i % 7, i % 7 + 1 + i % 3))
        labels = np.zeros((header.height, header.width), np.uint8)
        labels[:, header.width // 3 :] = classes[0] + 1
        labels[:, 2 * header.width // 3 :] = classes[-1] + 1
        save_labels_png(folder / f"{path.stem}.png", labels)
        images.append(TrainingImage(path, classes, AS_STORED, LabelFile(folder / f"{path.stem}.png")))
    return images * max(1, 600 // len(images))


class _Apart(Dataset[list[Sample]]):
    """Batches as lists of samples, each of which travels on its own."""

    def __init__(self, batches: Batches) -> None:
        self.batches = batches

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, iteration: int) -> list[Sample]:
        size = self.batches.spec.batch_size
        return [self.batches.sample(position) for position in range(iteration * size, (iteration + 1) * size)]


def _loader(images: Sequence[TrainingImage], spec: TrainSpec, device: torch.device) -> Iterator[Row]:
    """Batches a second that arrive on the device, by workers."""
    for workers in (4, 8, 14):
        batches = Batches(images, spec.model_copy(update={"workers": workers}), slice(0, spec.batch_size))
        ours = _rate(batch.to(device) for _, batch in loaded(batches, 0, device))
        before: Any = DataLoader(_Apart(batches), batch_size=None, sampler=range(len(batches)), num_workers=workers)
        yield _row(
            f"loader alone, {workers} workers", ours, _rate(Batch.of(samples).to(device) for samples in before), "batches/s"
        )


def _rate(batches: Iterator[Batch]) -> float:
    """Batches a second, from the tenth on."""
    for _ in range(10):
        next(batches)
    started, count = time.perf_counter(), 0
    while time.perf_counter() - started < LOADER_SECONDS:
        next(batches)
        count += 1
    return count / (time.perf_counter() - started)


def _step(cam_model: CamModel, images: Sequence[TrainingImage], run: RunSpec, steps: int) -> Iterator[Row]:
    """Steps a second on one batch that is there already, by precision and phase."""
    batch = _batches(images, run.train, 1)[0]
    for name, iteration in PHASES.items():
        for precision in PRECISIONS:
            spec = run.train.model_copy(update={"precision": precision})
            ours, peak = _timed_steps(cam_model, spec, run, batch, iteration, steps, graph=True)
            before = None
            if precision in SINGLE:
                before, single_peak = _timed_steps(cam_model, spec, run, batch, iteration, steps // 3, graph=False)
                peak |= {f"before_{name}": value for name, value in single_peak.items()}
            yield _row(f"step alone, {name}, {precision}", ours, before, "it/s") | peak
        if name != "own argmax":
            yield _row(
                f"step alone, {name}, published", None, _published_rate(cam_model, run, batch, iteration, steps // 3), "it/s"
            )


def _timed_steps(
    cam_model: CamModel, spec: TrainSpec, run: RunSpec, batch: Batch, iteration: int, steps: int, graph: bool
) -> tuple[float, Row]:
    step = _Steps(cam_model, spec, run, graph)
    rate, peak = _timed(lambda: step(batch, iteration), steps)
    if step.captured is not None and step.captured.failed:
        peak["recorded"] = False
    return rate, peak


def _published_rate(cam_model: CamModel, run: RunSpec, batch: Batch, iteration: int, steps: int) -> float:
    torch.manual_seed(0)
    segmenter = _architecture(cam_model, run.train).build().to(cam_model.clip.device).train()
    optimiser = torch.optim.AdamW(segmenter.parameters(), lr=run.train.learning_rate)
    classes = [tuple(int(c) for c in row if c >= 0) for row in batch.slots]
    dynamic = iteration >= (run.train.dynamic_from or 0)

    def step() -> None:
        pixels = batch.to(cam_model.clip.device).pixels.float()
        published.training_step(cam_model.clip, segmenter, optimiser, cam_model.text, pixels, classes, run, dynamic)

    return _timed(step, steps)[0]


def _timed(step: Callable[[], None], steps: int) -> tuple[float, Row]:
    """Calls a second, after three to warm up, and peak memory, MiB, from before the first."""
    _reset_peak()
    for _ in range(3):
        step()
    _wait()
    started = time.perf_counter()
    for _ in range(steps):
        step()
    _wait()
    return steps / (time.perf_counter() - started), _peak()


def _loop(cam_model: CamModel, images: Sequence[TrainingImage], run: RunSpec, folder: Path, tiny: bool) -> Iterator[Row]:
    """Iterations a second of `train` over photos on disk. LVC begins at a third, own argmax at two thirds."""
    third = 4 if tiny else 60
    spec = run.train.model_copy(
        update={
            "iterations": 3 * third,
            "dynamic_from": third,
            "own_argmax_from": 2 * third,
            "keep_every": third // 2,  # the loop waits for the device there, so that times are true
            "checkpoint_every": 10**6,
        }
    )
    for precision in PRECISIONS:
        ours, peak = _loop_rates(cam_model, images, spec.model_copy(update={"precision": precision}), run, folder)
        slow = precision == "fp32"
        single = spec.model_copy(update={"precision": precision, "cuda_graph": False})
        before = _loop_rates(cam_model, images, single, run, folder)[0] if slow else [None] * 3
        for phase, rate, rate_before in zip(PHASES, ours, before, strict=True):
            yield _row(f"loop, {phase}, {precision}", rate, rate_before, "it/s") | peak


def _loop_rates(
    cam_model: CamModel, images: Sequence[TrainingImage], spec: TrainSpec, run: RunSpec, folder: Path
) -> tuple[list[float], Row]:
    """Rates in the second half of each phase, and the peak of memory."""
    times: dict[int, float] = {}
    file = folder / "checkpoint.pt"
    file.unlink(missing_ok=True)
    _reset_peak()
    train(
        cam_model, images, spec, run.refine, _architecture(cam_model, spec), file,
        on_snapshot=lambda done, _: times.update({done: time.perf_counter()}),
    )  # fmt: skip
    half = spec.keep_every or 1
    return [half / (times[end] - times[end - half]) for end in range(2 * half, spec.iterations + 1, 2 * half)], _peak()


def _losses(cam_model: CamModel, images: Sequence[TrainingImage], run: RunSpec) -> Iterator[Row]:
    """Relative difference of the losses of 50 steps, 25 of them with LVC, from those in fp32: from the same weights each step,
    and along a training of its own, where rounding grows as it does in any training."""
    spec = run.train.model_copy(update={"iterations": 50, "dynamic_from": 25, "own_argmax_from": None, "warmup": 5})
    batches = _batches(images, spec, spec.iterations)
    for same_weights in (True, False):
        exact = _Steps(cam_model, spec, run, graph=True)
        others = {"fp32 one by one": _Steps(cam_model, spec, run, graph=False)}
        for precision in PRECISIONS:
            others[precision] = _Steps(cam_model, spec.model_copy(update={"precision": precision}), run, graph=True)
        differences: dict[str, list[torch.Tensor]] = {name: [] for name in others}
        for iteration, batch in enumerate(batches):
            if same_weights:
                for other in others.values():
                    other.take_weights(exact)
            expected = exact(batch, iteration)
            for name, other in others.items():
                differences[name].append((other(batch, iteration) - expected).abs() / expected.abs())
        for name, rows in differences.items():
            relative = torch.stack(rows).cpu()
            for column, loss in enumerate(("total", "L_seg", "L_div")):
                how = "same weights" if same_weights else "own training"
                values = {"max": float(relative[:, column].max()), "median": float(relative[:, column].median())}
                yield {"what": f"loss {loss}, {name} against fp32, {how}", "unit": "relative difference"} | values


class _Steps:
    """Steps of a fresh segmenter, recorded or one by one."""

    def __init__(self, cam_model: CamModel, spec: TrainSpec, run: RunSpec, graph: bool) -> None:
        torch.manual_seed(0)
        self.segmenter = _architecture(cam_model, spec).build().to(cam_model.clip.device).train()
        self.cam_model, self.spec, self.run = cam_model, spec, run
        self.optimiser = make_optimiser(self.segmenter, spec)
        use = graph and torch.cuda.is_available()
        self.captured = CapturedSteps(cam_model, self.segmenter, self.optimiser, spec, run.refine) if use else None

    @torch.no_grad()
    def take_weights(self, other: "_Steps") -> None:
        """Begin the next step at the other's weights."""
        for ours, theirs in zip(self.segmenter.parameters(), other.segmenter.parameters(), strict=True):
            ours.copy_(theirs)

    def __call__(self, batch: Batch, iteration: int) -> torch.Tensor:
        torch.manual_seed(iteration)
        if self.captured is not None:
            return self.captured(batch, iteration)
        step = training_step(self.cam_model, self.segmenter, self.optimiser, batch, iteration, self.spec, self.run.refine)
        return step.losses


def _batches(images: Sequence[TrainingImage], spec: TrainSpec, count: int) -> list[Batch]:
    """The first batches of a training, in page-locked memory where there is a GPU."""
    batches = Batches(images, spec, slice(0, spec.batch_size))
    first = [batches[iteration] for iteration in range(count)]
    return [batch.pin_memory() for batch in first] if torch.cuda.is_available() else first


def _architecture(cam_model: CamModel, spec: TrainSpec) -> Architecture:
    return Architecture.of(cam_model.clip, [f"class {c}" for c in range(CLASSES)], spec.segmenter)


def _row(what: str, ours: float | None, before: float | None, unit: str) -> Row:
    return {"what": what, "ours": ours, "before": before, "unit": unit}


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _reset_peak() -> None:
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def _peak() -> Row:
    if not torch.cuda.is_available():
        return {}
    return {
        "peak_mib": torch.cuda.max_memory_allocated() / 2**20,
        "reserved_mib": torch.cuda.max_memory_reserved() / 2**20,
    }


def _profile(cam_model: CamModel, images: Sequence[TrainingImage], run: RunSpec, precision: str) -> None:
    """Print where the GPU's time goes in three replayed steps with LVC, and how much of the time it is busy."""
    from torch.profiler import ProfilerActivity, profile

    spec, batch = run.train.model_copy(update={"precision": precision}), _batches(images, run.train, 1)[0]
    step = _Steps(cam_model, spec, run, graph=True)
    for _ in range(3):
        step(batch, PHASES["with LVC"])
    _wait()
    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        started = time.perf_counter()
        for _ in range(3):
            step(batch, PHASES["with LVC"])
        _wait()
        seconds = time.perf_counter() - started
    kernels = sorted(profiler.key_averages(), key=lambda event: -event.self_device_time_total)
    busy = sum(event.self_device_time_total for event in kernels)
    count = sum(event.count for event in kernels)
    print(f"{precision}: {seconds / 3 * 1e3:.2f} ms a step, kernels {busy / 3e3:.2f} ms, {count // 3} a step", flush=True)
    for event in kernels[:28]:
        print(f"  {event.self_device_time_total / 3e3:7.3f} ms {event.count // 3:5d} x  {event.key[:110]}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, required=True, help="a folder of JPEG photos")
    parser.add_argument("--parts", default="step,loop,loader,losses")
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--profile", action="store_true", help="also the GPU's time by kernel, in fp32 and fp16")
    parser.add_argument("--tiny", action="store_true", help="a tower of 6 narrow blocks, to try the script itself")
    arguments = parser.parse_args()
    if arguments.profile:
        cam_model, run = _cam_model(torch.device("cuda"), arguments.tiny), preset("voc")
        with tempfile.TemporaryDirectory() as folder:
            images = _images(sorted(arguments.photos.glob("*.jpg")), Path(folder))
            for precision in ("fp32", "fp16"):
                _profile(cam_model, images, run, precision)
    for row in cases(arguments.photos, arguments.parts.split(","), arguments.steps, arguments.tiny):
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
