"""An image's way through the stages as captioned pictures, for the HTML report and the Prefect artifact alike."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from artifacts.pictures import fit_image, fit_labels, jpeg_data_uri, overlay_cam, overlay_labels
from artifacts.view import GalleryItem, Labels, Pixels, SegmentedItem
from excel_core.datasets.palette import IGNORE

__all__ = ["Picture", "PictureGroup", "PictureSize", "gallery_groups", "segmented_pictures"]

STEP_NAMES = {"raw": "raw", "affinity": "+ affinity", "par": "+ PAR", "crf": "+ CRF"}


@dataclass(frozen=True)
class PictureSize:
    """Longer side in pixels and JPEG quality of the pictures to make."""

    side: int = 256
    quality: int = 78


@dataclass(frozen=True)
class Picture:
    """A JPEG data URI with the words that stand for it and the words below it."""

    uri: str
    alt: str
    caption: str


@dataclass(frozen=True)
class PictureGroup:
    """Pictures that belong in one row under a heading; `steps`: each is what became of the one before."""

    title: str
    pictures: tuple[Picture, ...]
    steps: bool = False


def gallery_groups(item: GalleryItem, class_names: Sequence[str], size: PictureSize) -> list[PictureGroup]:
    """Image and truth; CAM of each class; refinement steps from static CAMs and from those with LVC. None is empty."""
    image = fit_image(item.image, size.side)
    artist = _Artist(item.id, image, class_names, size)
    first = [Picture(artist.encode(image), f"image {item.id}", "image")]
    if item.truth is not None:
        first.append(artist.labels(item.truth, "truth"))
    title = "Image and truth" if item.truth is not None else "Image"
    cams = [artist.cam(cam, name) for name, cam in item.cams.items()]
    groups = [PictureGroup(title, tuple(first)), PictureGroup("Class activation maps", tuple(cams))]
    for heading, steps in (("Refinement", item.steps), ("Refinement with LVC", item.lvc_steps)):
        drawn = [artist.labels(labels, STEP_NAMES.get(step, step)) for step, labels in steps.items()]
        groups.append(PictureGroup(heading, tuple(drawn), steps=True))
    return [group for group in groups if group.pictures]


def segmented_pictures(item: SegmentedItem, class_names: Sequence[str], size: PictureSize) -> tuple[Picture, ...]:
    """Image, prediction, and truth where there is one."""
    image = fit_image(item.image, size.side)
    artist = _Artist(item.id, image, class_names, size)
    pictures = [
        Picture(artist.encode(image), f"image {item.id}", "image"),
        artist.labels(item.prediction, "prediction"),
    ]
    if item.truth is not None:
        pictures.append(artist.labels(item.truth, "truth"))
    return tuple(pictures)


@dataclass(frozen=True)
class _Artist:
    """Draws over one image (H, W, 3), which already has the size to show."""

    id: str
    image: Pixels
    class_names: Sequence[str]
    size: PictureSize

    def encode(self, pixels: Pixels) -> str:
        return jpeg_data_uri(pixels, self.size.side, self.size.quality)

    def cam(self, cam: np.ndarray, name: str) -> Picture:
        """cam (h, w) in [0, 1] of class `name`."""
        pixels = overlay_cam(self.image, cam)
        return Picture(self.encode(pixels), f"class activation map of {name} on image {self.id}", f"CAM: {name}")

    def labels(self, labels: Labels, caption: str) -> Picture:
        """labels (H, W) of the original image; alt text and caption name the classes and their shares."""
        pixels = overlay_labels(self.image, fit_labels(labels, self.size.side))
        return Picture(self.encode(pixels), f"{caption} of image {self.id}: {self._shares(labels)}", caption)

    def _shares(self, labels: Labels) -> str:
        """`1 house 12 %, 3 car 4 %`: the classes in labels (H, W), largest first."""
        counted = max(1, int((labels != IGNORE).sum()))
        values, counts = np.unique(labels[(labels > 0) & (labels != IGNORE)], return_counts=True)
        parts = [
            f"{value} {self.class_names[value - 1] if value <= len(self.class_names) else 'unknown'} "
            f"{100 * counts[i] / counted:.0f} %"
            for i, value in sorted(enumerate(values.tolist()), key=lambda pair: -counts[pair[0]])
        ]
        return ", ".join(parts) or "only background"
