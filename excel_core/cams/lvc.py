"""CAM seeds with the learnt calibration (LVC) on whole photos: each photo is seen with its mirror (method 5)."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from excel_core.cams.cam_model import CamModel, Encoded
from excel_core.config import RefineSpec
from excel_core.models.calibration import EncoderActivations, relation_of
from excel_core.models.segmenter import Segmenter

__all__ = ["LearntActivations", "LearntSeeds", "learnt_activations", "learnt_seeds"]


@dataclass(frozen=True)
class LearntActivations:
    """Views of photos: encoded, and the neck's features F_d (B', D_d, h, w). `together` is the number of views of a photo;
    where it is 2, each photo is followed by its mirror."""

    encoded: Encoded
    features: Tensor
    together: int


@dataclass(frozen=True)
class LearntSeeds:
    """cams (B, C, h, w) in [0, 1] of all C classes, and the attention (B, M, M) that refines them."""

    cams: Tensor
    attention: Tensor


def learnt_seeds(cam_model: CamModel, segmenter: Segmenter, batch: Tensor, refine: RefineSpec, mirror: bool) -> LearntSeeds:
    """batch (B, 3, S, S) network input → LearntSeeds. An image's result depends on no other image of the batch.

    With `mirror`, a photo and its mirror share the mean of eq. 8, and a CAM is the greater of the two, from 0 to almost 1. The
    affinity is the unmirrored photo's, under its own relation.
    """
    view = learnt_activations(cam_model, segmenter, batch, refine.affinity.layers, mirror)
    encoded, features, together = view.encoded, view.features, view.together
    calibration = cam_model.spec.calibration
    cams = cam_model.cams(encoded, relation_of(features, calibration, together)).float()
    if mirror:
        pair = cams.unflatten(0, (-1, 2))
        cams = _from_zero(torch.maximum(pair[:, 0], pair[:, 1].flip(-1)))
    relation = relation_of(features[::together], calibration, together=1)
    return LearntSeeds(cams, cam_model.attention(_every(encoded.path, together), refine, relation))


def learnt_activations(
    cam_model: CamModel, segmenter: Segmenter, batch: Tensor, layers: int, mirror: bool
) -> LearntActivations:
    """batch (B, 3, S, S) network input → LearntActivations of B' = B views, or 2 B with `mirror`; the last `layers` q-k attentions are
    kept."""
    views = torch.stack([batch, batch.flip(-1)], dim=1).flatten(0, 1) if mirror else batch
    encoded = cam_model.encode(views, layers)
    return LearntActivations(encoded, segmenter(cam_model.layers(encoded), encoded.path.grid).features, 2 if mirror else 1)


def _from_zero(cams: Tensor) -> Tensor:
    """Each map minus its minimum, then divided by its maximum plus 1e-5, as published."""
    above = cams - cams.amin(dim=(-2, -1), keepdim=True)
    return above / (above.amax(dim=(-2, -1), keepdim=True) + 1e-5)


def _every(path: EncoderActivations, step: int) -> EncoderActivations:
    """The path with the attention of every `step`-th image alone; of the rest of it, `Vision.attention` needs nothing."""
    return replace(path, attention=path.attention[:, ::step])
