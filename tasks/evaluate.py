"""Stage `evaluate`: opens masks. Scores label maps of CAM seeds, pseudo labels and segmentation, a shard a part →
metrics.json.

metrics.json (excel-metrics/1): `results` maps a key to its `protocol` and scores; `ablation` holds the rows of the
ablation and the zero-shot presence mAP; `skipped` says what could not be scored and why. Keys:

    seeds.<static|lvc>.<split>.<raw|affinity|par|crf>      label maps of image-level classes against the truth
    segmentation.<split>.<single_scale|multi_scale|multi_scale_crf>

Beside it: confusion.parquet (pixels by image), shown.json (which images the report shows) and truth/ (copies of those
images' masks, so that the report opens none).
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from scipy.sparse import csr_matrix

from excel_core.config import RunSpec
from excel_core.datasets.palette import save_labels_png
from excel_core.evaluation.bootstrap import confusions_by_image, image_draws, interval, mean_iou, resampled
from excel_core.evaluation.metrics import scores
from excel_core.evaluation.protocols import seed_protocol, segmentation_protocol
from excel_core.files import read_json, write_json
from excel_core.stores import read_counts, write_counts
from tasks.engine.stage import Dependency, RunEnvironment, Stage, Work, always
from tasks.inputs.cam_model import classes_of
from tasks.inputs.masks import mask_reader_of, masked_rows, missing_masks
from tasks.score_parts import MADE_BY, build_score_part, score_parts, scored_rows, scored_splits
from tasks.shown import image_scores, picked

__all__ = ["STAGE"]

RESAMPLES = 1000


def join_scores(work: Work) -> dict[str, Any]:
    """Add up the parts' counts and score everything that has a truth; what has none is skipped with a word."""
    tables = [read_counts(part.folder / "confusion.parquet") for part in work.parts.values()]
    counts = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=["result", "image"])
    names = ("background", *classes_of(work))
    results, shown, skipped = {}, {}, dict[str, str]()
    for key, kind, split, protocol in _protocols(work):
        images = [row.id for row in scored_rows(work, kind, split)]
        skipped |= missing_masks(work, split)
        if not images:
            skipped[key.rpartition(".")[0]] = f"split {split!r} has no masks in {mask_reader_of(work, split).where}"
            continue
        by_image = confusions_by_image(counts[counts["result"] == key], images, len(names))
        results[key] = _scored(by_image, names, protocol | {"images": len(images)})
        if key.startswith("seeds.") or key.endswith(".single_scale"):
            shown[split] = picked(images, image_scores(by_image, len(names)))
    if not results:
        where = mask_reader_of(work, work.run.dataset.labelled_splits[-1]).where
        skipped = {"scores": f"no image has a mask in {where}; label maps need none"}
    write_counts(work.folder / "confusion.parquet", counts)
    write_json(work.folder / "shown.json", shown)
    _copy_truths(work, shown)
    _write_metrics(work, results, skipped)
    return {key: round(result["miou"], 4) for key, result in results.items()}


def _scored(by_image: csr_matrix, names: tuple[str, ...], protocol: dict[str, Any]) -> dict[str, Any]:
    """A result's scores, with the 95 % interval of its mIoU over images."""
    total = np.asarray(by_image.sum(axis=0)).reshape(len(names), len(names))
    drawn = resampled(by_image, image_draws(by_image.shape[0], RESAMPLES), len(names))
    low, high = interval(mean_iou(drawn))
    return {"protocol": protocol} | scores(total, names).to_json() | {"miou_interval": [low, high]}


def _write_metrics(work: Work, results: dict[str, Any], skipped: dict[str, str]) -> None:
    ablation = read_json(work.input("ablation") / "ablation.json") if "ablation" in work.inputs else {}
    metrics = {
        "format": "excel-metrics/1",
        "preset": work.run.preset,
        "method": work.run.method,
        "clip": work.run.clip.model,
        "supervision": work.run.train.supervision,
        "results": results,
        "ablation": {key: ablation[key] for key in ("protocol", "rows", "presence_map")} if ablation.get("rows") else {},
        "skipped": skipped | ({"ablation": "no split has masks"} if ablation and not ablation["rows"] else {}),
    }
    write_json(work.folder / "metrics.json", metrics)


def _copy_truths(work: Work, shown: dict[str, list[dict[str, Any]]]) -> None:
    for split, found in shown.items():
        door = mask_reader_of(work, split)
        rows = {row.id: row for row in masked_rows(work, split)}
        for row in (rows[entry["id"]] for entry in found):
            save_labels_png(work.folder / "truth" / split / f"{row.id}.png", door.read(row.id, row.height, row.width))


def _protocols(work: Work) -> Iterator[tuple[str, str, str, dict[str, Any]]]:
    """(result key, kind of label maps, split, protocol) of everything that can be scored, in the order to show it."""
    run = work.run
    for kind in ("static", "lvc"):
        for split in scored_splits(work, kind):
            for step in work.inputs[MADE_BY[kind]].summary["steps"]:
                yield f"seeds.{kind}.{split}.{step}", kind, split, seed_protocol(run, kind, split, step)
    for split in scored_splits(work, "segmentation"):
        for name in work.inputs["predict"].summary["variants"]:
            yield f"segmentation.{split}.{name}", "segmentation", split, segmentation_protocol(run, split, name)


def _needs(run: RunSpec, place: RunEnvironment) -> dict[str, Dependency]:
    """The stages that make the label maps to score, and the ablation under the run's own seed where it is asked for."""
    made = {MADE_BY[kind]: Dependency(MADE_BY[kind], run) for kind in run.evaluate.kinds}
    if not run.evaluate.ablation:
        return made
    update = {"groups": ("components", "calibration"), "own_trainings": False, "seeds": 1}
    spec = run.ablation.model_copy(update=update)
    return made | {"ablation": Dependency("ablation", run.model_copy(update={"ablation": spec}))}


def _takes(work: Work) -> dict[str, Any]:
    """Beside the parts: names, and the ablation."""
    ablation = work.inputs["ablation"].content if "ablation" in work.inputs else None
    return {"classes": classes_of(work), "ablation": ablation}


def _spec(run: RunSpec) -> dict[str, Any]:
    return {
        "seed_splits": run.dataset.seed_splits,
        "val_splits": run.dataset.val_splits,
        "evaluate": run.evaluate.model_dump(mode="json"),
        "predict": run.predict.model_dump(mode="json"),
        "refine": run.refine.model_dump(mode="json"),
        "mirror": run.dynamic.mirror,
        "names": [run.preset, run.method, run.clip.model, run.train.supervision, run.train.from_checkpoint is not None],
    }


STAGE = Stage(
    "evaluate",
    ("dataset", "knowledge"),
    _spec,
    join_scores,
    parts=score_parts,
    build_part=build_score_part,
    needs=_needs,
    takes=_takes,
    reads_data=True,
    sees_masks=always,
)
