"""GradCAM against autograd written out for one image and one class, and what a batch, empty slots and callers' modes change."""

import pytest
import torch
import torch.nn.functional as F

from excel_core.cams.gradcam import gradcam_seeds
from excel_core.errors import ModelError
from excel_core.models.calibration import encoder_activations
from excel_core.models.clip import FrozenClip, VisionOnly

CLASSES, GRID = 5, (3, 4)


@pytest.fixture
def text():
    """Unit texts of five classes, then three background prompts."""
    return F.normalize(torch.randn(CLASSES + 3, 16, generator=torch.Generator().manual_seed(3)), dim=1)


@pytest.fixture
def last_inputs(small_clip):
    """Tokens (2, 13, D_s) that enter the last block."""
    image = torch.randn(2, 3, 8 * GRID[0], 8 * GRID[1], generator=torch.Generator().manual_seed(4))
    with torch.no_grad():
        return encoder_activations(small_clip, image, None, 0).inputs[-1]


def _by_hand(clip, tokens, text, classes, wanted):
    """One image (N, D_s) and one of its classes: open_clip's own block, the gradient at LN1's output (peers.md 1.3)."""
    block = clip.blocks[-1]
    a = block.ln_1(tokens[None]).detach().requires_grad_()
    attended, attention = block.attn(a, a, a, need_weights=True)
    y = tokens[None] + attended
    y = y + block.mlp(block.ln_2(y))
    f = (clip.visual.ln_post(y)[:, 1:] @ clip.visual.proj).mean(dim=1)[0]
    rows = torch.cat([text[classes], text[CLASSES:]])
    p = torch.softmax(clip.model.logit_scale.exp() * rows @ (f / f.norm()), dim=0)
    [gradient] = torch.autograd.grad(p[classes.index(wanted)], a)
    weights = gradient[0, 1:].mean(dim=0)
    raw = (a[0, 1:].detach() @ weights).reshape(GRID)
    return weights, raw, p.detach(), attention[0].detach()


def test_batch_is_each_image_and_class_by_hand(small_clip, last_inputs, text):
    classes = [[4], [2, 0, 3]]
    got = gradcam_seeds(small_clip, last_inputs, GRID, text, CLASSES, torch.tensor([[4, -1, -1], [2, 0, 3]]))
    for image, names in enumerate(classes):
        for slot, name in enumerate(names):
            weights, raw, p, attention = _by_hand(small_clip, last_inputs[image], text, names, name)
            assert raw.abs().max() > 1e-4  # else nothing is compared
            torch.testing.assert_close(got.weights[image, slot], weights, atol=1e-8, rtol=1e-4)
            torch.testing.assert_close(got.raw[image, slot], raw, atol=1e-7, rtol=1e-4)
            positive = raw.clamp_min(0)
            torch.testing.assert_close(got.seeds[image, slot], (positive - positive.min()) / positive.max(), atol=2e-3, rtol=0)
            present = [*range(len(names)), *range(3, 6)]
            torch.testing.assert_close(got.probabilities[image, present], p, atol=1e-6, rtol=1e-5)
            torch.testing.assert_close(got.attention[image], attention, atol=1e-6, rtol=1e-5)
    assert got.seeds[0, 1:].eq(0).all() and got.probabilities[0, 1:3].eq(0).all()
    torch.testing.assert_close(got.probabilities.sum(dim=1), torch.ones(2))


def test_a_class_that_the_image_does_not_have_changes_nothing(small_clip, last_inputs, text):
    """The softmax is over the image's own classes and the background alone."""
    slots = torch.tensor([[1], [2]])
    other = text.clone()
    other[3] = -text[3]
    plain, changed = (gradcam_seeds(small_clip, last_inputs, GRID, each, CLASSES, slots).raw for each in (text, other))
    assert torch.equal(plain, changed)
    other[6] = text[1]
    assert not torch.allclose(plain, gradcam_seeds(small_clip, last_inputs, GRID, other, CLASSES, slots).raw)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_works_where_the_caller_wants_no_gradients(small_clip, last_inputs, text, mode):
    slots = torch.tensor([[1, 2], [0, -1]])
    expected = gradcam_seeds(small_clip, last_inputs, GRID, text, CLASSES, slots)
    with mode():
        got = gradcam_seeds(small_clip, last_inputs * 1, GRID, text * 1, CLASSES, slots)
        assert not torch.is_grad_enabled()
    assert torch.equal(got.raw, expected.raw) and not got.seeds.requires_grad


def test_nothing_reaches_what_the_tokens_came_from(small_clip, last_inputs, text):
    source = last_inputs.clone().requires_grad_()
    got = gradcam_seeds(small_clip, source * 2, GRID, text, CLASSES, torch.tensor([[1], [2]]))
    assert not any(getattr(got, name).requires_grad for name in got.__dataclass_fields__)


def test_a_tower_without_logit_scale_is_refused(small_clip, last_inputs, text):
    clip = FrozenClip(VisionOnly(small_clip.visual), None, "tower.safetensors")
    with pytest.raises(ModelError, match=r"tower\.safetensors.*logit_scale.*load the whole CLIP"):
        gradcam_seeds(clip, last_inputs, GRID, text, CLASSES, torch.tensor([[1], [2]]))
