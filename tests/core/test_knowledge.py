"""Text semantic enrichment: modes, TOP-K, and what is refused."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from excel_core.config import KnowledgeSpec
from excel_core.errors import SettingError
from excel_core.knowledge import build_knowledge, enrich, nearest_descriptions


@pytest.fixture
def texts():
    generator = torch.Generator().manual_seed(0)
    unit = [F.normalize(torch.randn(n, 8, generator=generator), dim=1) for n in (3, 2, 30)]
    return dict(zip(("templates", "background", "descriptions"), unit, strict=True))


def test_enrich_sums_the_kept_attributes_by_softmax(texts):
    attributes = texts["descriptions"][:20] * 0.7
    got = enrich(texts["templates"], attributes, KnowledgeSpec(keep=None, weight=2.0)).numpy()
    for row, t in zip(got, texts["templates"].numpy(), strict=True):
        scores = attributes.numpy() @ t
        kept = np.argsort(scores)[2:]  # drops int(0.1 * 20) lowest
        weights = np.exp(scores[kept]) / np.exp(scores[kept]).sum()
        expected = t + 2.0 * (weights[:, None] * attributes.numpy()[kept]).sum(0)
        np.testing.assert_allclose(row, expected / np.linalg.norm(expected), atol=1e-6)


def test_modes(texts):
    none = build_knowledge(**texts, spec=KnowledgeSpec(mode="none"))
    torch.testing.assert_close(none.text, torch.cat([texts["templates"], texts["background"]]))
    assert none.attributes.shape == (0, 8)
    mean = build_knowledge(**texts, spec=KnowledgeSpec(mode="class_mean"))
    expected = F.normalize(texts["templates"][1] + texts["descriptions"][10:20].mean(0), dim=0)
    torch.testing.assert_close(mean.text[1], expected)
    attributes = build_knowledge(**texts, spec=KnowledgeSpec(attributes=5))
    torch.testing.assert_close(attributes.text[3:], texts["background"])  # background prompts are not enriched
    torch.testing.assert_close(attributes.text.norm(dim=1), torch.ones(5))
    assert (attributes.attributes.norm(dim=1) < 0.999).any()  # centroids are not re-normalised


def test_an_attribute_is_read_by_its_nearest_descriptions(texts):
    knowledge = build_knowledge(**texts, spec=KnowledgeSpec(attributes=30))
    nearest = nearest_descriptions(knowledge, 2)
    assert nearest.shape == (30, 2)
    assert sorted(nearest[:, 0].tolist()) == list(range(30))  # a cluster a description: each finds its own


def test_more_attributes_than_descriptions_is_refused(texts):
    with pytest.raises(SettingError, match="knowledge.attributes=31 needs.*got 30"):
        build_knowledge(**texts, spec=KnowledgeSpec(attributes=31))
    with pytest.raises(SettingError, match="knowledge.keep=9 exceeds the 5"):
        build_knowledge(**texts, spec=KnowledgeSpec(attributes=5, keep=9))
