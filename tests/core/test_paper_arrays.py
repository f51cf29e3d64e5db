"""What the paper's figures show: each array by a computation of its own, from open_clip's modules where these have one."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from excel_core.cams.cam_model import CamModel
from excel_core.cams.seeds import learnt_cams
from excel_core.config import CamSpec, KnowledgeSpec, RefineSpec
from excel_core.errors import SettingError
from excel_core.models.calibration import calibrated_features, relation_of
from excel_core.paper.figures import attribute_responses, cam_columns, query_maps, strongest_patch
from excel_core.text.knowledge import build_knowledge

REFINE = RefineSpec.model_validate({"affinity": {"layers": 2}})
PRINTED = {"features": "over_channels", "surgery": False, "minmax": "patches"}  # eq. 1 as printed


def unit(*shape, seed=0):
    return F.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=1)


def seen(clip, calibration=(), **spec):
    """A Vision of three classes and two background prompts, its first three texts enriched: of another length, too."""
    text = torch.cat([1.7 * unit(3, 16, seed=5), unit(5, 16)[3:]])
    fields = {"image_size": 48, "calibration": {"depth": 2, **dict(calibration)}}
    return CamModel(clip, text, 3, CamSpec.model_validate(fields | spec))


@torch.inference_mode()
def test_each_column_adds_a_step(small_clip, segmenter, image_batch):
    cam_model, plain, one = seen(small_clip, **PRINTED), unit(5, 16), image_batch[:1]
    columns = cam_columns(cam_model, plain, segmenter, one, 1, REFINE, mirror=True)
    tokens = small_clip.visual.transformer(small_clip.tokens(one))  # open_clip's own forward pass
    patches = (small_clip.visual.ln_post(tokens) @ small_clip.visual.proj)[0, 1:]
    cosine = (F.normalize(patches, dim=1) @ plain[1]).reshape(6, 6)
    torch.testing.assert_close(torch.from_numpy(columns.original), (cosine - cosine.min()) / (cosine.max() - cosine.min()))
    templates = replace(cam_model, text=plain)
    np.testing.assert_allclose(columns.calibrated, templates.cams(templates.encode(one))[0, 1], atol=1e-6)
    np.testing.assert_allclose(columns.enriched, cam_model.cams(cam_model.encode(one))[0, 1], atol=1e-6)
    for mirror in (True, False):
        found = cam_columns(cam_model, plain, segmenter, one, 1, REFINE, mirror).learnt
        np.testing.assert_array_equal(found, learnt_cams(cam_model, segmenter, one, REFINE, mirror).cams[0, 1])
    different = [columns.original, columns.calibrated, columns.enriched, columns.learnt]
    assert all(np.abs(a - b).max() > 0.01 for a, b in pairwise(different))
    assert columns.static is columns.enriched


def test_steps_that_a_run_has_not_are_none(small_clip, segmenter, image_batch):
    one, cam_model = image_batch[:1], seen(small_clip)
    plain = cam_columns(cam_model, cam_model.text, segmenter, one, 0, REFINE, mirror=False)
    assert plain.enriched is None and plain.static is plain.calibrated and plain.learnt is not None
    bare = seen(small_clip, {"attention": "qk"})
    bare_columns = cam_columns(bare, unit(5, 16), segmenter, one, 0, REFINE, mirror=False)
    assert bare_columns.calibrated is None and bare_columns.learnt is None and bare_columns.static is bare_columns.enriched
    alone = cam_columns(bare, bare.text, segmenter, one, 0, REFINE, mirror=False)
    assert alone.static is alone.original
    for attention in ("qk", "v"):
        maps = query_maps(seen(small_clip, {"attention": attention}), segmenter, one, (0, 0), REFINE, mirror=False)
        assert maps.calibrated is None and maps.learnt is None and maps.relation.shape == maps.original.shape == (6, 6)


def test_a_response_is_the_cosine_with_the_attribute(small_clip, image_batch):
    cam_model, one = seen(small_clip), image_batch[:1]
    spec = KnowledgeSpec(attributes=9, keep=6, normalise=False)
    knowledge = build_knowledge(unit(3, 16), unit(2, 16, seed=1), unit(30, 16, seed=2), spec)
    found = attribute_responses(cam_model, knowledge, spec, one, 2, count=4)
    scores = knowledge.attributes.numpy() @ knowledge.templates.numpy()[2]
    order = np.argsort(-scores)[:6]
    np.testing.assert_array_equal(found.numbers, order[:4])
    weights = np.exp(scores[order]) / np.exp(scores[order]).sum()
    np.testing.assert_allclose(found.weights, weights[:4], rtol=1e-5)
    with torch.inference_mode():
        patches = small_clip.project(cam_model.encode(one).calibrated)[0, 1:].numpy()
    for place, number in enumerate(order[:4]):
        attribute = knowledge.attributes[number].numpy()
        lengths = np.linalg.norm(patches, axis=1) * np.linalg.norm(attribute)
        np.testing.assert_allclose(found.maps[place].ravel(), patches @ attribute / lengths, atol=1e-5)
        near = knowledge.descriptions.numpy() @ attribute
        assert found.nearest[place] == near.argmax()  # unit rows: the largest product is the largest cosine
    assert found.maps.shape == (4, 6, 6)
    assert len(attribute_responses(cam_model, knowledge, spec, one, 0, count=20).numbers) == 6  # no more than are kept


def test_without_attributes_there_are_no_responses(small_clip, image_batch):
    spec = KnowledgeSpec(mode="none")
    knowledge = build_knowledge(unit(3, 16), unit(2, 16, seed=1), unit(30, 16, seed=2), spec)
    found = attribute_responses(seen(small_clip), knowledge, spec, image_batch[:1], 0, count=4)
    assert found.maps.shape == (0, 6, 6) and len(found.numbers) == len(found.weights) == len(found.nearest) == 0


@torch.inference_mode()
@pytest.mark.parametrize("heads", ["sum", "each"])
def test_what_a_patch_looks_at(small_clip, segmenter, image_batch, heads):
    cam_model, one, (row, column) = seen(small_clip, {"heads": heads, "depth": 1}), image_batch[:1], (2, 4)
    maps, patch = query_maps(cam_model, segmenter, one, (row, column), REFINE, mirror=False), 2 * 6 + 4
    tokens, rows = small_clip.tokens(one), []
    for block in small_clip.blocks:
        last = tokens
        normed = block.ln_1(tokens)
        rows.append(block.attn(normed, normed, normed, need_weights=True)[1][0, 1 + patch])  # torch's own mean over heads
        tokens = block(tokens)
    attention = torch.stack(rows[-2:]).mean(dim=0)
    np.testing.assert_allclose(maps.original.ravel(), attention[1:], atol=1e-6)
    assert maps.original.sum() + attention[0] == pytest.approx(1, abs=1e-5) and maps.blocks == 2
    block = small_clip.blocks[-1]
    joined = F.linear(block.ln_1(last), block.attn.in_proj_weight, block.attn.in_proj_bias)[0]
    svc = torch.stack(
        [(own @ own.T / 4).softmax(dim=1)[1 + patch] for kind in joined.chunk(3, dim=1) for own in kind.chunk(2, dim=1)]
    ).mean(dim=0)
    np.testing.assert_allclose(maps.calibrated.ravel(), svc[1:], atol=1e-6)
    features = segmenter(cam_model.layers(cam_model.encode(one)), (6, 6)).features[0].flatten(1)
    cosine = F.normalize(features, dim=0).T @ F.normalize(features, dim=0)
    relation = 3 * (cosine - cosine.mean())[patch]
    np.testing.assert_allclose(maps.relation.ravel(), relation, atol=1e-5)
    positive = torch.where(relation >= 0, relation.exp(), 0)
    np.testing.assert_allclose((maps.learnt - maps.calibrated).ravel(), positive / positive.sum(), atol=1e-6)


@torch.inference_mode()
def test_the_sum_is_what_the_second_pass_mixes(small_clip, segmenter, image_batch):
    """With one head's map for all heads and one block: the query's feature follows from the map of figure 6 alone."""
    cam_model, one, patch = seen(small_clip, {"depth": 1}), image_batch[:1], 2 * 6 + 4
    maps = query_maps(cam_model, segmenter, one, (2, 4), REFINE, mirror=True)
    pair = torch.cat([one, one.flip(-1)])
    encoded = cam_model.encode(pair)
    relation = relation_of(segmenter(cam_model.layers(encoded), (6, 6)).features, cam_model.spec.calibration)
    expected = calibrated_features(small_clip, encoded.activations, cam_model.spec.calibration, relation)[0, 1 + patch]
    row = torch.cat([torch.tensor([1 - maps.calibrated.sum()]), torch.from_numpy(maps.learnt).flatten()])
    mixed = small_clip.heads * row @ encoded.activations.intra_correlations[-1].values[0]
    last = encoded.activations.inputs[-1][0, 1 + patch]
    torch.testing.assert_close(last + small_clip.attention_output(3, mixed), expected, atol=1e-5, rtol=1e-4)


def test_the_query_patch(small_clip, segmenter, image_batch):
    cam = np.zeros((3, 5), dtype=np.float32)
    cam[1, 4] = cam[2, 0] = 0.5
    assert strongest_patch(cam) == (1, 4)  # the first of equals
    for query in ((6, 0), (0, 6)):
        with pytest.raises(SettingError, match="figures.query: a photo has 6 rows and 6 columns"):
            query_maps(seen(small_clip), segmenter, image_batch[:1], query, REFINE, mirror=False)


def test_half_precision_is_near(small_clip, segmenter, image_batch):
    """As on a GPU: every map is float32, and about what it is in full precision."""
    one, knowledge = image_batch[:1], build_knowledge(unit(3, 16), unit(2, 16), unit(30, 16), KnowledgeSpec(attributes=5))
    found = []
    for precision in ("fp32", "bf16"):
        cam_model = seen(small_clip, precision=precision)
        columns = cam_columns(cam_model, unit(5, 16), segmenter, one, 1, REFINE, mirror=True)
        responses = attribute_responses(cam_model, knowledge, KnowledgeSpec(), one, 1, count=2)
        maps = query_maps(cam_model, segmenter, one, (1, 1), REFINE, mirror=True)
        found.append([*vars(columns).values(), responses.maps, maps.original, maps.calibrated, maps.relation, maps.learnt])
    for full, half in zip(*found, strict=True):
        assert half.dtype == np.float32
        np.testing.assert_allclose(half, full, atol=0.1 * np.ptp(full))
