"""Photos labelled one at a time, by class names alone or by trained weights, with the models kept between calls."""

import math
import threading
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from excel_core.class_names import name_key
from excel_core.config.presets import with_edits
from excel_core.datasets.images import shrink_image
from excel_core.errors import SettingError
from excel_core.prediction.photos import enlarge_labels
from excel_core.prediction.predictors import Predictor, check_classes, trained_predictor
from excel_core.text.class_sets import DATA_CLASSES
from flows.request import RunRequest
from flows.settings import environment_to_look
from tasks.photos.trained import find_segmenter, training_free

__all__ = ["DEFAULT_THRESHOLD", "THRESHOLDS", "PhotoLabeller", "background_power", "labeller"]

Image = NDArray[np.uint8]
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


class PhotoLabeller:
    """`steps(image, names, threshold)`: image (H, W, 3) uint8 RGB → label maps (H, W) uint8 by step, the last one the result.

    weights: a run, a file of `excel export`, or None: the names alone. A lock lets one photo in at a time, since all
    callers share the models.
    """

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

    def steps(self, image: Image, names: Sequence[str], threshold: float = DEFAULT_THRESHOLD) -> dict[str, Labels]:
        """Labels are i + 1 for `names[i]`, or for `class_names[i]` with weights, of which `names` are those to look for.
        SettingError for names that are none, or that the weights do not know."""
        chosen = check_classes(names) if names or self.trained is None else ()
        power = background_power(threshold)
        with self._lock:
            predictor = self._predictor(chosen, power)
            maps = predictor.predict(shrink_image(image, self.side))
        size = (image.shape[0], image.shape[1])
        return {step: enlarge_labels(labels, size) for step, labels in maps.items()}

    def label_of(self, names: Sequence[str]) -> dict[str, int]:
        """The label that each of `names` has in the maps of `steps(image, names)`, in whatever case the weights spell it."""
        known = {name_key(name): number for number, name in enumerate(self.class_names or names, start=1)}
        return {name: known[name_key(name)] for name in names}

    def _make_predictor(self, names: tuple[str, ...], power: float) -> Predictor:
        if self.trained is not None:
            return trained_predictor(self.trained, names, multi_scale=False, crf=True)
        run = with_edits(self.run, {"refine": {"background_power": power}})
        return training_free(names, run, self.environment)


def labeller(
    preset: str, store: str | None, clip: str | None, device: str | None, weights: str | None, side: int
) -> PhotoLabeller:
    """A labeller from plain values, as other programs pass them."""
    asked = {"preset": preset, "store": store, "clip": clip, "device": device}
    request = RunRequest.checked(**{name: value for name, value in asked.items() if value is not None})
    return PhotoLabeller(request, weights, side)
