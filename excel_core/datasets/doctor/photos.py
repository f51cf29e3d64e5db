"""A folder of one's own photos: what a run takes of it, what it leaves out and why, and photos that cannot be read."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from excel_core.config import DatasetSpec
from excel_core.datasets.doctor.checks import MAX_EXAMPLES, Check, Progress, check_failures, look_at_image
from excel_core.datasets.doctor.photo_masks import examine_masks
from excel_core.datasets.folder import list_folder
from excel_core.datasets.left_out import LeftOut, left_out_of_folder
from excel_core.datasets.manifest import ListedImage, image_digest, max_bad_images
from excel_core.datasets.photo_files import printable
from excel_core.errors import DataError, ImageError
from excel_core.text.class_sets import known_descriptions

__all__ = ["examine_photos"]

MAX_CLASSES_SHOWN = 10
COPIES = "one photo has all of its classes and is in one split: keep one row of it, or one name in all of its class folders"
DESCRIPTIONS = (
    "write classes.json beside the photos, or let a language model write them: --set describe.provider=openai (docs/data.md)"
)


def examine_photos(
    root: Path,
    class_names: Sequence[str],
    spec: DatasetSpec,
    *,
    quick: bool = False,
    progress: Progress = lambda done: None,
    threads: int = 8,
) -> list[Check]:
    """Look at every photo that a run with `spec` takes of the folder → checks, in the order to show them. `quick` reads headers
    alone."""
    try:
        listed = [row for row in list_folder(root, class_names, spec.test_splits) if row.split in spec.settings_of_splits]
        left_out = left_out_of_folder(root, spec, class_names)
    except DataError as error:
        return [Check("photos", "problem", "a run refuses the folder", (), str(error))]
    counts = {name: sum(name in row.labels for row in listed) for name in class_names}
    shown = ", ".join(f"{name} {count:,}" for name, count in list(counts.items())[:MAX_CLASSES_SHOWN])
    more = f" and {len(counts) - MAX_CLASSES_SHOWN} more" if len(counts) > MAX_CLASSES_SHOWN else ""
    return [
        _count(listed),
        Check("photos by class", "ok", shown + more),
        *_left_out(left_out),
        _unlabelled(listed, spec.max_bad),
        _damaged(root, listed, spec.max_bad, quick, progress, threads),
        *([] if quick else [_copies(root, listed, threads)]),
        _described(root, class_names),
        *([] if quick else examine_masks(root, listed, class_names, spec.max_side, threads, progress)),
    ]


def _count(listed: Sequence[ListedImage]) -> Check:
    if listed:
        return Check("photos", "ok", f"{len(listed):,}")
    return Check("photos", "problem", "none", (), "no photo is in a split of the run; add some")


def _left_out(things: Sequence[LeftOut]) -> list[Check]:
    """A warning for each reason for which something is left out."""
    by_reason: dict[str, list[str]] = {}
    for thing in things:
        by_reason.setdefault(thing.reason, []).append(thing.what)
    checks = [
        Check("left out", "warning", f"{len(names):,}", tuple(map(printable, names[:MAX_EXAMPLES])), reason)
        for reason, names in by_reason.items()
    ]
    return checks or [Check("left out", "ok", "nothing")]


def _unlabelled(listed: Sequence[ListedImage], max_bad: float) -> Check:
    return _skipped("labels", [row.image for row in listed if row.problem], len(listed), max_bad)


def _damaged(root: Path, listed: Sequence[ListedImage], max_bad: float, quick: bool, progress: Progress, threads: int) -> Check:
    failures = []
    with ThreadPoolExecutor(threads) as pool:
        problems = pool.map(lambda row: _problem(root, row.image, quick), listed)
        for done, (row, problem) in enumerate(zip(listed, problems, strict=True), start=1):
            if problem:
                failures.append(f"{row.image}: {problem}")
            progress(done)
    return _skipped("damaged files", failures, len(listed), max_bad)


def _copies(root: Path, listed: Sequence[ListedImage], threads: int) -> Check:
    """Photos of the same bytes under several names: each would be learnt with its own labels, or scored after it was learnt."""
    with ThreadPoolExecutor(threads) as pool:
        digests = list(pool.map(lambda row: image_digest(root / row.image), listed))
    first_of_digest: dict[str, ListedImage] = {}
    copies = []
    for row, digest in zip(listed, digests, strict=True):
        original = first_of_digest.setdefault(digest or row.image, row)
        if original is not row:
            copies.append(f"{row.image} is {original.image}")
    return check_failures("photos are there once", copies, len(listed), COPIES, "warning")


def _skipped(name: str, failures: Sequence[str], total: int, max_bad: float) -> Check:
    """A check of photos that a run skips, as long as they are not too many."""
    if len(failures) > max_bad_images(total, max_bad):
        return check_failures(name, failures, total, "more than dataset.max_bad tolerates; repair them or take them out")
    return check_failures(name, failures, total, "a run skips them", "warning")


def _problem(root: Path, image: str, quick: bool) -> str:
    try:
        look_at_image(root, image, quick)
    except (ImageError, OSError) as error:
        return str(error).removeprefix(f"{Path(image).name}: ")
    return ""


def _described(root: Path, class_names: Sequence[str]) -> Check:
    """Whether excel knows every class by name, or the folder describes them."""
    known = class_names if (root / "classes.json").is_file() else known_descriptions(class_names, 1)
    unknown = [name for name in class_names if name not in known]
    return check_failures("descriptions", unknown, len(class_names), DESCRIPTIONS, "warning")
