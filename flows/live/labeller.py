"""Photos labelled one at a time, by class names alone or by trained weights, with the models kept between calls."""

import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from excel_core.config.presets import with_edits
from excel_core.datasets.images import ImageSource, load_image
from excel_core.errors import SettingError
from excel_core.prediction.photos import enlarge_labels, shrink_photo
from excel_core.prediction.predictors import Predictor, checked_classes, trained_predictor
from excel_core.text.class_sets import DATA_CLASSES
from excel_core.text.prompts import class_indices
from flows.request import RunRequest
from flows.settings import environment_to_look
from tasks.photos.trained import find_segmenter, training_free

__all__ = ["DEFAULT_THRESHOLD", "THRESHOLDS", "Labelled", "PhotoLabeller", "background_power", "labeller"]

Labels = NDArray[np.uint8]
DEFAULT_THRESHOLD = 0.5
THRESHOLDS = (0.05, 0.95)
KEPT_PREDICTORS = 8


def background_power(threshold: float) -> float:
    """`refine.background_power`: the p for which a CAM of `threshold` ties with the background's score (1 − CAM)^p."""
    low, high = THRESHOLDS
    if not low <= threshold <= high:
        raise SettingError(f"threshold {threshold}: expected a number from {low} to {high}")
    return math.log(threshold) / math.log1p(-threshold)


@dataclass(frozen=True)
class Labelled:
    """A photo's label maps (h, w) uint8 by step, the last one the result, as they were computed; size: height and width of the
    photo. class_names: of the label values 1, 2, …; values: the label value of each name that was asked for. doubts: by class,
    why its mask may be of something else; notes: what else to know of it."""

    steps: dict[str, Labels]
    size: tuple[int, int]
    class_names: tuple[str, ...]
    values: tuple[int, ...]
    doubts: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def labels(self, step: str | None = None) -> Labels:
        """The label map (H, W) of a step, by default the result, at the photo's size."""
        return enlarge_labels(self.steps[step or list(self.steps)[-1]], self.size)


class PhotoLabeller:
    """`look(image, names, threshold)`: image (H, W, 3) uint8 RGB → Labelled. weights: a run, a file of `excel export`, or None:
    the names alone. A lock lets one photo in at a time, since all callers share the models."""

    def __init__(self, request: RunRequest, weights: str | None = None, side: int = 640) -> None:
        self.request, self.side = request, side
        self.environment = environment_to_look(request)
        self.run = request.model_copy(update={"edits": {"dataset": {"prompts": DATA_CLASSES}}}).spec()
        self.trained = None
        if weights is not None:
            self.trained = find_segmenter(weights, self.environment.store, self.environment.device, request.clip)
        self._lock = threading.Lock()
        self._predictor = lru_cache(maxsize=KEPT_PREDICTORS)(self._make_predictor)

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes of the weights; none where every photo names its own."""
        return self.trained.class_names if self.trained is not None else ()

    def check(self, names: Sequence[str]) -> tuple[str, ...]:
        """The names as classes. SettingError for names that are none, or that the weights do not know."""
        chosen = checked_classes(names) if names or self.trained is None else ()
        class_indices(chosen, self.class_names or chosen)
        return chosen

    def look(self, image: ImageSource, names: Sequence[str], threshold: float = DEFAULT_THRESHOLD) -> Labelled:
        """Labels are i + 1 for `names[i]`, or for `class_names[i]` with weights, of which `names` are those to look for.
        SettingError as of `check`; ImageError for what `load_image` refuses."""
        chosen = self.check(names)
        class_names = self.class_names or chosen
        labels = tuple(class_indices([name], class_names)[0] + 1 for name in chosen)
        power = background_power(threshold)
        photo = load_image(image)
        with self._lock:
            predictor = self._predictor(chosen, power)
            prediction = predictor.look(shrink_photo(photo, self.side))
        size = (photo.shape[0], photo.shape[1])
        return Labelled(prediction.steps, size, class_names, labels, prediction.doubts, (*predictor.warnings, *predictor.notes))

    def _make_predictor(self, names: tuple[str, ...], power: float) -> Predictor:
        if self.trained is not None:
            return trained_predictor(self.trained, names, multi_scale=False, crf=True)
        run = with_edits(self.run, {"refine": {"background_power": power}})
        return training_free(names, run, self.environment)


def labeller(
    preset: str, store: str | None, clip: str | None, device: str | None, weights: str | None, side: int
) -> PhotoLabeller:
    """A labeller from plain values, as other programs pass them."""
    options = {"preset": preset, "store": store, "clip": clip, "device": device}
    request = RunRequest.checked(**{name: value for name, value in options.items() if value is not None})
    return PhotoLabeller(request, weights, side)
