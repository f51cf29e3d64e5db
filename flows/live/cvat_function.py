r"""A function for CVAT's automatic annotation: masks of the classes that it is given.

    cvat-cli task auto-annotate 123 --function-module flows.live.cvat_function \
        -p 'classes=str:dog,sofa' -p 'clip=str:ViT-B-16:openai'

The labels of the CVAT task have the names of the classes. Needs cvat-sdk (extra `cvat`).
"""

import sys
from collections.abc import Sequence
from typing import Any

import cvat_sdk.auto_annotation as cvataa
import numpy as np
import PIL.Image
from cvat_sdk.masks import encode_mask

from excel_core.errors import ImageError, SettingError
from excel_core.prediction.predictors import parse_classes
from flows.live.labeller import PhotoLabeller, labeller

__all__ = ["MaskFunction", "create"]


def create(
    classes: str = "", weights: str = "", clip: str = "", device: str = "cpu", store: str = "", side: int = 640
) -> "MaskFunction":
    """What cvat-cli calls with its -p options. classes: names with commas; not needed with weights. "": the default."""
    photo_labeller = labeller("photos", store or None, clip or None, device, weights or None, side)
    names = parse_classes(classes) if classes else photo_labeller.class_names
    if not names:
        raise SettingError("say which classes to annotate: -p 'classes=str:dog,sofa', or weights: -p 'weights=str:FILE'")
    return MaskFunction(photo_labeller, photo_labeller.check(names))


class MaskFunction:
    """One mask a class and photo. CVAT's confidence threshold is not used: label maps have no confidence."""

    def __init__(self, made: PhotoLabeller, names: tuple[str, ...]) -> None:
        self._labeller, self._names = made, names
        labels = [cvataa.label_spec(name, number, type="mask") for number, name in enumerate(names)]
        self.spec = cvataa.DetectionFunctionSpec(labels=labels)

    def detect(self, context: cvataa.DetectionFunctionContext, image: PIL.Image.Image) -> Sequence[Any]:
        """The photo's masks, or polygons of their outer outlines where CVAT asks for these; none, with a line on standard
        error, for a photo that cannot be used: it must not cost the others theirs."""
        try:
            labelled = self._labeller.look(image, self._names)
        except ImageError as error:
            print(f"skipped {context.frame_name}: {error}", file=sys.stderr, flush=True)
            return []
        labels, shapes = labelled.labels(), []
        for number, value in enumerate(labelled.values):
            mask = labels == value
            if mask.any():
                shapes += _polygons(number, mask) if context.conv_mask_to_poly else [cvataa.mask(number, encode_mask(mask))]
        return shapes


def _polygons(number: int, mask: np.ndarray) -> list[Any]:
    from excel_core.exports.outlines import one_ring, regions

    return [
        cvataa.polygon(number, [float(value) for corner in one_ring(region) for value in corner]) for region in regions(mask)
    ]
