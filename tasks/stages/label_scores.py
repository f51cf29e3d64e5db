"""What the stages `score` and `evaluate` share: label maps against masks. Counts pixels by image, one part per shard, and makes
scores of them.

A part is named KIND-SPLIT-IofN: `static` and `lvc` are CAM seeds, `segmentation` the segmenter's label maps. Seeds of an image
of several splits lie in the shards of the first of them: KIND-SPLIT-in-FIRST-IofN scores the images of SPLIT there.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from scipy.sparse import csr_matrix

from excel_core.datasets.palette import load_labels_png
from excel_core.evaluation.bootstrap import confusions_by_image, scores_with_interval
from excel_core.evaluation.metrics import confusion_matrix, pixel_counts
from excel_core.evaluation.protocols import Protocol, seed_protocol
from excel_core.stores import read_counts, write_counts
from tasks.engine.output import StageOutput
from tasks.engine.progress import track
from tasks.engine.stage import Job, Part
from tasks.inputs.images import ImageRecord, cam_images, image_shards, in_shard
from tasks.inputs.masks import mask_reader_of, masked_images, masks_key, missing_masks
from tasks.inputs.models import classes_of
from tasks.inputs.truth_doubts import TruthDoubts, unscored_masks, warnings
from tasks.stages.cams import ShardResult
from tasks.stages.dataset import DatasetResult
from tasks.stages.predict import PredictResult, predicted_images
from tasks.stages.refine import LabelsResult, step_folder

__all__ = [
    "MAKERS", "ImageCounts", "LabelScores", "ScoredMaps", "label_map_kinds", "label_maps", "read_part_counts", "score_maps",
    "score_parts", "score_shard", "scored_images", "scored_splits", "seed_maps",
]  # fmt: skip

MAKERS = {"static": "refine", "lvc": "dynamic", "segmentation": "predict"}  # kind of label maps → the stage that makes them


def scored_splits(job: Job, kind: str) -> Sequence[str]:
    """Splits whose label maps of a kind are scored."""
    if kind not in job.run.evaluate.kinds:
        return ()
    dataset = job.run.dataset
    return dataset.val_splits if kind == "segmentation" else dataset.seed_splits


def scored_images(job: Job, kind: str, split: str) -> list[ImageRecord]:
    """Images of a split that have a label map of the kind and a mask, of the first evaluate.max_images."""
    images = masked_images(job, split)
    if kind != "segmentation":
        return images
    predicted = {image.id for image in predicted_images(job, split)}
    return [image for image in images if image.id in predicted]


def label_map_kinds(job: Job, kind: str) -> list[str]:
    """The steps of seeds, or the variants of segmentations."""
    maker = MAKERS[kind]
    if kind == "segmentation":
        return job.result(maker, PredictResult).variants
    # `confident` leaves pixels without a label, so it is no prediction.
    return [step for step in job.result(maker, LabelsResult).steps if step != "confident"]


def label_maps(job: Job, kind: str, split: str, image: str) -> dict[str, Path]:
    """Files of an image's label maps of a kind, by step or variant."""
    folder, names = job.folder(MAKERS[kind]), label_map_kinds(job, kind)
    if kind == "segmentation":
        return {variant: folder / variant / split / f"{image}.png" for variant in names}
    steps = job.result(MAKERS[kind], LabelsResult).steps
    return {step: folder / step_folder(step, steps) / f"{image}.png" for step in names}


def score_parts(job: Job) -> list[Part]:
    """A part depends on the label maps of the same shard and on its masks."""
    parts: list[Part] = []
    for kind in MAKERS:
        for split in scored_splits(job, kind):
            for shard_split in _shard_splits(job, kind, split):
                parts += _parts(job, kind, split, shard_split)
    return parts


def _parts(job: Job, kind: str, split: str, shard_split: str) -> list[Part]:
    def key(shard: str, images: Sequence[ImageRecord]) -> dict[str, Any]:
        labels = job.inputs[MAKERS[kind]].parts[shard]
        masks = masks_key(job, split, images)
        return {"labels": labels, "classes": len(classes_of(job)), "masks": masks, "as": [kind, split]}

    among = _images_in_shards_of(job, kind, split, shard_split)
    return image_shards(job, shard_split, key, among, kind, scored_as=split)


def _shard_splits(job: Job, kind: str, split: str) -> Sequence[str]:
    """Splits in whose shards a split's label maps may have been made."""
    return (split,) if kind == "segmentation" else job.run.dataset.cam_splits


def _images_in_shards_of(job: Job, kind: str, split: str, shard_split: str) -> list[ImageRecord]:
    """Those of a split's scored images whose label maps were made in the shards of `shard_split`."""
    images = scored_images(job, kind, split)
    if kind == "segmentation":
        return images
    with_cams = {image.id for image in cam_images(job, shard_split)}
    return [image for image in images if image.id in with_cams]


def score_shard(job: Job, part: Part, folder: Path) -> ShardResult:
    """Compare each label map with its mask → confusion.parquet, truth.json."""
    kind, split = part.kind, part.images.scored_as
    masks, classes = mask_reader_of(job, split), len(classes_of(job)) + 1
    images = in_shard(part.images, _images_in_shards_of(job, kind, split, part.images.split))
    family = f"{kind}.{split}" if kind == "segmentation" else f"seeds.{kind}.{split}"
    tables, doubts = [], TruthDoubts(split)
    for image in track(images):
        mask = masks.read(image.id, image.height, image.width)
        doubts.add(image.id, mask)
        for name, path in label_maps(job, kind, split, image.id).items():
            counts = pixel_counts(confusion_matrix(mask, load_labels_png(path), classes))
            tables.append(counts.assign(image=image.id, result=f"{family}.{name}"))
    write_counts(folder / "confusion.parquet", pd.concat(tables, ignore_index=True))
    doubts.write(folder)
    return ShardResult(images=len(images))


def read_part_counts(parts: Mapping[str, StageOutput]) -> pd.DataFrame:
    """All parts' confusion.parquet in one table."""
    tables = [read_counts(part.folder / "confusion.parquet") for part in parts.values()]
    columns = ["result", "image", "truth", "predicted", "pixels"]
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=columns)


class ScoredMaps(NamedTuple):
    """What gets a score of its own: its result key, kind and split of the label maps, and the protocol."""

    key: str
    kind: str
    split: str
    protocol: Protocol


def seed_maps(job: Job, kind: str) -> Iterator[ScoredMaps]:
    """Each step of the CAM seeds of a kind, split by split."""
    for split in scored_splits(job, kind):
        for step in label_map_kinds(job, kind):
            yield ScoredMaps(f"seeds.{kind}.{split}.{step}", kind, split, seed_protocol(job.run, kind, split, step))


class ImageCounts(NamedTuple):
    """The scored images of a split, and the confusions (I, C·C) of each."""

    split: str
    images: list[str]
    confusions: csr_matrix


class LabelScores(NamedTuple):
    """By result key: results as metrics.json has them, and the images behind each; what could not be scored, and what was
    although its truth is doubtful, with reasons."""

    results: dict[str, Any]
    by_image: dict[str, ImageCounts]
    skipped: dict[str, str]
    warnings: dict[str, str]


def score_maps(job: Job, maps: Iterable[ScoredMaps], counts: pd.DataFrame, doubts: Mapping[str, TruthDoubts]) -> LabelScores:
    """Score everything that has a truth, from pixels counted by image; what has none is skipped with a word. `doubts`: what the
    parts noted of the masks, by split."""
    names = ("background", *classes_of(job))
    scores = LabelScores({}, {}, {}, {})
    turned = job.result("dataset", DatasetResult).turned
    for key, kind, split, protocol in maps:
        masked = [image.id for image in scored_images(job, kind, split)]
        scores.skipped.update(missing_masks(job, split))
        if not masked:
            where = mask_reader_of(job, split).where
            scores.skipped[key.rpartition(".")[0]] = f"split {split!r} has no masks in {where}"
            continue
        truth_doubts = doubts.get(split, TruthDoubts(split))
        scores.skipped.update(unscored_masks(job, truth_doubts, masked))
        scores.warnings.update(warnings(job, truth_doubts, turned))
        images = [image for image in masked if image not in truth_doubts.ignored]
        if not images:
            continue
        by_image = confusions_by_image(counts[counts["result"] == key], images, len(names))
        scores.by_image[key] = ImageCounts(split, images, by_image)
        scores.results[key] = {"protocol": protocol | {"images": len(images)}} | scores_with_interval(by_image, names)
    return scores
