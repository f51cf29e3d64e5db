"""Train the tiny DINO-like encoder of the picture-book world, the one shipped as tiny_dino.safetensors.

    python -m excel_core.world.train_dino [--out FILE]

It has DINOv2's architecture and stands in for it as the second encoder of WeCLIP+ in the demo. DINOv2 learns without
labels; this one learns from labels of the world's training scenes, as the tiny CLIP does, since a minute on one core is not
enough for self-supervision: for each view (views.py) it is asked which facts (captions.py) are visible. A linear layer
scores every patch, and a smooth maximum over patches answers. Only scenes of TRAIN_SEEDS are ever drawn, no mask is used.
"""

import argparse
import json
import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from excel_core.files import written_then_renamed
from excel_core.models.clip import normalise_pixels
from excel_core.models.dino import FrozenDino
from excel_core.models.dino_names import DINO_SIZES, TINY_DINO, TINY_DINO_FILE
from excel_core.models.dino_weights import dino_from_state
from excel_core.world.captions import Captions, build_phrases
from excel_core.world.scenes import CLASSES, TRAIN_SEEDS
from excel_core.world.tiny_clip import phrase_loss
from excel_core.world.views import SceneBank, draw_views, fill_bank

__all__ = ["FORMAT", "DinoTrainSpec", "fresh_state", "train"]

FORMAT = "excel-tiny-dino/1"
SHARPNESS = 3.0  # of the smooth maximum over patches


@dataclass(frozen=True)
class DinoTrainSpec:
    """How the shipped weights were made; written into the file's metadata."""

    scenes: int = 1500
    scene_size: int = 128
    depth: int = 4
    grid: int = 16  # stored positions: patches a side of a whole scene
    steps: int = 420
    batch: int = 40
    size: int = 64
    zoom: tuple[float, float] = (0.4, 0.75)
    rate: float = 1.5e-3
    weight_decay: float = 0.05
    warmup: int = 40
    seed: int = 0


def fresh_state(spec: DinoTrainSpec) -> dict[str, Tensor]:
    """A state dict under DINOv2's names with fresh weights, drawn from torch's global generator."""
    sizes = DINO_SIZES[TINY_DINO]
    width = sizes.width

    def drawn(*shape: int) -> Tensor:
        return torch.randn(*shape) * 0.02

    state = {
        "cls_token": drawn(1, 1, width),
        "pos_embed": drawn(1, 1 + spec.grid**2, width),
        "patch_embed.proj.weight": torch.randn(width, 3, sizes.patch, sizes.patch) * (3 * sizes.patch**2) ** -0.5,
        "patch_embed.proj.bias": torch.zeros(width),
    }
    for block in range(spec.depth):
        name = f"blocks.{block}"
        for layer, rows, columns in (("attn.qkv", 3, 1), ("attn.proj", 1, 1), ("mlp.fc1", 4, 1), ("mlp.fc2", 1, 4)):
            state[f"{name}.{layer}.weight"] = torch.randn(rows * width, columns * width) * (columns * width) ** -0.5
            state[f"{name}.{layer}.bias"] = torch.zeros(rows * width)
        for norm in ("norm1", "norm2"):
            state |= {f"{name}.{norm}.weight": torch.ones(width), f"{name}.{norm}.bias": torch.zeros(width)}
        state |= {f"{name}.{scale}.gamma": torch.full((width,), 0.5) for scale in ("ls1", "ls2")}
    return state | {"norm.weight": torch.ones(width), "norm.bias": torch.zeros(width)}


def train(spec: DinoTrainSpec, out: Path) -> None:
    """Train from scratch and write `out`."""
    torch.manual_seed(spec.seed)
    rng = np.random.default_rng(spec.seed)
    captions = Captions(build_phrases())
    bank = fill_bank(TRAIN_SEEDS[: spec.scenes], spec.scene_size, captions)
    dino = dino_from_state(fresh_state(spec), DINO_SIZES[TINY_DINO].heads, TINY_DINO)
    dino.model.requires_grad_(True)
    dino.positions = nn.Parameter(dino.positions)
    # What is seen at the size of patches: classes and grounds, not the small parts of things.
    asked = [i for i, fact in enumerate(captions.facts) if fact in CLASSES or fact.startswith("ground/")]
    head = nn.Linear(dino.width, len(asked))
    parameters = [*dino.model.parameters(), dino.positions, *head.parameters()]
    optimiser = torch.optim.AdamW(parameters, lr=spec.rate, betas=(0.9, 0.98), weight_decay=spec.weight_decay)
    started = time.monotonic()
    for step in range(spec.steps):
        for group in optimiser.param_groups:
            group["lr"] = _rate_at(step, spec)
        loss = _step_loss(dino, head, captions, bank, spec, rng, asked)
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        if (step + 1) % 20 == 0:
            print(f"step {step + 1}/{spec.steps} loss {loss.item():.4f} {time.monotonic() - started:.0f} s", flush=True)
    _save(dino, spec, out)


def _step_loss(
    dino: FrozenDino,
    head: nn.Module,
    captions: Captions,
    bank: SceneBank,
    spec: DinoTrainSpec,
    rng: np.random.Generator,
    asked: list[int],
) -> Tensor:
    views = draw_views(bank, rng, spec.batch, spec.size, dino.patch, 1.0, spec.zoom)
    pixels = torch.from_numpy(views.images).permute(0, 3, 1, 2).float() / 255
    scores = head(dino.features(normalise_pixels(pixels, "imagenet")).flatten(2).mT)  # (B, patches, F)
    answers = torch.logsumexp(SHARPNESS * scores, dim=1) / SHARPNESS - math.log(scores.shape[1]) / SHARPNESS
    visible, absent = views.shares >= captions.thresholds, views.shares == 0
    truth = torch.from_numpy(np.where(visible, 1, np.where(absent, 0, -1)))
    return phrase_loss(answers, truth[:, asked])


def _rate_at(step: int, spec: DinoTrainSpec) -> float:
    """Learning rate: a linear warm-up, then half a cosine down to 2 % of `spec.rate`."""
    if step < spec.warmup:
        return spec.rate * (step + 1) / spec.warmup
    done = (step - spec.warmup) / (spec.steps - spec.warmup)
    return spec.rate * (0.02 + 0.98 * 0.5 * (1.0 + math.cos(math.pi * done)))


def _save(dino: FrozenDino, spec: DinoTrainSpec, path: Path) -> None:
    """Write float16 weights under DINOv2's names."""
    state = {key: value.detach().half().contiguous() for key, value in dino.state_dict().items()}
    metadata = {"format": FORMAT, "model": TINY_DINO, "training": json.dumps(asdict(spec))}
    with written_then_renamed(path) as temporary:
        save_file(state, temporary, metadata=metadata)


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the picture-book world's tiny DINO-like encoder.")
    parser.add_argument("--out", type=Path, default=TINY_DINO_FILE, help="file to write (default: the shipped one)")
    train(DinoTrainSpec(), parser.parse_args().out)


if __name__ == "__main__":
    main()
