"""Training on a GPU, part by part: loader, step, loop, and what each precision does to losses and labels.

    python -m bench.gpu_train --photos DIR [--parts step,loop,loader,losses] [--tiny]

One line of JSON for each figure. `before` is, in the same process: of the loader, samples that the main thread puts together;
of step and loop, the same without CUDA graphs. `published` is the step of `bench/published.py`. A ViT-B/16 of seeded random
weights looks at the photos of DIR, in VOC's layout, with their image-level labels and made-up label maps for the crop rule.
Memory is that of torch's tensors, each case on its own.
"""

import argparse
import gc
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from bench import published
from bench.gpu_loader import loader
from bench.scene import Scene
from bench.training_subject import TrainingSubject, plain_cam_model, striped_images
from excel_core.config import TrainSpec
from excel_core.config.presets import preset
from excel_core.training.batches import Batch
from excel_core.training.captured import CapturedSteps
from excel_core.training.loop import train
from excel_core.training.optimiser import make_optimiser
from excel_core.training.step import StepResult, training_step

__all__ = ["cases"]

PARTS = ("step", "loop", "loader", "losses")
PRECISIONS = ("fp32", "tf32", "bf16", "fp16")
PHASES = {"before LVC": 60, "with LVC": 14_000, "own argmax": 24_000}  # an iteration of VOC's schedule in each
WARM_UPS, STEPS, SLOW_STEPS = 3, 24, 8
LOOP, SLOW_LOOP = 60, 30  # iterations of each phase
STRETCH = 10  # iterations that are timed together
COMPARED = 40  # steps, half of them with LVC
Row = dict[str, Any]


def cases(photos: Path, parts: Sequence[str] = PARTS, tiny: bool = False) -> Iterator[Row]:
    """The figures of the parts, in order: what, unit, ours, before, published, MiB."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    run, cam_model = preset("voc"), plain_cam_model(device, tiny)
    if tiny:
        run = run.model_copy(update={"train": run.train.model_copy(update={"crop": 96})})
    with tempfile.TemporaryDirectory() as folder:
        subject = TrainingSubject(cam_model, striped_images(Scene(photos, 1000), Path(folder)), run, Path(folder))
        rows: dict[str, Callable[[TrainingSubject], Iterator[Row]]] = {
            "step": _step,
            "loop": _loop,
            "loader": loader,
            "losses": _losses,
        }
        for part in parts:
            yield from rows[part](subject)


def _step(subject: TrainingSubject) -> Iterator[Row]:
    """Steps a second on one batch that is there already, by phase and precision."""
    [batch] = subject.batches(1)
    for phase in ("before LVC", "with LVC"):
        iteration = PHASES[phase]
        published_rate = _published_rate(subject, batch, phase)
        for precision in PRECISIONS:
            spec = subject.spec(precision=precision)
            ours, peak = _timed(_Steps(subject, spec, graph=True), batch, iteration, STEPS)
            row = {"what": f"step alone, {phase}, {precision}", "unit": "it/s", "ours": ours, **peak}
            if precision == "fp32":
                row["before"], _ = _timed(_Steps(subject, spec, graph=False), batch, iteration, SLOW_STEPS)
            yield row | {"published": published_rate}


class _Steps:
    """Steps of a fresh segmenter, recorded or one by one."""

    def __init__(self, subject: TrainingSubject, spec: TrainSpec, graph: bool) -> None:
        _empty_memory()
        self.cam_model, self.spec, self.refine = subject.cam_model, spec, subject.run.refine
        self.segmenter = subject.segmenter()
        self.optimiser = make_optimiser(self.segmenter, spec)
        self.captured: CapturedSteps | None = None
        if graph and subject.device.type == "cuda":
            self.captured = CapturedSteps(self.cam_model, self.segmenter, self.optimiser, spec, self.refine)

    def __call__(self, batch: Batch, iteration: int) -> None:
        if self.captured is not None:
            self.captured(batch, iteration)
            return
        training_step(self.cam_model, self.segmenter, self.optimiser, batch, iteration, self.spec, self.refine)


def _published_rate(subject: TrainingSubject, batch: Batch, phase: str) -> float:
    """Steps a second of the published way, in float32."""
    _empty_memory()
    segmenter, clip = subject.segmenter(), subject.cam_model.clip
    optimiser = torch.optim.AdamW(segmenter.parameters(), lr=subject.run.train.learning_rate)
    classes = [tuple(int(c) for c in row if c >= 0) for row in batch.slots]

    def step(batch: Batch, iteration: int) -> None:
        pixels = batch.to(subject.device).pixels.float()
        dynamic = phase != "before LVC"
        published.training_step(clip, segmenter, optimiser, subject.cam_model.text, pixels, classes, subject.run, dynamic)

    return _timed(step, batch, PHASES[phase], SLOW_STEPS)[0]


def _timed(step: Callable[[Batch, int], None], batch: Batch, iteration: int, steps: int) -> tuple[float, Row]:
    """Calls a second after some to warm up, and peak memory from before the first."""
    for _ in range(WARM_UPS):
        step(batch, iteration)
    _wait()
    started = time.perf_counter()
    for _ in range(steps):
        step(batch, iteration)
    _wait()
    return steps / (time.perf_counter() - started), _peak()


def _loop(subject: TrainingSubject) -> Iterator[Row]:
    """Iterations a second of `train` over photos on disk, by phase and precision; recording is not in the median."""
    [batch] = subject.batches(1)
    published_rates = {phase: _published_rate(subject, batch, phase) for phase in ("before LVC", "with LVC")}
    for precision in PRECISIONS:
        ours, peak = _loop_rates(subject, subject.spec(precision=precision), LOOP)
        before: Sequence[float | None] = [None] * len(PHASES)
        if precision == "fp32":
            before, _ = _loop_rates(subject, subject.spec(cuda_graph=False), SLOW_LOOP)
        for phase, rate, rate_before in zip(PHASES, ours, before, strict=True):
            row = {"what": f"loop, {phase}, {precision}", "unit": "it/s", "ours": rate, "before": rate_before, **peak}
            yield row | {"published": published_rates.get(phase)}


def _loop_rates(subject: TrainingSubject, spec: TrainSpec, length: int) -> tuple[list[float], Row]:
    """The median rate of each phase over stretches, but the first, and the peak of the whole training's memory."""
    times: dict[int, float] = {}
    spec = spec.model_copy(
        update={
            "iterations": len(PHASES) * length,
            "dynamic_from": length,
            "own_argmax_from": 2 * length,
            "keep_every": STRETCH,  # the loop waits for the device there, so that times are true
            "checkpoint_every": 10**6,
        }
    )
    file = subject.folder / "checkpoint.pt"
    file.unlink(missing_ok=True)
    _empty_memory()
    train(
        subject.cam_model, subject.images, spec, subject.run.refine, subject.architecture(), file,
        on_snapshot=lambda done, _: times.update({done: time.perf_counter()}),
    )  # fmt: skip
    rates = []
    for start in range(0, spec.iterations, length):
        ends = range(start + 2 * STRETCH, start + length + 1, STRETCH)
        rates.append(STRETCH / statistics.median(times[end] - times[end - STRETCH] for end in ends))
    return rates, _peak()


def _losses(subject: TrainingSubject) -> Iterator[Row]:
    """How far a step's loss and pseudo labels in each precision are from those in fp32 at the same weights: those of a training
    in fp32, half of it with LVC."""
    changes = {"iterations": COMPARED, "dynamic_from": COMPARED // 2, "own_argmax_from": None, "warmup": 5}
    batches, exact = subject.batches(COMPARED), _Steps(subject, subject.spec(**changes), graph=False)
    others = {name: _Steps(subject, subject.spec(precision=name, **changes), graph=False) for name in PRECISIONS[1:]}
    differences: dict[str, list[torch.Tensor]] = {name: [] for name in others}
    equal: dict[str, list[torch.Tensor]] = {name: [] for name in others}
    for iteration, batch in enumerate(batches):
        weights = {name: value.clone() for name, value in exact.segmenter.state_dict().items()}
        expected = _one(exact, batch, iteration)
        for name, other in others.items():
            other.segmenter.load_state_dict(weights)
            result = _one(other, batch, iteration)
            differences[name].append((result.losses[0] - expected.losses[0]).abs() / expected.losses[0])
            equal[name].append((result.labels == expected.labels).float().mean())
    for name in others:
        relative, share = torch.stack(differences[name]), float(torch.stack(equal[name]).mean())
        what = f"loss of a step in {name} against fp32, median (largest {float(relative.max()):.2g})"
        yield {"what": what, "unit": "relative difference", "ours": float(relative.median()), "equal_labels": share}


def _one(steps: _Steps, batch: Batch, iteration: int) -> StepResult:
    """A step with the dropout of its iteration."""
    torch.manual_seed(iteration)
    return training_step(steps.cam_model, steps.segmenter, steps.optimiser, batch, iteration, steps.spec, steps.refine)


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _empty_memory() -> None:
    """Give back what earlier cases held, cuBLAS' workspaces with it, and measure from here on."""
    gc.collect()
    if torch.cuda.is_available():
        torch._C._cuda_clearCublasWorkspaces()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def _peak() -> Row:
    if not torch.cuda.is_available():
        return {}
    peaks = {"peak_mib": torch.cuda.max_memory_allocated(), "reserved_mib": torch.cuda.max_memory_reserved()}
    return {name: peak / 2**20 for name, peak in peaks.items()}


def main() -> None:
    """Print a line of JSON a figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, required=True, help="a folder in VOC's layout, with labels.csv")
    parser.add_argument("--parts", default=",".join(PARTS))
    parser.add_argument("--tiny", action="store_true", help="a tower of 6 narrow blocks, to try the script itself")
    arguments = parser.parse_args()
    for row in cases(arguments.photos, arguments.parts.split(","), arguments.tiny):
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
