"""The formats of label maps. A format is one entry of LABEL_FORMATS and the file that writes it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from excel_core.exports.coco import write_coco
from excel_core.exports.coco_results import write_coco_results
from excel_core.exports.cvat import write_cvat
from excel_core.exports.cvat_images import write_cvat_images
from excel_core.exports.image_masks import write_image_masks
from excel_core.exports.label_maps import write_binary, write_palette
from excel_core.exports.label_studio import write_label_studio, write_label_studio_polygons
from excel_core.exports.voc_submission import write_voc_submission
from excel_core.exports.yolo import write_yolo

__all__ = ["LABEL_FORMATS", "PHOTOS", "LabelFormat"]

PHOTOS = "images"  # where photos lie that only the user wants along


@dataclass(frozen=True)
class LabelFormat:
    """How label maps are written.

    write(folder, class_names, maps) → what export.json says of it; its maps have `file_name`, the photo's name
    photos: the folder below the export where the format wants the photos; "": it needs none
    numbers: whether `write` also takes `numbers`, COCO's own of images and classes
    """

    write: Callable[..., dict[str, Any]]
    photos: str = ""
    numbers: bool = False


LABEL_FORMATS = {
    "palette": LabelFormat(write_palette),
    "binary": LabelFormat(write_binary),
    "coco": LabelFormat(write_coco, numbers=True),
    "coco-results": LabelFormat(write_coco_results, numbers=True),
    "yolo": LabelFormat(write_yolo, photos="images"),
    "label-studio": LabelFormat(write_label_studio, photos="images"),
    "label-studio-polygons": LabelFormat(write_label_studio_polygons, photos="images"),
    "cvat": LabelFormat(write_cvat),
    "cvat-images": LabelFormat(write_cvat_images),
    "fiftyone": LabelFormat(write_image_masks, photos="data"),
    "voc-submission": LabelFormat(write_voc_submission),
}
