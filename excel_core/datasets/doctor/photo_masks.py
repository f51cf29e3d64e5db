"""The masks beside a folder of photos: whether they can be scored as a run reads photos, and hold the folder's classes."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from excel_core.datasets.doctor.checks import Check, Progress, check_failures
from excel_core.datasets.folder import folder_decode_options
from excel_core.datasets.manifest import ListedImage
from excel_core.datasets.masks import NO_CLASS, folder_mask_reader, holds_no_class
from excel_core.datasets.palette import IGNORE, values_used
from excel_core.errors import DataError, ImageError

__all__ = ["examine_masks"]

ADVICE = {
    "masks fit their photos": "scores would end the run: draw them on the photos as viewers show them",
    "mask values": "labels are 0 to the number of classes, in the order of the classes here, and 255",
    "masks hold classes": NO_CLASS,
}


def examine_masks(
    root: Path,
    listed: Sequence[ListedImage],
    class_names: Sequence[str],
    max_side: int | None,
    threads: int,
    progress: Progress,
) -> list[Check]:
    """Decode every photo of which there is a mask, as a run does, and its mask → checks; none where there is no mask."""
    reader = folder_mask_reader(root, "", tuple(class_names))
    masked = [row for row in listed if reader.has(row.id)]
    failures: dict[str, list[str]] = {name: [] for name in ADVICE}

    def look(row: ListedImage) -> tuple[str, str] | None:
        try:
            height, width, _ = folder_decode_options(max_side).read(root / row.image).shape
        except ImageError:
            return None  # another check says it
        try:
            mask = reader.read(row.id, height, width)
        except DataError as error:
            return "masks fit their photos", f"{row.id}: {error}"
        odd = [value for value in values_used(mask).tolist() if len(class_names) < value < IGNORE]
        if odd:
            return "mask values", f"{row.id}: {odd[0]}"
        return ("masks hold classes", row.id) if holds_no_class(mask) else None

    with ThreadPoolExecutor(threads) as pool:
        for done, failure in enumerate(pool.map(look, masked), start=1):
            if failure is not None:
                failures[failure[0]].append(failure[1])
            progress(done)
    return [check_failures(name, failures[name], len(masked), advice, "warning") for name, advice in ADVICE.items() if masked]
