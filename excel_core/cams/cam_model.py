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
from excel_core.errors import SettingError
from excel_core.kernels.compiled import has_loops
from excel_core.kernels.gpu import has_triton, pack_sizes, packed_pixels
from excel_core.models.attention_variants import proxy_attention
from excel_core.models.calibration import (
    EncoderActivations,
    Relation,
    calibrated_features,
    encoder_activations,
    layer_features,
    proxy_features,
)
from excel_core.models.clip import (
    FrozenClip,
    as_pixels,
    denormalise_pixels,
    normalise_pixels,
    resize_pixels,
    shrunk_pixels,
)
from excel_core.models.dino import FrozenDino
from excel_core.models.native_size import native_pixels
from excel_core.models.photo_input import longest_side_size

__all__ = ["CamModel", "Encoded"]

Image = NDArray[np.uint8]


@dataclass(frozen=True)
class Encoded:
    """A batch after the frozen encoders: the original path's activations, calibrated tokens (B, N, D_s), and the second
    encoder's patch features (B, D', h', w'), None where there is none."""

    activations: EncoderActivations
    calibrated: Tensor
    second: Tensor | None = None


@dataclass(frozen=True)
class CamModel:
    """A frozen CLIP with texts (C+Z, D) of unit length, those of C classes before Z background prompts, under one CAM spec.
    `dino`: a second frozen encoder, for the segmenter alone (WeCLIP+). `proxy`: one whose cosines are the attention of the CAMs
    (ProxyCLIP); the segmenter needs none."""

    clip: FrozenClip
    text: Tensor
    classes: int
    spec: CamSpec
    dino: FrozenDino | None = None
    proxy: FrozenDino | None = None

    @classmethod
    def of(cls, clip: FrozenClip, text: Tensor, classes: int, spec: CamSpec, second: FrozenDino | None) -> "CamModel":
        """With the `second` encoder, if there is one: beside GradCAM the segmenter's, else that of ProxyCLIP's attention."""
        by_gradcam = spec.producer == "gradcam"
        return cls(clip, text, classes, spec, second if by_gradcam else None, None if by_gradcam else second)

    def prepare(self, images: Sequence[Image]) -> Tensor:
        """images (H, W, 3) uint8 RGB, each of its own size → network input (B, 3, S, S), normalised, on the device. Where their
        shape is kept, all must give one size."""
        device = self.clip.device
        if self.spec.input != "square" or self.spec.antialias or not has_triton(device):
            return torch.cat([self.prepare_image(image) for image in images])
        from excel_core.kernels.resize_triton import shrunk_photos

        sizes = pack_sizes([(image.shape[0], image.shape[1]) for image in images], device)
        squares = shrunk_photos(packed_pixels(images, device), sizes, self.spec.image_size)
        return normalise_pixels(squares, self.spec.normalisation)

    def prepare_image(self, image: Image, side: int | tuple[int, int] | None = None) -> Tensor:
        """image (H, W, 3) uint8 RGB → network input (1, 3, side, side), or of the size (H', W'); None: at S, or (1, 3, H', W')
        where the spec keeps its shape. A large one is never held as floats."""
        if self.spec.input == "native" and side is None:
            return normalise_pixels(native_pixels(image, self.clip.patch, self.clip.device), self.spec.normalisation)
        if self.spec.input != "square" and side is None:
            size, whole = (image.shape[0], image.shape[1]), self.spec.input == "whole_patches"
            side = longest_side_size(size, self.spec.image_size, self.clip.patch, whole)
        if is_large(image.shape) and self.clip.device.type == "cpu" and has_loops():
            square = shrunk_pixels(image, side or self.spec.image_size, self.spec.antialias)
            return normalise_pixels(square, self.spec.normalisation)
        return self.prepare_pixels(as_pixels(image, self.clip.device), side)

    def prepare_pixels(self, pixels: Tensor, side: int | tuple[int, int] | None = None) -> Tensor:
        """pixels (B, 3, H, W) of whole photos in [0, 1] → network input (B, 3, side, side), or of a size, normalised; None: at
        S."""
        square = resize_pixels(pixels, side or self.spec.image_size, self.spec.antialias)
        return normalise_pixels(square, self.spec.normalisation)

    def encode(
        self, network_input: Tensor, attention_layers: int = 0, with_patch_tokens: bool = True, last_block: bool = True
    ) -> Encoded:
        """network input (B, 3, S, S') → Encoded. The q-k attention of the last `attention_layers` blocks is kept. The neck
        needs the last block `with_patch_tokens`, and the second encoder; CAMs do not. `last_block=False` leaves the last block
        to GradCAM, where that makes the CAMs; then nothing is calibrated. What is left over of a patch is cut off for the CLIP,
        not for the second encoder."""
        by_gradcam = self.spec.producer == "gradcam"
        calibration = None if by_gradcam else self.spec.calibration
        blocks = len(self.clip.blocks) - 1 if by_gradcam and not last_block else None
        # Without calibration, CAMs are made of the last block's own patch tokens.
        with_last_patches = with_patch_tokens or (calibration is not None and calibration.attention == "qk")
        with self._autocast(network_input.device):
            second = self.dino.features(self._for_dino(network_input)) if self.dino is not None and with_patch_tokens else None
            activations = encoder_activations(
                self.clip, self._whole_patches(network_input), calibration, attention_layers, with_last_patches, blocks
            )
            if calibration is None:
                return Encoded(activations, activations.outputs[-1], second)
            if calibration.attention == "proxy":
                return Encoded(activations, self._proxy_features(network_input, activations), second)
            return Encoded(activations, calibrated_features(self.clip, activations, calibration), second)

    def _proxy_features(self, network_input: Tensor, activations: EncoderActivations) -> Tensor:
        """ProxyCLIP's final tokens; without its encoder, as behind a segmenter that was loaded alone, the plain ones."""
        if self.proxy is None:
            return activations.outputs[-1]
        features = self.proxy.features(self._for_dino(network_input))
        grid = (features.shape[-2], features.shape[-1])
        attention = proxy_attention(features.flatten(2).mT, grid, activations.grid)
        return proxy_features(self.clip, activations, attention)

    def _for_dino(self, network_input: Tensor) -> Tensor:
        """The CLIP's input as DINO wants it: with ImageNet's statistics, whatever those of the CLIP are."""
        if self.spec.normalisation == "imagenet":
            return network_input
        return normalise_pixels(denormalise_pixels(network_input, self.spec.normalisation), "imagenet")

    def encode_for_attention(self, network_input: Tensor, attention_layers: int) -> EncoderActivations:
        """network input (B, 3, S, S') → the original path alone, for its attention."""
        with self._autocast(network_input.device):
            whole = self._whole_patches(network_input)
            return encoder_activations(self.clip, whole, None, attention_layers, with_patch_tokens=False)

    def _whole_patches(self, network_input: Tensor) -> Tensor:
        """Without what is left over of a patch at the right and below, which the CLIP does not look at."""
        height, width = (side // self.clip.patch * self.clip.patch for side in network_input.shape[-2:])
        return network_input[..., :height, :width]

    def _autocast(self, device: torch.device) -> AbstractContextManager[Any]:
        """The spec's precision. fp32 changes nothing, so an autocast of the caller stays on, as in training."""
        dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(self.spec.precision)
        return nullcontext() if dtype is None else torch.autocast(device.type, dtype=dtype)

    def layers(self, encoded: Encoded) -> Tensor:
        """Token features (L, B, N, D_s) of all blocks, encoded `with_patch_tokens`: the segmenter's input."""
        if self.spec.producer == "gradcam":
            layers = torch.stack(encoded.activations.outputs)
        else:
            layers = layer_features(encoded.activations, encoded.calibrated, self.spec.calibration)
        return layers if self.spec.precision == "fp32" else layers.float()

    def segmenter_input(self, encoded: Encoded) -> tuple[Tensor, tuple[int, int], Tensor | None]:
        """What `Segmenter.forward` takes: `layers` (L, B, N, D_s), their grid (h, w), and the second encoder's features
        (B, D', h', w'). Copies, so that gradients may flow through what is made of them."""
        second = None if encoded.second is None else encoded.second.float().clone()
        return self.layers(encoded), encoded.activations.grid, second

    def cams(self, encoded: Encoded, relation: Relation | None = None) -> Tensor:
        """CAMs (B, C, h, w) in [0, 1] of all C classes: static, or dynamic (LVC) under a relation. SettingError for ProxyCLIP's
        without its encoder."""
        calibrated = encoded.calibrated
        is_proxy = self.spec.calibration.attention == "proxy"
        if is_proxy and self.proxy is None:
            raise SettingError("cams.calibration.attention=proxy: CAMs need the second encoder; set dino.model")
        if relation is not None and not is_proxy:
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
