"""CAMs against the published feature surgery written out with its four-dimensional tensor, and against cosine."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from excel_core.cams.cam_model import CamModel
from excel_core.cams.patch_text import minmax, patch_text_cams
from excel_core.config import CamSpec


def _inputs(seed, tokens=10, width=6, texts=7):
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(2, tokens, width, generator=generator)
    return features, F.normalize(torch.randn(texts, width, generator=generator), dim=1)


@given(st.integers(0, 1000))
def test_surgery_is_the_four_dimensional_one(seed):
    features, text = _inputs(seed)
    tokens = features / features.norm(dim=1, keepdim=True)
    presence = (2 * tokens[:, :1] @ text.T).softmax(-1)
    weights = presence / presence.mean(-1, keepdim=True)
    product = tokens[:, :, None, :] * text[None, None] * weights[..., None]  # (B, N, C, D)
    surgery = (product - product.mean(dim=2, keepdim=True)).sum(-1)
    low, high = surgery.amin(1, keepdim=True), surgery.amax(1, keepdim=True)
    expected = ((surgery - low) / (high - low))[:, 1:, :4].transpose(1, 2)
    torch.testing.assert_close(patch_text_cams(features, text, 4, CamSpec()), expected, atol=1e-5, rtol=1e-4)


def test_paper_is_cosine_per_class_over_patches():
    features, text = _inputs(5)
    spec = CamSpec(features="over_channels", surgery=False, minmax="patches")
    cams = patch_text_cams(features, text, 7, spec)
    cosine = F.cosine_similarity(features[:, 1:, None], text[None, None], dim=-1)
    for c in range(7):
        one = cosine[..., c]
        expected = (one - one.amin(1, keepdim=True)) / (one.amax(1, keepdim=True) - one.amin(1, keepdim=True))
        torch.testing.assert_close(cams[:, c], expected)


@given(st.integers(0, 1000), st.booleans())
def test_cams_lie_in_the_unit_interval(seed, surgery):
    features, text = _inputs(seed)
    cams = patch_text_cams(features, text, 3, CamSpec(surgery=surgery))
    assert cams.shape == (2, 3, 9) and cams.min() >= 0 and cams.max() <= 1


def test_minmax_of_a_constant_is_zero():
    assert torch.equal(minmax(torch.full((2, 5), 3.0), dim=1), torch.zeros(2, 5))


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_looks_almost_alike(small_clip, image_batch, precision):
    text = F.normalize(torch.randn(5, 16, generator=torch.Generator().manual_seed(0)), dim=1)
    spec = CamSpec.model_validate({"image_size": 48, "calibration": {"depth": 2}})
    exact, half = (CamModel(small_clip, text, 3, spec.model_copy(update={"precision": name})) for name in ("fp32", precision))
    with torch.inference_mode():
        wanted, found = exact.encode(image_batch, 2), half.encode(image_batch, 2)
        assert half.layers(found).dtype == half.cams(found).dtype == torch.float32
        difference = (half.cams(found) - exact.cams(wanted)).abs()
    assert 0 < difference.max() < 0.1
