"""Two ways to see single photos: a frozen CLIP with class names alone, or a trained segmenter. No data set, no run."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from excel_core.cams.cam_model import CamModel
from excel_core.cams.pseudo_labels import refine_labels
from excel_core.config import KnowledgeSpec, RunSpec
from excel_core.errors import SettingError
from excel_core.models.published_checkpoint import is_published
from excel_core.prediction.trained_segmenter import TrainedSegmenter, load_portable
from excel_core.text.class_sets import given_descriptions, known_descriptions, named_classes
from excel_core.text.knowledge import Knowledge, build_knowledge
from excel_core.text.prompts import PromptSet
from tasks.engine.stage import RunEnvironment
from tasks.history.run_record import find_record
from tasks.inputs.cam_model import cached_clip, text_embeddings
from tasks.knowledge import ready_attributes
from tasks.photos.published_sight import published_trained
from tasks.photos.trained import run_segmenter

__all__ = ["Predictor", "find_segmenter", "parse_classes", "trained_predictor", "training_free_predictor"]

Image = NDArray[np.uint8]
Labels = NDArray[np.uint8]
MOST_CLASSES = 254  # label 255 is ignore
DESCRIPTIONS_AN_ATTRIBUTE = 4  # at least, so that k-means has something to average


@dataclass(frozen=True)
class Predictor:
    """`see(image)`, an image (H, W, 3) uint8 → its label maps (H, W) by step, the last one the result: 0 background, i + 1
    class i of `class_names`. `notes`: what its user should know."""

    class_names: tuple[str, ...]
    see: Callable[[Image], dict[str, Labels]]
    notes: tuple[str, ...] = ()


def parse_classes(text: str) -> tuple[str, ...]:
    """`dog, potted plant` → class names in order; SettingError for none, too many, and one that is given twice."""
    names = tuple(" ".join(part.split()) for part in text.split(",") if part.strip())
    twice = [name for i, name in enumerate(names) if name.casefold() in {other.casefold() for other in names[:i]}]
    if not names or len(names) > MOST_CLASSES:
        raise SettingError(f"--classes {text!r}: expected 1 to {MOST_CLASSES} names, e.g. --classes 'dog,sofa'")
    if twice:
        raise SettingError(f"--classes {text!r}: {twice[0]!r} is given twice")
    odd = [name for name in names if not name.isprintable() or "{" in name or "}" in name]
    if odd:
        raise SettingError(f"--classes {text!r}: {odd[0]!r} is no class name")
    return names


def training_free_predictor(names: tuple[str, ...], run: RunSpec, place: RunEnvironment) -> Predictor:
    """CAMs of all the named classes, refined as `run` says. Every photo is taken to show each of them."""
    clip = cached_clip(run.clip.model, place.device)
    knowledge, notes = _knowledge(names, run, place)
    cam_model, spec = CamModel(clip, knowledge.text.to(clip.device), len(names), run.cams), run.refine

    @torch.inference_mode()
    def see(image: Image) -> dict[str, Labels]:
        network_input = cam_model.prepare([image])
        encoded = cam_model.encode(network_input, spec.affinity.layers, whole=False)
        cams, attention = cam_model.cams(encoded).float(), cam_model.attention(encoded.path, spec)
        return refine_labels(image, network_input[0], range(len(names)), cams[0], attention[0], spec)

    return Predictor(names, see, notes)


def _knowledge(names: tuple[str, ...], run: RunSpec, place: RunEnvironment) -> tuple[Knowledge, tuple[str, ...]]:
    """The knowledge base of the named classes with the descriptions that there are of them, and what to say about it."""
    prompts = named_classes(names)
    described = _descriptions(prompts, run)
    texts = [text for name in names for text in described.get(name, ())]
    missing = [name for name in names if name not in described]
    spec = _fitting(run.knowledge, len(set(texts)))
    if missing and spec.mode in ("class_means", "own_descriptions"):
        raise SettingError(
            f"knowledge.mode={spec.mode} needs descriptions of every class; none of {', '.join(missing)} are there"
        )
    clip = cached_clip(run.clip.model, place.device)
    embeddings = text_embeddings(run, place)
    templates = embeddings.encode(clip, prompts.templates())
    background = embeddings.encode(clip, prompts.background_templates())
    descriptions = embeddings.encode(clip, texts) if texts else templates[:0]
    ready = ready_attributes(run, templates.shape[1])
    notes: tuple[str, ...] = ()
    if missing and run.knowledge.mode != "none":
        source = f"are in {run.describe.file}" if run.describe.provider == "file" else "come with excel"
        attributes = "the attributes of the other classes" if texts else "nothing"
        if ready is not None:
            attributes = f"the attributes of {run.knowledge.attributes_file}"
        notes = (f"no descriptions of {', '.join(missing)} {source}: the name alone is used, enriched by {attributes}",)
    return build_knowledge(templates, background, descriptions, spec, ready), notes


def _descriptions(prompts: PromptSet, run: RunSpec) -> dict[str, tuple[str, ...]]:
    """describe.n descriptions of each class that has any in describe.file, or else among the bundled ones."""
    if run.describe.provider != "file":
        return known_descriptions(prompts.class_names, run.describe.n)
    given = given_descriptions(run.describe)
    keys = given.keys(prompts)
    known = replace(prompts, classes=tuple(prompt for prompt in prompts.classes if prompt.name in keys))
    return given.described(known, run.describe.n).texts


def _fitting(spec: KnowledgeSpec, descriptions: int) -> KnowledgeSpec:
    """`spec` with no more attributes than a quarter of the distinct descriptions; without descriptions, no enrichment. Ready
    attributes need neither."""
    if spec.attributes_file is not None:
        return spec
    if not descriptions:
        return spec.model_copy(update={"mode": "none"})
    if spec.attributes is None:  # k-means takes as many as fit
        return spec
    most = max(1, descriptions // DESCRIPTIONS_AN_ATTRIBUTE)
    return spec.model_copy(update={"attributes": min(spec.attributes, most)})


def find_segmenter(weights: str, store: Path, device: str, clip: str | None = None) -> TrainedSegmenter:
    """`weights`: a file of `excel export --format safetensors`, a checkpoint of the published code, or else a run of the store.
    `clip` names the CLIP of a checkpoint."""
    path = Path(weights)
    if is_published(path):
        return published_trained(path, device, clip)
    if path.suffix == ".safetensors" or path.is_file():
        return load_portable(path, device)
    return run_segmenter(find_record(store, weights), device)


def trained_predictor(trained: TrainedSegmenter, names: Sequence[str], multi_scale: bool, crf: bool) -> Predictor:
    """The segmenter's own answer; with `names`, each pixel goes to background or the strongest of these classes."""
    own = {name.casefold(): index + 1 for index, name in enumerate(trained.class_names)}
    unknown = [name for name in names if name.casefold() not in own]
    if unknown:
        raise SettingError(f"--classes: these weights know no {unknown[0]!r}; their classes: {', '.join(trained.class_names)}")
    kept = [0, *sorted(own[name.casefold()] for name in names)] if names else list(range(len(trained.class_names) + 1))
    values = np.array(kept, dtype=np.uint8)

    @torch.inference_mode()
    def see(image: Image) -> dict[str, Labels]:
        logits: Tensor = trained.segment(image, multi_scale)[kept]
        steps = {"segmenter": values[logits.argmax(dim=0).cpu().numpy()]}
        if crf:
            steps["crf"] = values[trained.refine(image, logits).argmax(axis=0)]
        return steps

    notes = ("these weights were trained on true masks: fully supervised",) if trained.supervision == "masks" else ()
    return Predictor(trained.class_names, see, notes)
