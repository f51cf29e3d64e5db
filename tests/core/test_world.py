"""The picture-book world: scenes, captions and descriptions, and the VOC folder they are written to."""

import json
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import open_clip
import pytest
from PIL import Image

from excel_core.text.descriptions import load_descriptions
from excel_core.text.prompts import load_prompts
from excel_core.world.captions import Captions, build_phrases, facts_of_piece
from excel_core.world.objects import draw_object
from excel_core.world.phrases import GROUND_WORDS, STATEMENTS
from excel_core.world.scenes import CLASSES, HELD_OUT_SEEDS, TRAIN_SEEDS, Scene, render_scene
from excel_core.world.views import draw_views, fill_bank
from excel_core.world.voc_layout import scene_id, write_world

PROMPTS = Path(__file__).resolve().parents[2] / "prompts"
SEEDS = range(40)


@pytest.fixture(scope="module")
def captions() -> Captions:
    return Captions(build_phrases())


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return [render_scene(seed, 64) for seed in SEEDS]


def test_scene_is_a_function_of_its_seed() -> None:
    first, again, other = render_scene(7, 64), render_scene(7, 64), render_scene(8, 64)
    assert np.array_equal(first.image, again.image) and np.array_equal(first.mask, again.mask)
    assert first.pieces == again.pieces
    assert not np.array_equal(first.image, other.image)


def test_labels_are_the_classes_of_the_mask(scenes: list[Scene]) -> None:
    for scene in scenes:
        assert scene.image.shape == (64, 64, 3) and scene.image.dtype == np.uint8
        assert scene.mask.shape == (64, 64) and scene.mask.dtype == np.uint8
        assert scene.labels == tuple(CLASSES[i - 1] for i in np.unique(scene.mask) if i > 0)
        assert 1 <= len(scene.labels) <= 3
        owners = np.array([CLASSES.index(p.owner) + 1 if p.owner else 0 for p in scene.pieces])
        assert np.array_equal(owners[scene.piece_map], scene.mask)


def test_every_label_is_large_enough_to_see() -> None:
    areas = []
    for seed in range(300):
        scene = render_scene(seed, 64)
        areas += [(scene.mask == CLASSES.index(name) + 1).mean() for name in scene.labels]
    assert min(areas) > 0.012


@pytest.mark.parametrize("size", [33, 96, 128])
def test_another_size_is_the_same_scene(size: int) -> None:
    for seed in range(6):
        small, other = render_scene(seed, 64), render_scene(seed, size)
        assert small.labels == other.labels and small.background == other.background and small.pieces == other.pieces
        resized = np.asarray(Image.fromarray(other.mask).resize((64, 64), Image.Resampling.NEAREST))
        assert (resized == small.mask).mean() > 0.93
        picture = np.asarray(Image.fromarray(other.image).resize((64, 64)), dtype=float)
        assert np.abs(picture - small.image).mean() < 20  # of another scene: 50 and more


def test_all_classes_and_grounds_occur() -> None:
    many = [render_scene(seed, 32) for seed in range(150)]
    assert {name for scene in many for name in scene.labels} == set(CLASSES)
    assert {name for scene in many for name in scene.background} == set(GROUND_WORDS)
    assert {len(scene.labels) for scene in many} == {1, 2, 3}


def test_training_and_held_out_seeds_are_disjoint() -> None:
    ranges = sorted((TRAIN_SEEDS, *HELD_OUT_SEEDS), key=lambda r: r.start)
    assert len(HELD_OUT_SEEDS) == 3
    assert all(left.stop <= right.start for left, right in pairwise(ranges))


def test_objects_stay_in_their_box() -> None:
    for name in CLASSES:
        for seed in range(20):
            points = np.concatenate([s.points for s in draw_object(name, np.random.default_rng(seed))])
            assert np.abs(points).max() < 1.35, name


def test_phrases_are_distinct_and_cover_what_is_drawn(captions: Captions) -> None:
    texts = [phrase.text for phrase in captions.phrases]
    assert len(texts) == len(set(texts)) > 400
    drawable = {f for seed in range(1200) for p in render_scene(seed, 16).pieces for f in facts_of_piece(p)}
    assert set(captions.facts) <= drawable  # no phrase asks for what is never drawn


def test_captions_tell_the_truth(captions: Captions, scenes: list[Scene]) -> None:
    """Against the mask and the pieces themselves, not against the arithmetic of Captions."""
    names = {phrase.text: phrase for phrase in captions.phrases}
    for scene in scenes:
        drawn = dict(zip(captions.phrases, captions.scene_truth(scene), strict=True))
        visible = np.unique(scene.piece_map)
        shown = {f for i in visible for f in facts_of_piece(scene.pieces[i])}
        for phrase, truth in drawn.items():
            if truth == 1:
                assert set(phrase.facts) <= shown, phrase
            elif truth == 0:
                assert not set(phrase.facts) <= shown, phrase
        for name in CLASSES:
            for template in ("a clean origami {}.", "a photo of a {}.", "{}"):
                assert drawn[names[template.format(name)]] == (name in scene.labels)


def test_views_count_only_the_patches_that_are_shown(captions: Captions) -> None:
    bank = fill_bank(range(3), 64, captions)
    whole = draw_views(bank, np.random.default_rng(0), 4, 64, 8, 1.0, (1.0, 1.0))
    part = draw_views(bank, np.random.default_rng(0), 4, 64, 8, 0.25, (0.4, 1.0))
    assert whole.patches.shape == (4, 64) and part.patches.shape == (4, 16)
    assert all((np.diff(row) > 0).all() and row.min() >= 0 and row.max() < 64 for row in part.patches)
    truths = {captions.scene_truth(render_scene(seed, 64)).tobytes() for seed in range(3)}
    assert all(row.tobytes() in truths for row in captions.truth(whole.shares))
    grounds = [i for i, fact in enumerate(captions.facts) if fact.startswith("ground/")]
    assert (part.shares[:, grounds].sum(axis=1) <= 1.0 + 1e-9).all()


def test_what_fills_too_little_of_a_patch_is_hard_to_tell(captions: Captions) -> None:
    fish = captions.facts.index("fish")
    names = [i for i in captions.class_phrases if captions.phrases[i].facts == ("fish",)]
    shares = np.zeros((3, len(captions.facts)))
    shares[:, fish] = 0.0, 0.02, 0.2
    assert captions.truth(shares)[:, names].T.tolist() == [[0, 1, 1]] * len(names)
    assert captions.truth(shares, least=0.1)[:, names].T.tolist() == [[0, -1, 1]] * len(names)
    assert {captions.phrases[i].facts for i in captions.class_phrases} == {(name,) for name in CLASSES}


def test_descriptions_and_prompts_are_those_of_the_world(captions: Captions) -> None:
    prompts = load_prompts(PROMPTS / "world.yaml")
    assert prompts.class_names == CLASSES
    assert list(prompts.background) == [word for words in GROUND_WORDS.values() for word in words]
    described = load_descriptions(PROMPTS / "descriptions" / "world.json", prompts, 20).texts
    facts = {phrase.text: phrase.facts for phrase in captions.phrases}
    for name, texts in described.items():
        assert len(set(texts)) == 20
        assert texts == tuple(f"a clean origami {name}. it {statement}" for _, statement in STATEMENTS[name])
        assert all(fact.split("/")[0] == name for text in texts for fact in facts[text])
    everything = [text for texts in described.values() for text in texts]
    tokens = open_clip.SimpleTokenizer(context_length=200)(everything)
    assert int((tokens != 0).sum(dim=1).max()) <= 77
    assert json.loads((PROMPTS / "descriptions" / "world.json").read_text())["provenance"]["provider"] == "bundled"


def test_voc_layout_can_be_read_back(tmp_path: Path) -> None:
    write_world(tmp_path, {"train": range(3), "val": range(1_000_000, 1_000_002)}, 48)
    lists = tmp_path / "ImageSets" / "Segmentation"
    assert (lists / "train.txt").read_text().split() == ["world_000000", "world_000001", "world_000002"]
    assert (lists / "val.txt").read_text().split() == ["world_1000000", "world_1000001"]
    assert not list(tmp_path.rglob(".*")), "a temporary file was left"
    for seed in (0, 1, 2, 1_000_000, 1_000_001):
        scene, name = render_scene(seed, 48), scene_id(seed)
        with Image.open(tmp_path / "SegmentationClass" / f"{name}.png") as mask:
            assert mask.mode == "P" and np.array_equal(np.asarray(mask), scene.mask)
        with Image.open(tmp_path / "JPEGImages" / f"{name}.jpg") as picture:
            assert np.abs(np.asarray(picture, dtype=float) - scene.image).mean() < 4
        objects = ElementTree.parse(tmp_path / "Annotations" / f"{name}.xml").findall("object")
        assert tuple(thing.findtext("name") for thing in objects) == scene.labels
        for thing, label in zip(objects, scene.labels, strict=True):
            left, top, right, bottom = (int(thing.findtext(f"bndbox/{k}", "0")) for k in ("xmin", "ymin", "xmax", "ymax"))
            pixels = scene.mask == CLASSES.index(label) + 1
            assert pixels[top - 1 : bottom, left - 1 : right].sum() == pixels.sum()
            assert pixels[top - 1].any() and pixels[:, right - 1].any()
