"""What a training step works on: a batch in memory, the optimiser's state on whichever device, enlarged logits' gradient."""

import pytest
import torch
import torch.nn.functional as F

from excel_core.config import SegmenterSpec, TrainSpec
from excel_core.models.checkpoints import Architecture, load_checkpoint, save_checkpoint
from excel_core.training.batches import Batch
from excel_core.training.enlarge import _Enlarge, enlarged
from excel_core.training.optimiser import load_optimiser, make_optimiser, set_learning_rate, stored_optimiser
from excel_core.training.samples import Sample

SPEC = TrainSpec(segmenter=SegmenterSpec(width=8, layers=1, heads=2))
SHAPE = Architecture("small", 2, 4, ("a", "b"), SPEC.segmenter)


def _sample(seed, classes, side=6):
    draw = torch.Generator().manual_seed(seed)
    pixels, labels = (torch.randint(0, 256, (c, side, side), generator=draw, dtype=torch.uint8) for c in (3, 1))
    return Sample(pixels, torch.rand(side, side, generator=draw) < 0.7, classes, labels[0])


def test_a_batch_holds_its_samples_in_two_tensors():
    samples = [_sample(0, (4,)), _sample(1, ()), _sample(2, (0, 3, 7))]
    batch = Batch.of(samples)
    assert batch.planes.dtype == torch.uint8 and batch.planes.shape == (3, 5, 6, 6) and batch.planes.is_contiguous()
    assert batch.slots.tolist() == [[4, -1, -1], [-1, -1, -1], [0, 3, 7]] and batch.slots.dtype == torch.int64
    for i, sample in enumerate(samples):
        assert torch.equal(batch.pixels[i], sample.pixels)
        assert torch.equal(batch.valid[i], sample.valid) and batch.valid.dtype == torch.bool
        assert torch.equal(batch.labels[i], sample.labels)
    there = batch.to(torch.device("cpu"))
    assert torch.equal(there.planes, batch.planes) and torch.equal(there.slots, batch.slots)


def _as_on_a_gpu(segmenter):
    """An optimiser with the options that it has on a GPU, and the rate in a tensor: torch takes them on a CPU, too."""
    return torch.optim.AdamW(
        segmenter.parameters(),
        lr=torch.tensor(SPEC.learning_rate),
        betas=SPEC.betas,
        weight_decay=SPEC.weight_decay,
        fused=True,
        capturable=True,
    )


def _plain(segmenter):
    return make_optimiser(segmenter, SPEC)


def _steps(segmenter, optimiser, iterations):
    for iteration in iterations:
        set_learning_rate(optimiser, 1e-3 * (1 + iteration))
        optimiser.zero_grad(set_to_none=True)
        draw = torch.Generator().manual_seed(iteration)
        for parameter in segmenter.parameters():
            parameter.grad = torch.randn(parameter.shape, generator=draw)
        optimiser.step()


@pytest.mark.parametrize("first", [_plain, _as_on_a_gpu])
@pytest.mark.parametrize("second", [_plain, _as_on_a_gpu])
def test_a_checkpoint_of_either_optimiser_goes_on_in_either(tmp_path, first, second):
    torch.manual_seed(0)
    whole = SHAPE.build()
    start = {name: value.clone() for name, value in whole.state_dict().items()}
    _steps(whole, _plain(whole), range(6))

    segmenter = SHAPE.build()
    segmenter.load_state_dict(start)
    optimiser = first(segmenter)
    _steps(segmenter, optimiser, range(3))
    stored = {"iteration": 3, "segmenter": segmenter.state_dict(), "optimiser": stored_optimiser(optimiser)}
    save_checkpoint(tmp_path / "c.pt", SHAPE, stored)

    found = load_checkpoint(tmp_path / "c.pt", SHAPE)
    [group] = found["optimiser"]["param_groups"]
    assert (group["lr"], group["fused"], group["capturable"]) == (pytest.approx(3e-3), None, False)
    resumed = SHAPE.build()
    resumed.load_state_dict(found["segmenter"])
    optimiser = second(resumed)
    options = {name: optimiser.param_groups[0][name] for name in ("fused", "capturable")}
    load_optimiser(optimiser, found["optimiser"])
    assert {name: optimiser.param_groups[0][name] for name in options} == options
    assert isinstance(optimiser.param_groups[0]["lr"], torch.Tensor) == (second is _as_on_a_gpu)
    _steps(resumed, optimiser, range(3, 6))
    exact = first is second is _plain
    for ours, theirs in zip(resumed.parameters(), whole.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, **({"atol": 0, "rtol": 0} if exact else {"atol": 1e-6, "rtol": 1e-5}))


def test_both_optimisers_store_the_same_form():
    torch.manual_seed(0)
    forms = []
    for make in (_plain, _as_on_a_gpu):
        segmenter = SHAPE.build()
        optimiser = make(segmenter)
        _steps(segmenter, optimiser, range(2))
        stored = stored_optimiser(optimiser)
        tensors = {name: (value.dtype, value.shape) for name, value in stored["state"][0].items()}
        forms.append((stored["param_groups"], stored["state"].keys(), tensors))
    (plain, *others), (gpu, *same) = forms
    assert plain[0].keys() == gpu[0].keys() and others == same
    assert {name: value for name, value in plain[0].items() if name not in ("lr", "foreach")} == {
        name: value for name, value in gpu[0].items() if name not in ("lr", "foreach")
    }


@pytest.mark.parametrize("small, large", [((5, 7), (80, 112)), ((3, 3), (7, 5)), ((1, 4), (9, 9)), ((6, 6), (6, 6))])
def test_enlarging_has_torchs_gradient(small, large):
    """The backward pass of a GPU, here on the CPU."""
    values = torch.randn(2, 3, *small, requires_grad=True)
    weight = torch.randn(2, 3, *large)
    plain = F.interpolate(values, size=large, mode="bilinear", align_corners=False)
    [expected] = torch.autograd.grad((plain * weight).sum(), values)
    own = _Enlarge.apply(values, large)
    [gradient] = torch.autograd.grad((own * weight).sum(), values)
    assert torch.equal(own, plain) and torch.equal(enlarged(values, large), plain)
    torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-4)


def test_enlarging_is_differentiated_rightly():
    values = torch.randn(1, 2, 3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda v: _Enlarge.apply(v, (7, 9)), values)
