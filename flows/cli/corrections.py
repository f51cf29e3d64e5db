"""`excel import`: labels and masks that were corrected in another tool become a data set."""

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["import_labels"]

MAX_NAMED = 10  # images without mask, or left out, that the terminal names; import.json names all


def import_labels(
    file: Annotated[Path, typer.Argument(help="CVAT's XML or zip, or Label Studio's JSON")],
    file_format: Annotated[str, typer.Option("--format", help="cvat, label-studio")],
    out: Annotated[Path, typer.Option(help="folder to write; it must be empty or not there yet")],
    photos: Annotated[
        Path | None,
        typer.Option(help="folder or zip of the photos; default: in FILE, or images/ beside it", show_default=False),
    ] = None,
    classes: Annotated[
        str | None,
        typer.Option(help="voc, coco or a class FILE (.yaml): the valid labels, in this order; default: those in FILE"),
    ] = None,
    predictions: Annotated[
        bool, typer.Option("--predictions", help="take Label Studio's pre-annotations where nobody annotated")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="replace an earlier import in --out")] = False,
) -> None:
    """Make a data set of labels and masks that people corrected in CVAT or Label Studio, for `excel run photos --data OUT`."""
    from tasks.photos.import_labels import ImportRequest
    from tasks.photos.import_labels import import_labels as import_file

    imported = import_file(ImportRequest(file, file_format, photos, classes, predictions, force), out)
    classes_found = ", ".join(imported["class_names"])
    print(f"{imported['photos']} photos with labels, {imported['masks']} of them with masks; classes: {classes_found}")
    if imported["shrunk"]:
        print(f"{imported['shrunk']} photos and their masks were shrunk to the side at which `excel run photos` works")
    for key, title in (("left_out", "left out"), ("without_mask", "no mask")):
        for name, reason in list(imported[key].items())[:MAX_NAMED]:
            print(f"{title}: {name}: {reason}")
        if len(imported[key]) > MAX_NAMED:
            print(f"{title}: {len(imported[key]) - MAX_NAMED} more, in import.json")
    print(out)
