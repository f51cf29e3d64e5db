"""The attention variants against their formulas, entry by entry, and that the default leaves the calibrated path alone."""

import math

import pytest
import torch
import torch.nn.functional as F

from excel_core.cams.cam_model import CamModel
from excel_core.config import CalibrationSpec, CamSpec
from excel_core.config.presets import preset, with_settings
from excel_core.errors import ExcelError, SettingError
from excel_core.models.attention_variants import gaussian_window, middle_blocks, neighbour_attention, proxy_attention
from excel_core.models.calibration import (
    Relation,
    calibrated_features,
    encoder_activations,
    merge_heads,
    proxy_features,
)
from excel_core.models.clip import denormalise_pixels, normalise_pixels
from excel_core.models.clip_names import check_settings_fit_clip
from excel_core.models.dino_names import check_dino_settings
from excel_core.models.dino_weights import dino_from_state
from excel_core.world.train_dino import DinoTrainSpec, fresh_state


def test_the_window_falls_with_the_distance_of_patches():
    window = gaussian_window((3, 4), 5.0)
    assert window.shape == (12, 12) and torch.equal(window.diagonal(), torch.ones(12))
    assert window[0, 11] == pytest.approx(math.exp(-(2**2 + 3**2) / (2 * 25)))  # two rows down, three columns right
    assert window[5, 4] == pytest.approx(math.exp(-1 / 50)) and torch.allclose(window, window.T)


def test_a_patch_attends_to_similar_keys_nearby():
    """By hand: one head, 2 x 2 patches, every key alike, so that distance alone decides."""
    keys = torch.ones(1, 1, 5, 4)
    attention = neighbour_attention(keys, (2, 2), 1.0)[0, 0]
    weights = torch.tensor([1.0, math.exp(-0.5), math.exp(-0.5), math.exp(-1.0)]).exp()  # ω is added before the softmax
    expected = torch.cat([torch.ones(1), weights])
    torch.testing.assert_close(attention[1], expected / expected.sum())
    torch.testing.assert_close(attention[0], torch.full((5,), 0.2))  # the class token has no place


@pytest.mark.parametrize("count,blocks", [(12, [6, 7, 8, 9]), (24, [12, 13, 14, 15, 16, 17, 18]), (4, [2, 3]), (1, [1])])
def test_middle_blocks_are_6_to_9_of_12(count, blocks):
    assert [block + 1 for block in middle_blocks(count)] == blocks


@pytest.mark.parametrize("heads", ["sum", "each", "whole"])
def test_kk_mixes_values_by_the_keys(small_clip, image_batch, heads):
    """One calibrated block, rebuilt from the block's own projections."""
    spec = CalibrationSpec(attention="kk", depth=1, heads=heads, gaussian_window=2.0)
    with torch.no_grad():
        activations = encoder_activations(small_clip, image_batch, spec)
        tokens = calibrated_features(small_clip, activations, spec)
        qkv = small_clip.qkv(3, activations.inputs[3])
        keys = merge_heads(qkv.k)[:, None] if heads == "whole" else qkv.k
        bias = F.pad(gaussian_window((6, 6), 2.0), (1, 0, 1, 0))
        maps = torch.softmax(keys @ keys.mT / keys.shape[-1] ** 0.5 + bias, dim=-1)
        if heads == "sum":
            maps = maps.sum(dim=1, keepdim=True)
        mixed = merge_heads(maps @ qkv.v) if heads == "each" else maps[:, 0] @ merge_heads(qkv.v)
        expected = activations.inputs[3] + small_clip.attention_output(3, mixed)
    torch.testing.assert_close(tokens[:, 1:], expected[:, 1:], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("attention,heads", [("svc", "sum"), ("svc", "each"), ("kk", "whole")])
def test_middle_attention_is_shared_in(small_clip, image_batch, attention, heads):
    plain = CalibrationSpec(attention=attention, heads=heads, depth=2)
    spec = plain.model_copy(update={"middle_share": 0.3, "middle_scale": 2.0})
    with torch.no_grad():
        before, after = (encoder_activations(small_clip, image_batch, s, 4) for s in (plain, spec))
    torch.testing.assert_close(before.attention, after.attention)  # what the affinity looks at stays
    middle = before.attention[1:3].mean(dim=0)[:, None]  # blocks 2 and 3 of 4
    for old, new in zip(before.intra_correlations, after.intra_correlations, strict=True):
        rows = 2 if heads == "sum" else 1
        torch.testing.assert_close(new.weights, 2 * (0.7 * old.weights + 0.3 * rows * middle))
        torch.testing.assert_close(new.weights.sum(-1), torch.full_like(new.weights.sum(-1), 2.0 * rows))


def test_a_share_of_nothing_changes_nothing(small_clip, image_batch):
    plain, other = CalibrationSpec(depth=2), CalibrationSpec(depth=2, middle_share=0.0, middle_scale=7.0, gaussian_window=1.0)
    with torch.no_grad():
        maps = [encoder_activations(small_clip, image_batch, spec).intra_correlations for spec in (plain, other)]
    assert all(torch.equal(a.weights, b.weights) for a, b in zip(*maps, strict=True))


def test_proxy_attention_row_by_row():
    features = torch.randn(2, 6, 8, generator=torch.Generator().manual_seed(3))
    attention = proxy_attention(features, (2, 3), (2, 3), beta=1.2, gamma=3.0)
    for image, rows in zip(features, attention, strict=True):
        unit = image / image.norm(dim=1, keepdim=True)
        cosine = unit @ unit.T
        for i, row in enumerate(3 * (cosine - 1.2 * cosine.mean())):
            weights = [math.exp(value) if value >= 0 else 0.0 for value in row.tolist()]
            torch.testing.assert_close(rows[i], torch.tensor(weights) / sum(weights))


def test_proxy_attention_on_another_grid():
    """A picture in two halves: patches attend to their own half, on a grid that is finer than the second encoder's."""
    features = torch.zeros(1, 2, 2, 2)  # 2 x 2 patches of 2 channels
    features[0, :, 0, 0] = features[0, :, 1, 1] = 1
    attention = proxy_attention(features.flatten(1, 2), (2, 2), (4, 4))[0]
    left = torch.arange(16) % 4 < 2
    assert attention[0, left].sum() > 0.99 and attention[15, ~left].sum() > 0.99
    torch.testing.assert_close(attention.sum(dim=-1), torch.ones(16))


def test_a_patch_unlike_all_others_attends_to_itself():
    attention = proxy_attention(torch.ones(1, 4, 3), (2, 2), (2, 2))[0]  # every cosine is the mean: all below 1.2 times that
    torch.testing.assert_close(attention, torch.eye(4))
    with pytest.raises(SettingError, match="expected 2 x 3 patches, got 4"):
        proxy_attention(torch.ones(1, 4, 3), (2, 3), (2, 2))


def test_proxy_features_are_the_mixed_values_alone(small_clip, image_batch):
    with torch.no_grad():
        activations = encoder_activations(small_clip, image_batch, None)
        tokens = proxy_features(small_clip, activations, torch.eye(36).expand(2, -1, -1))
        values = merge_heads(small_clip.qkv(3, activations.inputs[3]).v)
    torch.testing.assert_close(tokens[:, 1:], small_clip.attention_output(3, values)[:, 1:])
    assert torch.equal(tokens[:, 0], activations.outputs[-1][:, 0])


@pytest.mark.parametrize("attention", ["v", "qk"])
def test_a_share_that_would_do_nothing_is_refused(attention):
    run = with_settings(preset("demo"), [f"cams.calibration.attention={attention}", "cams.calibration.middle_share=0.3"])
    with pytest.raises(SettingError, match=r"middle_share=0\.3.*svc or kk"):
        check_settings_fit_clip(run)


def test_cams_by_a_second_encoders_cosines(small_clip, image_batch):
    """The whole way: CLIP's last values, mixed by what DINO makes of the same pixels under ImageNet's statistics. A relation
    changes nothing, and behind a segmenter alone no second encoder is needed."""
    dino = dino_from_state(fresh_state(DinoTrainSpec(depth=1, grid=4)), heads=3)
    text = F.normalize(torch.randn(5, small_clip.joint_width, generator=torch.Generator().manual_seed(0)), dim=-1)
    spec = CamSpec.model_validate({"image_size": 48, "normalisation": "clip", "calibration": {"attention": "proxy"}})
    model = CamModel.of(small_clip, text, 3, spec, dino)
    assert model.dino is None and model.proxy is dino
    with torch.no_grad():
        encoded = model.encode(image_batch, with_patch_tokens=False)
        pixels = denormalise_pixels(image_batch, "clip")
        features = dino.features(normalise_pixels(pixels, "imagenet"))
        attention = proxy_attention(features.flatten(2).mT, tuple(features.shape[-2:]), (6, 6))
        expected = proxy_features(small_clip, encoder_activations(small_clip, image_batch, None), attention)
        torch.testing.assert_close(encoded.calibrated, expected, atol=1e-5, rtol=1e-5)
        cams = model.cams(encoded)
        relation = Relation(torch.rand(2, 36, 36), torch.rand(2, 36, 36))
        assert cams.shape == (2, 3, 6, 6) and torch.equal(model.cams(encoded, relation), cams)
        plain = CamModel(small_clip, text, 3, spec.model_copy(update={"calibration": CalibrationSpec(attention="qk")}))
        assert not torch.allclose(cams, plain.cams(plain.encode(image_batch)), atol=1e-2)
        alone = CamModel(small_clip, text, 3, spec)
        layers = alone.layers(alone.encode(image_batch))
        torch.testing.assert_close(layers, torch.stack(encoder_activations(small_clip, image_batch, None).outputs))
        with pytest.raises(SettingError, match="attention=proxy: CAMs need the second encoder; set dino.model"):
            alone.cams(alone.encode(image_batch))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["cams.calibration.attention=proxy"], "attention=proxy: needs a second encoder; set dino.model to one of dino-tiny, "),
        (["ablation.second_encoder=dino-huge"], "unknown DINO 'dino-huge'; valid: dino-tiny"),
        (
            ["cams.calibration.attention=proxy", "dino.model=dino-tiny", "train.mutual_weight=1"],
            "train.mutual_weight: the mutual losses need a second encoder",
        ),
    ],
)
def test_a_second_encoder_that_is_not_there_is_refused(settings, message):
    with pytest.raises(ExcelError, match=message):
        check_dino_settings(with_settings(preset("demo"), settings))
    check_dino_settings(with_settings(preset("demo"), ["cams.calibration.attention=proxy", "dino.model=dino-tiny"]))
