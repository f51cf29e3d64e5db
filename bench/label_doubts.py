"""How many wrong and missing image-level labels of the picture-book world are found: a tenth of the scenes get one too many,
another tenth lose one.

    python -m bench.label_doubts
"""

import numpy as np
import torch
from numpy.typing import NDArray

from excel_core.cams.cam_model import CamModel
from excel_core.cams.presence import image_embedding, presence_scores
from excel_core.cams.seeds import static_cams
from excel_core.config.presets import preset
from excel_core.evaluation.label_doubts import PresenceReference, label_table
from excel_core.models.clip_weights import load_clip
from excel_core.text.class_sets import class_set_of_file, describe_bundled
from excel_core.text.embeddings import TextEmbeddings
from excel_core.text.knowledge import build_knowledge_base
from excel_core.world.scenes import HELD_OUT_SEEDS, render_scene

__all__ = ["found_errors", "plant_errors", "world_presence"]

Labels = set[tuple[int, int]]  # (scene, class)


@torch.inference_mode()
def world_presence(count: int) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """excel-tiny's scores (count, C) of held-out scenes, and their true labels (count, C)."""
    run, clip, prompts = preset("demo"), load_clip("excel-tiny"), class_set_of_file("world")
    texts = describe_bundled(prompts, run.describe.n).in_class_order(prompts.class_names)
    knowledge = build_knowledge_base(prompts, texts, run.knowledge, clip, TextEmbeddings()).knowledge
    model = CamModel(clip, knowledge.text, len(prompts.class_names), run.cams)
    scores, classes = [], []
    for first in range(0, count, run.cams.batch_size):
        scenes = [render_scene(seed, 128) for seed in HELD_OUT_SEEDS[0][first : min(count, first + run.cams.batch_size)]]
        activations = static_cams(model, [scene.image for scene in scenes]).activations
        scores.append(presence_scores(image_embedding(clip, activations), knowledge.templates))
        classes += [[prompts.class_names.index(name) for name in scene.labels] for scene in scenes]
    return torch.cat(scores).numpy(), label_table(classes, len(prompts.class_names))


def plant_errors(truth: NDArray[np.bool_], share: float, seed: int) -> tuple[NDArray[np.bool_], Labels, Labels]:
    """True labels (I, C) → labels with errors (I, C), those of them that are wrong, and those that are missing."""
    rng, given, count = np.random.default_rng(seed), truth.copy(), round(share * len(truth))
    rows = rng.permutation(len(truth)).tolist()
    wrong = {(row, int(rng.choice(np.flatnonzero(~truth[row])))) for row in rows[:count]}
    missing = {(row, int(rng.choice(np.flatnonzero(truth[row])))) for row in rows[count : 2 * count]}
    for row, label in wrong | missing:
        given[row, label] = not given[row, label]
    return given, wrong, missing


def found_errors(scores: NDArray[np.float32], given: NDArray[np.bool_]) -> tuple[Labels, Labels]:
    """The labels that are doubted with the defaults: given ones, and missing ones."""
    spec, images = preset("demo").quality, [str(row) for row in range(len(scores))]
    doubts = PresenceReference.of(scores, given).doubts(images, scores, given, spec.seen, spec.unseen)
    found: tuple[Labels, Labels] = (set(), set())
    for doubt in doubts:
        found[not doubt.given].add((int(doubt.image), doubt.class_index))
    return found


if __name__ == "__main__":
    presence, labels = world_presence(240)
    shares = []
    for seed in range(20):
        corrupted, *planted = plant_errors(labels, 0.1, seed)
        doubted = found_errors(presence, corrupted)
        shares.append([(len(d & p) / len(p), len(d & p) / max(1, len(d))) for d, p in zip(doubted, planted, strict=True)])
    for name, (recall, precision) in zip(("wrong", "missing"), np.mean(shares, axis=0), strict=True):
        print(f"{name} labels: {100 * recall:.0f} % found, {100 * precision:.0f} % of those doubted are planted")
