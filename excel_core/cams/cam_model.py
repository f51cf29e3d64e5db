"""The CAM model: a frozen CLIP with the class texts that its patches are compared with. Images → activations → CAMs."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from excel_core.cams.affinity import dynamic_attention, mean_attention, scale_attention
from excel_core.cams.patch_text import patch_text_cams
from excel_core.config import CamSpec, RefineSpec
from excel_core.disk_maps import is_large
from excel_core.kernels.compiled import has_loops
from excel_core.kernels.gpu import has_triton, pack_sizes, packed_pixels
from excel_core.models.calibration import (
    EncoderActivations,
    Relation,
    calibrated_features,
    encoder_activations,
    layer_features,
)
from excel_core.models.clip import FrozenClip, as_pixels, normalise_pixels, resize_pixels, shrunk_pixels

__all__ = ["CamModel", "Encoded"]

Image = NDArray[np.uint8]


@dataclass(frozen=True)
class Encoded:
    """A batch after the frozen tower: the original path's activations, and calibrated tokens (B, N, D_s)."""

    activations: EncoderActivations
    calibrated: Tensor


@dataclass(frozen=True)
class CamModel:
    """A frozen CLIP with texts (C+Z, D) of unit length, those of C classes before Z background prompts, under one CAM spec."""

    clip: FrozenClip
    text: Tensor
    classes: int
    spec: CamSpec

    def prepare(self, images: Sequence[Image]) -> Tensor:
        """images (H, W, 3) uint8 RGB, each of its own size → network input (B, 3, S, S), normalised, on the device."""
        device = self.clip.device
        if self.spec.antialias or not has_triton(device):
            return torch.cat([self.prepare_image(image) for image in images])
        from excel_core.kernels.resize_triton import shrunk_photos

        sizes = pack_sizes([(image.shape[0], image.shape[1]) for image in images], device)
        squares = shrunk_photos(packed_pixels(images, device), sizes, self.spec.image_size)
        return normalise_pixels(squares, self.spec.normalisation)

    def prepare_image(self, image: Image, side: int | None = None) -> Tensor:
        """image (H, W, 3) uint8 RGB → network input (1, 3, side, side); None: at S. A large one is never held as floats."""
        if is_large(image.shape) and self.clip.device.type == "cpu" and has_loops():
            square = shrunk_pixels(image, side or self.spec.image_size, self.spec.antialias)
            return normalise_pixels(square, self.spec.normalisation)
        return self.prepare_pixels(as_pixels(image, self.clip.device), side)

    def prepare_pixels(self, pixels: Tensor, side: int | None = None) -> Tensor:
        """pixels (B, 3, H, W) of whole photos in [0, 1] → network input (B, 3, side, side), normalised; None: at S."""
        square = resize_pixels(pixels, side or self.spec.image_size, self.spec.antialias)
        return normalise_pixels(square, self.spec.normalisation)

    def encode(self, network_input: Tensor, attention_layers: int = 0, with_patch_tokens: bool = True) -> Encoded:
        """network input (B, 3, S, S) → Encoded. The q-k attention of the last `attention_layers` blocks is kept. The neck needs
        the last block `with_patch_tokens`, CAMs do not."""
        calibration = self.spec.calibration
        # Without calibration, CAMs are made of the last block's own patch tokens.
        with_patch_tokens = with_patch_tokens or calibration.attention == "qk"
        with self._autocast(network_input.device):
            activations = encoder_activations(self.clip, network_input, calibration, attention_layers, with_patch_tokens)
            return Encoded(activations, calibrated_features(self.clip, activations, calibration))

    def encode_for_attention(self, network_input: Tensor, attention_layers: int) -> EncoderActivations:
        """network input (B, 3, S, S) → the original path alone, for its attention."""
        with self._autocast(network_input.device):
            return encoder_activations(self.clip, network_input, None, attention_layers, with_patch_tokens=False)

    def _autocast(self, device: torch.device) -> AbstractContextManager[Any]:
        """The spec's precision. fp32 changes nothing, so an autocast of the caller stays on, as in training."""
        dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(self.spec.precision)
        return nullcontext() if dtype is None else torch.autocast(device.type, dtype=dtype)

    def layers(self, encoded: Encoded) -> Tensor:
        """Token features (L, B, N, D_s) of all blocks, encoded `with_patch_tokens`: the segmenter's input."""
        layers = layer_features(encoded.activations, encoded.calibrated, self.spec.calibration)
        return layers if self.spec.precision == "fp32" else layers.float()

    def cams(self, encoded: Encoded, relation: Relation | None = None) -> Tensor:
        """CAMs (B, C, h, w) in [0, 1] of all C classes: static, or dynamic (LVC) under a relation."""
        calibrated = encoded.calibrated
        if relation is not None:
            with self._autocast(calibrated.device):
                calibrated = calibrated_features(self.clip, encoded.activations, self.spec.calibration, relation)
        if self.spec.precision != "fp32":
            calibrated = calibrated.float()  # in half precision, min-max would scale rounding up
        text = self.text.to(calibrated)
        cams = patch_text_cams(self.clip.project(calibrated), text, self.classes, self.spec)
        return cams.reshape(*cams.shape[:2], *encoded.activations.grid)

    def attention(self, activations: EncoderActivations, spec: RefineSpec, relation: Relation | None = None) -> Tensor:
        """Patch attention (B, M, M) for refinement: the blocks' mean, or that of blocks chosen by a relation (LVC)."""
        scaled = scale_attention(activations.attention.float(), self.clip.heads, self.spec.calibration, spec.affinity)
        if relation is None:
            return mean_attention(scaled, spec.affinity)
        return dynamic_attention(scaled, relation.probability, spec.affinity)
