"""Train the tiny CLIP of the picture-book world, the one shipped as tiny_clip.safetensors.

    python -m excel_core.world.train_clip [--out FILE] [--checkpoints DIR]

Each step shows a batch of views (views.py) and a sample of all phrases (captions.py), and asks for every pair whether
the phrase is true: sigmoid cross-entropy with a learned scale and bias, true and false pairs of a phrase weighing the
same. A last stage goes on at the resolution that CAMs are made at. The model is an ordinary open_clip CLIP, built
from tiny_clip.json; only scenes of TRAIN_SEEDS are ever drawn.
"""

import argparse
import json
import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor

from excel_core.files import written_then_renamed
from excel_core.models.clip_names import BUILT_IN_FOLDER
from excel_core.models.clip_weights import prune_token_rows
from excel_core.world.captions import Captions, build_phrases
from excel_core.world.scenes import TRAIN_SEEDS
from excel_core.world.views import SceneBank, draw_views, fill_bank

__all__ = [
    "CONFIG_PATH", "FORMAT", "WEIGHTS_PATH", "Stage", "TrainSpec", "build_model", "encode_phrases", "encode_views",
    "normalise_views", "phrase_loss", "save_model", "train",
]  # fmt: skip

CONFIG_PATH, WEIGHTS_PATH = BUILT_IN_FOLDER / "tiny_clip.json", BUILT_IN_FOLDER / "tiny_clip.safetensors"
FORMAT = "excel-tiny-clip/1"


@dataclass(frozen=True)
class Stage:
    """Some steps at one resolution. keep: share of patches shown; zoom: crop side as a share of the scene."""

    steps: int
    batch: int
    size: int
    keep: float
    zoom: tuple[float, float]


@dataclass(frozen=True)
class TrainSpec:
    """How the shipped weights were made; written into the file's metadata."""

    scenes: int = 10_000
    scene_size: int = 128
    stages: tuple[Stage, ...] = (
        Stage(steps=1900, batch=96, size=64, keep=0.5, zoom=(0.4, 1.0)),
        Stage(steps=200, batch=32, size=128, keep=0.75, zoom=(0.75, 1.0)),
    )
    phrases: int = 160  # per step, the same for all its images; about 26 of them are true of an image
    rate: float = 1.0e-3
    weight_decay: float = 0.1
    warmup: int = 100
    seed: int = 0


def build_model() -> Any:
    """An open_clip CLIP as tiny_clip.json says, with fresh weights."""
    config = json.loads(CONFIG_PATH.read_text(encoding="utf-8"))
    return open_clip.CLIP(**config)


def encode_views(model: Any, images: Tensor, patches: Tensor) -> Tensor:
    """images (B, 3, V, V) normalised; patches (B, K) their numbers → unit embeddings (B, D) from those patches alone."""
    visual = model.visual
    tokens = visual.conv1(images).flatten(2).mT
    stored, cells = visual.positional_embedding, math.isqrt(tokens.shape[1])
    # The stored positions are of one grid; a larger view needs them resized, as in the frozen encoder.
    grid = stored[1:].reshape(1, *visual.grid_size, -1).permute(0, 3, 1, 2)
    if cells != grid.shape[-1]:
        grid = F.interpolate(grid, size=(cells, cells), mode="bilinear", align_corners=False)
    tokens = tokens + grid.flatten(2).mT
    tokens = tokens.gather(1, patches[..., None].expand(-1, -1, tokens.shape[2]))
    first = (visual.class_embedding + stored[0]).expand(len(tokens), 1, -1)
    tokens = visual.transformer(visual.ln_pre(torch.cat([first, tokens], dim=1)))
    return F.normalize(visual.ln_post(tokens[:, 0]) @ visual.proj, dim=1)


def encode_phrases(model: Any, tokens: Tensor) -> Tensor:
    """tokens (P, 77) → unit embeddings (P, D). Cut to the longest phrase: exact, as no token looks ahead."""
    ends = tokens.argmax(dim=1)
    length = int(ends.max()) + 1
    states = model.token_embedding(tokens[:, :length]) + model.positional_embedding[:length]
    states = model.ln_final(model.transformer(states, attn_mask=model.attn_mask[:length, :length]))
    return F.normalize(states[torch.arange(len(tokens)), ends] @ model.text_projection, dim=1)


def phrase_loss(logits: Tensor, truth: Tensor) -> Tensor:
    """logits (B, P), truth (B, P) in {1, 0, -1 = left out} → mean over phrases; true and false pairs weigh the same."""
    true, false = (truth == 1).float(), (truth == 0).float()
    # At least a few in the denominator: one lucky positive must not outweigh the whole batch.
    weight = true / true.sum(0).clamp_min(4.0) + false / false.sum(0).clamp_min(4.0)
    return (weight * F.binary_cross_entropy_with_logits(logits, true, reduction="none")).sum() / truth.shape[1]


def _parameter_groups(model: Any, extra: Sequence[torch.nn.Parameter], decay: float) -> list[dict[str, Any]]:
    """Weight decay on matrices alone: not on norms, biases, embeddings."""
    without_decay = ("embedding", "ln_", "bias")
    decayed: list[torch.nn.Parameter] = []
    plain: list[torch.nn.Parameter] = []
    for name, parameter in model.named_parameters():
        if name == "logit_scale":
            continue  # the sigmoid loss has a scale of its own, in `extra`
        if parameter.ndim < 2 or any(word in name for word in without_decay):
            plain.append(parameter)
        else:
            decayed.append(parameter)
    return [{"params": decayed, "weight_decay": decay}, {"params": [*plain, *extra], "weight_decay": 0.0}]


def _rate_at(step: int, total: int, spec: TrainSpec) -> float:
    """Learning rate: a linear warm-up, then half a cosine down to 2 % of `spec.rate`."""
    if step < spec.warmup:
        return spec.rate * (step + 1) / spec.warmup
    return spec.rate * (0.02 + 0.98 * 0.5 * (1.0 + math.cos(math.pi * (step - spec.warmup) / (total - spec.warmup))))


def normalise_views(images: NDArray[np.uint8]) -> Tensor:
    """HWC uint8 batch → (B, 3, V, V) float32 with CLIP's mean and deviation."""
    mean, deviation = (
        torch.tensor(values)[:, None, None] for values in (open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD)
    )
    return (torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255.0 - mean) / deviation


def train(spec: TrainSpec, out: Path, checkpoints: Path | None = None, every: int = 200) -> None:
    """Train from scratch and write `out`; with `checkpoints`, also a file there every `every` steps."""
    torch.manual_seed(spec.seed)
    rng = np.random.default_rng(spec.seed)
    captions = Captions(build_phrases())
    tokens = open_clip.get_tokenizer("ViT-B-16")([phrase.text for phrase in captions.phrases])
    bank = fill_bank(TRAIN_SEEDS[: spec.scenes], spec.scene_size, captions)
    model = build_model().train()
    scale, bias = torch.nn.Parameter(torch.tensor(2.3)), torch.nn.Parameter(torch.tensor(-2.0))
    groups = _parameter_groups(model, (scale, bias), spec.weight_decay)
    optimiser = torch.optim.AdamW(groups, lr=spec.rate, betas=(0.9, 0.98))
    total, step, started = sum(stage.steps for stage in spec.stages), 0, time.monotonic()
    for stage in spec.stages:
        for _ in range(stage.steps):
            for group in optimiser.param_groups:
                group["lr"] = _rate_at(step, total, spec)
            loss = _step_loss(model, captions, tokens, bank, stage, spec, rng, scale, bias)
            optimiser.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            step += 1
            if step % 20 == 0 or step == total:
                minutes = (time.monotonic() - started) / 60.0
                line = f"step {step}/{total} loss {loss.item():.4f} scale {scale.exp().item():.1f}"
                print(f"{line} bias {bias.item():.2f} {minutes:.1f} min", flush=True)
            if checkpoints is not None and step % every == 0:
                save_model(model, scale, tokens, spec, step, checkpoints / f"step_{step:05d}.safetensors")
    save_model(model, scale, tokens, spec, step, out)


def _step_loss(
    model: Any, captions: Captions, tokens: Tensor, bank: SceneBank, stage: Stage, spec: TrainSpec,
    rng: np.random.Generator, scale: Tensor, bias: Tensor,
) -> Tensor:  # fmt: skip
    patch = model.visual.patch_size[0]
    views = draw_views(bank, rng, stage.batch, stage.size, patch, stage.keep, stage.zoom)
    chosen = rng.permutation(len(tokens))[: spec.phrases]
    truth = torch.from_numpy(captions.truth(views.shares)[:, chosen])
    image_embeddings = encode_views(model, normalise_views(views.images), torch.from_numpy(views.patches))
    text_embeddings = encode_phrases(model, tokens[torch.from_numpy(chosen)])
    return phrase_loss(scale.exp() * image_embeddings @ text_embeddings.T + bias, truth)


def save_model(model: Any, scale: Tensor, tokens: Tensor, spec: TrainSpec, step: int, path: Path) -> None:
    """Write float16 weights under open_clip's names, with the token rows that were trained."""
    state = {name: value.detach() for name, value in model.state_dict().items() if name != "attn_mask"}
    state["logit_scale"] = scale.detach()
    state = prune_token_rows(state, tokens.unique())
    state = {k: v.contiguous() if v.dtype == torch.int32 else v.half().contiguous() for k, v in state.items()}
    metadata = {"format": FORMAT, "model": "excel-tiny", "steps": str(step), "training": json.dumps(asdict(spec))}
    with written_then_renamed(path) as temporary:
        save_file(state, temporary, metadata=metadata)


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the picture-book world's tiny CLIP.")
    parser.add_argument("--out", type=Path, default=WEIGHTS_PATH, help="file to write (default: the shipped one)")
    parser.add_argument("--checkpoints", type=Path, help="folder for a checkpoint every 200 steps")
    arguments = parser.parse_args()
    train(TrainSpec(), arguments.out, arguments.checkpoints)


if __name__ == "__main__":
    main()
