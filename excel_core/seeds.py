"""From images and their image-level classes to CAMs and refined label maps: what CAM, refinement, LVC and training share."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
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
from excel_core.cams import patch_text_cams
from excel_core.clip import FrozenClip, as_batch, normalise_pixels, warp_image
from excel_core.config import CamSpec, RefineSpec
from excel_core.crf import dense_crf
from excel_core.par import pixel_adaptive_refinement
from excel_core.segmenter import Segmenter

__all__ = ["Encoded", "Vision", "label_steps", "refine_batch", "refine_labels", "refine_maps", "step_names"]

Image = NDArray[np.uint8]


@dataclass(frozen=True)
class Encoded:
    """A batch after the frozen tower: its original path, and calibrated tokens (B, N, D_s)."""

    path: OriginalPath
    calibrated: Tensor


@dataclass(frozen=True)
class Vision:
    """A frozen CLIP with the text (C+Z, D) it compares patches to, under one CAM spec."""

    clip: FrozenClip
    text: Tensor
    classes: int
    spec: CamSpec

    def warp(self, image: Image) -> Image:
        """image (H, W, 3) uint8 RGB → (S, S, 3) uint8, as `prepare` takes it; work for a reading thread."""
        return warp_image(image, self.spec.image_size)

    def prepare(self, warped: Sequence[Image]) -> Tensor:
        """warped (S, S, 3) uint8 each → network input (B, 3, S, S), normalised, on the device."""
        return normalise_pixels(as_batch(warped, self.clip.device), self.spec.normalisation)

    def encode(self, batch: Tensor, attention_layers: int = 0, whole: bool = True) -> Encoded:
        """batch (B, 3, S, S) normalised → Encoded; `attention_layers` last q-k attentions are kept. `whole`: as the neck
        needs it, which CAMs do not."""
        with self._precision(batch.device):
            path = original_path(self.clip, batch, self.spec.calibration, attention_layers, whole or self._plain)
            return Encoded(path, calibrated_features(self.clip, path, self.spec.calibration))

    def _precision(self, device: torch.device) -> AbstractContextManager[Any]:
        """Autocast as the spec wants it; float32 leaves an autocast alone that is on already, as in training."""
        types = {"bf16": torch.bfloat16, "fp16": torch.float16}
        wanted = types.get(self.spec.precision)
        return nullcontext() if wanted is None else torch.autocast(device.type, dtype=wanted)

    @property
    def _plain(self) -> bool:
        """Whether CAMs are made of the tower's own last tokens."""
        return self.spec.calibration.attention == "qk"

    def layers(self, encoded: Encoded) -> Tensor:
        """Token features (L, B, N, D_s) of all blocks of a whole path, which the segmenter looks at."""
        layers = layer_features(encoded.path, encoded.calibrated, self.spec.calibration)
        return layers if self.spec.precision == "fp32" else layers.float()

    def encode_original(self, batch: Tensor, attention_layers: int) -> OriginalPath:
        """batch (B, 3, S, S) normalised → the original path alone, for its attention."""
        with self._precision(batch.device):
            return original_path(self.clip, batch, None, attention_layers, whole=False)

    def cams(self, encoded: Encoded, relation: Relation | None = None) -> Tensor:
        """CAMs (B, C, h, w) in [0, 1] of all C classes: static, or dynamic (LVC) under a relation."""
        calibrated = encoded.calibrated
        if relation is not None:
            with self._precision(calibrated.device):
                calibrated = calibrated_features(self.clip, encoded.path, self.spec.calibration, relation)
        if self.spec.precision != "fp32":
            calibrated = calibrated.float()
        text = self.text.to(calibrated)
        cams = patch_text_cams(self.clip.project(calibrated), text, self.classes, self.spec)
        return cams.reshape(*cams.shape[:2], *encoded.path.grid)

    def relation(self, segmenter: Segmenter, encoded: Encoded) -> Relation:
        """The learnt relation of each image on its own, as when images come one at a time; no dropout."""
        spec = self.spec.calibration.model_copy(update={"relation_mean": "image"})
        return relation_of(segmenter(self.layers(encoded), encoded.path.grid).features, spec)

    def attention(self, path: OriginalPath, spec: RefineSpec, relation: Relation | None = None) -> Tensor:
        """Patch attention (B, M, M) for refinement: the layers' mean, or the dynamic choice under a relation."""
        scaled = scale_attention(path.attention.float(), self.clip.heads, self.spec.calibration, spec.affinity)
        if relation is None:
            return mean_attention(scaled, spec.affinity)
        return dynamic_attention(scaled, relation.probability, spec.affinity)


def step_names(spec: RefineSpec) -> list[str]:
    """The steps of `refine_labels` that are enabled, in order."""
    enabled = {"affinity": spec.affinity.enabled, "par": spec.par.enabled, "crf": spec.crf.enabled}
    return ["raw", *(step for step, wanted in enabled.items() if wanted)]


def refine_labels(
    image: Image, classes: Sequence[int], cams: Tensor, attention: Tensor, spec: RefineSpec
) -> dict[str, NDArray[np.uint8]]:
    """One image (H, W, 3), its K class indices, cams (K, h, w), attention (M, M) → label maps (H, W) a step.

    Steps in order: 'raw', then 'affinity', 'par', 'crf' as enabled; 0 background, c+1 class c. The last is the pseudo label.
    """
    return label_steps(image, classes, refine_maps(image, cams, attention, spec), spec)


def refine_maps(image: Image, cams: Tensor, attention: Tensor, spec: RefineSpec) -> dict[str, Tensor]:
    """The part of `refine_labels` that runs on the model's device: maps (K+1, H, W), background first, a step."""
    size = image.shape[:2]
    maps = upsample_with_background(cams, size, spec.background_power, rescale=False)
    steps = {"raw": maps}
    if spec.affinity.enabled:
        refined = affinity_cams(cams, attention, spec.affinity)
        steps["affinity"] = maps = upsample_with_background(refined, size, spec.background_power)
    if spec.par.enabled:
        colours = torch.from_numpy(image).to(maps.device).permute(2, 0, 1)[None].to(maps.dtype)
        steps["par"] = pixel_adaptive_refinement(colours, maps[None], spec.par)[0]
    return steps


def label_steps(
    image: Image, classes: Sequence[int], steps: dict[str, Tensor], spec: RefineSpec
) -> dict[str, NDArray[np.uint8]]:
    """The part of `refine_labels` that runs on one core, the CRF: `steps` as `refine_maps` gives them → label maps (H, W)."""
    names = np.array([0, *(c + 1 for c in classes)], dtype=np.uint8)
    labels = {step: names[scores.argmax(dim=0).cpu().numpy()] for step, scores in steps.items()}
    if spec.crf.enabled:
        scores = steps[list(steps)[-1]].clamp_min(0)
        probabilities = (scores / scores.sum(dim=0, keepdim=True).clamp_min(1e-8)).cpu().numpy()
        labels["crf"] = names[dense_crf(image, probabilities.astype(np.float32), spec.crf).argmax(axis=0)]
    return labels


def refine_batch(pixels: Tensor, classes: Sequence[Sequence[int]], cams: Tensor, attention: Tensor, spec: RefineSpec) -> Tensor:
    """Training's pseudo labels: pixels (B, 3, S, S), classes a list an image, cams (B, C, h, w), attention (B, M, M)
    → labels (B, S, S) int64. Affinity and PAR as enabled, on the whole batch at once; nothing waits for the device."""
    size = (pixels.shape[-2], pixels.shape[-1])
    slots = max(1, *(len(kept) for kept in classes))
    table = torch.tensor([[*kept, *[-1] * (slots - len(kept))] for kept in classes]).to(pixels.device, non_blocking=True)
    empty = (table < 0)[..., None, None]  # a slot that no class fills
    own = cams.gather(1, table.clamp_min(0)[..., None, None].expand(-1, -1, *cams.shape[-2:])).masked_fill(empty, 0)
    if spec.affinity.enabled:
        own = affinity_cams(own, attention, spec.affinity)
    maps = upsample_with_background(own, size, spec.background_power, rescale=spec.affinity.enabled)
    maps[:, 1:].masked_fill_(empty, -1)  # never wins
    if spec.par.enabled:
        maps = pixel_adaptive_refinement(pixels, maps, spec.par)
    names = F.pad(table + 1, (1, 0))
    winner = maps.argmax(dim=1)
    return names.gather(1, winner.flatten(1)).reshape(winner.shape)
