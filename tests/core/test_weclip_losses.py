"""Losses, own labels and phases of WeCLIP and WeCLIP+, against computations by hand (peers.md 1.9, 3.4 and 4.4)."""

import pytest
import torch
import torch.nn.functional as F

from excel_core.config import TrainSpec
from excel_core.config.presets import preset, with_iterations
from excel_core.training.losses import IGNORE, dice_loss, segmentation_loss
from excel_core.training.step import Phase, mutual_losses
from excel_core.training.targets import own_labels

PLUS = preset("voc", "weclip_plus").train


def test_dice_by_hand():
    logits = torch.randn(2, 4, 5, 6, generator=torch.Generator().manual_seed(0))
    labels = torch.randint(0, 3, (2, 5, 6), generator=torch.Generator().manual_seed(1))  # label 3 is absent
    labels[0, 0] = IGNORE
    p = torch.softmax(logits, dim=1).permute(1, 0, 2, 3)[:, labels != IGNORE].double()
    y = labels[labels != IGNORE]
    shares = [2 * p[c][y == c].sum() / (p[c].sum() + (y == c).sum() + 1e-7) for c in range(4)]
    assert dice_loss(logits, labels).item() == pytest.approx(1 - float(sum(shares)) / 4, rel=1e-5)
    perfect = F.one_hot(labels.masked_fill(labels == IGNORE, 0), 4).permute(0, 3, 1, 2).float() * 100
    assert dice_loss(perfect, labels).item() == pytest.approx(1 - 3 / 4, abs=1e-4)  # an absent label counts as 0


def test_each_encoder_learns_from_the_other():
    first, second = (torch.randn(2, 4, 5, 6, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
    first.requires_grad_()
    valid = torch.ones(2, 5, 6, dtype=torch.bool)
    valid[:, 0] = False
    losses = mutual_losses([first, second], valid, PLUS)
    assert torch.equal(losses[0], segmentation_loss(first, second.argmax(dim=1)))
    assert torch.equal(losses[1], segmentation_loss(second, first.argmax(dim=1)))
    ignored = mutual_losses([first, second], valid, PLUS.model_copy(update={"padding": "ignored"}))
    assert torch.equal(ignored[0], segmentation_loss(first, second.argmax(dim=1).masked_fill(~valid, IGNORE)))
    assert losses[0].requires_grad and not losses[1].requires_grad  # labels carry no gradient
    assert [float(loss) for loss in mutual_losses([first], valid, TrainSpec())] == [0, 0]


def test_confident_pixels_take_the_heads_own_label():
    logits = torch.zeros(1, 4, 1, 4)
    logits[0, 3, 0, 0] = 5.0  # confident in a class that the photo does not have
    logits[0, 1, 0, 1] = 1.0  # not confident
    logits[0, 0, 0, 2] = 5.0  # confident background
    logits[0, 1, 0, 3] = 5.0  # ignored
    labels, slots = torch.tensor([[[1, 2, 1, IGNORE]]]), torch.tensor([[0, 1, -1]])
    assert own_labels(logits, labels, slots, PLUS).tolist() == [[[3, 2, 0, IGNORE]]]
    among = PLUS.model_copy(update={"own_labels_classes": "image"})
    assert own_labels(logits, labels, slots, among).tolist() == [[[0, 2, 0, IGNORE]]]


def test_phases_begin_where_the_published_programs_switch():
    weclip, plus = preset("voc", "weclip").train, preset("voc", "weclip_plus").train
    assert not Phase.at(9_143, weclip).dynamic and Phase.at(9_144, weclip).dynamic
    # The published counter of forward passes: one an iteration, and 1,464 photos at each validation, every 2,000 iterations.
    first = next(t for t in range(30_000) if t + 1 + 1_464 * (t // 2_000) > 15_000)
    assert first == weclip.dynamic_from
    assert not Phase.at(14_999, preset("voc", "weclip:clean").train).dynamic
    assert Phase.at(0, plus) == Phase(dynamic=True, own_argmax=False, own_labels=False, guided=True)
    assert not Phase.at(18_000, plus).own_labels and Phase.at(18_001, plus).own_labels
    coco = preset("coco", "weclip_plus").train
    assert (coco.own_labels_from, coco.batch_size, coco.iterations) == (40_001, 8, 80_000)
    assert not Phase.at(0, preset("voc", "weclip_plus:clean").train).guided
    short = with_iterations(preset("voc", "weclip_plus:clean"), 300).train
    assert (short.own_labels_from, short.guided_from) == (180, 30)
