"""A small comparison of two runs with hostile names, for the tests that look at its page."""

from dataclasses import replace

from artifacts.changed_images import ChangedImage
from artifacts.comparison.page import ComparedRuns
from artifacts.view import ExploredImage, ExploredRun
from tests.report_view import HOSTILE, NAMES, explored_image

__all__ = ["SHIFTS", "example_comparison"]

# By image, how far the label maps of A and of B lie from the truth, in pixels.
SHIFTS = {"gained": (9, 2), "lost": (1, 12), HOSTILE: (3, 4)}


def example_comparison() -> ComparedRuns:
    """Three images, three classes of which one has no interval and one is in few images."""
    classes = [
        {"class": NAMES[0], "a": 0.4, "b": 0.5, "difference": 0.1, "low": 0.05, "high": 0.15, "images": 40},
        {"class": HOSTILE, "a": 0.6, "b": 0.5, "difference": -0.1, "low": -0.2, "high": 0.02, "images": 12},
        {"class": "$kite$", "a": 0.3, "b": 0.1, "difference": -0.2, "low": -0.3, "high": -0.1, "images": 3},
    ]
    a, b = (tuple(_explored(name, shifts[side]) for name, shifts in SHIFTS.items()) for side in (0, 1))
    protocol = {"what": "CAM seed", "split": "train", "scales": "single", "images": 3}
    comparison = {
        "a": f"calm-owl {HOSTILE}", "b": "brave-newt (20261127-031424-abcdef)", "preset": "demo",
        "spec": [{"field": "train.note", "a": HOSTILE, "b": None}], "result": "seeds.static.train.crf",
        "results": [{"key": "seeds.static.train.crf", "a": 0.4321, "b": 0.5}],
        "protocol": protocol, "protocol_a": protocol | {"scales": "0.5"}, "images_shared": 55,
        "images_of_edited_truth": 0, "classes": classes, "images": [],
        "miou": {"a": 0.4321, "b": 0.5, "difference": 0.0679, "low": 0.01, "high": 0.12},
    }  # fmt: skip
    sides = ExploredRun("A", NAMES, a, name="A", photos=False), ExploredRun("B", NAMES, b, name="B")
    drawn = [_drawn(*pair) for pair in zip(a, b, strict=True)]
    return ComparedRuns(comparison, *sides, "3 of 55 shared images", drawn, NAMES)


def _explored(name: str, shift: int) -> ExploredImage:
    image = explored_image(name, shift)
    arrays = image.load()
    return replace(image, load=lambda: replace(arrays, cams={}))


def _drawn(a: ExploredImage, b: ExploredImage) -> ChangedImage:
    before, after, kind = a.load(), b.load(), "static.crf"
    iou = [score.iou if (score := image.scores[kind]) else None for image in (a, b)]
    assert before.truth is not None and iou[0] is not None and iou[1] is not None
    return ChangedImage(a.id, a.split, before.image, before.maps[kind], after.maps[kind], before.truth, iou[0], iou[1])
