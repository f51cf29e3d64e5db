"""The gallery as a Markdown page for the Prefect UI: small pictures in tables, as many images as fit an artifact."""

from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from artifacts.gallery import Picture, PictureGroup, PictureSize, gallery_groups, segmented_pictures
from artifacts.rows import markdown_text
from artifacts.tables import headline_keys, miou_text, protocol_text
from artifacts.view import GalleryItem, ReportView, SegmentedItem

__all__ = ["gallery_markdown"]

SIZE = PictureSize(side=176, quality=70)
COLUMNS = 4  # pictures in a row of the Markdown tables; more are cut off in the UI


def gallery_markdown(view: ReportView, report: Path, most: int) -> str:
    """The page in at most `most` bytes; images that would not fit are left out, and said."""
    parts = [f"# {markdown_text(view.title)}\n", f"The full report: `{str(report).replace('`', '')}`\n"]
    parts += [f"* **{found}** mIoU: {markdown_text(note)}" for found, note in _headlines(view)]
    parts += [f"* not scored: {markdown_text(f'{k}: {v}')}" for k, v in view.metrics.get("skipped", {}).items()]
    if view.given_segmenter:
        parts.append(f"* nothing was trained: the segmenter comes from {markdown_text(view.given_segmenter)}")
    names = ", ".join(f"{value} {name}" for value, name in enumerate(view.class_names, start=1))
    parts.append(f"\nNumbers in the pictures are classes: {markdown_text(names)}.\n")
    left = most - 500 - sum(len(part.encode()) + 1 for part in parts)
    shown = 0
    for block in chain(_gallery_blocks(view), _segmented_blocks(view)):
        left -= len(block.encode()) + 1
        if left < 0:
            break
        parts.append(block)
        shown += 1
    total = len(view.gallery) + len(view.segmented)
    if shown < total:
        parts.append(f"{total - shown} more images are in the report.")
    return "\n".join(parts) + "\n"


def _headlines(view: ReportView) -> list[tuple[str, str]]:
    """(mIoU, protocol) of each headline result."""
    found = (view.metrics["results"][key] for key in headline_keys(view.metrics))
    return [(miou_text(result), protocol_text(result.get("protocol", {}))) for result in found]


def _gallery_blocks(view: ReportView) -> Iterator[str]:
    for item in view.gallery:
        image, *groups = gallery_groups(item, view.class_names, SIZE)
        if item.cams:
            image, groups = PictureGroup("", image.pictures + groups[0].pictures), groups[1:]
        rows = [_picture_table(image.pictures), *(_picture_table(group.pictures, group.title) for group in groups)]
        yield "\n".join([_title(item, ", ".join(item.labels)), *rows])


def _segmented_blocks(view: ReportView) -> Iterator[str]:
    for item in view.segmented:
        pictures = segmented_pictures(item, view.class_names, SIZE)
        yield f"{_title(item, 'segmented')}\n{_picture_table(pictures)}"


def _title(item: GalleryItem | SegmentedItem, what: str) -> str:
    """The image, what it holds or is, and why it is shown."""
    rank = f" ({item.rank})" if item.rank else ""
    return f"## {markdown_text(f'{item.id}: {what}{rank}')}\n"


def _picture_table(pictures: tuple[Picture, ...], title: str = "") -> str:
    """Captions over pictures, COLUMNS in a row."""
    rows = []
    for start in range(0, len(pictures), COLUMNS):
        row = pictures[start : start + COLUMNS]
        captions = " | ".join(markdown_text(picture.caption) for picture in row)
        shown = " | ".join(f"![{markdown_text(picture.alt)}]({picture.uri})" for picture in row)
        rows.append(f"| {captions} |\n| {' | '.join(['---'] * len(row))} |\n| {shown} |\n")
    return "\n".join([f"{markdown_text(title)}\n", *rows] if title else rows)
