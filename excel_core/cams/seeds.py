"""CAM seeds of photos: static (SVC), or with the learnt calibration (LVC). All that a stage needs from photos to CAMs."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from excel_core.cams.affinity import kept_layers
from excel_core.cams.cam_model import CamModel, Encoded
from excel_core.cams.pseudo_labels import refine_maps
from excel_core.cams.windows import blend_views, cut_windows, windows_at_once
from excel_core.config import RefineSpec
from excel_core.models.calibration import EncoderActivations, relation_of
from excel_core.models.segmenter import Segmenter

__all__ = [
    "CamBatch",
    "LearntActivations",
    "learnt_activations",
    "learnt_cams",
    "patch_attention",
    "static_cams",
]

Image = NDArray[np.uint8]
Images = Sequence[Image] | Tensor  # (H, W, 3) uint8 RGB, each of its own size; or their network input (B, 3, S, S)


@dataclass(frozen=True)
class CamBatch:
    """CAMs of B photos, and what refines them. Tensors are on the model's device.

    network_input (B, 3, S, S) float32 normalised; cams (B, C, h, w) float32 in [0, 1] of all C classes; attention (B, M, M)
    between the M = h*w patches, or (B, W, m, m) of W windows of m patches (windows.py), None where no refinement was asked for;
    activations: the encoder's, of B photos seen whole, or of 2 B views where each photo is followed by its mirror.
    """

    network_input: Tensor
    cams: Tensor
    attention: Tensor | None
    activations: EncoderActivations

    def refined_maps(
        self, index: int, image: Image, spec: RefineSpec, classes: Sequence[int] | None = None
    ) -> dict[str, Tensor]:
        """Refine the CAMs of one photo: number `index` of the batch, with its pixels `image` (H, W, 3) uint8.

        Returns maps (K+1, H, W) by step, background first, of its K `classes`, or of all. ValueError where the batch has no
        attention.
        """
        if self.attention is None:
            raise ValueError("refined_maps: this batch has no attention; make it with refine=")
        cams = self.cams[index] if classes is None else self.cams[index, list(classes)]
        return refine_maps(image, self.network_input[index], cams, self.attention[index], spec)


@dataclass(frozen=True)
class LearntActivations:
    """B' views of photos, encoded, and the neck's features F_d (B', D_d, h, w). With 2 `views_per_image`, each photo is
    followed by its mirror."""

    encoded: Encoded
    features: Tensor
    views_per_image: int


def static_cams(cam_model: CamModel, images: Images, refine: RefineSpec | None = None) -> CamBatch:
    """B images, or network input → CamBatch with static calibration (eqs. 1, 5, 6), blended over the views of
    `cam_model.spec`. Attention is there with `refine` alone."""
    return _in_views(cam_model, images, lambda view: _static_view(cam_model, view, refine))


def _in_views(cam_model: CamModel, images: Images, encode_view: Callable[[Tensor], CamBatch]) -> CamBatch:
    network_input, spec, patch = _network_input(cam_model, images), cam_model.spec, cam_model.clip.patch
    return blend_views(network_input, spec, patch, encode_view, windows_at_once(spec, patch, network_input.device))


def _static_view(cam_model: CamModel, network_input: Tensor, refine: RefineSpec | None) -> CamBatch:
    layers = 0 if refine is None else kept_layers(refine.affinity)
    encoded = cam_model.encode(network_input, layers, with_patch_tokens=False)
    cams = cam_model.cams(encoded).float()
    attention = None if refine is None else cam_model.attention(encoded.activations, refine)
    return CamBatch(network_input, cams, attention, encoded.activations)


def learnt_cams(cam_model: CamModel, segmenter: Segmenter, images: Images, refine: RefineSpec, mirror: bool) -> CamBatch:
    """B images, or their network input → CamBatch with the learnt relation (eqs. 8-10; method 5). A photo's result depends on
    no other photo of the batch.

    With `mirror`, a photo and its mirror share the mean of eq. 8, and a CAM is the greater of the two, from 0 to almost 1. The
    attention is the unmirrored photo's, under its own relation. Each view of `cam_model.spec` has a relation of its own.
    """
    return _in_views(cam_model, images, lambda view: _learnt_view(cam_model, segmenter, view, refine, mirror))


def _learnt_view(
    cam_model: CamModel, segmenter: Segmenter, network_input: Tensor, refine: RefineSpec, mirror: bool
) -> CamBatch:
    views = learnt_activations(cam_model, segmenter, network_input, kept_layers(refine.affinity), mirror)
    encoded, features, views_per_image = views.encoded, views.features, views.views_per_image
    calibration = cam_model.spec.calibration
    cams = cam_model.cams(encoded, relation_of(features, calibration, views_per_image)).float()
    if mirror:
        pair = cams.unflatten(0, (-1, 2))
        cams = _from_zero(torch.maximum(pair[:, 0], pair[:, 1].flip(-1)))
    # As published: the affinity looks at the photo alone, so the mean of its relation is over that photo, not over the pair.
    relation = relation_of(features[::views_per_image], calibration, images_per_mean=1)
    attention = cam_model.attention(_every(encoded.activations, views_per_image), refine, relation)
    return CamBatch(network_input, cams, attention, encoded.activations)


def patch_attention(cam_model: CamModel, network_input: Tensor, refine: RefineSpec) -> Tensor:
    """network input (B, 3, S, S) → the attention of `static_cams`, where CAMs are there already."""

    def attention(view: Tensor) -> Tensor:
        return cam_model.attention(cam_model.encode_for_attention(view, kept_layers(refine.affinity)), refine)

    spec, patch = cam_model.spec, cam_model.clip.patch
    if spec.window is None:
        return attention(network_input)
    at_once = windows_at_once(spec, patch, network_input.device)
    windows = [attention(views) for views in cut_windows(network_input, spec.window, patch, at_once)]
    return torch.cat(windows).unflatten(0, (len(network_input), -1))  # type: ignore[no-any-return]


def learnt_activations(
    cam_model: CamModel, segmenter: Segmenter, network_input: Tensor, layers: int, mirror: bool
) -> LearntActivations:
    """network input (B, 3, S, S) → LearntActivations of B' = B views, or 2 B with `mirror`; the last `layers` q-k attentions
    are kept."""
    views = torch.stack([network_input, network_input.flip(-1)], dim=1).flatten(0, 1) if mirror else network_input
    encoded = cam_model.encode(views, layers)
    features = segmenter(*cam_model.segmenter_input(encoded)).features
    return LearntActivations(encoded, features, views_per_image=2 if mirror else 1)


def _network_input(cam_model: CamModel, images: Images) -> Tensor:
    return images if isinstance(images, Tensor) else cam_model.prepare(images)


def _from_zero(cams: Tensor) -> Tensor:
    """Each map minus its minimum, then divided by its maximum plus 1e-5, as published: the maximum is just below 1."""
    shifted = cams - cams.amin(dim=(-2, -1), keepdim=True)
    return shifted / (shifted.amax(dim=(-2, -1), keepdim=True) + 1e-5)


def _every(activations: EncoderActivations, step: int) -> EncoderActivations:
    """The activations with the attention of every `step`-th view alone; `CamModel.attention` needs nothing else of them."""
    return replace(activations, attention=activations.attention[:, ::step])
