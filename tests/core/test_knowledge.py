"""Text semantic enrichment: modes, TOP-K, and what is refused."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from excel_core.config import KnowledgeSpec
from excel_core.errors import SettingError
from excel_core.text.knowledge import (
    attribute_weights,
    build_knowledge,
    cluster_attributes,
    dropped_attributes,
    enrich,
    nearest_descriptions,
)


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
        kept = np.argsort(scores)[1:]  # of 20 the published code drops one
        weights = np.exp(scores[kept]) / np.exp(scores[kept]).sum()
        expected = t + 2.0 * (weights[:, None] * attributes.numpy()[kept]).sum(0)
        np.testing.assert_allclose(row, expected / np.linalg.norm(expected), atol=1e-6)


@pytest.mark.parametrize(("count", "dropped"), [(112, 11), (224, 22), (20, 1), (80, 7)])
def test_as_many_attributes_are_dropped_as_published(count, dropped):
    assert dropped_attributes(count) == dropped
    attributes = torch.randn(count, 8, generator=torch.Generator().manual_seed(0))
    weights, index = attribute_weights(attributes[:3], attributes, KnowledgeSpec())
    assert weights.shape == index.shape == (3, count - dropped)


def test_without_enrichment_the_texts_are_the_templates(texts):
    none = build_knowledge(**texts, spec=KnowledgeSpec(mode="none"))
    torch.testing.assert_close(none.text, torch.cat([texts["templates"], texts["background"]]))
    assert none.attributes.shape == (0, 8)


def test_a_class_fuses_its_own_descriptions(texts):
    own = build_knowledge(**texts, spec=KnowledgeSpec(mode="own_descriptions"))
    expected = F.normalize(texts["templates"][1] + texts["descriptions"][10:20].mean(0), dim=0)
    torch.testing.assert_close(own.text[1], expected)
    assert own.attributes.shape == (0, 8)


def test_class_means_are_attributes_for_all_classes():
    """20 classes: of their 20 means a class leaves out the one that is least like it."""
    draw = torch.Generator().manual_seed(0)
    templates, background, descriptions = (F.normalize(torch.randn(n, 8, generator=draw), dim=1) for n in (20, 2, 100))
    found = build_knowledge(templates, background, descriptions, KnowledgeSpec(mode="class_means"))
    means = np.stack([descriptions[5 * c : 5 * c + 5].numpy().mean(0) for c in range(20)])
    np.testing.assert_allclose(found.attributes, means, atol=1e-7)
    assert (found.attributes.norm(dim=1) < 0.999).all()
    for t, row in zip(templates.numpy(), found.text.numpy(), strict=False):
        top = np.argsort(means @ t)[1:]
        weights = np.exp(means[top] @ t) / np.exp(means[top] @ t).sum()
        expected = t + weights @ means[top]
        np.testing.assert_allclose(row, expected / np.linalg.norm(expected), atol=1e-6)


def test_attributes_are_centroids(texts):
    found = build_knowledge(**texts, spec=KnowledgeSpec(attributes=5))
    torch.testing.assert_close(found.text[3:], texts["background"])  # background prompts are not enriched
    torch.testing.assert_close(found.text.norm(dim=1), torch.ones(5))
    assert (found.attributes.norm(dim=1) < 0.999).any()  # centroids are not re-normalised


@pytest.mark.parametrize("mode", ["attributes", "class_means", "own_descriptions"])
def test_as_printed_enriched_texts_have_no_unit_length(texts, mode):
    spec = KnowledgeSpec(mode=mode, attributes=5)
    unit, printed = (
        build_knowledge(**texts, spec=spec),
        build_knowledge(**texts, spec=spec.model_copy(update={"normalise": False})),
    )
    addition = printed.text[:3] - texts["templates"]
    assert (addition.norm(dim=1) > 0.05).all() and ((printed.text[:3].norm(dim=1) - 1).abs() > 0.01).all()
    torch.testing.assert_close(F.normalize(printed.text, dim=1), unit.text)
    torch.testing.assert_close(printed.text[3:], texts["background"])
    if mode == "attributes":
        weights, index = attribute_weights(texts["templates"], printed.attributes, spec)
        torch.testing.assert_close(addition, (weights[..., None] * printed.attributes[index]).sum(1))


def test_k_means_takes_the_best_of_ten_starts(texts):
    """The published default: of ten starts the closest clusters, which one start need not find."""
    from sklearn.cluster import KMeans

    points = F.normalize(torch.randn(120, 6, generator=torch.Generator().manual_seed(3)), dim=1)
    best = KMeans(12, random_state=0, n_init=10).fit(points.numpy())
    np.testing.assert_array_equal(cluster_attributes(points, KnowledgeSpec(attributes=12)), best.cluster_centers_)
    once = cluster_attributes(points, KnowledgeSpec(attributes=12, n_init=1))
    assert (torch.cdist(points, once).amin(dim=1) ** 2).sum() > best.inertia_ * 1.001


def test_ready_centroids_are_taken_as_they_are(texts):
    ready = texts["descriptions"][:7] * 0.9
    found = build_knowledge(**texts, spec=KnowledgeSpec(attributes=500), centroids=ready)
    assert torch.equal(found.attributes, ready)
    torch.testing.assert_close(found.text[:3], enrich(texts["templates"], ready, KnowledgeSpec()))
    none = build_knowledge(**texts, spec=KnowledgeSpec(mode="none"), centroids=ready)
    assert none.attributes.shape == (0, 8)


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
