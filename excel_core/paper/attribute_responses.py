"""Figure 5: the response of a photo to the attributes that weigh most in a class's text."""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from excel_core.cams.cam_model import CamModel
from excel_core.config import KnowledgeSpec
from excel_core.text.knowledge import Knowledge, attribute_weights, nearest_descriptions

__all__ = ["AttributeResponses", "attribute_responses"]


@dataclass(frozen=True, eq=False)
class AttributeResponses:
    """The K attributes of largest weight of one class on one photo, largest first; K = 0 without attributes.

    numbers (K,) int64: rows of the knowledge base's attributes. weights (K,) float32: softmax weights of eq. 4, over all kept
    attributes. maps (K, h, w) float32 in [-1, 1]: the response, which is the cosine of each patch with the attribute.
    nearest (K,) int64: row of the description nearest to the attribute by cosine.
    """

    numbers: NDArray[np.int64]
    weights: NDArray[np.float32]
    maps: NDArray[np.float32]
    nearest: NDArray[np.int64]


@torch.inference_mode()
def attribute_responses(
    cam_model: CamModel, knowledge: Knowledge, spec: KnowledgeSpec, image: Tensor, class_index: int, count: int
) -> AttributeResponses:
    """image (1, 3, S, S) network input → the responses of the `count` top attributes of a class, 0-based.

    The paper draws responses and prints no formula. Here a response is what eq. 1 is for a class: the cosine of the calibrated
    patch feature P_i (static, in the joint space; method 2) with the attribute a_j. The published normalisation over tokens and
    feature surgery, which compare classes, are left out.
    """
    encoded = cam_model.encode(image, whole=False)
    patches = F.normalize(cam_model.clip.project(encoded.calibrated.float())[0, 1:], dim=-1)
    top, index = _top(knowledge, spec, class_index, count)
    attributes = F.normalize(knowledge.attributes[index].to(patches), dim=-1)
    maps = (attributes @ patches.T).reshape(len(index), *encoded.path.grid)
    nearest = nearest_descriptions(knowledge, 1)[index, 0] if len(index) else index
    return AttributeResponses(index.numpy(), top.numpy(), maps.cpu().numpy(), nearest.numpy())


def _top(knowledge: Knowledge, spec: KnowledgeSpec, class_index: int, count: int) -> tuple[Tensor, Tensor]:
    """Weights and numbers (K,) of a class's top attributes."""
    if not len(knowledge.attributes):
        return torch.zeros(0), torch.zeros(0, dtype=torch.int64)
    weights, index = attribute_weights(knowledge.templates, knowledge.attributes, spec)
    return weights[class_index, :count], index[class_index, :count]
