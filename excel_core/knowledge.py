"""Descriptions → attributes → enriched class texts T_c: text semantic enrichment (ExCEL eqs. 2-4)."""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from excel_core.config import KnowledgeSpec
from excel_core.errors import SettingError

__all__ = [
    "Knowledge", "attribute_weights", "build_knowledge", "cluster_attributes", "enrich", "nearest_descriptions",
]  # fmt: skip

MOST = 112  # attributes where their number is left open


@dataclass(frozen=True)
class Knowledge:
    """text (C+Z, D) unit rows: T_c then background prompts; templates t_c (C, D) unit rows; attributes (A, D) centroids,
    not unit; descriptions (n*C, D) unit rows, class by class. All float32 on the CPU. A = 0 without attributes."""

    text: Tensor
    templates: Tensor
    attributes: Tensor
    descriptions: Tensor


def build_knowledge(templates: Tensor, background: Tensor, descriptions: Tensor, spec: KnowledgeSpec) -> Knowledge:
    """templates t_c (C, D), background (Z, D), descriptions (n*C, D) class by class, all unit rows → Knowledge."""
    attributes = descriptions[:0]
    if spec.mode == "attributes":
        attributes = cluster_attributes(descriptions, spec)
        enriched = enrich(templates, attributes, spec)
    elif spec.mode == "class_mean":
        means = descriptions.reshape(len(templates), -1, descriptions.shape[1]).mean(dim=1)
        enriched = F.normalize(templates + spec.weight * means, dim=1)
    else:
        enriched = templates
    return Knowledge(torch.cat([enriched, background]), templates, attributes, descriptions)


def cluster_attributes(descriptions: Tensor, spec: KnowledgeSpec) -> Tensor:
    """descriptions (n*C, D) unit rows → k-means centroids (A, D), deliberately not re-normalised (method 1)."""
    count = len(np.unique(descriptions.numpy(), axis=0))
    clusters = spec.attributes or min(MOST, max(1, count // 4))
    if clusters > count:
        raise SettingError(
            f"knowledge.attributes={clusters} needs at least as many distinct descriptions, got {count}; "
            f"set knowledge.attributes to at most {count} or raise describe.n"
        )
    from sklearn.cluster import KMeans

    kmeans = KMeans(n_clusters=clusters, random_state=spec.seed, n_init="auto").fit(descriptions.numpy())
    return torch.from_numpy(kmeans.cluster_centers_.astype(np.float32))


def enrich(templates: Tensor, attributes: Tensor, spec: KnowledgeSpec) -> Tensor:
    """templates t_c (C, D) unit, attributes a_j (A, D) → T_c (C, D) unit (eqs. 3, 4).

    T_c = t_c + weight * sum_j softmax_j(t_c·a_j over the kept) a_j; `keep=None` drops the lowest int(A/10), as published.
    """
    top, index = attribute_weights(templates, attributes, spec)
    addition = torch.einsum("ck,ckd->cd", top, attributes[index])
    return F.normalize(templates + spec.weight * addition, dim=1)


def attribute_weights(templates: Tensor, attributes: Tensor, spec: KnowledgeSpec) -> tuple[Tensor, Tensor]:
    """Weights (C, K) of eq. 4, largest first, and the indices (C, K) of the attributes that each class keeps."""
    keep = len(attributes) - int(0.1 * len(attributes)) if spec.keep is None else spec.keep
    if keep > len(attributes):
        raise SettingError(f"knowledge.keep={keep} exceeds the {len(attributes)} attributes")
    scores, index = (templates @ attributes.T).topk(keep, dim=1)
    return torch.softmax(scores, dim=1), index


def nearest_descriptions(knowledge: Knowledge, count: int) -> Tensor:
    """Row indices (A, count) of the descriptions nearest to each attribute by cosine, nearest first."""
    cosine = F.normalize(knowledge.attributes, dim=1) @ knowledge.descriptions.T
    return cosine.topk(min(count, cosine.shape[1]), dim=1).indices
