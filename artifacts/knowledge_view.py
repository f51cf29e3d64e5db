"""What a report shows of the knowledge base: its attributes in words, and a map of descriptions, attributes and T_c."""

from pathlib import Path

import numpy as np
import torch.nn.functional as F

from artifacts.view import AttributeRow, KnowledgeMap
from excel_core.config import KnowledgeSpec
from excel_core.text.knowledge import KnowledgeBase, attribute_weights, nearest_descriptions

__all__ = ["attribute_rows", "attributes_are", "knowledge_map"]

MAX_DESCRIPTIONS, MAX_CLASSES = 3, 3  # shown of an attribute


def attribute_rows(base: KnowledgeBase, spec: KnowledgeSpec) -> list[AttributeRow]:
    """Each attribute with its nearest descriptions and the classes that it weighs most for."""
    knowledge, names = base.knowledge, base.class_names
    if not len(knowledge.attributes):
        return []
    weights, index = (part.numpy() for part in attribute_weights(knowledge.templates, knowledge.attributes, spec))
    table = np.zeros((len(names), len(knowledge.attributes)))
    np.put_along_axis(table, index, weights, axis=1)
    users = np.argsort(-table, axis=0, kind="stable")[:MAX_CLASSES]
    return [
        AttributeRow(
            number,
            tuple(base.texts[int(i)] for i in nearest),
            tuple((names[c], float(table[c, number])) for c in users[:, number] if table[c, number] > 0),
        )
        for number, nearest in enumerate(nearest_descriptions(knowledge, MAX_DESCRIPTIONS))
    ]


def attributes_are(spec: KnowledgeSpec) -> str:
    """What a run's attributes are, in words."""
    file, mode = spec.attributes_file, spec.mode
    if mode == "class_means":
        return "the means of each class's descriptions"
    return f"centroids of the file {Path(file).name}" if file and mode == "attributes" else "clusters of descriptions"


def knowledge_map(base: KnowledgeBase) -> KnowledgeMap | None:
    """Descriptions, attributes and T_c on the two principal axes of the descriptions; None where there are none."""
    knowledge, classes = base.knowledge, len(base.class_names)
    if not base.texts:
        return None
    from sklearn.decomposition import PCA  # here, since it takes a second, and `excel plan` draws nothing

    axes = PCA(n_components=2, svd_solver="full").fit(knowledge.descriptions.numpy())
    attributes = knowledge.attributes.numpy()
    enriched = F.normalize(knowledge.text[:classes], dim=1)  # of unit length as the descriptions are; T_c itself may not be
    return KnowledgeMap(
        descriptions=axes.transform(knowledge.descriptions.numpy()),
        description_class=np.repeat(np.arange(classes), len(base.texts) // classes),
        attributes=axes.transform(attributes) if len(attributes) else np.zeros((0, 2)),
        classes=axes.transform(enriched.numpy()),
        explained=(float(axes.explained_variance_ratio_[0]), float(axes.explained_variance_ratio_[1])),
    )
