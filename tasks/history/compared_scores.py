"""Two results of the same images as plain data: mIoU and the IoU of each class, with intervals."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from math import isnan
from typing import Any

import pandas as pd
from scipy.sparse import csr_matrix

from excel_core.evaluation.bootstrap import compare_scores

__all__ = ["compared_scores", "edited_truths", "without_nan"]


def compared_scores(a: csr_matrix, b: csr_matrix, names: Sequence[str]) -> dict[str, Any]:
    """Confusions by image (I, C·C) of two results, and the C class names → `miou` {a, b, difference, low, high}, and `classes`:
    the same of each class in the truth, with the number of `images` that hold it. What is undefined is None."""
    comparison = compare_scores(a, b, names)
    images = [int((a[:, i * len(names) : (i + 1) * len(names)].sum(axis=1) > 0).sum()) for i in range(len(names))]
    classes = {
        name: without_nan(asdict(comparison.classes[name])) | {"images": count}
        for name, count in zip(names, images, strict=True)
        if name in comparison.classes
    }
    return {"miou": without_nan(asdict(comparison.miou)), "classes": classes}


def edited_truths(a: pd.DataFrame, b: pd.DataFrame) -> set[str]:
    """Images of two tables of counts (image, truth, predicted, pixels) whose truths have other numbers of pixels by class."""
    totals = [table.groupby(["image", "truth"])["pixels"].sum() for table in (a, b)]
    shared_images = set(a["image"]) & set(b["image"])
    first, second = totals[0].align(totals[1], fill_value=0)
    return shared_images & set(first.index[first != second].get_level_values("image"))


def without_nan(values: Mapping[str, Any]) -> dict[str, Any]:
    """For JSON, which has no NaN."""
    return {name: None if isinstance(value, float) and isnan(value) else value for name, value in values.items()}
