"""`palette`: the label maps as they are, ID.png in VOC colours: 0 background, i + 1 class i, as in VOC's own masks."""

import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from excel_core.exports.label_maps import LabelMap

__all__ = ["write_palette"]


def write_palette(folder: Path, class_names: Sequence[str], maps: Iterable[LabelMap]) -> dict[str, Any]:
    """Copy each label map to folder/ID.png → the meaning of their values."""
    for found in maps:
        found.read(len(class_names))  # a damaged one is not handed on
        shutil.copyfile(found.path, folder / f"{found.id}.png")
    return {"labels": ["background", *class_names]}
