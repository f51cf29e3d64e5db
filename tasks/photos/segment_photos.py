"""Photos in, masks out: a palette PNG, an overlay and, where asked for, the steps of each photo, and photos.json over all.

NAME.png            the mask, of the size of the upright photo: 0 background, i + 1 class i
NAME_overlay.png    the photo with its masks and a legend
NAME_steps.png      what each step of the refinement made of it
photos.json         excel-photos/1: classes; of each photo its size, shares, doubts and files, or why it was skipped; what was
                    left out
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from artifacts.drawing.photo_masks import class_shares, draw_overlay, draw_steps
from excel_core.datasets.images import DecodeOptions
from excel_core.datasets.palette import save_labels_png
from excel_core.datasets.photo_files import printable
from excel_core.errors import ExcelError, ImageError, SettingError
from excel_core.files import first_sentence, write_json, written_then_renamed
from excel_core.prediction.photos import Photo, enlarge_labels, find_photos, shrink_photo
from excel_core.prediction.predictors import Predictor
from tasks.engine.progress import Counter, track

__all__ = ["Result", "photos_of", "segment_photos"]

PHOTOS_FORMAT = "excel-photos/1"
ENDINGS = (".png", "_overlay.png", "_steps.png")
SUMMARY, ROOM = "photos.json", ".photos.json.room"
SUMMARY_BYTES = 2048  # of an entry: two long paths and their escapes


@dataclass(frozen=True)
class Result:
    """What became of a photo: height and width, share of its pixels a class, why a class is doubtful, the files made; or the
    `error` that it was skipped for."""

    photo: Path
    size: tuple[int, int] = (0, 0)
    shares: dict[str, float] = field(default_factory=dict)
    files: tuple[Path, ...] = ()
    error: str = ""
    doubts: dict[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Plain data for photos.json."""
        photo = printable(self.photo)
        if self.error:
            return {"photo": photo, "error": self.error}
        height, width = self.size
        files = [path.name for path in self.files]
        document = {"photo": photo, "height": height, "width": width, "shares": self.shares, "files": files}
        return document | ({"doubts": self.doubts} if self.doubts else {})


def photos_of(places: Sequence[Path], out: Path, force: bool) -> list[Photo]:
    """The photos to segment. SettingError where a result would replace a photo, or an older file without `force`."""
    if out.exists() and not out.is_dir():
        raise SettingError(f"--out {out}: is a file; name a folder")
    photos = find_photos(places, ENDINGS)
    inputs = {os.path.realpath(photo.path) for photo in photos}  # unlike resolve(), it bears links that lead in a circle
    for name in (*(f"{photo.name}{ending}" for photo in photos for ending in ENDINGS), SUMMARY):
        if os.path.realpath(out / name) in inputs:
            raise SettingError(f"--out {out}: {name} would replace the photo itself; name another folder")
        if not force and (out / name).exists():
            raise SettingError(f"--out {out}: {name} is there already; name another folder, or replace it by --force")
    return photos


def segment_photos(
    photos: Sequence[Photo],
    predictor: Predictor,
    out: Path,
    side: int,
    steps: bool = False,
    left_out: Sequence[Path] = (),
) -> list[Result]:
    """Segment each photo, computed at no more than `side` pixels a side, and write its files and photos.json, which also names
    what was `left_out`. A photo that cannot be read, computed or written is skipped with its reason; whatever ends the work,
    photos.json says how far it came. SettingError where nothing can be written into `out`."""
    results: list[Result] = []
    with _room_for_summary(out, len(photos) + len(left_out), len(predictor.class_names)):
        try:
            with Counter("segment", len(photos)):
                for photo in track(photos):
                    results.append(_segmented(photo, predictor, out, side, steps))
        finally:
            missing = [Result(photo.path, error="not done: the command was stopped before") for photo in photos[len(results) :]]
            (out / ROOM).unlink(missing_ok=True)
            _write_summary(out, predictor, [*results, *missing], left_out)
    return results


@contextmanager
def _room_for_summary(out: Path, entries: int, classes: int) -> Iterator[None]:
    """A file that keeps room for photos.json on the disk, so that it can be written on one that results have filled."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        (out / ROOM).write_bytes(bytes((1 + entries) * (SUMMARY_BYTES + 64 * classes)))
    except OSError as error:
        with suppress(OSError):
            (out / ROOM).unlink(missing_ok=True)
        raise SettingError(f"--out {out}: cannot be written ({error.strerror}); make room, or name another folder") from error
    try:
        yield
    finally:
        (out / ROOM).unlink(missing_ok=True)


def _write_summary(out: Path, predictor: Predictor, results: Sequence[Result], left_out: Sequence[Path]) -> None:
    description = {"format": PHOTOS_FORMAT, "class_names": list(predictor.class_names)}
    description |= {"notes": [*predictor.warnings, *predictor.notes], "left_out": [printable(path) for path in left_out]}
    write_json(out / SUMMARY, description | {"photos": [result.to_json() for result in results]})


def _segmented(photo: Photo, predictor: Predictor, out: Path, side: int, steps: bool) -> Result:
    """The photo's files and what they show; or why there are none, whatever went wrong: the next photo may be fine."""
    files = tuple(out / f"{photo.name}{ending}" for ending in (ENDINGS if steps else ENDINGS[:2]))
    try:
        return _segment(photo, predictor, files, side)
    except Exception as error:
        for path in files:  # of a photo there are all results or none
            with suppress(OSError):
                path.unlink(missing_ok=True)
        return Result(photo.path, error=_reason(error))


def _segment(photo: Photo, predictor: Predictor, files: tuple[Path, ...], side: int) -> Result:
    if photo.problem:
        raise ImageError(f"{printable(photo.path.name)}: {photo.problem}")
    image = DecodeOptions(upright=True).read(photo.path)
    size, names = image.shape[:2], predictor.class_names
    prediction = predictor.look(shrink_photo(image, side))
    maps = {step: enlarge_labels(labels, size) for step, labels in prediction.steps.items()}
    labels = list(maps.values())[-1]
    mask, overlay, *stepped = files
    save_labels_png(mask, labels)
    _save(overlay, draw_overlay(image, labels, names))
    for path in stepped:
        _save(path, draw_steps(image, maps, names))
    shares = class_shares(labels, names)
    doubts = {name: reason for name, reason in prediction.doubts.items() if name in shares}
    return Result(photo.path, (image.shape[0], image.shape[1]), shares, files, doubts=doubts)


def _reason(error: Exception) -> str:
    """An error as the reason that a person reads."""
    if isinstance(error, OSError):
        return f"its results cannot be written ({error.strerror or error})"
    if isinstance(error, MemoryError):
        return "it takes more memory than there is; lower --side"
    text = str(error) if isinstance(error, ExcelError) else f"{type(error).__name__}: {first_sentence(error)}"
    return printable(text)


def _save(path: Path, picture: np.ndarray) -> None:
    with written_then_renamed(path) as temporary:
        Image.fromarray(picture).save(temporary, format="PNG")
