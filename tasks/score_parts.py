"""The parts of `evaluate`: label maps that earlier stages made against the masks, pixels counted by image, truth and
prediction, a shard a part.

A part is named KIND-SPLIT-iofn: `static` and `lvc` are CAM seeds, `segmentation` the segmenter's label maps. Seeds of an image
of several splits lie in the shards of the first of them: KIND-SPLIT-in-FIRST-iofn scores the images of SPLIT there.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from excel_core.datasets.palette import load_labels_png
from excel_core.evaluation.metrics import confusion_matrix, pixel_counts
from excel_core.stores import write_counts
from tasks.engine.progress import track
from tasks.engine.stage import Part, Work
from tasks.inputs.cam_model import classes_of
from tasks.inputs.masks import mask_reader_of, masked_rows, masks_key
from tasks.inputs.records import Record, cam_records, image_parts, records, shard_rows
from tasks.predict import predicted_rows
from tasks.refine import step_folder

__all__ = ["MADE_BY", "build_score_part", "label_maps", "score_parts", "scored_rows", "scored_splits"]

MADE_BY = {"static": "refine", "lvc": "dynamic", "segmentation": "predict"}  # kind of label maps -> the stage that made them


def scored_splits(work: Work, kind: str) -> Sequence[str]:
    """Splits whose label maps of a kind are scored."""
    if kind not in work.run.evaluate.kinds:
        return ()
    dataset = work.run.dataset
    return dataset.val_splits if kind == "segmentation" else dataset.seed_splits


def scored_rows(work: Work, kind: str, split: str) -> list[Record]:
    """Images of a split that have a label map of the kind and a mask, of the first evaluate.max_images."""
    rows = masked_rows(work, split)
    if kind != "segmentation":
        return rows
    predicted = {row.id for row in predicted_rows(work, split)}
    return [row for row in rows if row.id in predicted]


def label_maps(work: Work, kind: str, split: str, image: str) -> dict[str, Path]:
    """Files of an image's label maps of a kind, by step or variant."""
    output = work.inputs[MADE_BY[kind]]
    if kind == "segmentation":
        return {name: output.folder / name / split / f"{image}.png" for name in output.summary["variants"]}
    steps: list[str] = output.summary["steps"]
    return {step: output.folder / step_folder(step, steps) / f"{image}.png" for step in steps}


def score_parts(work: Work) -> list[Part]:
    """A part depends on the label maps of the same shard and on its masks."""
    return [
        part
        for kind in MADE_BY
        for split in scored_splits(work, kind)
        for made_in in _made_in(work, kind, split)
        for part in _parts(work, kind, split, made_in)
    ]


def _parts(work: Work, kind: str, split: str, made_in: str) -> list[Part]:
    def key(shard: str, rows: Sequence[Record]) -> dict[str, Any]:
        maps = work.inputs[MADE_BY[kind]].parts[shard]
        return {"labels": maps, "classes": len(classes_of(work)), "masks": masks_key(work, split, rows), "as": [kind, split]}

    among = _rows_made_in(work, kind, split, made_in)
    return image_parts(work, made_in, records(work, made_in), key, kind, among=among, scored=split)


def _made_in(work: Work, kind: str, split: str) -> Sequence[str]:
    """Splits in whose shards a split's label maps may have been made."""
    return (split,) if kind == "segmentation" else work.run.dataset.cam_splits


def _rows_made_in(work: Work, kind: str, split: str, made_in: str) -> list[Record]:
    """Those of a split's scored images whose label maps were made in the shards of `made_in`."""
    rows = scored_rows(work, kind, split)
    if kind == "segmentation":
        return rows
    made = {row.id for row in cam_records(work, made_in)}
    return [row for row in rows if row.id in made]


def build_score_part(work: Work) -> dict[str, Any]:
    """Compare each label map with its mask → confusion.parquet."""
    about, kind = work.this_part.about, work.this_part.what
    split = about["scored"]
    truth, classes = mask_reader_of(work, split), len(classes_of(work)) + 1
    rows = shard_rows(work, _rows_made_in(work, kind, split, about["split"]))
    family = f"{kind}.{split}" if kind == "segmentation" else f"seeds.{kind}.{split}"
    tables = []
    for row in track(rows):
        mask = truth.read(row.id, row.height, row.width)
        for name, path in label_maps(work, kind, split, row.id).items():
            counts = pixel_counts(confusion_matrix(mask, load_labels_png(path), classes))
            tables.append(counts.assign(image=row.id, result=f"{family}.{name}"))
    write_counts(work.folder / "confusion.parquet", pd.concat(tables, ignore_index=True))
    return {"images": len(rows)}
