"""Losses against loops over pixels and pairs."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from excel_core.training.losses import IGNORE, diversity_loss, pair_labels, segmentation_loss


@given(st.integers(0, 100))
def test_segmentation_loss_is_half_of_each_side(seed):
    rng = np.random.default_rng(seed)
    logits = torch.from_numpy(rng.normal(size=(2, 3, 4, 5)))
    labels = rng.choice([0, 1, 2, IGNORE], size=(2, 4, 5))
    sides = {"background": [], "foreground": []}
    for b, y, x in np.ndindex(labels.shape):
        label = labels[b, y, x]
        if label != IGNORE:
            loss = -math.log(torch.softmax(logits[b, :, y, x], 0)[label])
            sides["foreground" if label else "background"].append(loss)
    expected = 0.5 * sum(np.mean(losses) if losses else 0.0 for losses in sides.values())
    assert math.isclose(segmentation_loss(logits, torch.from_numpy(labels)).item(), expected, rel_tol=1e-5)


def test_pair_labels_and_diversity_by_loops():
    rng = np.random.default_rng(0)
    labels = torch.from_numpy(rng.choice([0, 1, IGNORE], size=(1, 16, 24)))
    pairs = pair_labels(labels, (4, 6), radius=2)[0]
    small = labels[0, ::4, ::4].flatten().tolist()
    probability = torch.rand(1, 24, 24, generator=torch.Generator().manual_seed(0))
    same, different = [], []
    for i in range(24):
        for j in range(24):
            (yi, xi), (yj, xj) = divmod(i, 6), divmod(j, 6)
            near = max(abs(yi - yj), abs(xi - xj)) <= 2
            if not near or IGNORE in (small[i], small[j]):
                assert pairs[i, j] == IGNORE
            elif small[i] == small[j]:
                assert pairs[i, j] == 1
                same.append(1 - probability[0, i, j].item())
            else:
                assert pairs[i, j] == 0
                different.append(probability[0, i, j].item())
    expected = 0.5 * (sum(same) / (len(same) + 1) + sum(different) / (len(different) + 1))
    assert math.isclose(diversity_loss(probability, pairs[None]).item(), expected, rel_tol=1e-5)


def test_no_pixel_of_a_side_is_no_loss():
    logits = torch.zeros(1, 2, 3, 3)
    assert segmentation_loss(logits, torch.full((1, 3, 3), IGNORE)).item() == 0.0
    one_side = segmentation_loss(logits, torch.zeros(1, 3, 3, dtype=torch.long)).item()
    assert math.isclose(one_side, 0.5 * math.log(2), rel_tol=1e-5)


def test_losses_as_printed():
    """Eq. 11 without a half and without 1 added; plain cross-entropy; pairs at any distance."""
    labels = torch.tensor([[[0, 0, 1, 1], [0, 255, 1, 1]]])
    pairs = pair_labels(labels, (2, 4), None)
    counted = labels.flatten() != 255
    assert ((pairs[0] != 255) == (counted[:, None] & counted[None])).all()
    probability = torch.rand(1, 8, 8, generator=torch.Generator().manual_seed(0))
    expected = (1 - probability)[pairs == 1].mean() + probability[pairs == 0].mean()
    assert diversity_loss(probability, pairs, "printed").item() == pytest.approx(expected.item())
    logits = torch.randn(1, 3, 2, 4, generator=torch.Generator().manual_seed(1))
    plain = torch.nn.functional.cross_entropy(logits, labels, ignore_index=255)
    assert segmentation_loss(logits, labels, "mean").item() == pytest.approx(plain.item())
    assert segmentation_loss(logits, labels).item() != pytest.approx(plain.item(), rel=1e-3)
    assert diversity_loss(probability, torch.full_like(pairs, 255), "printed") == 0
