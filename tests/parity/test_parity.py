"""The published implementation's own results: the whole chain where the golden set is, parts of it everywhere."""

from pathlib import Path

import numpy as np
import pytest
import torch

from excel_core.affinity import affinity_cams, upsample_with_background
from excel_core.cams import normalise_tokens, patch_text_cams
from excel_core.clip_weights import clip_from_openai_state
from excel_core.config import KnowledgeSpec, SegmenterSpec
from excel_core.errors import StoreError
from excel_core.knowledge import enrich
from excel_core.losses import diversity_loss, pair_labels, segmentation_loss
from excel_core.par import pixel_adaptive_refinement
from excel_core.parity import compare_with_goldens
from excel_core.presets import preset
from excel_core.published_checkpoint import read_published
from tests.conftest import SHARED
from tests.core.published_toys import published_state, seeded_segmenter

GOLDENS = SHARED / "goldens" / "reference"


@pytest.mark.skipif(not GOLDENS.with_name("reference.npz").is_file(), reason="the golden set with its CLIP is not here")
def test_every_golden_key():
    results = compare_with_goldens(GOLDENS)
    assert len(results) == 26
    assert [result for result in results if not result.ok] == []


def test_a_missing_set_is_named(tmp_path):
    with pytest.raises(StoreError, match="PREFIX.npz, PREFIX_clip.npz and PREFIX_head.npz"):
        compare_with_goldens(tmp_path / "nothing")


@pytest.mark.skipif(not GOLDENS.with_name("reference.npz").is_file(), reason="the golden set with its CLIP is not here")
def test_a_published_checkpoint_of_the_golden_weights(tmp_path):
    """Every weight through a checkpoint in the published format, to the published logits."""
    golden, head, tower = (np.load(GOLDENS.with_name(f"reference{part}.npz")) for part in ("", "_head", "_clip"))
    clip = clip_from_openai_state({key: torch.from_numpy(tower[key]) for key in tower.files}, quick_gelu=True)
    state = published_state(clip, seeded_segmenter(clip))
    own = {key.replace("neck.", "module.decoder_fts_fuse.").replace("decoder.", "module.decoder."): key for key in head.files}
    assert {key for key in state if "decoder" in key} == set(own)
    torch.save(state | {key: torch.from_numpy(head[name]) for key, name in own.items()}, tmp_path / "c.pth")
    segmenter = read_published(tmp_path / "c.pth").fit(clip, 20, SegmenterSpec(width=64))
    with torch.inference_mode():
        logits = segmenter(torch.from_numpy(golden["layer_features"]), golden["seg_logits"].shape[-2:]).logits
    _close(logits, torch.from_numpy(golden["seg_logits"]))


@pytest.fixture(scope="module")
def golden():
    with np.load(Path(__file__).parent.parent / "data" / "golden_method.npz") as archive:
        return {key: torch.from_numpy(archive[key]) for key in archive.files}


def _close(computed, golden):
    assert (computed - golden).abs().max() <= 1e-4 * golden.abs().max()


def test_enrichment_and_cams(golden):
    run, classes = preset("voc"), golden["static_cams"].shape[-1]
    enriched = enrich(golden["text"][:classes], golden["bank"].T.contiguous(), KnowledgeSpec())
    _close(enriched, golden["text_enriched"][:classes])
    _close(normalise_tokens(golden["svc_features"], run.cams), golden["svc_features_token_normalised"])
    cams = patch_text_cams(golden["svc_features"], golden["text_enriched"], classes, run.cams)
    _close(cams.mT, golden["static_cams"])


@pytest.mark.parametrize("i", [0, 1])
def test_affinity_par_and_labels(golden, i):
    refine = preset("voc").refine
    side = round(golden["static_cams"].shape[1] ** 0.5)
    kept = golden[f"classes_{i}"]
    cams = golden["static_cams"][i].mT[kept].reshape(-1, side, side)
    refined = affinity_cams(cams, golden["attention_mean_last6"][i], refine.affinity)
    _close(refined, golden[f"caa_{i}"])
    image = golden["par_image"][i : i + 1]
    maps = upsample_with_background(refined, tuple(image.shape[-2:]))
    _close(maps, golden[f"cams_with_background_{i}"])
    par = pixel_adaptive_refinement(image, maps[None], refine.par)[0]
    _close(par, golden[f"par_{i}"])
    labels = torch.cat([torch.zeros(1, dtype=torch.long), kept + 1])[par.argmax(0)]
    assert (labels == golden["pseudo_labels"][i]).float().mean() >= 0.999


def test_losses(golden):
    truth = golden["pseudo_labels"].long()
    logits = torch.nn.functional.interpolate(golden["seg_logits"], size=truth.shape[-2:], mode="bilinear")
    assert segmentation_loss(logits, truth).item() == pytest.approx(golden["loss_seg"].item(), rel=1e-5)
    pairs = pair_labels(truth, tuple(golden["seg_logits"].shape[-2:]), preset("voc").train.radius)
    assert torch.equal(pairs, golden["affinity_labels"])
    assert diversity_loss(golden["relation"], pairs).item() == pytest.approx(golden["loss_div"].item(), rel=1e-5)
