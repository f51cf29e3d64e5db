"""`voc-submission`: the archive that VOC's evaluation server takes for segmentation on images of its own.

    results/VOC2012/Segmentation/comp6_test_cls/ID.png    palette PNGs, in results.tgz

comp6 is the competition for methods trained on other data than VOC's: CLIP's.
"""

import gzip
import io
import tarfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from excel_core.errors import SettingError
from excel_core.exports.label_maps import LabelMap

__all__ = ["VOC_ARCHIVE", "VOC_CLASSES", "write_voc_submission"]

VOC_CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog", "horse",
    "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
VOC_ARCHIVE = "results.tgz"
ARCHIVE_FOLDER = "results/VOC2012/Segmentation/comp6_test_cls"


def write_voc_submission(folder: Path, class_names: Sequence[str], maps: Iterable[LabelMap]) -> dict[str, Any]:
    """Write the archive into folder; SettingError unless the classes are VOC's twenty in VOC's order."""
    if tuple(class_names) != VOC_CLASSES:
        raise SettingError(
            f"voc-submission: the classes must be VOC's {len(VOC_CLASSES)} in their order, got {', '.join(class_names)}; "
            "choose another --format"
        )
    # Neither archive nor compression holds a time, so that the same label maps make the same bytes.
    with (
        (folder / VOC_ARCHIVE).open("wb") as raw,
        gzip.GzipFile(fileobj=raw, mode="wb", filename="", mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w") as archive,
    ):
        for label_map in maps:
            label_map.read(len(class_names))  # raises for a damaged one
            content = label_map.path.read_bytes()
            member = tarfile.TarInfo(f"{ARCHIVE_FOLDER}/{label_map.id}.png")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return {"place": ARCHIVE_FOLDER}
