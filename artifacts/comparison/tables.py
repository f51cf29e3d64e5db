"""Two runs side by side, as tasks/history/compare.py computes it: in words, as rows, in the terminal."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from rich.console import Console

from artifacts.rows import ABSENT, Row, defined, number, print_rows
from artifacts.score_change import difference_text, verdict
from artifacts.tables import protocol_text, shared_protocol
from artifacts.view import Comparison

__all__ = [
    "VERDICTS", "class_difference_rows", "comparison_note", "image_difference_rows", "print_comparison", "result_rows",
    "runs_text", "spec_difference_rows",
]  # fmt: skip

MAX_CHANGED_IMAGES = 10
VERDICTS = ("A better", "B better", "no clear difference")

Records = Iterable[Mapping[str, Any]]


def runs_text(comparison: Comparison) -> str:
    """What A and B are called."""
    return f"A: {comparison['a']}, B: {comparison['b']}"


def comparison_note(comparison: Comparison) -> str:
    """mIoU of both, its difference with the interval, of how many images, and the protocol."""
    miou = comparison["miou"]
    return (
        f"{comparison['result']}: mIoU {number(miou['a'])} → {number(miou['b'])}, difference {difference_text(miou)} over "
        f"{comparison['images_shared']:,} shared images{_left_out_text(comparison)}; "
        f"{_protocols_text(comparison['protocol_a'], comparison['protocol'])}"
    )


def _left_out_text(comparison: Comparison) -> str:
    edited = comparison["images_of_edited_truth"]
    return f", without {edited:,} whose true mask was edited in between" if edited else ""


def _protocols_text(a: Mapping[str, Any], b: Mapping[str, Any]) -> str:
    """What both protocols say, and behind it what each says otherwise."""
    shared = shared_protocol([a, b])
    others = [name for name in dict.fromkeys((*a, *b)) if name not in shared]
    differing = [f"{name}: A {_plain(a.get(name))}, B {_plain(b.get(name))}" for name in others]
    return " · ".join([protocol_text(shared), *differing])


def spec_difference_rows(differences: Records) -> list[Row]:
    """{field, a, b} → one row per field in which two runs' specs differ."""
    return [{"field": str(entry["field"]), "A": _plain(entry["a"]), "B": _plain(entry["b"])} for entry in differences]


def result_rows(results: Records) -> list[Row]:
    """{key, a, b}, mIoU of each result that both runs have → a row each."""
    return [
        {
            "result": str(entry["key"]),
            "A": number(entry["a"]),
            "B": number(entry["b"]),
            "B − A": number(entry["b"] - entry["a"], sign="+") if defined(entry["a"]) and defined(entry["b"]) else ABSENT,
        }
        for entry in results
    ]


def class_difference_rows(differences: Records) -> list[Row]:
    """{class, a, b, difference, low, high, images}, IoU and the 95 % interval of b - a → one row per class, largest
    gain first."""
    ranked = _ranked(differences, lambda difference: -difference)
    return [
        {"class": str(entry["class"]), "B − A": difference_text(entry), "verdict": verdict(entry, VERDICTS)}
        | {"A": number(entry["a"]), "B": number(entry["b"]), "images": str(entry["images"])}
        for entry in ranked
    ]


def image_difference_rows(differences: Records, max_images: int = MAX_CHANGED_IMAGES) -> list[Row]:
    """{id, a, b, difference}, each image's own mIoU → the `max_images` images that changed most, in either direction, largest
    change first."""
    ranked = _ranked(differences, lambda difference: -abs(difference))[:max_images]
    return [
        {"image": str(entry["id"]), "A": number(entry["a"]), "B": number(entry["b"]), "B − A": difference_text(entry)}
        for entry in ranked
    ]


def print_comparison(console: Console, comparison: Comparison) -> None:
    """Print what differs between two runs."""
    runs = runs_text(comparison)
    spec, classes, images = (comparison[name] for name in ("spec", "classes", "images"))
    print_rows(console, "Settings", spec_difference_rows(spec), [runs], ["field", "A", "B"])
    notes = [f"{runs}; {comparison_note(comparison)}"]
    print_rows(console, "IoU by class", class_difference_rows(classes), notes, ["class", "verdict"])
    print_rows(console, "Images that changed most", image_difference_rows(images), [f"mIoU of each image; {runs}"], ["image"])


def _ranked(differences: Records, key: Callable[[float], float]) -> list[Mapping[str, Any]]:
    """Sorted by `key` of their difference; those without one last."""
    return sorted(differences, key=lambda entry: (not defined(entry.get("difference")), key(entry.get("difference") or 0.0)))


def _plain(value: Any) -> str:
    return ABSENT if value is None else ", ".join(map(_plain, value)) if isinstance(value, list | tuple) else str(value)
