"""Pictures with the words that stand in for them: an image's way through the stages, and charts. The report and the Prefect
artifacts show the same pictures."""

import base64
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, TypeVar

import numpy as np

from artifacts.charts import ablation_png, confusion_png, curve_png, knowledge_png, losses_png
from artifacts.drawing import (
    PNG_URI,
    STEP_NAMES,
    class_mask,
    fit_image,
    fit_labels,
    jpeg_data_uri,
    overlay_cam,
    overlay_labels,
    png_data_uri,
    webp_data_uri,
)
from artifacts.rows import defined, markdown_text, number
from artifacts.tables import headline_keys, largest_confusions, miou_text, protocol_text
from artifacts.view import Cam, Counts, Curve, GalleryItem, Labels, Metrics, Pixels, ReportView, SegmentedItem
from excel_core.datasets.palette import IGNORE

__all__ = [
    "ItemPictures", "Picture", "PictureGroup", "PictureSize", "ablation_picture", "confusion_picture", "curve_picture",
    "gallery_groups", "gallery_markdown", "knowledge_picture", "loss_picture", "segmented_pictures",
]  # fmt: skip


Item = TypeVar("Item")


@dataclass(frozen=True)
class PictureSize:
    """Longer side in pixels, and quality as JPEG or as WebP."""

    side: int = 256
    quality: int = 78
    webp: bool = False


@dataclass(frozen=True)
class Picture:
    """A picture as data URI, the text that stands in for it, and the text below it."""

    uri: str
    alt: str
    caption: str

    @property
    def png(self) -> bytes:
        """The file in a chart's URI."""
        return base64.b64decode(self.uri.removeprefix(PNG_URI), validate=True)


@dataclass(frozen=True)
class PictureGroup:
    """Pictures in one row under a heading; `steps`: each is made from the one before."""

    title: str
    pictures: tuple[Picture, ...]
    steps: bool = False


def gallery_groups(item: GalleryItem, class_names: Sequence[str], size: PictureSize) -> list[PictureGroup]:
    """Image and truth; CAM of each class; refinement steps from static CAMs and from those with LVC. Empty groups are
    left out."""
    image = fit_image(item.image, size.side)
    draw = ItemPictures(item.id, image, class_names, size)
    first = [Picture(draw.encode(image), f"image {item.id}", "image")]
    if item.truth is not None:
        first.append(draw.labels(item.truth, "truth"))
    title = "Image and truth" if item.truth is not None else "Image"
    cams = [draw.cam(cam, name) for name, cam in item.cams.items()]
    groups = [PictureGroup(title, tuple(first)), PictureGroup("Class activation maps", tuple(cams))]
    for heading, steps in (("Refinement", item.steps), ("Refinement with LVC", item.lvc_steps)):
        drawn = [draw.labels(labels, STEP_NAMES.get(step, step)) for step, labels in steps.items()]
        groups.append(PictureGroup(heading, tuple(drawn), steps=True))
    return [group for group in groups if group.pictures]


def segmented_pictures(item: SegmentedItem, class_names: Sequence[str], size: PictureSize) -> tuple[Picture, ...]:
    """Image, prediction, and truth where there is one."""
    image = fit_image(item.image, size.side)
    draw = ItemPictures(item.id, image, class_names, size)
    pictures = [
        Picture(draw.encode(image), f"image {item.id}", "image"),
        draw.labels(item.prediction, "prediction"),
    ]
    if item.truth is not None:
        pictures.append(draw.labels(item.truth, "truth"))
    return tuple(pictures)


@dataclass(frozen=True)
class ItemPictures:
    """Draws over one image (H, W, 3), which is of the size of the pictures already."""

    id: str
    image: Pixels
    class_names: Sequence[str]
    size: PictureSize

    def encode(self, pixels: Pixels) -> str:
        write = webp_data_uri if self.size.webp else jpeg_data_uri
        return write(pixels, self.size.side, self.size.quality)

    def cam(self, cam: Cam, name: str) -> Picture:
        """cam (h, w) in [0, 1] of class `name`."""
        pixels = overlay_cam(self.image, cam)
        return Picture(self.encode(pixels), f"class activation map of {name} on image {self.id}", f"CAM: {name}")

    def labels(self, labels: Labels, caption: str) -> Picture:
        """labels (H, W) of the original image; the alt text names the classes and their shares of the pixels."""
        pixels = overlay_labels(self.image, fit_labels(labels, self.size.side))
        return Picture(self.encode(pixels), f"{caption} of image {self.id}: {self._shares(labels)}", caption)

    def _shares(self, labels: Labels) -> str:
        """`1 house 12 %, 3 car 4 %`: the classes in labels (H, W), largest first."""
        pixels = max(1, int((labels != IGNORE).sum()))  # of those that a score counts
        values, counts = np.unique(labels[class_mask(labels)], return_counts=True)
        class_shares = []
        for value, count in sorted(zip(values.tolist(), counts.tolist(), strict=True), key=lambda pair: -pair[1]):
            name = self.class_names[value - 1] if value <= len(self.class_names) else "unknown"
            class_shares.append(f"{value} {name} {100 * count / pixels:.0f} %")
        return ", ".join(class_shares) or "only background"


def loss_picture(view: ReportView) -> Picture | None:
    """The loss curve of training."""
    if view.losses is None or view.losses.empty:
        return None
    first, last = view.losses["loss"].iloc[0], view.losses["loss"].iloc[-1]
    words = f"{len(view.losses)} iterations; the loss goes from {number(first)} to {number(last)}"
    return Picture(png_data_uri(losses_png(view.losses)), f"loss curve over {words}", words)


def curve_picture(curve: Curve) -> Picture | None:
    """Scores of the segmenters that training kept on its way."""
    if not curve.get("rows"):
        return None
    first, last = (min(curve["rows"], key=_iteration), max(curve["rows"], key=_iteration))
    words = f"segmentation on {last['split']} goes from mIoU {number(first['segmentation'])} at iteration "
    words += f"{first['iteration']:,} to {number(last['segmentation'])} at {last['iteration']:,}"
    return Picture(png_data_uri(curve_png(curve)), f"learning curve: {words}", words)


def _iteration(row: Mapping[str, Any]) -> int:
    return int(row["iteration"])


def ablation_picture(metrics: Metrics) -> Picture | None:
    """The ablation's variants as dots with intervals."""
    rows = [row for row in metrics.get("ablation", {}).get("rows", []) if defined(row.get("miou"))]
    if not rows:
        return None
    best = max(rows, key=lambda row: row["miou"])
    words = f"{len(rows)} variants; the best is {best.get('name')} with mIoU {number(best['miou'])}"
    return Picture(png_data_uri(ablation_png(metrics)), f"ablation as dots with intervals: {words}", words)


def knowledge_picture(view: ReportView) -> Picture | None:
    """The map of descriptions, attributes and classes."""
    texts = view.knowledge_map
    if texts is None:
        return None
    counts = f"{len(texts.classes)} classes, {len(texts.descriptions)} descriptions, {len(texts.attributes)} attributes"
    words = f"{counts}; two components hold {100 * sum(texts.explained):.0f} % of the descriptions' variance"
    return Picture(png_data_uri(knowledge_png(texts, view.class_names)), f"map of the knowledge base: {words}", words)


def confusion_picture(counts: Counts, names: Sequence[str], key: str) -> Picture:
    """The confusion matrix of result `key`, as a chart with the three largest confusions in words."""
    worst = [f"{truth} taken for {predicted} {share}" for truth, predicted, share in largest_confusions(counts, names, 3)]
    alt = f"confusion matrix of {key}, {len(names)} classes; largest confusions: {'; '.join(worst) or 'none'}"
    return Picture(png_data_uri(confusion_png(counts, names)), alt, f"{len(names)} classes")


MARKDOWN_SIZE = PictureSize(side=176, quality=74, webp=True)
PAGE_IMAGES = 3  # of a gallery in the Prefect UI, and as many segmented ones: the first, the last and one between
PICTURES_PER_ROW = 4  # of the Markdown tables; more are cut off in the UI
RESERVED_BYTES = 500  # of a page, for the line that counts the images left out


def gallery_markdown(view: ReportView, where: str, max_bytes: int) -> str:
    """A page for the Prefect UI in at most `max_bytes`: `where` more is to be found, in Markdown, headline numbers and small
    pictures in tables, of PAGE_IMAGES images of each kind. What is left out is counted at the end."""
    blocks = [f"# {markdown_text(view.title)}\n", f"{where}\n"]
    blocks += [f"* **{miou}** mIoU: {markdown_text(note)}" for miou, note in _headlines(view)]
    blocks += [f"* not scored: {markdown_text(f'{k}: {v}')}" for k, v in view.metrics.get("skipped", {}).items()]
    blocks += [f"* warning: {markdown_text(f'{k} {v}')}" for k, v in view.metrics.get("warnings", {}).items()]
    if view.given_segmenter:
        blocks.append(f"* nothing was trained: the segmenter comes from {markdown_text(view.given_segmenter)}")
    names = ", ".join(f"{value} {name}" for value, name in enumerate(view.class_names, start=1))
    blocks.append(f"\nNumbers in the pictures are classes: {markdown_text(names)}.\n")
    bytes_left = max_bytes - RESERVED_BYTES - sum(len(part.encode()) + 1 for part in blocks)
    drawn = 0
    for block in chain(_gallery_blocks(view, _spread(view.gallery)), _segmented_blocks(view, _spread(view.segmented))):
        bytes_left -= len(block.encode()) + 1
        if bytes_left < 0:
            break
        blocks.append(block)
        drawn += 1
    total = len(view.gallery) + len(view.segmented)
    if drawn < total:
        blocks.append(f"{total - drawn} more images are in the report.")
    return "\n".join(blocks) + "\n"


def _headlines(view: ReportView) -> list[tuple[str, str]]:
    """(mIoU, protocol) of each headline result."""
    results = (view.metrics["results"][key] for key in headline_keys(view.metrics))
    return [(miou_text(result), protocol_text(result.get("protocol", {}))) for result in results]


def _spread(items: Sequence[Item]) -> list[Item]:
    """PAGE_IMAGES of the items, evenly from first to last: of ranked ones, the best, the median and the worst."""
    if len(items) <= PAGE_IMAGES:
        return list(items)
    return [items[round(n * (len(items) - 1) / (PAGE_IMAGES - 1))] for n in range(PAGE_IMAGES)]


def _gallery_blocks(view: ReportView, items: Sequence[GalleryItem]) -> Iterator[str]:
    for item in items:
        image, *groups = gallery_groups(item, view.class_names, MARKDOWN_SIZE)
        if item.cams:  # they share a row with the image
            image, groups = PictureGroup("", image.pictures + groups[0].pictures), groups[1:]
        rows = [_picture_table(image.pictures), *(_picture_table(group.pictures, group.title) for group in groups)]
        yield "\n".join([_title(item, ", ".join(item.labels)), *rows])


def _segmented_blocks(view: ReportView, items: Sequence[SegmentedItem]) -> Iterator[str]:
    for item in items:
        pictures = segmented_pictures(item, view.class_names, MARKDOWN_SIZE)
        yield f"{_title(item, 'segmented')}\n{_picture_table(pictures)}"


def _title(item: GalleryItem | SegmentedItem, description: str) -> str:
    """A heading with the image's id, a description, and why it is shown."""
    rank = f" ({item.rank})" if item.rank else ""
    return f"## {markdown_text(f'{item.id}: {description}{rank}')}\n"


def _picture_table(pictures: tuple[Picture, ...], title: str = "") -> str:
    """Captions over pictures, PICTURES_PER_ROW in a row."""
    rows = []
    for start in range(0, len(pictures), PICTURES_PER_ROW):
        row = pictures[start : start + PICTURES_PER_ROW]
        captions = " | ".join(markdown_text(picture.caption) for picture in row)
        images = " | ".join(f"![{markdown_text(picture.alt)}]({picture.uri})" for picture in row)
        rows.append(f"| {captions} |\n| {' | '.join(['---'] * len(row))} |\n| {images} |\n")
    return "\n".join([f"{markdown_text(title)}\n", *rows] if title else rows)
