"""Predictors of single photos: a frozen CLIP with class names alone, or a trained segmenter, also one of the published code."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from excel_core.cams.cam_model import CamModel
from excel_core.class_names import MAX_CLASSES, canonical_name, class_names_problem, name_key
from excel_core.config import KnowledgeSpec, RunSpec
from excel_core.config.presets import preset, with_edits, with_settings
from excel_core.errors import ModelError, SettingError, shown
from excel_core.models.clip import FrozenClip
from excel_core.models.published_checkpoint import PublishedCheckpoint
from excel_core.prediction.photo_presence import Presence, tiny_clip_warnings
from excel_core.prediction.trained_segmenter import TrainedSegmenter
from excel_core.prediction.training_free import TrainingFreeModel
from excel_core.text.attributes_file import used_attributes_file
from excel_core.text.class_sets import BUNDLED_CLASS_SETS, class_set, known_descriptions, named_classes, user_descriptions
from excel_core.text.embeddings import TextEmbeddings
from excel_core.text.kept_attributes import kept_attributes
from excel_core.text.knowledge import build_knowledge_base
from excel_core.text.prompts import PromptSet, class_indices

__all__ = [
    "Prediction", "Predictor", "checked_classes", "parse_classes", "published_run", "published_trained_segmenter",
    "trained_predictor", "training_free_predictor",
]  # fmt: skip

Image = NDArray[np.uint8]
Labels = NDArray[np.uint8]
MIN_DESCRIPTIONS_PER_ATTRIBUTE = 4  # so that k-means has something to average


@dataclass(frozen=True)
class Prediction:
    """Of one photo: label maps (H, W) uint8 by step, the last one the result: 0 background, i + 1 class i. `doubts`: by class,
    why its mask may be of something else."""

    steps: dict[str, Labels]
    doubts: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Predictor:
    """`look(image)`: image (H, W, 3) uint8 RGB → Prediction with the classes `class_names`. `notes`: what the user should
    know of the texts or weights, `warnings`: of the CLIP."""

    class_names: tuple[str, ...]
    look: Callable[[Image], Prediction]
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    def predict(self, image: Image) -> dict[str, Labels]:
        """image (H, W, 3) uint8 RGB → its label maps (H, W) uint8 by step, the last one the result."""
        return self.look(image).steps


def parse_classes(text: str) -> tuple[str, ...]:
    """`dog, potted plant` → class names in order. SettingError as `checked_classes` raises it."""
    return checked_classes([part for part in text.split(",") if part.strip()], f"--classes {shown(text)}")


def checked_classes(given: Sequence[str], where: str = "classes") -> tuple[str, ...]:
    """The names, each in one spelling, in order. SettingError, which begins with `where`, for no name, too many, one that is
    given twice, and what is no name."""
    names = tuple(map(canonical_name, given))
    if not names or len(names) > MAX_CLASSES:
        raise SettingError(f"{where}: expected 1 to {MAX_CLASSES} names, e.g. --classes 'dog,sofa'; got {len(names)}")
    before: set[str] = set()
    for name in names:
        if name_key(name) in before:
            raise SettingError(f"{where}: {name!r} is given twice")
        before.add(name_key(name))
    problem = class_names_problem(names)
    if problem is not None:
        raise SettingError(f"{where}: {problem}")
    odd = [name for name in names if not name or not name.isprintable() or "{" in name or "}" in name]
    if odd:
        raise SettingError(f"{where}: {odd[0]!r} is no class name")
    return names


def training_free_predictor(names: tuple[str, ...], run: RunSpec, clip: FrozenClip, embeddings: TextEmbeddings) -> Predictor:
    """CAMs of all the named classes, refined as `run` says. Every photo is taken to show each of them.

    SettingError where `run` needs descriptions that a class does not have, or names a file that cannot be used.
    """
    prompts = named_classes(names)
    descriptions = _descriptions(prompts, run)
    texts = [text for name in names for text in descriptions.get(name, ())]
    missing = [name for name in names if name not in descriptions]
    spec = _fitted_spec(run.knowledge, len(set(texts)))
    if missing and spec.mode in ("class_means", "own_descriptions"):
        raise SettingError(
            f"knowledge.mode={spec.mode} needs descriptions of every class; none of {', '.join(missing)} are there"
        )
    base = build_knowledge_base(prompts, texts, spec, clip, embeddings, partial(kept_attributes, embeddings.folder))
    # A mask of a single photo labels every pixel.
    model = TrainingFreeModel(clip, base, with_edits(run, {"refine": {"crf": {"confidence": None}}}))

    presence = Presence.of(names, base.knowledge.templates, clip, embeddings)

    def look(image: Image) -> Prediction:
        cams = model.cams(image)
        doubts = presence.doubts(cams.embedding) if cams.embedding is not None else {}
        return Prediction(model.refine(cams).steps, doubts)

    return Predictor(names, look, _notes(missing, bool(texts), run), tiny_clip_warnings(clip.name))


def _descriptions(prompts: PromptSet, run: RunSpec) -> Mapping[str, tuple[str, ...]]:
    """describe.n descriptions of each class that has any in describe.file, or else among the bundled ones."""
    if run.describe.provider == "none":
        return {}
    if run.describe.provider != "file":
        return known_descriptions(prompts.class_names, run.describe.n)
    from_file = user_descriptions(run.describe)
    keys = from_file.keys(prompts)
    described = replace(prompts, classes=tuple(prompt for prompt in prompts.classes if prompt.name in keys))
    return from_file.select(described, run.describe.n).texts


def _fitted_spec(spec: KnowledgeSpec, distinct_descriptions: int) -> KnowledgeSpec:
    """`spec` with no more attributes than a quarter of the distinct descriptions; without descriptions, no enrichment. A file
    of attributes needs no descriptions, and an open number (null) fits by itself."""
    if spec.attributes_file is not None:
        return spec
    if not distinct_descriptions:
        return spec.model_copy(update={"mode": "none"})
    if spec.attributes is None:
        return spec
    max_attributes = max(1, distinct_descriptions // MIN_DESCRIPTIONS_PER_ATTRIBUTE)
    return spec.model_copy(update={"attributes": min(spec.attributes, max_attributes)})


def _notes(missing: Sequence[str], some_described: bool, run: RunSpec) -> tuple[str, ...]:
    """Which classes have no descriptions, and what enriches their names instead."""
    if not missing or run.knowledge.mode == "none":
        return ()
    source = f"are in {run.describe.file}" if run.describe.provider == "file" else "come with excel"
    attributes = "the attributes of the other classes" if some_described else "nothing"
    if used_attributes_file(run.knowledge) is not None:
        attributes = f"the attributes of {run.knowledge.attributes_file}"
    return (f"no descriptions of {', '.join(missing)} {source}: the name alone is used, enriched by {attributes}",)


def trained_predictor(trained: TrainedSegmenter, names: Sequence[str], multi_scale: bool, crf: bool) -> Predictor:
    """The segmenter's own prediction; with `names`, each pixel goes to background or the strongest of these classes."""
    class_indices(names, trained.class_names)  # refuses an unknown class before the first photo

    def look(image: Image) -> Prediction:
        return Prediction(trained.label_steps(image, names or None, multi_scale, crf))

    notes = ("these weights were trained on true masks: fully supervised",) if trained.supervision == "masks" else ()
    return Predictor(trained.class_names, look, notes, tiny_clip_warnings(trained.cam_model.clip.name))


def published_run(checkpoint: PublishedCheckpoint, clip_name: str | None = None) -> tuple[RunSpec, tuple[str, ...]]:
    """A checkpoint of the published code names neither classes nor CLIP: the preset whose bundled class set has as many
    classes, with `clip_name` (None: the preset's CLIP), and its class names. ModelError where no class set has as many."""
    bundled = {name: class_set(preset(name), None).class_names for name in BUNDLED_CLASS_SETS}
    for name, class_names in bundled.items():
        if len(class_names) == checkpoint.sizes.classes:
            settings = [f"clip.model={clip_name}"] if clip_name else []
            return with_settings(preset(name), settings), class_names
    counts = ", ".join(f"{len(class_names)} ({name})" for name, class_names in bundled.items())
    raise ModelError(
        f"{checkpoint.name}: knows {checkpoint.sizes.classes} classes; the bundled class sets have {counts}. For others, run "
        "it by train.from_checkpoint with your class file, then segment by --weights RUN"
    )


def published_trained_segmenter(
    checkpoint: PublishedCheckpoint, class_names: tuple[str, ...], run: RunSpec, clip: FrozenClip
) -> TrainedSegmenter:
    """The checkpoint's segmenter behind `clip`, on its device, with `run`'s settings. ModelError where it was trained with
    another CLIP."""
    sizes = checkpoint.sizes
    spec = run.train.segmenter.model_copy(update={"width": sizes.width, "layers": sizes.layers})
    segmenter = checkpoint.fit(clip, len(class_names), spec).to(clip.device)
    texts = torch.empty(0, clip.joint_width, device=clip.device)  # it segments; only CAMs need texts
    cam_model = CamModel(clip, texts, len(class_names), run.cams)
    return replace(TrainedSegmenter.of(cam_model, segmenter, class_names, run), spec=spec)
