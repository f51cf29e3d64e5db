"""Training on a GPU: recorded steps compute what single ones do, resume is exact, and what cannot be recorded still runs.

Run without the conftest: python -m pytest --noconftest -p no:cacheprovider tests/core/test_gpu_train.py
"""

import gc
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from bench.plain_vit import random_clip
from excel_core.cams.cam_model import CamModel
from excel_core.config import CamSpec, RefineSpec, SegmenterSpec, TrainSpec
from excel_core.models.checkpoints import Architecture, load_checkpoint
from excel_core.models.clip import FrozenClip
from excel_core.training.batches import Batch
from excel_core.training.captured import CapturedSteps
from excel_core.training.enlarge import enlarged
from excel_core.training.loop import LossRow, _seeded, train
from excel_core.training.optimiser import make_optimiser
from excel_core.training.samples import TrainingArray, plain_sample
from excel_core.training.step import training_step

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
GPU = torch.device("cuda")
CLASSES = 8
SPEC = TrainSpec(
    segmenter=SegmenterSpec(width=32, layers=2, heads=2),
    iterations=12,
    batch_size=3,
    crop=112,
    warmup=2,
    dynamic_from=4,
    own_argmax_from=8,
    checkpoint_every=3,
    workers=2,
)
REFINE = RefineSpec.model_validate({"par": {"iterations": 4}, "affinity": {"layers": 3}})


@pytest.fixture(scope="module")
def cam_model() -> CamModel:
    clip = random_clip(blocks=5, width=128, joint=32)
    clip.model.to(GPU)
    text = F.normalize(torch.randn(CLASSES + 3, 32, generator=torch.Generator().manual_seed(1)), dim=1)
    return CamModel(clip, text.to(GPU), CLASSES, CamSpec.model_validate({"image_size": 112, "calibration": {"depth": 3}}))


def _on_cpu(cam_model: CamModel) -> CamModel:
    clip = random_clip(blocks=5, width=128, joint=32)
    return replace(cam_model, clip=clip, text=cam_model.text.cpu())


def _images() -> list[TrainingArray]:
    """Photos of odd sizes, with one to six classes, so that batches have one to more than four slots."""
    rng = np.random.default_rng(0)
    images = []
    for i, classes in enumerate([(0,), (1, 2), (2,), (3, 4, 5), (), (0, 1, 2, 3, 4, 6), (7,)]):
        coarse = rng.integers(0, 255, (5, 6, 3), dtype=np.uint8)
        pixels = np.kron(coarse, np.ones((19 + 4 * i, 21, 1), dtype=np.uint8))
        images.append(TrainingArray(np.ascontiguousarray(pixels), classes))
    return images


def _batches() -> list[Batch]:
    generator = torch.Generator().manual_seed(0)
    batches = []
    for classes in [[(0,), (1,), ()], [(1, 2), (3,), (0, 1)], [(0, 1, 2, 3, 5), (1,), (4,)]] * 4:
        coarse = torch.rand(3, 3, 7, 7, generator=generator)
        pixels = (F.interpolate(coarse, size=(112, 112), mode="bicubic") * 255).clamp(0, 255).byte()
        batches.append(Batch.of([plain_sample(p, c) for p, c in zip(pixels, classes, strict=True)]).pin_memory())
    return batches


def _architecture(spec: TrainSpec = SPEC) -> Architecture:
    return Architecture("small", 5, 128, tuple("abcdefgh"), spec.segmenter)


def _steps(cam_model: CamModel, spec: TrainSpec, graph: bool) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Losses (12, 3) of twelve steps, four in each phase, and the weights after them."""
    torch.manual_seed(0)
    segmenter = _architecture(spec).build().to(cam_model.clip.device).train()
    optimiser = make_optimiser(segmenter, spec)
    captured = CapturedSteps(cam_model, segmenter, optimiser, spec, REFINE) if graph else None
    losses = []
    for iteration, batch in enumerate(_batches()):
        with _seeded(spec.seed, iteration + 1):
            if captured is not None:
                losses.append(captured(batch, iteration))
            else:
                losses.append(training_step(cam_model, segmenter, optimiser, batch, iteration, spec, REFINE).losses)
    assert captured is None or not captured.failed
    return torch.stack(losses).cpu(), [parameter.detach().cpu() for parameter in segmenter.parameters()]


def test_a_step_waits_for_nothing(cam_model: CamModel) -> None:
    torch.manual_seed(0)
    segmenter = _architecture().build().to(GPU).train()
    optimiser = make_optimiser(segmenter, SPEC)
    batches = _batches()
    for iteration in (0, 4, 8):
        training_step(cam_model, segmenter, optimiser, batches[0], iteration, SPEC, REFINE)
    with _waiting_is_an_error():
        for iteration in (1, 5, 9):
            training_step(cam_model, segmenter, optimiser, batches[0], iteration, SPEC, REFINE)


@contextmanager
def _waiting_is_an_error() -> Iterator[None]:
    """Within the block, what waits for the GPU raises RuntimeError."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's, that it does not see all of it
            torch.cuda.set_sync_debug_mode("error")
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16", "fp16"])
def test_recorded_steps_are_those_on_their_own(cam_model: CamModel, precision: str) -> None:
    """Losses and weights, in all three phases, for batches of one to five slots (these rounded up to eight)."""
    spec = SPEC.model_copy(update={"precision": precision})
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    plain, weights = _steps(cam_model, spec, graph=False)
    recorded, same = _steps(cam_model, spec, graph=True)
    assert (torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32) == before
    exact = torch.equal(plain, recorded) and all(map(torch.equal, weights, same))
    print(precision, "bit-equal" if exact else f"losses differ by {(plain - recorded).abs().max()}")
    torch.testing.assert_close(recorded, plain, rtol=1e-4, atol=1e-6)
    assert torch.isfinite(recorded).all()


def test_the_same_training_twice(cam_model: CamModel) -> None:
    for graph in (False, True):
        first, weights = _steps(cam_model, SPEC, graph)
        second, again = _steps(cam_model, SPEC, graph)
        assert torch.equal(first, second) and all(map(torch.equal, weights, again))


def test_a_gpu_computes_what_a_cpu_does(cam_model: CamModel) -> None:
    """Without dropout, whose draws are each device's own. Labels may differ in single pixels."""
    spec = SPEC.model_copy(update={"segmenter": SPEC.segmenter.model_copy(update={"dropout": 0.0})})
    gpu, _ = _steps(cam_model, spec, graph=True)
    cpu, _ = _steps(_on_cpu(cam_model), spec, graph=False)
    torch.testing.assert_close(gpu[:2], cpu[:2], rtol=2e-3, atol=1e-4)


class _Killed(Exception):
    pass


def _trained(cam_model: CamModel, path: Path, spec: TrainSpec = SPEC, kill_at: int = -1) -> tuple[list[LossRow], list]:
    def progress(done: int) -> None:
        if done == kill_at:
            raise _Killed

    segmenter, losses = train(cam_model, _images(), spec, REFINE, _architecture(spec), path, progress)
    return losses, [parameter.detach().cpu() for parameter in segmenter.parameters()]


@pytest.mark.parametrize("kill_at", [2, 5, 7, 10])
def test_resume_is_bit_exact(cam_model: CamModel, tmp_path: Path, kill_at: int) -> None:
    losses, weights = _trained(cam_model, tmp_path / "a.pt")
    with pytest.raises(_Killed):
        _trained(cam_model, tmp_path / "b.pt", kill_at=kill_at)
    again, same = _trained(cam_model, tmp_path / "b.pt")
    assert again == losses and all(map(torch.equal, weights, same))


def test_a_checkpoint_goes_on_on_another_device(cam_model: CamModel, tmp_path: Path) -> None:
    for first, second in ((cam_model, _on_cpu(cam_model)), (_on_cpu(cam_model), cam_model)):
        path = tmp_path / f"{first.clip.device.type}.pt"
        with pytest.raises(_Killed):
            _trained(first, path, kill_at=4)
        [group] = load_checkpoint(path, _architecture())["optimiser"]["param_groups"]
        assert isinstance(group["lr"], float) and not group["capturable"] and not group["fused"]
        losses, _ = _trained(second, path)
        assert len(losses) == 12 and all(np.isfinite(row.loss) for row in losses)


def test_what_cannot_be_recorded_runs_on_its_own(cam_model: CamModel, capfd: pytest.CaptureFixture[str]) -> None:
    """A layer that waits for the GPU: nothing may within a recording."""
    torch.manual_seed(0)
    results = []
    for waits in (False, True):
        torch.manual_seed(0)
        segmenter = _architecture().build().to(GPU).train()
        if waits:
            segmenter.classifier.register_forward_hook(lambda module, inputs, output: output + 0 * output.sum().item())
        steps = CapturedSteps(cam_model, segmenter, make_optimiser(segmenter, SPEC), SPEC, REFINE)
        losses = []
        for iteration, batch in enumerate(_batches()):
            with _seeded(SPEC.seed, iteration + 1):
                losses.append(steps(batch, iteration))
        assert steps.failed == waits
        results.append(torch.stack(losses).cpu())
    torch.testing.assert_close(results[1], results[0], rtol=1e-4, atol=1e-6)
    assert capfd.readouterr().err.count("train: no CUDA graph, steps are launched one by one (") == 1


def test_the_peak_of_memory_counts_what_a_recording_takes(cam_model: CamModel) -> None:
    """The peak that a run's record has of a stage is torch's: that of steps on their own, about."""
    peaks = []
    for graph in (False, True):
        gc.collect()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        held = torch.cuda.memory_allocated()
        _steps(cam_model, SPEC, graph)
        peaks.append(torch.cuda.max_memory_allocated() - held)
    assert 0.9 * peaks[0] < peaks[1] < 1.2 * peaks[0] + 80 * 2**20  # cuBLAS' memory for the stream


def test_a_phase_that_is_over_leaves_no_memory(cam_model: CamModel) -> None:
    """After each phase's first recording as much is held, and after the training nothing of it."""
    gc.collect()
    torch.cuda.empty_cache()
    torch.manual_seed(0)
    segmenter = _architecture().build().to(GPU).train()
    steps = CapturedSteps(cam_model, segmenter, make_optimiser(segmenter, SPEC), SPEC, REFINE)
    batch, reserved = _batches()[1], []
    for iteration in (0, 4, 8):
        steps(batch, iteration)
        torch.cuda.synchronize()
        reserved.append(torch.cuda.memory_reserved())
    assert max(reserved) < 1.4 * reserved[0]
    del steps, segmenter
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.synchronize()
    assert torch.cuda.memory_reserved() < reserved[0]


class _WithTexts(nn.Module):
    """A CLIP of a small vision tower and a word embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.visual = random_clip(blocks=5, width=128, joint=32).visual
        self.bias = nn.Parameter(torch.randn(32))
        self.words = nn.Embedding(50_000, 32)

    def encode_text(self, tokens: torch.Tensor, normalize: bool) -> torch.Tensor:
        return F.normalize(self.words(tokens).mean(dim=1) + self.bias, dim=-1)


def test_the_text_tower_rests_on_the_cpu() -> None:
    torch.manual_seed(0)
    model = _WithTexts()
    model.visual.to(GPU)
    clip = FrozenClip(model, lambda texts: torch.tensor([[len(text), 3] for text in texts]))
    held = torch.cuda.memory_allocated()
    first = clip.encode_texts(["a cat.", "a dog, sitting."])
    assert model.words.weight.is_cuda and model.bias.is_cuda and torch.cuda.memory_allocated() > held + 32 * 50_000 * 4
    clip.park_text_tower()
    assert not model.words.weight.is_cuda and not model.bias.is_cuda and clip.device.type == "cuda"
    assert torch.cuda.memory_allocated() <= held + 2**20  # cuBLAS may have begun
    assert torch.equal(clip.encode_texts(["a cat.", "a dog, sitting."]), first)


def test_enlarging_has_torchs_gradient() -> None:
    small = torch.randn(2, 3, 5, 7, device=GPU, requires_grad=True)
    weight = torch.randn(2, 3, 80, 112, device=GPU)
    (F.interpolate(small, size=(80, 112), mode="bilinear", align_corners=False) * weight).sum().backward()
    expected, small.grad = small.grad, None
    large = enlarged(small, (80, 112))
    (large * weight).sum().backward()
    assert torch.equal(large, F.interpolate(small, size=(80, 112), mode="bilinear", align_corners=False))
    torch.testing.assert_close(small.grad, expected, rtol=1e-4, atol=1e-4)
