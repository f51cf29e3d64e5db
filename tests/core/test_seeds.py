"""CAM seeds of photos, static and learnt, by the core's pieces one after the other."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from excel_core.cams.pseudo_labels import refine_maps
from excel_core.cams.seeds import learnt_cams, patch_attention, static_cams
from excel_core.config import RefineSpec
from excel_core.models.calibration import relation_of

REFINE = RefineSpec.model_validate({"affinity": {"layers": 2}})
IMAGES = [np.random.default_rng(i).integers(0, 256, (40 + 9 * i, 60, 3), dtype=np.uint8) for i in range(2)]


@torch.inference_mode()
def test_the_greater_of_photo_and_mirror(cam_model, segmenter, image_batch):
    one = image_batch[:1]
    seeds = learnt_cams(cam_model, segmenter, one, REFINE, mirror=True)
    pair = torch.cat([one, one.flip(-1)])
    encoded = cam_model.encode(pair, 2)
    features = segmenter(cam_model.layers(encoded), encoded.activations.grid).features
    both = cam_model.cams(encoded, relation_of(features, cam_model.spec.calibration))  # one mean over the pair
    greater = torch.maximum(both[0], both[1].flip(-1))
    low = greater.amin(dim=(1, 2), keepdim=True)
    torch.testing.assert_close(seeds.cams[0], (greater - low) / ((greater - low).amax(dim=(1, 2), keepdim=True) + 1e-5))
    assert seeds.cams.max() < 1  # the 1e-5
    alone = cam_model.encode(one, 2)
    own = relation_of(features[:1], cam_model.spec.calibration)  # the affinity's relation is the photo's own
    torch.testing.assert_close(seeds.attention, cam_model.attention(alone.activations, REFINE, own))


@torch.inference_mode()
def test_an_image_hangs_on_no_other_image_of_its_batch(cam_model, segmenter, image_batch):
    for mirror in (True, False):
        together = learnt_cams(cam_model, segmenter, image_batch, REFINE, mirror)
        for i in range(2):
            alone = learnt_cams(cam_model, segmenter, image_batch[i : i + 1], REFINE, mirror)
            torch.testing.assert_close(together.cams[i], alone.cams[0], atol=1e-5, rtol=1e-4)
            torch.testing.assert_close(together.attention[i], alone.attention[0], atol=1e-6, rtol=1e-4)


@torch.inference_mode()
def test_mirrored_photos_have_mirrored_seeds(cam_model, segmenter, image_batch):
    straight, mirrored = (learnt_cams(cam_model, segmenter, b, REFINE, True).cams for b in (image_batch, image_batch.flip(-1)))
    torch.testing.assert_close(straight, mirrored.flip(-1), atol=1e-5, rtol=1e-4)


def test_relations_seen_together_share_a_mean(cam_model):
    features = torch.randn(4, 8, 3, 3, generator=torch.Generator().manual_seed(0))
    published = cam_model.spec.calibration
    pairs = relation_of(features, published, images_per_mean=2)
    for i in (0, 2):
        torch.testing.assert_close(pairs.raw[i : i + 2], relation_of(features[i : i + 2], published).raw)
    image = published.model_copy(update={"relation_mean": "image"})
    torch.testing.assert_close(relation_of(features, image).raw, relation_of(features, published, images_per_mean=1).raw)


def test_the_probability_may_be_of_the_cosine_alone(cam_model):
    features = torch.randn(1, 8, 3, 3, generator=torch.Generator().manual_seed(0))
    spec = cam_model.spec.calibration.model_copy(update={"probability": "cosine"})
    unit = F.normalize(features.flatten(2), dim=1)
    torch.testing.assert_close(relation_of(features, spec).probability, torch.sigmoid(unit.mT @ unit))
    torch.testing.assert_close(relation_of(features, spec).raw, relation_of(features, cam_model.spec.calibration).raw)


@torch.inference_mode()
def test_static_cams_are_one_pass_and_keep_attention_for_refinement_alone(cam_model, image_batch):
    seeds = static_cams(cam_model, image_batch, REFINE)
    encoded = cam_model.encode(image_batch, 2)
    torch.testing.assert_close(seeds.cams, cam_model.cams(encoded))
    torch.testing.assert_close(seeds.attention, cam_model.attention(encoded.activations, REFINE))
    torch.testing.assert_close(seeds.attention, patch_attention(cam_model, image_batch, REFINE))
    plain = static_cams(cam_model, image_batch)
    torch.testing.assert_close(plain.cams, seeds.cams)
    assert plain.attention is None and len(plain.activations.attention) == 0
    with pytest.raises(ValueError, match="refine="):
        plain.refined_maps(0, IMAGES[0], REFINE)


@torch.inference_mode()
def test_a_batch_of_photos_is_prepared_and_refined_photo_by_photo(cam_model, segmenter):
    network_input = cam_model.prepare(IMAGES)
    for seeds in (static_cams(cam_model, IMAGES, REFINE), learnt_cams(cam_model, segmenter, IMAGES, REFINE, mirror=True)):
        assert torch.equal(seeds.network_input, network_input) and seeds.cams.shape == (2, 3, 6, 6)
        for i, image in enumerate(IMAGES):
            expected = refine_maps(image, network_input[i], seeds.cams[i, [2, 0]], seeds.attention[i], REFINE)
            maps = seeds.refined_maps(i, image, REFINE, [2, 0])
            assert list(maps) == list(expected) and all(torch.equal(maps[step], expected[step]) for step in maps)
            assert seeds.refined_maps(i, image, REFINE)["raw"].shape == (4, *image.shape[:2])
