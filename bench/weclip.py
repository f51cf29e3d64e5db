"""Training steps of WeCLIP and WeCLIP+ for `make bench`, beside the published way rebuilt from their description.

The published way: attention of every block as a matrix, GradCAM class after class with gradients of the block's weights too,
affinity and PAR image by image, the neck's MLPs and the two encoders' heads one after another.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from bench import published
from bench.alternating import Case
from bench.peers import published_gradcam, with_logit_scale
from bench.scene import CLASSES, Scene
from excel_core.cams.cam_model import CamModel
from excel_core.config import RunSpec
from excel_core.config.presets import preset
from excel_core.models.clip import FrozenClip, normalise_pixels
from excel_core.models.dino import FrozenDino
from excel_core.models.dino_weights import dino_from_state
from excel_core.models.segmenter import Segmenter
from excel_core.training.batches import Batch
from excel_core.training.losses import diversity_loss, pair_labels, segmentation_loss
from excel_core.training.optimiser import learning_rate
from excel_core.training.samples import plain_sample
from excel_core.training.step import Phase, training_step

__all__ = ["PublishedStep", "random_dino", "weclip_cases"]


def weclip_cases(scene: Scene, rounds: int) -> Iterator[Case]:
    """A step at the published batch, in float32; weights go on from step to step on each side."""
    for method, words, iteration in (
        ("weclip", "WeCLIP, static labels", 0),
        ("weclip", "WeCLIP, dynamic labels", None),
        ("weclip_plus", "WeCLIP+ with a ViT-S/14 DINO", 0),
    ):
        yield _training(scene, preset("voc", method), words, iteration, rounds)


def random_dino() -> FrozenDino:
    """A DINOv2 ViT-S/14 with seeded random weights."""
    from timm.models.vision_transformer import VisionTransformer

    torch.manual_seed(0)
    sizes = {"img_size": 518, "patch_size": 14, "embed_dim": 384, "depth": 12, "num_heads": 6}
    model = VisionTransformer(**sizes, num_classes=0, init_values=1.0)
    return dino_from_state(model.state_dict(), heads=6)


def _training(scene: Scene, run: RunSpec, words: str, iteration: int | None, rounds: int) -> Case:
    segmenter_spec = run.train.segmenter.model_copy(update={"dropout": 0})
    spec = run.train.model_copy(update={"segmenter": segmenter_spec, "warmup": 0})
    run = run.model_copy(update={"train": spec})
    dino = random_dino() if run.dino.model is not None else None
    cam_model = CamModel(with_logit_scale(scene.clip), scene.text, CLASSES, run.cams, dino)
    chosen = [i % len(scene.paths) for i in range(spec.batch_size)]
    crops, classes = [scene.crop(i) for i in chosen], [scene.classes[i] for i in chosen]
    batch = Batch.of([plain_sample(crop, crop_classes) for crop, crop_classes in zip(crops, classes, strict=True)])
    sides = {}
    for side in ("ours", "published"):
        torch.manual_seed(3)
        segmenter = Segmenter(12, 768, CLASSES, spec.segmenter, None if dino is None else dino.width).train()
        sides[side] = segmenter, torch.optim.AdamW(segmenter.parameters(), lr=spec.learning_rate)
    step = spec.dynamic_from if iteration is None else iteration
    assert step is not None

    def ours(number: int) -> float:
        return float(training_step(cam_model, *sides["ours"], batch, step, spec, run.refine).losses[0])

    def theirs(number: int) -> float:
        segmenter, optimiser = sides["published"]
        for parameters in optimiser.param_groups:
            parameters["lr"] = learning_rate(step, spec)
        way = PublishedStep(cam_model, segmenter, optimiser, run)
        return float(way.step(torch.stack(crops).float(), classes, Phase.at(step, spec)))

    return Case(
        f"training step, batch {spec.batch_size}, {words}",
        ours,
        theirs,
        lambda a, b: {"relative difference of the loss": abs(a - b) / abs(b)},
        rounds=rounds,
    )


@dataclass(frozen=True)
class PublishedStep:
    """One training as the published programs compute it."""

    cam_model: CamModel
    segmenter: Segmenter
    optimiser: torch.optim.Optimizer
    run: RunSpec

    def step(self, pixels: Tensor, classes: Sequence[tuple[int, ...]], phase: Phase) -> Tensor:
        """pixels (B, 3, S, S) in 0…255 → the loss, after one optimiser step."""
        clip, spec = self.cam_model.clip, self.run.train
        grid = (pixels.shape[-1] // clip.patch,) * 2
        network_input = normalise_pixels(pixels / 255, self.run.cams.normalisation)
        with torch.no_grad():
            maps, outputs = _plain_blocks(clip, network_input)
        necks = [self._neck(outputs, grid)]
        if self.cam_model.dino is not None:
            with torch.no_grad():
                features = self.cam_model.dino.features(network_input)
            assert self.segmenter.second_neck is not None
            own = self.segmenter.second_neck(features.flatten(2).mT[None], (features.shape[-2], features.shape[-1]))
            necks.append(F.interpolate(own, size=grid, mode="bilinear", align_corners=False))
        logits = [self._head(neck) for neck in necks]
        mean = torch.stack(logits).mean(dim=0)
        joint = torch.cat(necks, dim=1).flatten(2)
        probability = torch.sigmoid(joint.transpose(1, 2) @ joint)
        guidance = torch.softmax(mean.detach(), dim=1) if phase.guided else None
        tokens = outputs[-1 - self.run.cams.gradcam_skips]
        labels = torch.stack(
            [
                self._labels(
                    i, classes[i], tokens, maps, probability.detach() if phase.dynamic else None, guidance, network_input
                )
                for i in range(len(classes))
            ]
        )
        size = (labels.shape[-2], labels.shape[-1])
        full = [F.interpolate(each, size=size, mode="bilinear", align_corners=False) for each in (mean, *logits)]
        pairs = pair_labels(labels, grid, spec.radius)
        loss = segmentation_loss(full[0], labels) + spec.diversity_weight * diversity_loss(probability, pairs)
        if len(logits) > 1:
            loss = loss + _dice(full[0], labels)
            by_clip, by_dino = (each.argmax(dim=1) for each in full[1:])
            loss = loss + spec.mutual_weight * (segmentation_loss(full[1], by_dino) + segmentation_loss(full[2], by_clip))
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self.optimiser.step()
        return loss.detach()

    def _neck(self, outputs: Sequence[Tensor], grid: tuple[int, int]) -> Tensor:
        """A block after another through its MLP."""
        neck, read = self.segmenter.neck, range(len(outputs) + 1)[self.segmenter.blocks]
        adapted = [adapter(outputs[block][:, 1:]) for block, adapter in zip(read, neck.adapters, strict=True)]
        return neck.fuse(torch.cat([each.transpose(1, 2).unflatten(-1, grid) for each in adapted], dim=1))  # type: ignore[no-any-return]

    def _head(self, neck: Tensor) -> Tensor:
        tokens = self.segmenter.head(neck.flatten(2).transpose(1, 2))
        return self.segmenter.classifier(tokens.transpose(1, 2).reshape(neck.shape))  # type: ignore[no-any-return]

    def _labels(
        self, i: int, classes: tuple[int, ...], tokens: Tensor, maps: Tensor, probability: Tensor | None, guidance: Tensor |
        None, network_input: Tensor,
    ) -> Tensor:  # fmt: skip
        """Pseudo labels (S, S) of one image: seeds, attention, affinity, PAR."""
        affinity, grid = self.run.refine.affinity, (network_input.shape[-1] // self.cam_model.clip.patch,) * 2
        seeds, last = published_gradcam(self.cam_model.clip, tokens[i : i + 1], self.cam_model.text, classes, True)
        cams = seeds.unflatten(-1, grid)
        layers = torch.cat([maps[:, i], last])[:, 1:, 1:]
        if probability is None:
            attention = layers[-affinity.layers :].mean(dim=0)
        else:
            layers = layers[-(affinity.dynamic_layers or affinity.layers) :]
            excess = torch.stack([(probability[i] - layer).sum() for layer in layers])
            kept = [layer for layer, over in zip(layers, excess, strict=True) if over <= excess.mean()]
            attention = torch.stack(kept).sum(dim=0) / (len(kept) + 1e-5) * probability[i]
        if guidance is not None:
            cams = cams * guidance[i, [c + 1 for c in classes]]
        refined = _spread(cams, attention, affinity.threshold if affinity.boxes else None)
        size = (network_input.shape[-2], network_input.shape[-1])
        full = F.interpolate(refined[None], size=size, mode="bilinear", align_corners=False)
        full = torch.cat([1 - full.amax(dim=1, keepdim=True), full], dim=1)
        winner = published.par(network_input[i : i + 1], full).argmax(dim=1)[0]
        return torch.tensor([0, *(c + 1 for c in classes)])[winner]


def _plain_blocks(clip: FrozenClip, image: Tensor) -> tuple[Tensor, list[Tensor]]:
    """image (B, 3, S, S) → attention (11, B, N, N), means over heads, and outputs (B, N, D_s) of all blocks before the last."""
    x, maps, outputs = clip.tokens(image), [], []
    for layer in clip.blocks[:-1]:
        normed = layer.ln_1(x)
        attended, weights = layer.attn(normed, normed, normed, need_weights=True)
        maps.append(weights)
        x = x + attended
        x = x + layer.mlp(layer.ln_2(x))
        outputs.append(x)
    return torch.stack(maps), outputs


def _spread(cams: Tensor, attention: Tensor, threshold: float | None) -> Tensor:
    """cams (K, h, w), attention (M, M) → refined (K, h, w): the matrix once, its columns outside the boxes zero class by
    class."""
    matrix, refined = published.affinity_matrix(attention), []
    for cam in cams:
        inside = torch.ones_like(cam) if threshold is None else published.boxes(cam, threshold)
        spread = ((matrix * inside.reshape(1, -1)) @ cam.reshape(-1, 1)).reshape(cam.shape)
        spread = spread - spread.min()
        refined.append(spread / (1e-7 + spread.max()))
    return torch.stack(refined)


def _dice(logits: Tensor, labels: Tensor) -> Tensor:
    """As described: a loop over labels."""
    p, terms = torch.softmax(logits, dim=1), []
    for c in range(logits.shape[1]):
        o = (labels == c).float()
        terms.append(2 * (p[:, c] * o).sum() / (p[:, c].sum() + o.sum() + 1e-7))
    return 1 - torch.stack(terms).mean()
