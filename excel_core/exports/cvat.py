"""`cvat`: a zip for CVAT's "Segmentation mask 1.1" (Upload annotations), onto a task with the same images and labels.

labelmap.txt                           NAME:R,G,B:: per class, background first
ImageSets/Segmentation/default.txt     image names without suffix
SegmentationClass/ID.png               RGB, a class's pixels in its colour
SegmentationObject/ID.png              RGB, one object per class: label maps do not tell objects of a class apart
"""

import io
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from excel_core.datasets.palette import VOC_PALETTE
from excel_core.errors import SettingError
from excel_core.exports.label_maps import LabelMap

__all__ = ["CVAT_ZIP", "write_cvat"]

CVAT_ZIP = "segmentation_mask_1.1.zip"
MEMBER_TIME = (1980, 1, 1, 0, 0, 0)  # of every member, so that the same label maps make the same bytes


def write_cvat(folder: Path, class_names: Sequence[str], maps: Iterable[LabelMap]) -> dict[str, Any]:
    """Write the zip into folder; SettingError for class names that labelmap.txt cannot hold."""
    odd = [name for name in class_names if ":" in name or name.startswith("#")]
    if odd:
        raise SettingError(f"CVAT's labelmap.txt cannot hold the class {odd[0]!r}: no ':' and no '#' at the beginning")
    ids = []
    with zipfile.ZipFile(folder / CVAT_ZIP, "w", zipfile.ZIP_DEFLATED) as archive:
        _add(archive, "labelmap.txt", _label_map(class_names).encode())
        for label_map in maps:
            labels = label_map.read(len(class_names))
            # The objects of an image are counted from 1, each in the palette's colour of its number.
            objects = np.searchsorted(np.unique(np.append(labels, 0)), labels).astype(np.uint8)
            _add(archive, f"SegmentationClass/{label_map.id}.png", _coloured(labels))
            _add(archive, f"SegmentationObject/{label_map.id}.png", _coloured(objects))
            ids.append(label_map.id)
        _add(archive, "ImageSets/Segmentation/default.txt", "".join(f"{name}\n" for name in ids).encode())
    return {"labels": ["background", *class_names]}


def _label_map(class_names: Sequence[str]) -> str:
    lines = ["# label:color_rgb:parts:actions"]
    for value, name in enumerate(("background", *class_names)):
        lines.append(f"{name}:{','.join(map(str, VOC_PALETTE[value].tolist()))}::")
    return "\n".join(lines) + "\n"


def _coloured(labels: NDArray[np.uint8]) -> bytes:
    """labels (H, W) → the bytes of an RGB PNG in palette colours."""
    buffer = io.BytesIO()
    Image.fromarray(VOC_PALETTE[labels]).save(buffer, format="PNG")
    return buffer.getvalue()


def _add(archive: zipfile.ZipFile, name: str, content: bytes) -> None:
    member = zipfile.ZipInfo(name, MEMBER_TIME)
    member.external_attr = 0o644 << 16  # the upper half holds Unix permissions
    # PNGs are compressed already.
    member.compress_type = zipfile.ZIP_STORED if name.endswith(".png") else zipfile.ZIP_DEFLATED
    archive.writestr(member, content)
