"""Hold the way from a photo to its labels against results of the published programs (`excel parity PREFIX --pipeline FILE`).

PREFIX gives the CLIP, the texts, the attribute centroids and the segmenter, FILE the results, and a folder in VOC layout the
photos and their image-level labels. Everything goes through the functions that the stages call, under the presets `voc` and
`coco` of the method `reference`; ids, sizes and the number of photos and classes are the file's.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from excel_core.cams.cam_model import CamModel
from excel_core.cams.pseudo_labels import label_steps
from excel_core.cams.seeds import CamBatch, learnt_cams, static_cams
from excel_core.config import RunSpec
from excel_core.config.presets import preset
from excel_core.datasets.images import read_image
from excel_core.datasets.labels import read_labels_csv
from excel_core.datasets.voc import IMAGES, image_file
from excel_core.errors import StoreError
from excel_core.evaluation.parity import (
    Arrays,
    Comparison,
    Tolerances,
    compare_array,
    golden_clip,
    golden_segmenter,
    golden_texts,
    load_goldens,
    require_shapes,
)
from excel_core.models.segmenter import Segmenter
from excel_core.prediction.inference import segment_multi_scale
from excel_core.text.knowledge import enrich
from excel_core.training.batches import Batch
from excel_core.training.optimiser import make_optimiser
from excel_core.training.samples import plain_sample
from excel_core.training.step import training_step

__all__ = ["compare_with_programs"]

TOLERANCES = Tolerances(loss=5e-5)
# A nearly flat map under random weights: min-max amplifies rounding. A bias is compared absolutely.
BY_KIND = {"lvc_flip_cams": Tolerances(array=5e-3), "linear_pred_bias": Tolerances(array=1e-6, absolute=True)}
INPUT_KEY = re.compile(r"(?P<photo>.+)_input(?P<side>[1-9]\d*)")
PHOTO_KEY = re.compile(r"(?P<photo>.+)_(voc_ms_labels|voc_ms_logits_mean|coco_ms_labels|static_par|lvc_flip_cams|lvc_flip_par)")
STEP_KEY = re.compile(r"train_(?P<iteration>\d+)_losses")


@dataclass(frozen=True)
class Model:
    """A CLIP with its texts under the preset of a data set, and a segmenter without dropout."""

    run: RunSpec
    cam_model: CamModel
    segmenter: Segmenter


def compare_with_programs(prefix: Path, file: Path, photos: Path, class_names: Sequence[str]) -> list[Comparison]:
    """Every key of FILE, in its order; a key that nothing computes fails. `class_names` are the words of labels.csv in class
    order. StoreError for files that are missing or of another number of classes; DataError and ImageError for photos."""
    golden = load_goldens(file)
    if any(STEP_KEY.fullmatch(key) for key in golden):
        require_shapes(golden, {"train_classes": (None, None)}, file)
        require_shapes(golden, {"train_pixels": (len(golden["train_classes"]), 3, None, None)}, file)
    classes = golden["train_classes"].shape[1] if "train_classes" in golden else len(class_names)
    if classes != len(class_names):
        raise StoreError(f"{file}: is of {classes} classes, labels.csv is read with {len(class_names)}; name its class file")
    if not (photos / "labels.csv").is_file():
        raise StoreError(f"{photos}: has no labels.csv; give the folder of the photos, in VOC layout with image-level labels")
    labels = read_labels_csv(photos / "labels.csv", class_names)
    comparisons = []
    for key, computed in _computed(prefix, golden, photos, labels, class_names):
        comparisons.append(compare_array(key, computed, golden[key], _tolerances(key)))
    compared = {result.key.partition(" ")[0] for result in comparisons} | {"train_pixels", "train_classes"}
    return comparisons + [Comparison(f"{key} (not computed)", float("nan"), 0.0) for key in golden if key not in compared]


def _tolerances(key: str) -> Tolerances:
    return next((tolerances for kind, tolerances in BY_KIND.items() if key.endswith(kind)), TOLERANCES)


def _computed(
    prefix: Path, golden: Arrays, photos: Path, labels: Mapping[str, list[str]], class_names: Sequence[str]
) -> Iterator[tuple[str, Tensor]]:
    """(key, what excel computes for it) of every photo, then of every training step."""
    index = {name: number for number, name in enumerate(class_names)}
    # A photo's network input names its side; photos without one are computed at the preset's side.
    sides = {match["photo"]: int(match["side"]) for key in golden if (match := INPUT_KEY.fullmatch(key))}
    other_photos = [match["photo"] for key in golden if (match := PHOTO_KEY.fullmatch(key))]
    for photo in dict.fromkeys([*sides, *other_photos]):
        if not labels.get(photo):
            raise StoreError(f"{photos}/labels.csv has no label of {photo}, a photo of the results")
        image = read_image(photos / (image_file(photos, photo) or f"{IMAGES}/{photo}.jpg"))
        models = _models(prefix, len(class_names), sides.get(photo, preset("voc").cams.image_size))
        arrays = _of_photo(models, image, [index[name] for name in labels[photo]])
        for name, computed in arrays.items():
            if f"{photo}_{name}" in golden:
                yield f"{photo}_{name}", computed
    for key in golden:
        if match := STEP_KEY.fullmatch(key):
            step = _of_step(prefix, golden, int(match["iteration"]))
            yield from ((name, computed) for name, computed in step if name in golden)


def _models(prefix: Path, classes: int, side: int) -> dict[str, Model]:
    """The golden weights under the presets of both data sets, at scale 1.0 of `side` pixels."""
    clip = golden_clip(prefix)
    text, bank = golden_texts(prefix, clip, classes)
    models = {}
    for name in ("voc", "coco"):
        run = preset(name)
        enriched = torch.cat([enrich(text[:classes], bank, run.knowledge), text[classes:]])
        cam_model = CamModel(clip, enriched, classes, run.cams.model_copy(update={"image_size": side}))
        models[name] = Model(run, cam_model, golden_segmenter(prefix, clip, classes))
    return models


@torch.inference_mode()
def _of_photo(models: Mapping[str, Model], image: NDArray[np.uint8], classes: Sequence[int]) -> dict[str, Tensor]:
    """What excel gives for one photo (H, W, 3) with its class indices, by the end of the key."""
    voc, coco = models["voc"], models["coco"]
    cam_model, refine = voc.cam_model, voc.run.refine
    network_input = cam_model.prepare([image])
    (logits,) = segment_multi_scale(cam_model, voc.segmenter, [image], voc.run.predict)
    (coco_logits,) = segment_multi_scale(coco.cam_model, coco.segmenter, [image], coco.run.predict)

    static = static_cams(cam_model, network_input, refine)
    learnt = learnt_cams(cam_model, voc.segmenter, network_input, refine, voc.run.dynamic.mirror)

    def after_par(seeds: CamBatch) -> Tensor:
        without_crf = refine.model_copy(update={"crf": refine.crf.model_copy(update={"enabled": False})})
        steps = label_steps(image, classes, seeds.refined_maps(0, image, without_crf, classes), without_crf)
        return torch.from_numpy(steps["par"])

    return {
        f"input{network_input.shape[-1]}": network_input[0],
        "voc_ms_labels": logits.argmax(dim=0).to(torch.uint8),
        "voc_ms_logits_mean": logits.mean(dim=(1, 2)),
        "coco_ms_labels": coco_logits.argmax(dim=0).to(torch.uint8),
        "static_par": after_par(static),
        "lvc_flip_cams": learnt.cams[0],
        "lvc_flip_par": after_par(learnt),
    }


def _of_step(prefix: Path, golden: Arrays, iteration: int) -> Iterator[tuple[str, Tensor]]:
    """One step of training at an iteration, from the golden weights and a fresh optimiser, on the golden crops."""
    pixels, present = torch.from_numpy(golden["train_pixels"]), golden["train_classes"]
    side = pixels.shape[-1]
    model = _models(prefix, present.shape[1], side)["voc"]
    segmenter = model.segmenter.train()
    samples = [plain_sample(crop, np.flatnonzero(row).tolist()) for crop, row in zip(pixels, present, strict=True)]
    spec = model.run.train
    step = training_step(
        model.cam_model, segmenter, make_optimiser(segmenter, spec), Batch.of(samples), iteration, spec, model.run.refine
    )
    yield f"train_{iteration}_losses", step.losses[:3].double()
    yield f"train_{iteration}_labels", step.labels.to(torch.uint8)
    assert segmenter.classifier.bias is not None
    yield f"train_{iteration}_linear_pred_bias", segmenter.classifier.bias.detach()
