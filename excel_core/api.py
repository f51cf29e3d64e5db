"""The Python interface: from class names to label maps, in memory. `import excel_core` offers all of it.

    import excel_core as excel

    settings = excel.settings("photos", "train.iterations=2000")
    clip = excel.load_clip("ViT-B-16:openai", device="cuda")
    classes = excel.classes(["dog", "sofa"])
    knowledge = excel.build_knowledge(clip, classes, excel.describe(classes), settings)
    model = excel.TrainingFreeModel(clip, knowledge, settings)
    cams = model.cams("dog.jpg", ["dog"])                    # maps (1, h, w) in [0, 1]
    labels = model.refine(cams).labels                       # pseudo labels (H, W) uint8
    segmenter = excel.train(model, [("dog.jpg", ["dog"]), ("room.jpg", ["dog", "sofa"])])
    labels = segmenter.predict("room.jpg")                   # label map (H, W) uint8

Nothing is cached and nothing is stored, but for what `save` writes. Device and seeds are arguments and settings. Errors are
those of excel_core/errors.py. A photo is a file, a PIL image, or an array (H, W, 3) uint8 RGB.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import SecretStr

from excel_core.config import RunSpec
from excel_core.config.presets import preset, with_edits, with_iterations, with_settings
from excel_core.datasets.images import UPRIGHT, ImageSource, load_image
from excel_core.datasets.masks import holds_no_class
from excel_core.datasets.palette import load_labels_png, save_labels_png
from excel_core.errors import DataError, ExcelError, SettingError
from excel_core.evaluation.metrics import Scores, confusion_matrix, scores, truth_warnings
from excel_core.models.checkpoints import Architecture
from excel_core.models.clip import FrozenClip
from excel_core.models.clip_weights import load_clip
from excel_core.prediction.trained_segmenter import TrainedSegmenter, load_portable, save_portable
from excel_core.prediction.training_free import PhotoCams, PhotoLabels, TrainingFreeModel
from excel_core.text.ask_class import ask_class, asked_provenance
from excel_core.text.class_sets import class_set_of_file, describe_bundled, named_classes, user_descriptions
from excel_core.text.descriptions import Descriptions
from excel_core.text.embeddings import TextEmbeddings
from excel_core.text.knowledge import KnowledgeBase, build_knowledge_base
from excel_core.text.prompts import PromptSet, class_indices
from excel_core.training import loop
from excel_core.training.samples import LabelFile, TrainingArray, TrainingExample, TrainingImage

__all__ = [
    "Descriptions", "ExcelError", "FrozenClip", "ImageSource", "KnowledgeBase", "PhotoCams", "PhotoLabels", "PromptSet",
    "RunSpec", "Scores", "TrainedSegmenter", "TrainingFreeModel", "build_knowledge", "classes", "describe", "evaluate", "load",
    "load_clip", "load_image", "save", "settings", "train",
]  # fmt: skip

Labels = NDArray[np.uint8]
DEFAULT_PRESET = "photos"


def settings(preset_name: str = DEFAULT_PRESET, *edits: str, method: str = "excel", **groups: dict[str, Any]) -> RunSpec:
    """The settings of all steps: a preset, with edits.

        excel.settings("demo", "train.iterations=100", "refine.crf.enabled=false")
        excel.settings("voc", cams={"image_size": 448}, method="paper")

    preset_name: `photos` (any classes), `voc`, `coco` (as published), or `demo` (the picture-book world with excel-tiny)
    edits: as --set of the command line takes them, stage.field=value
    method: NAME[:VARIANT], such as `clip_es`, `excel:paper` (the equations as printed) or `clean` (docs/methods.md)
    groups: edits as dictionaries, stage={field: value}

    SettingError for an unknown name and for a value out of bounds.
    """
    return with_settings(with_edits(preset(preset_name, method), groups), list(edits))


def classes(source: str | Path | Sequence[str]) -> PromptSet:
    """A class set: class names with the prompts that CLIP reads for them. Label i + 1 is class i; 0 is background.

    source: class names; or a bundled class set (`voc`, `coco`, `world`); or a class file (.yaml, as prompts/voc.yaml)

    SettingError for a class set that is not there, PromptError for a class file that does not fit its schema.
    """
    if isinstance(source, str | Path):
        return class_set_of_file(str(source))
    names = [name.casefold() for name in source]
    if not names or len(set(names)) < len(names):
        raise SettingError(f"classes: expected at least one name, and none twice; got {', '.join(source) or 'none'}")
    return named_classes(source)


def describe(
    classes: PromptSet,
    settings: RunSpec | None = None,
    file: str | Path | None = None,
    api_key: str | None = None,
) -> Descriptions:
    """`describe.n` descriptions of every class.

    settings: `describe.provider` says where they come from: `bundled` (VOC's, COCO's and the picture-book world's classes),
        `file` (`describe.file`), or `openai` (a language model behind an OpenAI-compatible server)
    file: a JSON file {class: [text, …]}, in place of `describe.file`
    api_key: of the language model; a server of one's own may need none

    PromptError for classes without descriptions, DescriptionError where the language model gives no usable ones.
    """
    spec = (settings or preset(DEFAULT_PRESET)).describe
    if file is not None:
        spec = spec.model_copy(update={"provider": "file", "file": str(file)})
    if spec.provider == "file":
        return user_descriptions(spec).select(classes, spec.n)
    if spec.provider == "bundled":
        return describe_bundled(classes, spec.n)
    key = SecretStr(api_key) if api_key else None
    with ThreadPoolExecutor(spec.concurrency) as threads:
        answers = list(threads.map(lambda name: ask_class(spec, classes, name, key), classes.class_names))
    by_class = dict(zip(classes.class_names, answers, strict=True))
    return Descriptions(
        texts={name: answer.texts for name, answer in by_class.items()},
        provenance=asked_provenance(spec),
        class_provenance={name: answer.provenance for name, answer in by_class.items()},
    )


def build_knowledge(
    clip: FrozenClip, classes: PromptSet, descriptions: Descriptions | None = None, settings: RunSpec | None = None
) -> KnowledgeBase:
    """Encode class prompts and descriptions, cluster the descriptions to attributes, enrich the class texts (eqs. 2-4).

    descriptions: None: the class names alone, without enrichment
    settings: those of `knowledge` count

    SettingError where the settings do not fit the descriptions, such as more attributes than there are texts.
    """
    spec = (settings or preset(DEFAULT_PRESET)).knowledge
    texts = descriptions.in_class_order(classes.class_names) if descriptions is not None else ()
    if not texts and spec.attributes_file is None:
        spec = spec.model_copy(update={"mode": "none"})
    return build_knowledge_base(classes, texts, spec, clip, TextEmbeddings())


def train(
    model: TrainingFreeModel,
    photos: Sequence[tuple[ImageSource, Sequence[str]]],
    iterations: int | None = None,
    checkpoint: str | Path | None = None,
    progress: Callable[[int], None] = lambda done: None,
) -> TrainedSegmenter:
    """Train a segmenter on photos with image-level classes, under `model.settings`; its pseudo labels come from `model`.

    photos: pairs of a photo and the names of the classes that it shows; files are read again whenever they are needed
    iterations: a longer or shorter training than the settings say, its schedule in proportion
    checkpoint: a file to resume from where it exists, written every `train.checkpoint_every` iterations
    progress: called with the number of iterations done

    The same photos, settings and seeds give the same segmenter on the same device. SettingError for an unknown class and for a
    setting that needs masks; ImageError for a photo that cannot be used.
    """
    run = model.settings if iterations is None else with_iterations(model.settings, iterations)
    if not run.train.enabled:
        raise SettingError(
            f"train: method {run.method} trains no segmenter (train.enabled=false); its result are the pseudo labels"
        )
    if run.train.supervision != "labels" or run.train.from_checkpoint is not None:
        raise SettingError("train: takes image-level labels; leave train.supervision and train.from_checkpoint as they are")
    architecture = Architecture.of(model.clip, model.class_names, run.train.segmenter, model.cam_model.dino)
    with TemporaryDirectory(prefix="excel-") as folder:
        examples = [_example(model, photo, names, Path(folder) / f"{i}.png") for i, (photo, names) in enumerate(photos)]
        resumed = Path(checkpoint) if checkpoint is not None else Path(folder) / "checkpoint.pt"
        segmenter, losses = loop.train(model.cam_model, examples, run.train, run.refine, architecture, resumed, progress)
    return TrainedSegmenter.of(model.cam_model, segmenter, model.class_names, run, tuple(losses))


def _example(model: TrainingFreeModel, photo: ImageSource, names: Sequence[str], file: Path) -> TrainingExample:
    """A photo to train on; its pseudo labels before the CRF are written to `file` where they choose crops."""
    indices, labels = class_indices(names, model.class_names), None
    if model.settings.train.crop_rule == "pseudo":
        save_labels_png(file, model.refine(model.cams(photo, names), crf=False).labels)
        labels = LabelFile(file)
    if isinstance(photo, str | Path):
        return TrainingImage(Path(photo), indices, UPRIGHT, labels)
    return TrainingArray(load_image(photo), indices, labels)


def evaluate(
    predictions: Sequence[Labels | str | Path], truths: Sequence[Labels | str | Path], class_names: Sequence[str]
) -> Scores:
    """Score label maps against true masks: IoU, precision and recall by class, and their means over the classes of the truth.

    predictions, truths: as many (H, W) uint8 arrays or palette PNG files, image by image; 255 in a truth is ignored
    class_names: the C classes in label order, without background

    The result's `warnings` name truths that hold 0 and 255 alone. DataError where the two do not fit each other.
    """
    if len(predictions) != len(truths):
        raise DataError(f"evaluate: expected a truth for each prediction, got {len(predictions)} and {len(truths)}")
    names = ("background", *class_names)
    total = np.zeros((len(names), len(names)), dtype=np.int64)
    without_class = []
    for number, (prediction, truth) in enumerate(zip(predictions, truths, strict=True), start=1):
        true_labels = _label_map(truth, len(class_names))
        total += confusion_matrix(true_labels, _label_map(prediction, len(class_names)), len(names))
        if holds_no_class(true_labels):
            without_class.append(Path(truth).name if isinstance(truth, str | Path) else f"number {number}")
    return replace(scores(total, names), warnings=truth_warnings(without_class, len(truths)))


def _label_map(labels: Labels | str | Path, classes: int) -> Labels:
    return load_labels_png(Path(labels), classes) if isinstance(labels, str | Path) else labels


def save(segmenter: TrainedSegmenter, path: str | Path) -> None:
    """Write a segmenter with its CLIP's vision tower as one safetensors file, completely or not at all."""
    save_portable(Path(path), segmenter)


def load(path: str | Path, device: str = "cpu") -> TrainedSegmenter:
    """Read a file of `save`, or of `excel export --format safetensors`. ModelError for a damaged or foreign file."""
    return load_portable(Path(path), device)
