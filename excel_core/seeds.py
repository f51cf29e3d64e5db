"""From images and their image-level classes to CAMs and refined label maps: what CAM, refinement, LVC and training share."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from excel_core.affinity import (
    affinity_cams,
    dynamic_attention,
    mean_attention,
    scale_attention,
    upsample_with_background,
)
from excel_core.calibration import (
    OriginalPath,
    Relation,
    calibrated_features,
    layer_features,
    original_path,
    relation_of,
)
from excel_core.cams import minmax, patch_text_cams
from excel_core.clip import FrozenClip, normalise_pixels, warp_images
from excel_core.config import CamSpec, RefineSpec
from excel_core.crf import dense_crf
from excel_core.par import pixel_adaptive_refinement
from excel_core.segmenter import Segmenter

__all__ = ["Encoded", "Vision", "refine_batch", "refine_labels"]

Image = NDArray[np.uint8]


@dataclass(frozen=True)
class Encoded:
    """A batch after the frozen tower: its original path, calibrated tokens (B, N, D_s), and token features (L, B, N, D_s)."""

    path: OriginalPath
    calibrated: Tensor
    layers: Tensor


@dataclass(frozen=True)
class Vision:
    """A frozen CLIP with the text (C+Z, D) it compares patches to, under one CAM spec."""

    clip: FrozenClip
    text: Tensor
    classes: int
    spec: CamSpec

    def prepare(self, images: Sequence[Image]) -> Tensor:
        """images (H, W, 3) uint8 RGB → network input (B, 3, S, S), warped and normalised."""
        pixels = warp_images(list(images), self.spec.image_size).to(self.clip.device)
        return normalise_pixels(pixels, self.spec.normalisation)

    def encode(self, batch: Tensor, attention_layers: int = 0) -> Encoded:
        """batch (B, 3, S, S) normalised → Encoded; `attention_layers` last q-k attentions are kept."""
        path = original_path(self.clip, batch, attention_layers)
        calibrated = calibrated_features(self.clip, path, self.spec.calibration)
        return Encoded(path, calibrated, layer_features(path, calibrated, self.spec.calibration))

    def encode_original(self, batch: Tensor, attention_layers: int) -> OriginalPath:
        """batch (B, 3, S, S) normalised → the original path alone, for its attention."""
        return original_path(self.clip, batch, attention_layers)

    def cams(self, encoded: Encoded, relation: Relation | None = None) -> Tensor:
        """CAMs (B, C, h, w) in [0, 1] of all C classes: static, or dynamic (LVC) under a relation."""
        calibrated = encoded.calibrated
        if relation is not None:
            calibrated = calibrated_features(self.clip, encoded.path, self.spec.calibration, relation)
        text = self.text.to(calibrated)
        cams = patch_text_cams(self.clip.project(calibrated), text, self.classes, self.spec)
        return cams.reshape(*cams.shape[:2], *encoded.path.grid)

    def relation(self, segmenter: Segmenter, encoded: Encoded) -> Relation:
        """The learnt relation of each image on its own, as when images come one at a time; no dropout."""
        spec = self.spec.calibration.model_copy(update={"relation_mean": "image"})
        return relation_of(segmenter(encoded.layers, encoded.path.grid).features, spec)

    def attention(self, path: OriginalPath, spec: RefineSpec, relation: Relation | None = None) -> Tensor:
        """Patch attention (B, M, M) for refinement: the layers' mean, or the dynamic choice under a relation."""
        scaled = scale_attention(path.attention, self.clip.heads, self.spec.calibration, spec.affinity)
        if relation is None:
            return mean_attention(scaled, spec.affinity)
        return dynamic_attention(scaled, relation.probability, spec.affinity)


def refine_labels(
    image: Image, classes: Sequence[int], cams: Tensor, attention: Tensor, spec: RefineSpec
) -> dict[str, NDArray[np.uint8]]:
    """One image (H, W, 3), its K class indices, cams (K, h, w), attention (M, M) → label maps (H, W) a step.

    Steps in order: 'raw', then 'affinity', 'par', 'crf' as enabled; 0 background, c+1 class c. The last is the pseudo label.
    """
    size = image.shape[:2]
    names = np.array([0, *(c + 1 for c in classes)], dtype=np.uint8)
    maps = upsample_with_background(cams, size, spec.background_power, rescale=False)
    steps = {"raw": maps}
    if spec.affinity.enabled:
        refined = affinity_cams(cams, attention, spec.affinity)
        steps["affinity"] = maps = upsample_with_background(refined, size, spec.background_power)
    if spec.par.enabled:
        colours = torch.from_numpy(image).permute(2, 0, 1)[None].to(maps)
        steps["par"] = maps = pixel_adaptive_refinement(colours, maps[None], spec.par)[0]
    labels = {step: names[scores.argmax(dim=0).cpu().numpy()] for step, scores in steps.items()}
    if spec.crf.enabled:
        scores = maps.clamp_min(0)
        probabilities = (scores / scores.sum(dim=0, keepdim=True).clamp_min(1e-8)).cpu().numpy()
        labels["crf"] = names[dense_crf(image, probabilities.astype(np.float32), spec.crf).argmax(axis=0)]
    return labels


def refine_batch(pixels: Tensor, classes: Sequence[Sequence[int]], cams: Tensor, attention: Tensor, spec: RefineSpec) -> Tensor:
    """Training's pseudo labels: pixels (B, 3, S, S), classes a list an image, cams (B, C, h, w), attention (B, M, M)
    → labels (B, S, S) int64. Affinity and PAR as enabled; PAR runs on the whole batch."""
    size = (pixels.shape[-2], pixels.shape[-1])
    slots = max(len(kept) for kept in classes)
    maps = pixels.new_full((len(pixels), slots + 1, *size), -1.0)  # -1: a slot no class fills never wins
    names = torch.zeros(len(pixels), slots + 1, dtype=torch.long, device=pixels.device)
    for i, kept in enumerate(classes):
        if not kept:
            maps[i, 0] = 1.0
            continue
        one = cams[i, list(kept)]
        if spec.affinity.enabled:
            one = minmax(affinity_cams(one, attention[i], spec.affinity).flatten(1), dim=1).reshape(one.shape)
        maps[i, : len(kept) + 1] = upsample_with_background(one, size, spec.background_power, rescale=False)
        names[i, 1 : len(kept) + 1] = torch.tensor(kept, device=pixels.device) + 1
    if spec.par.enabled:
        maps = pixel_adaptive_refinement(pixels, maps, spec.par)
    winner = maps.argmax(dim=1)
    return names.gather(1, winner.flatten(1)).reshape(winner.shape)
