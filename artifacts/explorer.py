"""The data of the explorer: a row of scores for each image, and what is drawn of it, as JSON that its script reads.

`rows` (excel-explorer/1) lies in the page. The pictures of an image lie there too, or beside it as images/N.json with a drawn
picture images/N.webp, where there are more than MAX_INLINE_IMAGES. Arrays are zlib in base64, exact where a picture's pixels
would pass through a browser's colours:

    photo            WebP, of the size `width` x `height`; null where the run beside this one has it
    maps, truth      uint8 (height, width): 0 background, c+1 class c, 255 ignore, by nearest value
    cams             uint8 (h, w) of the patch grid: 255 times the CAM
"""

import base64
import io
import json
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from numpy.typing import NDArray
from PIL import Image

from artifacts.drawing import STEP_NAMES, overlay_labels
from artifacts.view import Cam, ExploredArrays, ExploredImage, ExploredRun, Labels, Pixels
from excel_core.datasets.palette import VOC_PALETTE
from excel_core.files import written_then_renamed

__all__ = ["MAX_INLINE_IMAGES", "Explorer", "kind_title", "raw_threshold", "write_explorer"]

MAX_INLINE_IMAGES = 300  # a page of more would be tens of MB
INLINE_SIDE, BESIDE_SIDE = 320, 500  # pixels of the longer side: in the page, and beside it
PHOTO_QUALITY = 72
FAMILY_NAMES = {"static": "CAM seed", "lvc": "CAM seed with LVC", "segmentation": "segmentation"}
VARIANT_NAMES = {"single_scale": "single scale", "multi_scale": "multi-scale", "multi_scale_crf": "multi-scale + CRF"}


@dataclass(frozen=True)
class Explorer:
    """`rows` and `pictures` as JSON texts; `beside`: the pictures lie beside the page."""

    rows: str
    pictures: tuple[str, ...]
    beside: bool


def write_explorer(folder: Path, run: ExploredRun) -> Explorer | None:
    """The explorer of a page in `folder`; writes `folder`/images where the page cannot hold them. None without images."""
    if not run.images:
        return None
    beside = len(run.images) > MAX_INLINE_IMAGES
    side = BESIDE_SIDE if beside else INLINE_SIDE
    pictures = []
    for number, image in enumerate(run.images):
        arrays = image.load()
        text = _dump(_pictures(arrays, side, run.photos))
        if beside:
            _write_beside(folder / "images", number, image, arrays, text)
        else:
            pictures.append(text)
    document = {
        "format": "excel-explorer/1",
        "title": run.title,
        "name": run.name,
        "classes": ["background", *run.class_names],
        "palette": VOC_PALETTE[: len(run.class_names) + 1].tolist(),
        "heat": _base64((colormaps["inferno"](np.linspace(0, 1, 256))[:, :3] * 255).round().astype(np.uint8).tobytes()),
        "kinds": {kind: kind_title(kind) for image in run.images for kind in image.scores},
        "threshold": raw_threshold(run.background_power),
        "beside": beside,
        "images": [_row(image) for image in run.images],
    }
    return Explorer(_dump(document), tuple(pictures), beside)


def kind_title(kind: str) -> str:
    """`lvc.crf` → `CAM seed with LVC: + CRF`."""
    family, _, step = kind.partition(".")
    return f"{FAMILY_NAMES.get(family, family)}: {STEP_NAMES.get(step) or VARIANT_NAMES.get(step) or step.replace('_', ' ')}"


def raw_threshold(power: float) -> float:
    """The CAM in [0, 1] above which `raw` takes a class for more than background: where (1 - cam)^power = cam."""
    low, high = 0.0, 1.0
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if (1 - middle) ** power > middle else (low, middle)
    return round(high, 4)


def _row(image: ExploredImage) -> dict[str, Any]:
    """What the cards show without a picture; classes by label value."""
    scores: dict[str, Any] = {}
    for kind, score in image.scores.items():
        scores[kind] = score and {
            "iou": score.iou,
            "classes": {str(value): round(iou, 6) for value, iou in score.classes.items()},
            "missed": list(score.missed),
            "false": list(score.false),
        }
    return {"id": image.id, "split": image.split, "labels": [c + 1 for c in image.classes], "scores": scores}


def _pictures(arrays: ExploredArrays, side: int, with_photo: bool) -> dict[str, Any]:
    photo = _shrunk(arrays.image, side)
    height, width = photo.shape[:2]
    return {
        "width": width,
        "height": height,
        "photo": _webp(photo) if with_photo else None,
        "maps": {kind: _packed(_shrunk_labels(labels, side)) for kind, labels in arrays.maps.items()},
        "truth": None if arrays.truth is None else _packed(_shrunk_labels(arrays.truth, side)),
        "cams": [
            {"value": c + 1, "height": cam.shape[0], "width": cam.shape[1], "cam": _packed(_eight_bits(cam))}
            for c, cam in arrays.cams.items()
        ],
    }


def _shrunk(image: Pixels, side: int) -> Pixels:
    """image (H, W, 3) → longer side at most `side`."""
    return np.asarray(Image.fromarray(image).resize(_size(image, side), Image.Resampling.BICUBIC))


def _shrunk_labels(labels: Labels, side: int) -> Labels:
    return np.asarray(Image.fromarray(labels).resize(_size(labels, side), Image.Resampling.NEAREST))


def _size(array: NDArray[np.uint8], side: int) -> tuple[int, int]:
    """(H, W, …) → (width, height) of its picture."""
    factor = min(1.0, side / max(array.shape[:2]))
    return max(1, round(array.shape[1] * factor)), max(1, round(array.shape[0] * factor))


def _eight_bits(cam: Cam) -> NDArray[np.uint8]:
    """cam (h, w) in [0, 1], NaN as 0 → (h, w) uint8."""
    finite_cam = np.nan_to_num(np.asarray(cam, dtype=np.float32), nan=0.0, posinf=1.0, neginf=0.0)
    return np.rint(np.clip(finite_cam, 0, 1) * 255).astype(np.uint8)


def _write_beside(folder: Path, number: int, image: ExploredImage, arrays: ExploredArrays, text: str) -> None:
    """images/N.json, and images/N.webp: the photo with its last label map, for a page that may not read the other."""
    folder.mkdir(exist_ok=True)
    picture = _shrunk(arrays.image, INLINE_SIDE)
    last_step = next(reversed(image.scores), None)
    if last_step is not None:
        picture = overlay_labels(picture, _shrunk_labels(arrays.maps[last_step], INLINE_SIDE))
    for name, content in ((f"{number}.json", text.encode()), (f"{number}.webp", base64.b64decode(_webp(picture)))):
        with written_then_renamed(folder / name) as temporary:
            temporary.write_bytes(content)


def _webp(image: Pixels) -> str:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="WEBP", quality=PHOTO_QUALITY, method=4)
    return _base64(buffer.getvalue())


def _packed(values: NDArray[np.uint8]) -> str:
    return _base64(zlib.compress(np.ascontiguousarray(values).tobytes(), 9))


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")


def _dump(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
