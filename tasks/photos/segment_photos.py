"""Photos in, masks out: a palette PNG, an overlay and, where asked for, the steps of each photo, and photos.json over all.

NAME.png            the mask, of the size of the upright photo: 0 background, i + 1 class i
NAME_overlay.png    the photo with its masks and a legend
NAME_steps.png      what each step of the refinement made of it
photos.json         excel-photos/1: classes; of each photo its size, shares and files, or why it was skipped
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from artifacts.overlay import class_shares, draw_overlay, draw_steps
from excel_core.datasets.images import DecodeOptions, shrink_image
from excel_core.datasets.palette import save_labels_png
from excel_core.errors import ImageError, SettingError
from excel_core.files import write_json, written_then_renamed
from excel_core.prediction.photos import Photo, enlarge_labels, find_photos
from excel_core.prediction.predictors import Predictor
from tasks.engine.progress import Counter, track

__all__ = ["Result", "photos_of", "segment_photos"]

PHOTOS_FORMAT = "excel-photos/1"
ENDINGS = (".png", "_overlay.png", "_steps.png")
SUMMARY = "photos.json"


@dataclass(frozen=True)
class Result:
    """What became of a photo: height and width, share of its pixels a class, the files made; or the `error` that it was
    skipped for."""

    photo: Path
    size: tuple[int, int] = (0, 0)
    shares: dict[str, float] = field(default_factory=dict)
    files: tuple[Path, ...] = ()
    error: str = ""

    def to_json(self) -> dict[str, Any]:
        """Plain data for photos.json."""
        if self.error:
            return {"photo": str(self.photo), "error": self.error}
        height, width = self.size
        files = [path.name for path in self.files]
        return {"photo": str(self.photo), "height": height, "width": width, "shares": self.shares, "files": files}


def photos_of(places: Sequence[Path], out: Path, force: bool) -> list[Photo]:
    """The photos to segment. SettingError where a result would replace a photo, or an older file without `force`."""
    if out.exists() and not out.is_dir():
        raise SettingError(f"--out {out}: is a file; name a folder")
    photos = find_photos(places, ENDINGS)
    inputs = {photo.path.resolve() for photo in photos}
    for name in (*(f"{photo.name}{ending}" for photo in photos for ending in ENDINGS), SUMMARY):
        if (out / name).resolve() in inputs:
            raise SettingError(f"--out {out}: {name} would replace the photo itself; name another folder")
        if not force and (out / name).exists():
            raise SettingError(f"--out {out}: {name} is there already; name another folder, or replace it by --force")
    return photos


def segment_photos(photos: Sequence[Photo], predictor: Predictor, out: Path, side: int, steps: bool = False) -> list[Result]:
    """Segment each photo, computed at no more than `side` pixels a side, and write its files and photos.json. A photo that
    cannot be read is skipped with its reason."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SettingError(f"--out {out}: cannot be made ({error.strerror}); name another folder") from error
    with Counter("segment", len(photos)):
        results = [_segmented(photo, predictor, out, side, steps) for photo in track(photos)]
    description = {"format": PHOTOS_FORMAT, "class_names": list(predictor.class_names), "notes": list(predictor.notes)}
    write_json(out / SUMMARY, description | {"photos": [result.to_json() for result in results]})
    return results


def _segmented(photo: Photo, predictor: Predictor, out: Path, side: int, steps: bool) -> Result:
    try:
        image = DecodeOptions(upright=True).read(photo.path)
    except ImageError as error:
        return Result(photo.path, error=str(error))
    size, names = image.shape[:2], predictor.class_names
    maps = {step: enlarge_labels(labels, size) for step, labels in predictor.predict(shrink_image(image, side)).items()}
    labels = list(maps.values())[-1]
    mask, overlay, stepped = (out / f"{photo.name}{ending}" for ending in ENDINGS)
    save_labels_png(mask, labels)
    _save(overlay, draw_overlay(image, labels, names))
    if steps:
        _save(stepped, draw_steps(image, maps, names))
    files = (mask, overlay, *([stepped] if steps else []))
    return Result(photo.path, (image.shape[0], image.shape[1]), class_shares(labels, names), files)


def _save(path: Path, picture: np.ndarray) -> None:
    with written_then_renamed(path) as temporary:
        Image.fromarray(picture).save(temporary, format="PNG")
