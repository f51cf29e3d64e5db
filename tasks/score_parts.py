"""The parts of `evaluate`: pixels counted by image, truth and prediction, a shard a part.

A part is named WHAT-SPLIT-iofn: `static` and `lvc` compare label maps that were refined earlier, `segmentation` predicts.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from excel_core.crf import dense_crf
from excel_core.inference import segment_multi_scale, segment_single_scale
from excel_core.metrics import confusion_matrix
from excel_core.palette import load_labels_png, save_labels_png
from excel_core.stores import write_counts
from tasks.fingerprint import clip_fingerprint
from tasks.masks import masked_rows, masks_key, truth_of
from tasks.progress import track
from tasks.records import Record, image_parts, shard_rows
from tasks.refine import step_folder
from tasks.stage import Part, Work
from tasks.train import trained_segmenter
from tasks.vision import classes_of, load_vision

__all__ = ["SEEDS", "build_score_part", "score_parts"]

SEEDS = {"static": "refine", "lvc": "dynamic"}  # kind of seeds -> the stage that made them
Labels = NDArray[np.uint8]
Prediction = tuple[Record, str, Labels]  # image, result key, label map


def score_parts(work: Work) -> list[Part]:
    """Label maps of the train split, static and LVC, then the predictions of every validation split."""
    parts = []
    split = work.run.dataset.train_split
    for kind, stage in SEEDS.items():
        contents = work.inputs[stage].parts

        def seeds(shard: str, rows: list[Record], contents: dict[str, str] = contents) -> dict[str, Any]:
            return {"labels": contents[shard], "classes": len(classes_of(work)), "masks": masks_key(work, split, rows)}

        parts += image_parts(work, split, masked_rows(work, split), seeds, kind)
    key = segmentation_key(work)
    for split in work.run.dataset.val_splits:
        rows = masked_rows(work, split)
        parts += image_parts(
            work, split, rows, lambda shard, rows: key | {"masks": masks_key(work, split, rows)}, "segmentation"
        )
    return parts


def segmentation_key(work: Work) -> dict[str, Any]:
    """What predictions depend on beside the images."""
    run = work.run
    return {
        "evaluate": run.evaluate.model_dump(mode="json", exclude={"ablation", "max_images"}),
        "cams": run.cams.model_dump(mode="json", exclude={"batch_size"}),
        "crf": run.refine.crf.model_dump(mode="json", exclude={"enabled"}),
        "train": work.inputs["train"].content,
        "clip": clip_fingerprint(run, work.place),
    }


@torch.inference_mode()
def build_score_part(work: Work) -> dict[str, Any]:
    """Compare each prediction with its mask → confusion.parquet; single-scale predictions are kept as PNGs."""
    about, classes = work.this_part.about, len(classes_of(work)) + 1
    rows = shard_rows(work, masked_rows(work, about["split"]))
    predictions = _segmented(work, rows) if work.this_part.what == "segmentation" else _seeds(work, rows)
    door = truth_of(work, about["split"])
    tables = []
    truth: tuple[str, Labels] = ("", np.zeros((0, 0), dtype=np.uint8))
    for row, result, prediction in predictions:
        if truth[0] != row.id:
            truth = (row.id, door.read(row.id, row.height, row.width))
        tables.append(_counts(row.id, result, confusion_matrix(truth[1], prediction, classes)))
    write_counts(work.folder / "confusion.parquet", pd.concat(tables, ignore_index=True))
    return {"images": len(rows)}


def _counts(image: str, result: str, matrix: NDArray[np.int64]) -> pd.DataFrame:
    truth, predicted = np.nonzero(matrix)
    table = pd.DataFrame({"truth": truth.astype(np.uint8), "predicted": predicted.astype(np.uint8)})
    return table.assign(pixels=matrix[truth, predicted], image=image, result=result)


def _seeds(work: Work, rows: list[Record]) -> Iterator[Prediction]:
    about = work.this_part.about
    output = work.inputs[SEEDS[work.this_part.what]]
    steps: list[str] = output.summary["steps"]
    for row in track(rows):
        for step in steps:
            labels = load_labels_png(output.folder / step_folder(step, steps) / f"{row.id}.png")
            yield row, f"seeds.{work.this_part.what}.{about['split']}.{step}", labels


def _segmented(work: Work, rows: list[Record]) -> Iterator[Prediction]:
    spec, split = work.run.evaluate, work.this_part.about["split"]
    vision = load_vision(work)
    segmenter = trained_segmenter(work, vision)
    vision = replace(vision, spec=vision.spec.model_copy(update={"image_size": spec.image_size}))
    for row in track(rows):
        image = row.read()
        single = _argmax(segment_single_scale(vision, segmenter, image))
        save_labels_png(work.folder / "segmentation" / split / f"{row.id}.png", single)
        yield row, f"segmentation.{split}.single_scale", single
        multi = segment_multi_scale(vision, segmenter, image, spec)
        yield row, f"segmentation.{split}.multi_scale", _argmax(multi)
        if spec.crf:
            refined = dense_crf(image, torch.softmax(multi, dim=0).cpu().numpy(), work.run.refine.crf)
            yield row, f"segmentation.{split}.multi_scale_crf", refined.argmax(axis=0).astype(np.uint8)


def _argmax(logits: torch.Tensor) -> Labels:
    return logits.argmax(dim=0).cpu().numpy().astype(np.uint8)
