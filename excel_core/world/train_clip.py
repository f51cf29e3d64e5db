"""Train the tiny CLIP of the picture-book world, the one shipped as tiny_clip.safetensors.

    python -m excel_core.world.train_clip [--out FILE] [--checkpoints DIR] [--device cuda] [--workers 8] [--start FILE]

Each step shows a batch of views (views.py) and a sample of all phrases (captions.py), and asks for every pair whether
the phrase is true: sigmoid cross-entropy with a learned scale and bias, true and false pairs of a phrase weighing the
same. First whole scenes are learnt, at two resolutions (`TrainSpec.stages`). Then `TrainSpec.last_stage` shows few
patches at a time: what a phrase is about must be found in any patch that has some of it, and CAMs are made of patches.
It has a learning rate of its own; `--start` goes to it at once, from a file of weights. The model is an ordinary
open_clip CLIP, built from tiny_clip.json; only scenes of TRAIN_SEEDS are ever drawn. Minutes on a GPU whose views many
processes draw, hours on a CPU.
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
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from excel_core.files import written_then_renamed
from excel_core.models.clip_weights import expand_token_rows, prune_token_rows
from excel_core.world.captions import Captions, build_phrases
from excel_core.world.scenes import TRAIN_SEEDS
from excel_core.world.tiny_clip import (
    WEIGHTS_PATH,
    build_model,
    encode_phrases,
    encode_views,
    fit_bias,
    normalise_views,
    phrase_loss,
)
from excel_core.world.views import SceneBank, draw_views, fill_bank

__all__ = ["FORMAT", "Stage", "TrainSpec", "train"]

FORMAT = "excel-tiny-clip/1"


@dataclass(frozen=True)
class Stage:
    """Some steps at one resolution.

    keep: bounds of the share of patches shown, drawn anew for each step, few patches as likely as many (its logarithm
    is uniform). zoom: bounds of a crop's side, as a share of the scene. patch_share: what fills less of one patch does
    not count as visible. names: every step asks for every class by name, beside the sampled phrases.
    """

    steps: int
    batch: int
    size: int
    keep: tuple[float, float]
    zoom: tuple[float, float]
    patch_share: float = 0.0
    names: bool = False


@dataclass(frozen=True)
class TrainSpec:
    """How the shipped weights were made; written into the file's metadata.

    The schedule of `stages` went by the clock: their numbers of steps are rounded, and the file is not repeatable to
    the bit.
    """

    scenes: int = 30_000
    scene_size: int = 128
    stages: tuple[Stage, ...] = (
        Stage(steps=1032, batch=256, size=64, keep=(0.5, 0.5), zoom=(0.4, 1.0)),
        Stage(steps=1300, batch=160, size=128, keep=(0.6, 0.6), zoom=(0.6, 1.0)),
    )
    last_stage: Stage = Stage(steps=2800, batch=128, size=128, keep=(0.03, 0.6), zoom=(0.5, 1.0), patch_share=0.25, names=True)
    phrases: int = 200  # per step, the same for all its images; about 32 of them are true of an image
    rate: float = 1.0e-3
    last_rate: float = 7.0e-4
    weight_decay: float = 0.1
    warmup: int = 100
    seed: int = 0


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


def _rate_at(step: int, total: int, rate: float, warmup: int) -> float:
    """Learning rate: a linear warm-up, then half a cosine down to 2 % of `rate`."""
    if step < warmup:
        return rate * (step + 1) / warmup
    return rate * (0.02 + 0.98 * 0.5 * (1.0 + math.cos(math.pi * (step - warmup) / (total - warmup))))


@dataclass(frozen=True, eq=False)
class _Steps(Dataset[tuple[Tensor, Tensor, Tensor, Tensor]]):
    """What each training step is shown, as a data set of torch's loader: a function of seed and step alone, so that any
    number of worker processes draws the same."""

    stages: tuple[Stage, ...]
    seed: tuple[int, ...]
    phrases: int
    bank: SceneBank
    captions: Captions
    patch: int

    def __len__(self) -> int:
        return sum(stage.steps for stage in self.stages)

    def __getitem__(self, step: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Views (B, 3, V, V) normalised, the patches shown (B, K), numbers of the phrases (P,), truth (B, P)."""
        rng = np.random.default_rng([*self.seed, step])
        stage = self._stage(step)
        keep = float(np.exp(rng.uniform(*np.log(stage.keep))))
        views = draw_views(self.bank, rng, stage.batch, stage.size, self.patch, keep, stage.zoom)
        sampled = rng.permutation(len(self.captions.phrases))
        if stage.names:
            class_phrases = self.captions.class_phrases
            sampled = np.concatenate([class_phrases, sampled[~np.isin(sampled, class_phrases)]])
        sampled = sampled[: self.phrases]
        least_share = stage.patch_share / views.patches.shape[1]
        truth = torch.from_numpy(self.captions.truth(views.shares, least_share)[:, sampled])
        return normalise_views(views.images), torch.from_numpy(views.patches), torch.from_numpy(sampled), truth

    def _stage(self, step: int) -> Stage:
        for stage in self.stages:
            if step < stage.steps:
                return stage
            step -= stage.steps
        raise IndexError(step)


@dataclass(eq=False)
class _Course:
    """A training in the middle: the model with the scale and bias of its logits, and what it is trained with."""

    model: Any
    scale: torch.nn.Parameter
    bias: torch.nn.Parameter
    tokens: Tensor
    spec: TrainSpec
    device: str
    workers: int
    checkpoints: Path | None
    every: int
    done: int = 0

    def run(self, steps: _Steps, rate: float) -> None:
        """All `steps` with an optimiser of their own: a warm-up to `rate`, then half a cosine."""
        groups = _parameter_groups(self.model, (self.scale, self.bias), self.spec.weight_decay)
        optimiser = torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.98))
        total, started = len(steps), time.monotonic()
        loader = DataLoader(steps, batch_size=None, num_workers=self.workers, pin_memory=self.device != "cpu")
        for step, (images, patches, sampled, truth) in enumerate(loader, start=1):
            for group in optimiser.param_groups:
                group["lr"] = _rate_at(step - 1, total, rate, self.spec.warmup)
            logits = self.logits(images, patches, sampled)
            truth = truth.to(self.device)
            if step == 1 and self.done:
                self.bias.data.fill_(fit_bias(logits.detach() - self.bias.detach(), truth))
                logits = self.logits(images, patches, sampled)
            loss = phrase_loss(logits, truth)
            optimiser.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
            optimiser.step()
            self.done += 1
            if step % 20 == 0 or step == total:
                minutes = (time.monotonic() - started) / 60.0
                line = f"step {step}/{total} loss {loss.item():.4f} scale {self.scale.exp().item():.1f}"
                print(f"{line} bias {self.bias.item():.2f} {minutes:.1f} min", flush=True)
            if self.checkpoints is not None and step % self.every == 0:
                self.save(self.checkpoints / f"step_{self.done:05d}.safetensors")

    def logits(self, images: Tensor, patches: Tensor, sampled: Tensor) -> Tensor:
        """Logits (B, P) of one step's views and phrases, `_Steps` has the shapes; on the model's device."""
        view_embeddings = encode_views(self.model, images.to(self.device), patches.to(self.device))
        phrase_embeddings = encode_phrases(self.model, self.tokens[sampled].to(self.device))
        return self.scale.exp() * view_embeddings @ phrase_embeddings.T + self.bias

    def save(self, path: Path) -> None:
        """Write float16 weights under open_clip's names, with the token rows that were trained."""
        state = {name: value.detach().cpu() for name, value in self.model.state_dict().items() if name != "attn_mask"}
        state["logit_scale"] = self.scale.detach().cpu()
        state = prune_token_rows(state, self.tokens.unique())
        state = {k: v.contiguous() if v.dtype == torch.int32 else v.half().contiguous() for k, v in state.items()}
        training = json.dumps(asdict(self.spec))
        metadata = {"format": FORMAT, "model": "excel-tiny", "steps": str(self.done), "training": training}
        with written_then_renamed(path) as temporary:
            save_file(state, temporary, metadata=metadata)


def train(
    spec: TrainSpec,
    out: Path,
    start: Path | None = None,
    checkpoints: Path | None = None,
    every: int = 200,
    device: str = "cpu",
    workers: int = 0,
) -> None:
    """Train on `device` and write `out`; with `checkpoints`, also a file there every `every` steps.

    start: a file of weights after `spec.stages`, from which `spec.last_stage` goes on; by default everything is trained.
    workers: processes that draw views; 0 draws them in this one. Their number changes no view.
    """
    torch.manual_seed(spec.seed)
    captions = Captions(build_phrases())
    tokens = open_clip.get_tokenizer("ViT-B-16")([phrase.text for phrase in captions.phrases])
    model = build_model()
    scale, bias = torch.tensor(2.3), torch.tensor(-2.0)
    if start is not None:
        state = expand_token_rows(load_file(start), model.vocab_size)
        model.load_state_dict({name: value.float() for name, value in state.items()})
        scale = model.logit_scale.detach().clone()
    model = model.train().to(device)
    scale, bias = (torch.nn.Parameter(value.to(device)) for value in (scale, bias))
    bank = fill_bank(TRAIN_SEEDS[: spec.scenes], spec.scene_size, captions)
    sources = (spec.phrases, bank, captions, model.visual.patch_size[0])
    course = _Course(model, scale, bias, tokens, spec, device, workers, checkpoints, every)
    first = _Steps(spec.stages, (spec.seed,), *sources)
    if start is None:
        course.run(first, spec.rate)
    else:
        course.done = len(first)
    course.run(_Steps((spec.last_stage,), (spec.seed, 1), *sources), spec.last_rate)
    course.save(out)


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the picture-book world's tiny CLIP.")
    parser.add_argument("--out", type=Path, default=WEIGHTS_PATH, help="file to write (default: the shipped one)")
    parser.add_argument("--start", type=Path, help="file of weights that the last stage goes on from (default: train all)")
    parser.add_argument("--checkpoints", type=Path, help="folder for a checkpoint every 200 steps")
    parser.add_argument("--device", default="cpu", help="device of the model (default: cpu)")
    parser.add_argument("--workers", type=int, default=0, help="processes that draw views (default: none beside this one)")
    arguments = parser.parse_args()
    train(
        TrainSpec(), arguments.out, arguments.start, arguments.checkpoints, device=arguments.device, workers=arguments.workers
    )


if __name__ == "__main__":
    main()
