"""Classes that a CLIP scarcely sees in a photo are said: measured on the picture-book world, whose CLIP is built in."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from excel_core.cams.presence import image_embedding
from excel_core.cams.seeds import static_cams
from excel_core.config.presets import preset, with_settings
from excel_core.models.clip_weights import load_clip
from excel_core.prediction.photo_presence import MAX_SEEN_BETTER, Presence, tiny_clip_warnings
from excel_core.prediction.predictors import training_free_predictor
from excel_core.prediction.training_free import TrainingFreeModel
from excel_core.text.class_sets import class_set_of_file, named_classes
from excel_core.text.embeddings import TextEmbeddings
from excel_core.text.knowledge import build_knowledge_base
from excel_core.world.scenes import HELD_OUT_SEEDS, render_scene

RUN = with_settings(preset("photos"), ["clip.model=excel-tiny", "cams.image_size=128", "knowledge.mode=none"])
NAMES = class_set_of_file("world").class_names


@pytest.fixture(scope="module")
def clip():
    return load_clip("excel-tiny")


@pytest.fixture(scope="module")
def presence(clip):
    texts = TextEmbeddings()
    base = build_knowledge_base(named_classes(NAMES), (), RUN.knowledge, clip, texts)
    return Presence.of(NAMES, base.knowledge.templates, clip, texts), TrainingFreeModel(clip, base, RUN)


def test_what_is_in_a_scene_is_not_doubted_and_most_of_the_rest_is(clip, presence):
    presence, model = presence
    scenes = [render_scene(seed, 128) for seed in HELD_OUT_SEEDS[0][:24]]
    with torch.inference_mode():
        seen = static_cams(model.cam_model, [scene.image for scene in scenes])
        embeddings = image_embedding(clip, seen.activations)
    doubted = [presence.doubts(embedding).keys() for embedding in embeddings]
    present = [name in doubts for scene, doubts in zip(scenes, doubted, strict=True) for name in scene.labels]
    absent = [
        name in doubts for scene, doubts in zip(scenes, doubted, strict=True) for name in NAMES if name not in scene.labels
    ]
    assert np.mean(present) < 0.05 and np.mean(absent) > 0.5


def test_the_reason_names_the_clip_and_the_share(presence):
    presence, _ = presence
    other = replace(presence, clip_name="ViT-B-16:openai", class_names=("boat",), templates=-presence.others[:1])
    reason = other.doubts(presence.others[0])["boat"]
    assert reason.startswith("ViT-B-16:openai scarcely sees it: it sees ") and f"of {len(presence.others)} other" in reason
    assert 0 < MAX_SEEN_BETTER < 1 and other.doubts(-presence.others[0]) == {}


def test_the_tiny_clip_has_never_seen_what_its_world_has_not(clip):
    predictor = training_free_predictor(("person", "boat"), RUN, clip, TextEmbeddings())
    assert predictor.warnings == tiny_clip_warnings("excel-tiny") != ()
    assert "has never seen it" in predictor.look(render_scene(1, 96).image).doubts["person"]
    assert tiny_clip_warnings("ViT-B-16:openai") == ()
