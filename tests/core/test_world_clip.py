"""The tiny CLIP: its shipped weights, its pruned token rows, and the pieces of its training."""

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from excel_core.errors import ModelError
from excel_core.evaluation.metrics import mean_average_precision
from excel_core.models.clip_weights import expand_token_rows, prune_token_rows
from excel_core.world.captions import TEMPLATE, build_phrases
from excel_core.world.scenes import CLASSES, HELD_OUT_SEEDS, render_scene
from excel_core.world.tiny_clip import (
    WEIGHTS_PATH,
    build_model,
    encode_phrases,
    encode_views,
    fit_bias,
    normalise_views,
    phrase_loss,
)
from excel_core.world.train_clip import FORMAT, Stage, TrainSpec, train

VOCABULARY = 49408


@pytest.fixture(scope="module")
def model() -> open_clip.CLIP:
    built = build_model()
    state = expand_token_rows(load_file(WEIGHTS_PATH), VOCABULARY)
    built.load_state_dict({name: value.float() for name, value in state.items()}, strict=True)
    return built.eval()


def test_weights_are_small_and_say_how_they_were_made() -> None:
    assert WEIGHTS_PATH.stat().st_size <= 6_000_000
    with safe_open(WEIGHTS_PATH, framework="pt") as file:
        metadata = file.metadata()
    spec = TrainSpec()
    assert metadata["format"] == FORMAT
    assert json.loads(metadata["training"]) == json.loads(json.dumps(asdict(spec)))
    assert int(metadata["steps"]) == sum(stage.steps for stage in (*spec.stages, spec.last_stage))


def test_every_prompt_uses_trained_tokens_alone() -> None:
    rows = set(load_file(WEIGHTS_PATH)["token_embedding.rows"].tolist())
    texts = [phrase.text for phrase in build_phrases()] + [TEMPLATE.format(name) for name in CLASSES]
    assert set(open_clip.SimpleTokenizer()(texts).unique().tolist()) <= rows


def test_zero_shot_presence_on_held_out_scenes(model: open_clip.CLIP) -> None:
    scenes = [render_scene(seed, 128) for held_out in HELD_OUT_SEEDS for seed in held_out[:24]]
    with torch.inference_mode():
        seen = model.encode_image(normalise_views(np.stack([scene.image for scene in scenes])), normalize=True)
        tokens = open_clip.SimpleTokenizer()([TEMPLATE.format(name) for name in CLASSES])
        presence = (seen @ model.encode_text(tokens, normalize=True).T).numpy().astype(float)
    truth = np.array([[name in scene.labels for name in CLASSES] for scene in scenes])
    assert mean_average_precision(presence, truth) >= 0.9


def test_training_encodes_as_open_clip_does(model: open_clip.CLIP) -> None:
    images = normalise_views(np.stack([render_scene(seed, 128).image for seed in range(2)]))
    tokens = open_clip.SimpleTokenizer()(["boat", "a clean origami boat. it has a tall sail"])
    with torch.inference_mode():
        everything = torch.arange(256).expand(2, -1)
        assert torch.allclose(encode_views(model, images, everything), model.encode_image(images, True), atol=1e-5)
        assert torch.allclose(encode_phrases(model, tokens), model.encode_text(tokens, True), atol=1e-5)


def test_token_rows_survive_pruning() -> None:
    weight = torch.randn(50, 4, generator=torch.Generator().manual_seed(1))
    rows = torch.tensor([0, 7, 49])
    pruned = prune_token_rows({"token_embedding.weight": weight, "other": weight[:2]}, rows)
    assert pruned["token_embedding.weight"].shape == (3, 4) and pruned["token_embedding.rows"].dtype == torch.int32
    full = expand_token_rows(pruned, 50)
    assert torch.equal(full["token_embedding.weight"][rows], weight[rows])
    absent = [row for row in range(50) if row not in rows]
    drawn = torch.randn(50, 4, generator=torch.Generator().manual_seed(0)) * 0.02
    assert torch.equal(full["token_embedding.weight"][absent], drawn[absent])
    assert "token_embedding.rows" not in full and "token_embedding.rows" in pruned
    assert torch.equal(expand_token_rows({"token_embedding.weight": weight}, 50)["token_embedding.weight"], weight)


def test_token_rows_outside_the_vocabulary_are_refused() -> None:
    state = {"token_embedding.weight": torch.zeros(2, 4), "token_embedding.rows": torch.tensor([1, 50])}
    with pytest.raises(ModelError, match=r"token_embedding\.rows: must be 2 row numbers below 50"):
        expand_token_rows(state, 50)


def test_loss_weighs_true_and_false_alike_and_leaves_out_the_doubtful() -> None:
    truth = torch.tensor([[1, -1]] * 5 + [[0, 0]] * 20)
    wrong_true, wrong_false = torch.zeros(25, 2), torch.zeros(25, 2)
    wrong_true[:5, 0], wrong_false[5:, 0] = -3.0, 3.0
    assert torch.isclose(phrase_loss(wrong_true, truth), phrase_loss(wrong_false, truth))
    doubtful = torch.zeros(25, 2)
    doubtful[:5, 1] = 9.0
    assert torch.equal(phrase_loss(doubtful, truth), phrase_loss(torch.zeros(25, 2), truth))


def test_bias_is_fitted_to_weights_that_come_without_one() -> None:
    truth = (torch.rand(64, 8, generator=torch.Generator().manual_seed(0)) < 0.3).long()
    shifted = (truth.float() - 0.5) * 2.0 + 5.0  # right up to a bias of -5
    assert fit_bias(shifted, truth) == pytest.approx(-5.0, abs=0.3)


SMALL = TrainSpec(
    scenes=4,
    scene_size=32,
    stages=(Stage(2, 4, 32, (0.5, 0.5), (0.5, 1.0)),),
    last_stage=Stage(3, 4, 32, (0.1, 0.6), (0.5, 1.0), patch_share=0.25, names=True),
    phrases=60,
    warmup=1,
)


def test_last_stage_goes_on_from_a_file(tmp_path: Path) -> None:
    train(SMALL, tmp_path / "out.safetensors", start=WEIGHTS_PATH, checkpoints=tmp_path, every=2)
    before, after = load_file(WEIGHTS_PATH), load_file(tmp_path / "out.safetensors")
    assert before.keys() == after.keys()
    assert not torch.equal(before["visual.proj"], after["visual.proj"])
    assert torch.allclose(before["visual.proj"].float(), after["visual.proj"].float(), atol=0.01)
    with safe_open(tmp_path / "step_00004.safetensors", framework="pt") as file:
        assert file.metadata()["steps"] == "4"  # two of `stages`, and two of the last


def test_training_writes_a_file_that_loads(tmp_path: Path) -> None:
    spec, out = SMALL, tmp_path / "tiny.safetensors"
    train(spec, out)
    train(spec, tmp_path / "again.safetensors", workers=2)  # who draws the views changes nothing
    assert sorted(path.name for path in tmp_path.iterdir()) == ["again.safetensors", "tiny.safetensors"]
    state, again = load_file(out), load_file(tmp_path / "again.safetensors")
    assert all(torch.equal(value, again[name]) for name, value in state.items())
    fresh = build_model()
    full = {name: value.float() for name, value in expand_token_rows(state, VOCABULARY).items()}
    fresh.load_state_dict(full, strict=True)
