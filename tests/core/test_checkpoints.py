"""Checkpoints say whether they are whole; a training whose numbers are not finite stops and names the last good one."""

import os

import pytest
import torch

import excel_core.training.loop as loop
from excel_core.config import SegmenterSpec
from excel_core.errors import StoreError, TrainingError
from excel_core.models.checkpoints import Architecture, load_checkpoint, previous_checkpoint, save_checkpoint
from excel_core.training.samples import TrainingArray
from tests.core.test_training import REFINE, SPEC

SHAPE = Architecture("small", 4, 32, ("a", "b", "c"), SegmenterSpec(width=16, layers=1, heads=2))


@pytest.fixture
def images():
    generator = torch.Generator().manual_seed(0)
    shapes = ((40, 60), (50, 50))
    return [
        TrainingArray(torch.randint(0, 255, (*shape, 3), generator=generator, dtype=torch.uint8).numpy(), (i,), None)
        for i, shape in enumerate(shapes)
    ]


def _state(value=1.0):
    return {"iteration": 3, "segmenter": {"w": torch.full((4, 5), value)}, "optimiser": {"m": [torch.zeros(3)]}, "losses": []}


def test_no_flipped_bit_of_a_checkpoint_goes_unnoticed(tmp_path):
    path = tmp_path / "checkpoint.pt"
    save_checkpoint(path, SHAPE, _state())
    assert load_checkpoint(path, SHAPE)["iteration"] == 3
    whole = path.read_bytes()
    for bit in range(0, 8 * len(whole), 101):
        content = bytearray(whole)
        content[bit // 8] ^= 1 << bit % 8
        path.write_bytes(content)
        with pytest.raises(StoreError, match="not readable.*remove it and rerun train"):
            load_checkpoint(path, SHAPE)


def test_the_checkpoint_before_the_last_stays(tmp_path):
    path = tmp_path / "checkpoint.pt"
    for value in (1.0, 2.0, 3.0):
        save_checkpoint(path, SHAPE, _state(value))
    values = [load_checkpoint(file, SHAPE)["segmenter"]["w"][0, 0].item() for file in (previous_checkpoint(path), path)]
    assert values == [2.0, 3.0] and sorted(os.listdir(tmp_path)) == ["checkpoint.previous.pt", "checkpoint.pt"]


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_a_checkpoint_with_numbers_that_are_not_finite_is_damaged(tmp_path, number):
    save_checkpoint(tmp_path / "c.pt", SHAPE, _state(number))
    with pytest.raises(StoreError, match="c.pt: holds numbers that are not finite; remove it and rerun train"):
        load_checkpoint(tmp_path / "c.pt", SHAPE)


def test_what_the_machine_lacks_is_no_damage(tmp_path, monkeypatch):
    """Else a training of days would start again for want of memory."""
    save_checkpoint(tmp_path / "c.pt", SHAPE, _state())

    def fail(*arguments, **options):
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")

    monkeypatch.setattr(torch, "load", fail)
    with pytest.raises(RuntimeError, match="can't allocate memory"):
        load_checkpoint(tmp_path / "c.pt", SHAPE)


def _train(cam_model, images, path, spec=SPEC, **options):
    return loop.train(cam_model, images, spec, REFINE, SHAPE, path, **options)


def test_a_loss_that_is_not_finite_stops_training_and_names_the_last_checkpoint(cam_model, images, tmp_path, monkeypatch):
    """Losses are fetched together, so some iterations later: nothing is saved meanwhile, and the first one is named."""
    step, kept = loop.training_step, []

    def diverging(cam_model, network, optimiser, batch, iteration, *rest):
        result = step(cam_model, network, optimiser, batch, iteration, *rest)
        if iteration == 4:
            result.losses[:] = float("nan")
        return result

    monkeypatch.setattr(loop, "training_step", diverging)
    spec, path = SPEC.model_copy(update={"keep_every": 4}), tmp_path / "c.pt"
    with pytest.raises(TrainingError, match=r"loss of iteration 5 is nan .*last good checkpoint: .*c.pt, after 3 iterations"):
        _train(cam_model, images, path, spec, on_snapshot=lambda iteration, segmenter: kept.append(iteration))
    assert load_checkpoint(path, SHAPE)["iteration"] == 3 and kept == [4]
    path.unlink()
    with pytest.raises(TrainingError, match=r"loss of iteration 5 is nan .*last good checkpoint: none yet"):
        _train(cam_model, images, path, spec.model_copy(update={"checkpoint_every": 100, "keep_every": None}))
    assert not path.exists()


def test_weights_that_are_not_finite_are_neither_saved_nor_kept(cam_model, images, tmp_path, monkeypatch):
    """The loss of the same iteration is still finite."""
    step, kept = loop.training_step, []

    def diverging(cam_model, network, optimiser, batch, iteration, *rest):
        result = step(cam_model, network, optimiser, batch, iteration, *rest)
        if iteration == 2:
            next(network.parameters()).data[0] = float("inf")
        return result

    monkeypatch.setattr(loop, "training_step", diverging)
    spec = SPEC.model_copy(update={"keep_every": 3})
    with pytest.raises(TrainingError, match="after iteration 3 weights are not finite; last good checkpoint: none yet"):
        _train(cam_model, images, tmp_path / "c.pt", spec, on_snapshot=lambda iteration, segmenter: kept.append(iteration))
    assert kept == [] and not (tmp_path / "c.pt").exists()


def test_a_training_that_ended_is_not_done_again(cam_model, images, tmp_path, monkeypatch):
    segmenter, losses = _train(cam_model, images, tmp_path / "c.pt")
    monkeypatch.setattr(loop, "training_step", None)
    again, same = _train(cam_model, images, tmp_path / "c.pt")
    assert same == losses and not again.training
    for ours, theirs in zip(segmenter.state_dict().values(), again.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs)
