"""Scores of segmentations from one confusion matrix, and average precision of presence scores."""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from excel_core.datasets.label_files import label_file, label_files
from excel_core.datasets.masks import NO_CLASS, VocMaskReader, holds_no_class
from excel_core.datasets.palette import IGNORE, load_labels_png
from excel_core.datasets.photo_files import is_hidden, is_photo, printable
from excel_core.errors import DataError, SettingError, and_more

__all__ = [
    "Scores",
    "average_precision",
    "class_iou",
    "confusion_matrix",
    "confusion_of_counts",
    "evaluate_folders",
    "mean_average_precision",
    "mean_iou",
    "pixel_counts",
    "present_class_iou",
    "scores",
    "truth_warnings",
]

PIXELS_AT_ONCE = 2**20
MAX_MISSING = 5  # missing files that an error names


@dataclass(frozen=True)
class Scores:
    """Scores of one evaluation, shares of pixels in [0, 1]; by class name, background included.

    A value is None where it would be 0/0, and the confusion ratio where TP = 0. The means are over the
    classes that occur in the truth, leaving out undefined values; a class that does not occur there
    but was predicted has an IoU and a precision of 0, which no mean counts.
    """

    miou: float
    mean_precision: float | None
    mean_recall: float
    iou: dict[str, float | None]  # TP / (TP + FP + FN)
    precision: dict[str, float | None]  # TP / (TP + FP)
    recall: dict[str, float | None]  # TP / (TP + FN)
    confusion_ratio: dict[str, float | None]  # FP / TP, from 0 to unbounded
    pixels: int  # how many were counted: the truth without its ignored pixels
    warnings: tuple[str, ...] = ()  # what makes one doubt the truth, in plain sentences

    def to_json(self) -> dict[str, Any]:
        """Plain data under the stable keys miou, iou, precision, recall, confusion_ratio, pixels; and warnings, where there are
        some."""
        document = {
            "miou": self.miou,
            "iou": dict(self.iou),
            "precision": dict(self.precision),
            "recall": dict(self.recall),
            "confusion_ratio": dict(self.confusion_ratio),
            "pixels": self.pixels,
        }
        return document | ({"warnings": list(self.warnings)} if self.warnings else {})


def confusion_matrix(truth: NDArray[Any], prediction: NDArray[Any], num_classes: int) -> NDArray[np.int64]:
    """Count pixels → (C, C) int64, rows are true classes and columns predicted ones; add them up over images.

    truth and prediction are integer arrays of one shape with values 0 … C−1, C ≤ 255. Pixels whose truth
    is 255 are ignored, whatever was predicted there. Raises DataError naming any other value.
    """
    if not 1 <= num_classes <= IGNORE:
        raise SettingError(f"num_classes must be 1 … {IGNORE}, got {num_classes}")
    if truth.shape != prediction.shape:
        raise DataError(f"the prediction must have the truth's shape {truth.shape}, got {prediction.shape}")
    total = np.zeros((num_classes, num_classes), np.int64)
    for start in range(0, truth.size, PIXELS_AT_ONCE):  # cells of a large photo take 8 bytes a pixel, and copies of them
        piece = slice(start, start + PIXELS_AT_ONCE)
        total += _counted(truth.reshape(-1)[piece], prediction.reshape(-1)[piece], num_classes)
    return total


def _counted(truth: NDArray[Any], prediction: NDArray[Any], num_classes: int) -> NDArray[np.int64]:
    """truth and prediction (N,) → counts (C, C)."""
    counted = truth != IGNORE
    pair = {"truth": truth[counted], "prediction": prediction[counted]}
    for name, values in pair.items():
        if not np.issubdtype(values.dtype, np.integer):
            raise DataError(f"the {name} must hold integers, got {values.dtype}")
        odd = values[(values < 0) | (values >= num_classes)]
        if odd.size:
            raise DataError(f"the {name} holds the value {odd[0]}, expected 0 … {num_classes - 1}")
    # One bincount over truth * C + prediction counts all cells at once.
    cell = pair["truth"].astype(np.int64) * num_classes + pair["prediction"].astype(np.int64)
    return np.bincount(cell, minlength=num_classes**2).reshape(num_classes, num_classes).astype(np.int64)


def pixel_counts(confusion: NDArray[np.int64]) -> pd.DataFrame:
    """confusion (C, C), rows truth, C ≤ 256 → truth and predicted (uint8) and pixels (int64) of the cells above 0."""
    truth, predicted = np.nonzero(confusion)
    table = pd.DataFrame({"truth": truth.astype(np.uint8), "predicted": predicted.astype(np.uint8)})
    return table.assign(pixels=confusion[truth, predicted])


def confusion_of_counts(counts: pd.DataFrame, num_classes: int) -> NDArray[np.int64]:
    """counts with the columns of `pixel_counts`, a cell in any number of rows → their sum (C, C), rows truth."""
    confusion = np.zeros((num_classes, num_classes), dtype=np.int64)
    np.add.at(confusion, (counts["truth"], counts["predicted"]), counts["pixels"])
    return confusion


def class_iou(confusion: NDArray[np.int64]) -> NDArray[np.float64]:
    """Confusions (…, C, C), rows truth → IoU (…, C) = TP / (TP + FP + FN), NaN for a class in neither truth nor prediction."""
    hit = np.diagonal(confusion, axis1=-2, axis2=-1)
    true, predicted = confusion.sum(axis=-1), confusion.sum(axis=-2)
    return _ratio(hit, true + predicted - hit)


def present_class_iou(confusion: NDArray[np.int64]) -> NDArray[np.float64]:
    """`class_iou`, NaN for a class that the truth does not hold, although it may be predicted: no mean counts it."""
    return np.where(confusion.sum(axis=-1) > 0, class_iou(confusion), np.nan)


def mean_iou(confusion: NDArray[np.int64]) -> NDArray[np.float64]:
    """Confusions (…, C, C) → mIoU (…) over the classes that the truth holds; 0 where it holds none."""
    iou = present_class_iou(confusion)
    present = ~np.isnan(iou)
    return np.asarray(np.where(present, iou, 0).sum(axis=-1) / np.maximum(present.sum(axis=-1), 1))


def scores(confusion: NDArray[np.int64], names: Sequence[str]) -> Scores:
    """Confusion (C, C), rows truth, with the C class names in index order (background first) → Scores.

    Raises DataError where names do not fit or the matrix counts no pixel.
    """
    if confusion.shape != (len(names), len(names)) or len(set(names)) != len(names):
        raise DataError(f"expected {len(confusion)} distinct class names, got {len(names)}: {list(names)}")
    if confusion.sum() == 0:
        raise DataError("no pixel was counted: the truth is empty, or all of it is ignore (255)")
    hit = confusion.diagonal()
    true, predicted = confusion.sum(axis=1), confusion.sum(axis=0)
    present = true > 0
    iou, precision = class_iou(confusion), _ratio(hit, predicted)
    recall, confusion_ratio = _ratio(hit, true), _ratio(predicted - hit, hit)
    with_precision = present & (predicted > 0)
    return Scores(
        miou=float(iou[present].mean()),
        mean_precision=float(precision[with_precision].mean()) if with_precision.any() else None,
        mean_recall=float(recall[present].mean()),
        iou=_by_name(names, iou),
        precision=_by_name(names, precision),
        recall=_by_name(names, recall),
        confusion_ratio=_by_name(names, confusion_ratio),
        pixels=int(confusion.sum()),
    )


def evaluate_folders(pred_dir: Path, truth_dir: Path, names: Sequence[str], ids: Sequence[str] | None = None) -> Scores:
    """Score a folder of label PNGs against a folder of masks; files belong together by name.

    names are all C class names in index order, background first. ids are the images to score; by
    default every mask of truth_dir. Predictions without a mask are not counted. Raises DataError for
    an empty truth folder, missing predictions, and a prediction of another size than its mask.
    The result's `warnings` name masks that hold 0 and 255 alone and, without ids, files that are not counted.
    """
    for folder in (pred_dir, truth_dir):
        if not folder.is_dir():
            raise DataError(f"{folder}: no such folder")
    scored = list(label_files(truth_dir)) if ids is None else list(ids)
    if not scored:
        raise DataError(f"{truth_dir}: holds no *.png to score against")
    predictions = {image_id: label_file(pred_dir, image_id) for image_id in scored}
    missing = [image_id for image_id, path in predictions.items() if not path.is_file()]
    if missing:
        names_of_missing = and_more(missing, MAX_MISSING)
        raise DataError(f"{pred_dir}: {len(missing)} of {len(scored)} predictions are missing: {names_of_missing}")
    reader = VocMaskReader(truth_dir.parent, truth_dir.name, classes=len(names) - 1)
    total = np.zeros((len(names), len(names)), dtype=np.int64)
    without_class = []
    for image_id, path in predictions.items():
        prediction = load_labels_png(path, reader.classes)
        truth = reader.read(image_id, *prediction.shape)
        without_class += [image_id] * holds_no_class(truth)
        try:
            total += confusion_matrix(truth, prediction, len(names))
        except DataError as error:
            raise DataError(f"{image_id}.png: {error}") from error
    uncounted = _uncounted(pred_dir, truth_dir, scored) if ids is None else ()
    return replace(scores(total, names), warnings=(*truth_warnings(without_class, len(scored)), *uncounted))


def _uncounted(pred_dir: Path, truth_dir: Path, scored: Sequence[str]) -> tuple[str, ...]:
    """What `Scores.warnings` says of files that look as if they should count, where all masks of a folder are `scored`."""
    ids = {unicodedata.normalize("NFC", image_id) for image_id in scored}
    pictures = [path for path in sorted(pred_dir.iterdir()) if path.suffix.lower() == ".png" and not is_hidden(path.name)]
    alone = [printable(path.stem) for path in pictures if unicodedata.normalize("NFC", path.stem) not in ids]
    no_png = [printable(path.name) for path in sorted(truth_dir.iterdir()) if is_photo(path) and path.suffix.lower() != ".png"]
    told = []
    if alone:
        told.append(f"{len(alone)} predictions ({and_more(alone, MAX_MISSING)}) have no mask in {truth_dir}: not counted")
    if no_png:
        told.append(f"{len(no_png)} pictures in {truth_dir} ({and_more(no_png, MAX_MISSING)}) are no PNG: not read as masks")
    return tuple(told)


def truth_warnings(without_class: Sequence[str], scored: int) -> tuple[str, ...]:
    """What `Scores.warnings` says of `scored` true masks, of which those named hold 0 and 255 alone."""
    if not without_class:
        return ()
    examples = and_more(without_class, MAX_MISSING)
    return (f"{len(without_class)} of {scored} true masks ({examples}) hold {NO_CLASS}",)


def average_precision(presence: NDArray[np.floating[Any]], truth: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Presence scores (N, C) and truth (N, C) bool, N images → average precision per class (C,) in [0, 1].

    scikit-learn's: the sum over thresholds of precision × gain in recall, without interpolation; equal scores share
    one threshold. NaN for a class that no image has. Raises DataError for other shapes or non-finite scores.
    """
    if presence.ndim != 2 or presence.shape != truth.shape or not np.isfinite(presence).all():
        raise DataError(f"expected finite scores and truth (N, C), got {presence.shape} and {truth.shape}")
    from sklearn.metrics import average_precision_score  # slow to import

    precision = np.full(presence.shape[1], np.nan)
    for index in np.flatnonzero(truth.any(axis=0)):
        precision[index] = average_precision_score(truth[:, index], presence[:, index])
    return precision


def mean_average_precision(presence: NDArray[np.floating[Any]], truth: NDArray[np.bool_]) -> float:
    """Mean of `average_precision` over the classes that some image has; DataError where none does."""
    by_class = average_precision(presence, truth)
    if np.isnan(by_class).all():
        raise DataError("no image has any class: average precision is undefined")
    return float(np.nanmean(by_class))


def _ratio(numerator: NDArray[np.int64], denominator: NDArray[np.int64]) -> NDArray[np.float64]:
    """Divide, NaN where the denominator is 0."""
    ratio = np.full(numerator.shape, np.nan)
    np.divide(numerator, denominator, out=ratio, where=denominator > 0)
    return ratio


def _by_name(names: Sequence[str], values: NDArray[np.float64]) -> dict[str, float | None]:
    """Values (C,) by class name, None for NaN."""
    return {n: None if np.isnan(value) else float(value) for n, value in zip(names, values, strict=True)}
