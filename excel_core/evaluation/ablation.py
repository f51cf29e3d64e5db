"""The ablation: which runs its rows are, and how raw CAMs are scored at every threshold at once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from excel_core.config import RunSpec
from excel_core.config.methods import METHODS
from excel_core.config.presets import with_method
from excel_core.config.variants import (
    NO_ATTRIBUTES,
    calibrated_by,
    cam_upgrades,
    with_attributes,
    with_votes,
    without_attributes,
    without_tse,
    without_votes,
)
from excel_core.disk_maps import DiskMaps, is_large, strips
from excel_core.evaluation.bootstrap import ResampledScore, confusions_by_image, resample, score_over_seeds
from excel_core.evaluation.metrics import mean_average_precision, mean_iou
from excel_core.training.losses import IGNORE

__all__ = [
    "BINS", "AblationRow", "ThresholdScore", "ablation_rows", "best_threshold", "confusion_counts",
    "level_counts", "presence_map", "row_result", "score_at_best_threshold", "score_label_maps",
]  # fmt: skip

BINS = 100  # thresholds 0.00, 0.01, … 0.99


@dataclass(frozen=True)
class AblationRow:
    """One row: a run, whose static CAMs (or those with the learnt relation) are scored; with `refined` its pseudo labels from
    static CAMs, after the last step. `seeded`: its seed matters."""

    group: str
    name: str
    run: RunSpec
    learnt: bool = False
    seeded: bool = True
    refined: bool = False


def ablation_rows(run: RunSpec, descriptions: int) -> list[AblationRow]:
    """The rows of the paper's tables 3 (components), 4 (attributes) and 5 (calibration), of the methods, and of the upgrades,
    by `run.ablation.groups`.

    Numbers of attributes beyond the number of `descriptions` are left out: k-means could not make them.
    """
    rows = {"components": _components(run), "attributes": _attributes(run, descriptions)}
    rows |= {"calibration": _calibration(run), "method": _methods(run), "upgrades": _upgrades(run)}
    return [row for group in run.ablation.groups for row in rows[group]]


def _components(run: RunSpec) -> list[AblationRow]:
    """Table 3: what each part of the method adds."""
    plain = without_tse(run)
    rows = [
        AblationRow("components", "q-k baseline", calibrated_by(plain, "qk"), seeded=False),
        AblationRow("components", "SVC", plain, seeded=False),
        AblationRow("components", "SVC + TSE", run),
    ]
    if run.ablation.own_trainings:  # every other row shares the run's training
        rows.append(AblationRow("components", "SVC + LVC", plain, learnt=True))
    return [*rows, AblationRow("components", "SVC + TSE + LVC", run, learnt=True)]


def _attributes(run: RunSpec, descriptions: int) -> list[AblationRow]:
    """Table 4: how many attributes; none in both readings."""
    rows = [
        AblationRow("attributes", f"none: {reading}", without_attributes(run, mode), seeded=False)  # no k-means, no seed
        for reading, mode in NO_ATTRIBUTES.items()
    ]
    counts = [count for count in run.ablation.attributes if count <= descriptions]
    return rows + [AblationRow("attributes", f"{count} attributes", with_attributes(run, count)) for count in counts]


def _calibration(run: RunSpec) -> list[AblationRow]:
    """Table 5: how the last blocks attend, all with text enrichment."""
    return [
        AblationRow("calibration", "q-k, TSE", calibrated_by(run, "qk")),
        AblationRow("calibration", "value only in the last block, TSE", calibrated_by(run, "v", depth=1)),
        AblationRow("calibration", "intra-correlation in the last block, TSE", calibrated_by(run, "svc", depth=1)),
        AblationRow("calibration", "SVC, TSE", run),
    ]


def _methods(run: RunSpec) -> list[AblationRow]:
    return [AblationRow("method", f"{name}, SVC + TSE", with_method(run, f"excel:{name}")) for name in METHODS["excel"]]


def _upgrades(run: RunSpec) -> list[AblationRow]:
    """Each training-free upgrade alone: raw CAMs, then pseudo labels; mask votes where the run says whose masks those are."""
    plain = without_votes(run)
    runs = {"as it is": plain} | cam_upgrades(plain)
    rows = [AblationRow("upgrades: CAMs", name, variant, seeded=False) for name, variant in runs.items()]
    if run.refine.votes.enabled or run.refine.votes.masks is not None:
        runs["mask votes (+SAM)"] = with_votes(run)
    labels = "upgrades: pseudo labels"
    return rows + [AblationRow(labels, name, variant, seeded=False, refined=True) for name, variant in runs.items()]


def level_counts(cams: Tensor, classes: Sequence[int], truth: NDArray[np.uint8]) -> pd.DataFrame:
    """One image: cams (C, h, w) in [0, 1], its class indices, truth (H, W) with 255 ignored → pixels by `truth`,
    `strongest` (the class, 0-based, whose CAM is highest there) and `level` (that CAM in BINS steps)."""
    shape, names = (256, len(cams), BINS), ("truth", "strongest", "level")
    size = (truth.shape[0], truth.shape[1])
    if classes and is_large(size):
        maps = DiskMaps((len(classes), *size))
        for slot, cam in enumerate(cams[list(classes)]):
            plane = F.interpolate(cam[None, None], size=size, mode="bilinear", align_corners=False)[0]
            maps.write(slice(None), slice(None), plane.cpu().numpy(), slice(slot, slot + 1))
        counts = [_cells(torch.from_numpy(maps.read(rows)), classes, truth[rows], shape) for rows in strips(size, 64)]
    else:
        full = F.interpolate(cams[list(classes)][None], size=size, mode="bilinear", align_corners=False)[0] if classes else None
        counts = [_cells(full, classes, truth, shape)]
    cells = pd.concat(counts).groupby(level=0).sum()
    values = np.unravel_index(cells.index.to_numpy(), shape)
    return pd.DataFrame(dict(zip(names, values, strict=True)) | {"pixels": cells.to_numpy()}).astype(np.int32)


def _cells(full: Tensor | None, classes: Sequence[int], truth: NDArray[np.uint8], shape: tuple[int, int, int]) -> pd.Series:
    """CAMs (K, H, W) of the classes, truth (H, W) → how many pixels each (truth, strongest, level) of `shape` has, by its flat
    number."""
    if full is not None:
        value, slot = (part.cpu().numpy() for part in full.max(dim=0))
        strongest = np.asarray(classes)[slot]
    else:  # an image without classes: background at every threshold above 0
        value, strongest = np.zeros(truth.shape), np.zeros(truth.shape, dtype=np.int64)
    level = np.clip((value * BINS).astype(np.int64), 0, BINS - 1)
    counted = truth != IGNORE
    # np.unique is far faster on numbers than on rows.
    index = np.ravel_multi_index((truth[counted].astype(np.int64), strongest[counted], level[counted]), shape)
    cells, pixels = np.unique(index, return_counts=True)
    return pd.Series(pixels, index=cells)


def confusion_counts(levels: pd.DataFrame, level: int) -> pd.DataFrame:
    """`levels` as of `level_counts`, with an image column → image, truth, predicted, pixels at that threshold: a pixel is
    its strongest class where that CAM reaches the level, else background."""
    predicted = np.where(levels["level"] >= level, levels["strongest"] + 1, 0)
    grouped = levels.assign(predicted=predicted).groupby(["image", "truth", "predicted"], observed=True)
    return grouped["pixels"].sum().reset_index()


def best_threshold(levels: pd.DataFrame, classes: int) -> tuple[float, int]:
    """(mIoU, level) of the best single threshold over all images of `levels`; `classes` without background."""
    # Pixels by truth, strongest class and level; their sums from each level upwards are the confusions at all thresholds.
    table = np.zeros((classes + 1, classes, BINS), dtype=np.int64)
    np.add.at(table, (levels["truth"], levels["strongest"], levels["level"]), levels["pixels"])
    above = table[:, :, ::-1].cumsum(axis=2)[:, :, ::-1]  # pixels at or above each level
    background = table.sum(axis=(1, 2))[:, None] - above.sum(axis=1)
    confusion = np.concatenate([background[:, None], above], axis=1).transpose(2, 0, 1)
    scores = mean_iou(confusion)
    best = int(np.argmax(scores))
    return float(scores[best]), best


@dataclass(frozen=True)
class ThresholdScore(ResampledScore):
    """A score at the best single `threshold` (0.00 … 0.99) over all images, as its resamples are; of label maps without a
    threshold."""

    threshold: float | None


def score_at_best_threshold(
    levels: pd.DataFrame, images: Sequence[str], classes: int, draws: NDArray[np.int64]
) -> ThresholdScore:
    """`levels` of the split's I images as of `level_counts`, with an image column; `classes` without background; `draws` (B, I)
    as of `image_draws` → ThresholdScore. The threshold is not chosen anew for a resample."""
    miou, level = best_threshold(levels, classes)
    by_image = confusions_by_image(confusion_counts(levels, level), images, classes + 1)
    return ThresholdScore(miou, mean_iou(resample(by_image, draws, classes + 1)), level / BINS)


def score_label_maps(counts: pd.DataFrame, images: Sequence[str], classes: int, draws: NDArray[np.int64]) -> ThresholdScore:
    """`counts` of pixels with the columns image, truth, predicted, pixels, of the I images; `classes` without background → the
    score of label maps."""
    by_image = confusions_by_image(counts, images, classes + 1)
    total = np.asarray(by_image.sum(axis=0)).reshape(classes + 1, classes + 1)
    return ThresholdScore(float(mean_iou(total)), mean_iou(resample(by_image, draws, classes + 1)), None)


def row_result(row: AblationRow, scores: Mapping[str, Sequence[ThresholdScore]]) -> dict[str, Any]:
    """A row's scores by split, one per seed → its entry in ablation.json."""
    thresholds = {split: _mean_threshold(seeds) for split, seeds in scores.items() if seeds[0].threshold is not None}
    return {"group": row.group, "name": row.name} | score_over_seeds(scores) | {"threshold": thresholds}


def _mean_threshold(scores: Sequence[ThresholdScore]) -> float:
    return float(np.mean([score.threshold for score in scores if score.threshold is not None]))


def presence_map(presence: NDArray[np.floating[Any]], classes: Sequence[Sequence[int]]) -> float:
    """Presence scores (I, C) and the class indices of each of the I images → mean average precision of "the image has the
    class"; DataError where no image has a class."""
    truth = np.zeros(presence.shape, dtype=bool)
    for row, indices in enumerate(classes):
        truth[row, list(indices)] = True
    return mean_average_precision(presence, truth)
