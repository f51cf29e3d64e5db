"""A frozen CLIP with the class texts it compares patches to: network input, activations, CAMs and patch attention."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from excel_core.cams.affinity import (
    dynamic_attention,
    mean_attention,
    scale_attention,
)
from excel_core.cams.patch_text import patch_text_cams
from excel_core.config import CamSpec, RefineSpec
from excel_core.models.calibration import (
    EncoderActivations,
    Relation,
    calibrated_features,
    encoder_activations,
    layer_features,
)
from excel_core.models.clip import FrozenClip, as_pixels, normalise_pixels, resize_pixels

__all__ = ["CamModel", "Encoded"]

Image = NDArray[np.uint8]


@dataclass(frozen=True)
class Encoded:
    """A batch after the frozen tower: its original path, and calibrated tokens (B, N, D_s)."""

    path: EncoderActivations
    calibrated: Tensor


@dataclass(frozen=True)
class CamModel:
    """A frozen CLIP with the text (C+Z, D) it compares patches to, under one CAM spec."""

    clip: FrozenClip
    text: Tensor
    classes: int
    spec: CamSpec

    def prepare(self, images: Sequence[Image]) -> Tensor:
        """images (H, W, 3) uint8 RGB, each of its own size → network input (B, 3, S, S), normalised, on the device."""
        return torch.cat([self.resized(as_pixels(image, self.clip.device)) for image in images])

    def resized(self, pixels: Tensor, side: int | None = None) -> Tensor:
        """pixels (B, 3, H, W) of whole photos in [0, 1] → network input (B, 3, side, side), normalised; None: at S."""
        square = resize_pixels(pixels, side or self.spec.image_size, self.spec.antialias)
        return normalise_pixels(square, self.spec.normalisation)

    def encode(self, batch: Tensor, attention_layers: int = 0, whole: bool = True) -> Encoded:
        """batch (B, 3, S, S) normalised → Encoded; `attention_layers` last q-k attentions are kept. `whole`: as the neck
        needs it, which CAMs do not."""
        with self._precision(batch.device):
            path = encoder_activations(self.clip, batch, self.spec.calibration, attention_layers, whole or self._plain)
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

    def encode_for_attention(self, batch: Tensor, attention_layers: int) -> EncoderActivations:
        """batch (B, 3, S, S) normalised → the original path alone, for its attention."""
        with self._precision(batch.device):
            return encoder_activations(self.clip, batch, None, attention_layers, whole=False)

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

    def attention(self, path: EncoderActivations, spec: RefineSpec, relation: Relation | None = None) -> Tensor:
        """Patch attention (B, M, M) for refinement: the layers' mean, or the dynamic choice under a relation."""
        scaled = scale_attention(path.attention.float(), self.clip.heads, self.spec.calibration, spec.affinity)
        if relation is None:
            return mean_attention(scaled, spec.affinity)
        return dynamic_attention(scaled, relation.probability, spec.affinity)
