"""The knowledge base: descriptions → attributes → enriched class texts T_c, text semantic enrichment (ExCEL eqs. 2-4)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from excel_core.config import KnowledgeSpec
from excel_core.errors import SettingError
from excel_core.models.clip import FrozenClip
from excel_core.text.attributes_file import ready_attributes
from excel_core.text.embeddings import TextEmbeddings
from excel_core.text.prompts import PromptSet

__all__ = [
    "Knowledge", "KnowledgeBase", "attribute_weights", "build_knowledge", "build_knowledge_base", "class_means",
    "cluster_attributes", "dropped_attributes", "enrich", "nearest_descriptions",
]  # fmt: skip

MAX_ATTRIBUTES = 112  # where their number is left open
Cluster = Callable[[Tensor, KnowledgeSpec], Tensor]  # descriptions (n*C, D) → attributes (A, D)


@dataclass(frozen=True)
class Knowledge:
    """text (C+Z, D): T_c, then background prompts, which are unit rows; templates t_c (C, D) unit rows; attributes (A, D)
    centroids, not unit; descriptions (n*C, D) unit rows, class by class. All float32 on the CPU. A = 0 without attributes.

    T_c are unit rows only under `knowledge.normalise`, as published. Eq. 4 leaves them longer: for a cosine divide by their
    length.
    """

    text: Tensor
    templates: Tensor
    attributes: Tensor
    descriptions: Tensor


@dataclass(frozen=True)
class KnowledgeBase:
    """Knowledge with its words: class names (C), background prompts (Z), and the texts of the descriptions (n*C)."""

    knowledge: Knowledge
    class_names: tuple[str, ...]
    background: tuple[str, ...]
    texts: tuple[str, ...]


def build_knowledge_base(
    prompts: PromptSet,
    texts: Sequence[str],
    spec: KnowledgeSpec,
    clip: FrozenClip,
    embeddings: TextEmbeddings,
    cluster: Cluster | None = None,
) -> KnowledgeBase:
    """The knowledge base of a class set. `texts` are its descriptions, class by class, as many of each class where the mode
    takes means of a class; perhaps none. `cluster` stands in for `cluster_attributes`. SettingError where `spec` does not fit
    them, or names a file that cannot be used."""
    templates = embeddings.encode(clip, prompts.templates())
    background = embeddings.encode(clip, prompts.background_templates())
    descriptions = embeddings.encode(clip, texts) if texts else templates[:0]
    attributes = ready_attributes(spec, templates.shape[1])
    if attributes is None and spec.mode == "attributes" and cluster is not None:
        attributes = cluster(descriptions, spec)
    knowledge = build_knowledge(templates, background, descriptions, spec, attributes)
    return KnowledgeBase(knowledge, prompts.class_names, prompts.background, tuple(texts))


def build_knowledge(
    templates: Tensor, background: Tensor, descriptions: Tensor, spec: KnowledgeSpec, centroids: Tensor | None = None
) -> Knowledge:
    """templates t_c (C, D), background (Z, D), descriptions (n*C, D) class by class, all unit rows → Knowledge.

    `centroids` (A, D) are ready attributes, which mode `attributes` takes instead of k-means.
    """
    # Four modes: k-means attributes (the paper), class means in their place, the mean of a class's own descriptions added
    # directly, or the template alone. The two in the middle are the readings of table 4's None (method 1).
    attributes, enriched = descriptions[:0], templates
    if spec.mode == "attributes":
        attributes = cluster_attributes(descriptions, spec) if centroids is None else centroids
    elif spec.mode == "class_means":
        attributes = class_means(descriptions, len(templates))
    if spec.mode == "own_descriptions":
        enriched = _with_addition(templates, class_means(descriptions, len(templates)), spec)
    elif spec.mode != "none":
        enriched = enrich(templates, attributes, spec)
    return Knowledge(torch.cat([enriched, background]), templates, attributes, descriptions)


def class_means(descriptions: Tensor, classes: int) -> Tensor:
    """descriptions (n*C, D) class by class → the mean of each class's n (C, D), not re-normalised."""
    return descriptions.reshape(classes, -1, descriptions.shape[1]).mean(dim=1)


def cluster_attributes(descriptions: Tensor, spec: KnowledgeSpec) -> Tensor:
    """descriptions (n*C, D) unit rows → k-means centroids (A, D), deliberately not re-normalised (method 1)."""
    # scikit-learn only warns where there are fewer distinct points than clusters, and returns centroids that coincide.
    count = len(np.unique(descriptions.numpy(), axis=0))
    clusters = spec.attributes or min(MAX_ATTRIBUTES, max(1, count // 4))
    if clusters > count:
        raise SettingError(
            f"knowledge.attributes={clusters} needs at least as many distinct descriptions, got {count}; "
            f"set knowledge.attributes to at most {count} or raise describe.n"
        )
    from sklearn.cluster import KMeans

    kmeans = KMeans(n_clusters=clusters, random_state=spec.seed, n_init=spec.n_init).fit(descriptions.numpy())
    return torch.from_numpy(kmeans.cluster_centers_.astype(np.float32))


def enrich(templates: Tensor, attributes: Tensor, spec: KnowledgeSpec) -> Tensor:
    """templates t_c (C, D) unit, attributes a_j (A, D) → T_c (C, D) (eqs. 3, 4), unit rows under `spec.normalise`.

    T_c = t_c + weight * sum_j softmax_j(t_c·a_j over the TOP-K) a_j.
    """
    top, index = attribute_weights(templates, attributes, spec)
    return _with_addition(templates, torch.einsum("ck,ckd->cd", top, attributes[index]), spec)


def attribute_weights(templates: Tensor, attributes: Tensor, spec: KnowledgeSpec) -> tuple[Tensor, Tensor]:
    """Weights (C, K) of eq. 4, largest first, and the indices (C, K) of the TOP-K attributes of each class."""
    keep = len(attributes) - dropped_attributes(len(attributes)) if spec.keep is None else spec.keep
    if keep > len(attributes):
        raise SettingError(f"knowledge.keep={keep} exceeds the {len(attributes)} attributes")
    # The softmax is over the TOP-K alone, as published: weights of a class sum to 1 whatever is dropped.
    scores, index = (templates @ attributes.T).topk(keep, dim=1)
    return torch.softmax(scores, dim=1), index


def dropped_attributes(count: int) -> int:
    """How many of `count` attributes a class leaves out by default. As published, in floating point: 1 - 0.9 is a little
    less than a tenth, so 1 of 20 is dropped, not 2."""
    return int((1 - 0.9) * count)


def _with_addition(templates: Tensor, addition: Tensor, spec: KnowledgeSpec) -> Tensor:
    """t_c + lambda * addition, both (C, D); to unit length, as published, or as eq. 4 is printed."""
    text = templates + spec.weight * addition
    return F.normalize(text, dim=1) if spec.normalise else text


def nearest_descriptions(knowledge: Knowledge, count: int) -> Tensor:
    """Row indices (A, count) of the descriptions nearest to each attribute by cosine, nearest first."""
    cosine = F.normalize(knowledge.attributes, dim=1) @ knowledge.descriptions.T
    return cosine.topk(min(count, cosine.shape[1]), dim=1).indices
