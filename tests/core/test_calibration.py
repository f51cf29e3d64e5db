"""Calibration against open_clip's own forward pass and against plain loops over heads and tokens."""

import math

import pytest
import torch
import torch.nn.functional as F

from excel_core.config import CalibrationSpec
from excel_core.errors import SettingError
from excel_core.models.calibration import Relation, calibrated_features, encoder_activations, layer_features, relation_of


def test_original_path_is_open_clips_forward(small_clip):
    image = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        path = encoder_activations(small_clip, image, None, attention_layers=2)
        ours = small_clip.project(path.outputs[-1])[:, 0]
        theirs = small_clip.model.encode_image(image)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)
    assert path.attention.shape == (2, 2, 17, 17)
    torch.testing.assert_close(path.attention.sum(-1), torch.ones(2, 2, 17))


def _naive_calibration(clip, image, depth, per_head, raw=None):
    """Equations 5, 6, 9, 10 written out: a loop over blocks and heads."""
    with torch.inference_mode():
        x = clip.tokens(image)
        calibrated = None
        for index, block in enumerate(clip.blocks):
            normed = block.ln_1(x)
            q, k, v = F.linear(normed, block.attn.in_proj_weight, block.attn.in_proj_bias).chunk(3, dim=-1)
            width = q.shape[-1] // clip.heads
            maps, values = [], []
            for h in range(clip.heads):
                part = slice(h * width, (h + 1) * width)
                total = 0
                for o in (q, k, v):
                    head = o[..., part]
                    total = total + (head @ head.transpose(1, 2) / math.sqrt(width)).softmax(-1) / 3
                if raw is not None:
                    total[:, 1:, 1:] += torch.where(raw < 0, -torch.inf, raw).softmax(-1)
                maps.append(total)
                values.append(v[..., part])
            if not per_head:
                maps = [sum(maps)] * clip.heads
            if index >= len(clip.blocks) - depth:
                calibrated = x if calibrated is None else calibrated
                joined = torch.cat([m @ v for m, v in zip(maps, values, strict=True)], dim=-1)
                calibrated = calibrated + block.attn.out_proj(joined)
            x = block(x)
        return torch.cat([x[:, :1], calibrated[:, 1:]], dim=1)


def test_calibration_without_heads_is_eq_5_as_printed(small_clip, image_batch):
    """One map of the whole width, scaled by the root of D_s, for all values; the relation is added to it once."""
    spec = CalibrationSpec(depth=1, heads="whole")
    raw = torch.randn(2, 36, 36, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        path = encoder_activations(small_clip, image_batch, spec)
        block, x = small_clip.blocks[-1], path.inputs[-1]
        q, k, v = F.linear(block.ln_1(x), block.attn.in_proj_weight, block.attn.in_proj_bias).chunk(3, dim=-1)
        weights = sum((o @ o.mT / math.sqrt(32)).softmax(-1) for o in (q, k, v)) / 3
        static = (x + block.attn.out_proj(weights @ v))[:, 1:]
        torch.testing.assert_close(calibrated_features(small_clip, path, spec)[:, 1:], static, atol=1e-5, rtol=1e-4)
        relation = Relation(raw, torch.sigmoid(raw))
        weights[:, 1:, 1:] += torch.where(raw < 0, -torch.inf, raw).softmax(-1)
        learnt = (x + block.attn.out_proj(weights @ v))[:, 1:]
        torch.testing.assert_close(calibrated_features(small_clip, path, spec, relation)[:, 1:], learnt, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("heads", ["sum", "each"])
@pytest.mark.parametrize("depth", [1, 3, 4])
def test_static_calibration(small_clip, image_batch, heads, depth):
    spec = CalibrationSpec(depth=depth, heads=heads)
    with torch.inference_mode():
        got = calibrated_features(small_clip, encoder_activations(small_clip, image_batch, spec), spec)
    torch.testing.assert_close(got, _naive_calibration(small_clip, image_batch, depth, heads == "each"))


def test_learnt_calibration_and_relation(small_clip, image_batch):
    features = torch.randn(2, 8, 6, 6, generator=torch.Generator().manual_seed(3))
    batch = relation_of(features, CalibrationSpec(relation_mean="batch"))
    image = relation_of(features, CalibrationSpec(relation_mean="image"))
    alone = relation_of(features[:1], CalibrationSpec(relation_mean="batch"))
    torch.testing.assert_close(image.raw[:1], alone.raw)  # per image: independent of its batch mates
    assert not torch.allclose(batch.raw[:1], alone.raw)
    torch.testing.assert_close(image.probability, 1 / (1 + torch.exp(-image.raw)))
    spec = CalibrationSpec(depth=2)
    with torch.inference_mode():
        got = calibrated_features(small_clip, encoder_activations(small_clip, image_batch, spec), spec, image)
    torch.testing.assert_close(got, _naive_calibration(small_clip, image_batch, 2, False, image.raw))


def test_baseline_and_value_only(small_clip, image_batch):
    with torch.inference_mode():
        plain, last = CalibrationSpec(attention="qk"), CalibrationSpec(attention="v", depth=1)
        path = encoder_activations(small_clip, image_batch, last)
        assert calibrated_features(small_clip, path, plain) is path.outputs[-1]
        value = calibrated_features(small_clip, path, last)
        block = small_clip.blocks[-1]
        v = F.linear(block.ln_1(path.inputs[-1]), block.attn.in_proj_weight, block.attn.in_proj_bias).chunk(3, -1)[2]
        torch.testing.assert_close(value[:, 1:], (path.inputs[-1] + block.attn.out_proj(v))[:, 1:])


def test_layer_features_published_and_true(small_clip, image_batch):
    with torch.inference_mode():
        spec = CalibrationSpec(depth=2)
        path = encoder_activations(small_clip, image_batch, spec)
        calibrated = calibrated_features(small_clip, path, spec)
        published = layer_features(path, calibrated, spec)
        true = layer_features(path, calibrated, spec.model_copy(update={"layers": "true"}))
    torch.testing.assert_close(published[[0, 3]], true[[0, 3]])  # early blocks and the last are true outputs
    torch.testing.assert_close(published[1], calibrated)  # the last plain block's became the calibrated tensor
    torch.testing.assert_close(published[2], path.residuals[3])  # a calibrated block's, the next one's residual


@pytest.mark.parametrize("spec", [CalibrationSpec(depth=2), CalibrationSpec(depth=1, heads="each"), None])
def test_without_the_last_blocks_patches_nothing_else_changes(small_clip, image_batch, spec):
    with torch.inference_mode():
        whole, part = (encoder_activations(small_clip, image_batch, spec, 2, whole) for whole in (True, False))
        torch.testing.assert_close(part.attention, whole.attention)
        torch.testing.assert_close(part.outputs[-1], whole.outputs[-1][:, :1])
        if spec:
            torch.testing.assert_close(*(calibrated_features(small_clip, path, spec) for path in (part, whole)))


def test_refuses_too_deep_and_odd_sizes(small_clip, image_batch):
    with pytest.raises(SettingError, match="at most the 4 blocks"):
        encoder_activations(small_clip, image_batch, CalibrationSpec(depth=5))
    with pytest.raises(SettingError, match="multiple of the patch size 8"):
        encoder_activations(small_clip, image_batch[..., :45], None)
