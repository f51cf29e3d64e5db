"""DINOv2 as a second encoder: timm's own forward pass, positions by hand, files under both names, and what is refused."""

import json
from dataclasses import asdict

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from excel_core.config.presets import preset, with_settings
from excel_core.errors import ModelError, SettingError
from excel_core.models import dino_names
from excel_core.models.clip import normalise_pixels
from excel_core.models.dino_names import DINO_SIZES, TINY_DINO_FILE, check_dino_settings, dino_file
from excel_core.models.dino_weights import dino_from_state, load_dino
from excel_core.world.scenes import HELD_OUT_SEEDS, render_scene
from excel_core.world.train_dino import FORMAT, DinoTrainSpec, fresh_state, train

SPEC = DinoTrainSpec(depth=2, grid=6)


@pytest.fixture
def state():
    """A seeded state dict under the published names: 2 blocks, width 96, patch 8, a grid of 6 x 6."""
    torch.manual_seed(0)
    drawn = fresh_state(SPEC) | {"mask_token": torch.zeros(1, 96)}
    return drawn | {"pos_embed": 20 * drawn["pos_embed"]}  # large enough to be seen in the features


@pytest.fixture
def image():
    return torch.randn(2, 3, 48, 48, generator=torch.Generator().manual_seed(1))


def _timm(state, registers=0):
    """timm's own model with the same weights, its positions with a row for the class token."""
    from timm.models.vision_transformer import VisionTransformer

    model = VisionTransformer(
        img_size=48, patch_size=8, embed_dim=96, depth=2, num_heads=3, num_classes=0, init_values=1.0, reg_tokens=registers,
        no_embed_class=registers > 0,
    )  # fmt: skip
    model.load_state_dict({key: value for key, value in state.items() if key != "mask_token"})
    return model.eval()


def test_at_the_stored_grid_it_is_timms_model(state, image):
    expected = _timm(state).forward_features(image)[:, 1:]
    features = dino_from_state(state, heads=3).features(image)
    assert features.shape == (2, 96, 6, 6)
    assert torch.allclose(features.flatten(2).mT, expected, atol=1e-5)


def test_registers_have_no_position_and_are_left_out(state, image):
    published = state | {"register_tokens": torch.randn(1, 4, 96, generator=torch.Generator().manual_seed(2))}
    # timm's file of the same weights: the class token holds its position.
    timms = {key: value for key, value in published.items() if key not in ("mask_token", "register_tokens")}
    timms |= {"reg_token": published["register_tokens"], "pos_embed": state["pos_embed"][:, 1:]}
    timms["cls_token"] = state["cls_token"] + state["pos_embed"][:, :1]
    expected = _timm(timms, registers=4).forward_features(image)[:, 5:]
    for form in (published, timms):
        features = dino_from_state(form, heads=3).features(image)
        assert torch.allclose(features.flatten(2).mT, expected, atol=1e-5)


def _cubic(distance):
    """The cubic convolution kernel with a = -0.75, as torch has it."""
    d, a = np.abs(distance), -0.75
    inner = (a + 2) * d**3 - (a + 3) * d**2 + 1
    outer = a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a
    return np.where(d <= 1, inner, np.where(d < 2, outer, 0.0))


def _sampling(small, large, factor):
    """(large, small) weights of bicubic resizing whose grid a scale factor sets, borders repeated."""
    weights = np.zeros((large, small))
    for i in range(large):
        centre = (i + 0.5) / factor - 0.5
        for tap in range(int(np.floor(centre)) - 1, int(np.floor(centre)) + 3):
            weights[i, min(max(tap, 0), small - 1)] += _cubic(centre - tap)
    return weights


def test_positions_are_resized_by_the_published_factor(state):
    dino = dino_from_state(state, heads=3)
    grid = state["pos_embed"][0, 1:].reshape(6, 6, 96).double().numpy()
    rows, columns = _sampling(6, 5, 5.1 / 6), _sampling(6, 9, 9.1 / 6)
    expected = np.einsum("yi,xj,ijc->yxc", rows, columns, grid).reshape(-1, 96)
    resized = dino._positions(5, 9)
    assert torch.equal(resized[0], dino.positions[0])
    assert np.abs(resized[1:].numpy() - expected).max() < 1e-5
    by_size = F.interpolate(torch.from_numpy(grid).permute(2, 0, 1)[None], size=(5, 9), mode="bicubic")[0].flatten(1).T
    assert np.abs(by_size.numpy() - expected).max() > 1e-2  # the factor is seen


def test_input_is_cut_down_to_whole_patches(state):
    dino = dino_from_state(state, heads=3)
    image = torch.randn(1, 3, 53, 71, generator=torch.Generator().manual_seed(3))
    assert dino.resized(image).shape == (1, 3, 48, 64)
    assert dino.features(image).shape == (1, 96, 6, 8)
    with pytest.raises(SettingError, match="smaller than a patch of 8"):
        dino.resized(image[..., :7])


def test_files_of_both_kinds_load(state, tmp_path):
    torch.save(state, tmp_path / "dino.pth")
    save_file({key: value for key, value in state.items() if key != "mask_token"}, tmp_path / "dino.safetensors")
    image = torch.zeros(1, 3, 48, 48)
    one, other = (load_dino(f"dino-tiny:{tmp_path / name}") for name in ("dino.pth", "dino.safetensors"))
    assert torch.equal(one.features(image), other.features(image))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("dinov3", "unknown DINO 'dinov3'; valid: dino-tiny, dinov2_vits14"),
        ("dinov2_vits14:nowhere.pth", "'nowhere.pth' do not exist"),
        ("dinov2_vitb14_reg", "dinov2_vitb14_reg4_pretrain.pth to .*checkpoints.*or give any other place: dinov2_vitb14_reg:"),
    ],
)
def test_what_is_not_there_is_named(name, message, monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(dino_names, "_timm_file", lambda timm_name: None)
    with pytest.raises(ModelError, match=message):
        dino_file(name)


def test_a_published_file_is_found_where_torch_keeps_it(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    file = tmp_path / "hub" / "checkpoints" / "dinov2_vits14_pretrain.pth"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"")
    assert dino_file("dinov2_vits14") == file
    with pytest.raises(ModelError, match="not readable as weights"):
        load_dino("dinov2_vits14")


def test_other_weights_are_refused(state, tmp_path):
    path = tmp_path / "other.pth"
    torch.save(state, path)
    with pytest.raises(ModelError, match="expected width 384 and patches of 14, without registers, got 96 and 8"):
        load_dino(f"dinov2_vits14:{path}")
    short = {key: value for key, value in state.items() if key != "blocks.1.attn.proj.bias"}
    with pytest.raises(ModelError, match=r"another architecture \(1 differences: blocks.1.attn.proj.bias: file has nothing"):
        dino_from_state(short, heads=3)
    with pytest.raises(ModelError, match="no DINOv2 of plain blocks"):
        dino_from_state({"conv1.weight": torch.zeros(1)}, heads=3)


def test_settings_of_a_second_encoder(monkeypatch, tmp_path):
    check_dino_settings(preset("demo", "weclip_plus"))
    check_dino_settings(preset("voc"))
    with pytest.raises(SettingError, match=r"the second encoder is WeCLIP\+'s"):
        check_dino_settings(with_settings(preset("demo"), ["dino.model=dino-tiny"]))
    with pytest.raises(SettingError, match="mutual losses need a second encoder"):
        check_dino_settings(with_settings(preset("demo", "weclip"), ["train.mutual_weight=0.1"]))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(dino_names, "_timm_file", lambda timm_name: None)
    with pytest.raises(ModelError, match="weights of dinov2_vits14 are not on this machine"):
        check_dino_settings(preset("voc", "weclip_plus"))


def test_the_shipped_weights_are_small_and_say_how_they_were_made():
    assert TINY_DINO_FILE.stat().st_size <= 1_500_000
    with safe_open(TINY_DINO_FILE, framework="pt") as file:
        metadata = file.metadata()
    assert metadata["format"] == FORMAT
    assert json.loads(metadata["training"]) == json.loads(json.dumps(asdict(DinoTrainSpec())))
    dino = load_dino("dino-tiny")
    assert (dino.width, dino.patch) == (DINO_SIZES["dino-tiny"].width, 8)


def test_patches_of_one_thing_are_more_alike_than_others():
    """On held-out scenes: how often a patch is nearer to one of its own class than to another. Chance is one half."""
    scenes = [render_scene(seed, 128) for seed in HELD_OUT_SEEDS[0][:16]]
    pixels = torch.from_numpy(np.stack([scene.image for scene in scenes])).permute(0, 3, 1, 2).float() / 255
    unit = F.normalize(load_dino("dino-tiny").features(normalise_pixels(pixels, "imagenet")).flatten(2), dim=1)
    cosines = (unit.mT @ unit).numpy()
    shares = []
    for cosine, scene in zip(cosines, scenes, strict=True):
        classes = scene.mask[4::8, 4::8].ravel()
        for patch in np.flatnonzero(classes > 0)[::7]:
            same, other = cosine[patch][classes == classes[patch]], cosine[patch][classes != classes[patch]]
            shares.append((same[:, None] > other).mean())
    assert np.mean(shares) >= 0.7


def test_training_writes_a_file_that_loads_and_is_the_same_again(tmp_path):
    spec = DinoTrainSpec(scenes=4, scene_size=32, depth=1, grid=4, steps=2, batch=4, size=32, warmup=1)
    for name in ("a", "b"):
        train(spec, tmp_path / f"{name}.safetensors")
    one, other = (load_file(tmp_path / f"{name}.safetensors") for name in ("a", "b"))
    assert all(torch.equal(value, other[key]) for key, value in one.items())
    assert load_dino(f"dino-tiny:{tmp_path / 'a.safetensors'}").features(torch.zeros(1, 3, 32, 32)).shape == (1, 96, 4, 4)
