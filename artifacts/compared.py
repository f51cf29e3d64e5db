"""What methods make of the same images: a row of pictures an image, photo and truth, then a column a method. As parts of the
benchmark's page, and as one sheet for the Prefect UI."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from artifacts.drawing import fit_image, fit_labels, overlay_labels
from artifacts.drawing.sheet import Panel, Paragraph, SheetRow, draw_sheet
from artifacts.gallery import ItemPictures, Picture, PictureSize
from artifacts.view import ComparedItem, Labels

__all__ = ["NOTHING", "ComparedRow", "compared_rows", "compared_sheet"]

NOTHING = "not trained"  # in the cell of a method that has no such label map
SHEET_SIDE = 300  # pixels, of a picture before it is drawn in its column


@dataclass(frozen=True)
class ComparedRow:
    """A row of the gallery: the image's id, why it is shown, what the row's label maps are, and a cell a column; None: there is
    none."""

    id: str
    remark: str
    caption: str
    cells: tuple[Picture | None, ...]


def compared_rows(items: Sequence[ComparedItem], class_names: Sequence[str], size: PictureSize) -> list[ComparedRow]:
    """A row for each image and kind of label map: photo, truth, and each method's in order, the image's own mIoU below those
    that it is of."""
    rows = []
    for item in items:
        image = fit_image(item.image, size.side)
        draw = ItemPictures(item.id, image, class_names, size)
        photo = Picture(draw.encode(image), f"image {item.id}", "")
        truth = None if item.truth is None else replace(draw.labels(item.truth, "truth"), caption="")
        for place, caption in enumerate(_captions(item)):
            cells: list[Picture | None] = [photo, truth]
            for method, maps in item.methods.items():
                words = _words(item.miou, method, place)
                drawn = draw.labels(maps[caption], f"{method}, {caption}") if caption in maps else None
                cells.append(drawn and replace(drawn, caption=words))
            rows.append(ComparedRow(item.id, "" if place else item.remark, caption, tuple(cells)))
    return rows


def compared_sheet(items: Sequence[ComparedItem], notes: Sequence[str]) -> bytes:
    """The same as one PNG."""
    rows = []
    for item in items:
        for place, caption in enumerate(_captions(item)):
            panels = [Panel(fit_image(item.image, SHEET_SIDE)), _panel(item, item.truth, "")]
            panels += [
                _panel(item, maps.get(caption), _words(item.miou, method, place)) for method, maps in item.methods.items()
            ]
            rows.append(SheetRow(f"{item.id}: {caption}", "" if place else item.remark, tuple(panels)))
    return draw_sheet(["photo", "truth", *items[0].methods], rows, [], notes)


def _captions(item: ComparedItem) -> list[str]:
    """Kinds of label maps that some method has of the image, in order."""
    return list(dict.fromkeys(caption for maps in item.methods.values() for caption in maps))


def _words(miou: Mapping[str, float], method: str, place: int) -> str:
    """The image's own mIoU, below the first kind of label map, which it is of."""
    return f"mIoU {miou[method]:.2f}" if place == 0 and method in miou else ""


def _panel(item: ComparedItem, labels: Labels | None, words: str) -> Panel:
    if labels is None:
        return Panel(None, (Paragraph(NOTHING, faint=True),))
    picture = overlay_labels(fit_image(item.image, SHEET_SIDE), fit_labels(labels, SHEET_SIDE))
    return Panel(picture, (Paragraph(words, faint=True),) if words else ())
