"""Two runs beside each other, and a list of runs, as rows of text for the terminal."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import Console

from artifacts.rows import Row, defined, duration, interval, number, print_rows

__all__ = [
    "class_difference_rows", "image_difference_rows", "print_comparison", "run_rows",
    "spec_difference_rows",
]  # fmt: skip

Found = Iterable[Mapping[str, Any]]
Table = tuple[str, list[Row], str]  # title, rows, note


def spec_difference_rows(found: Found) -> list[Row]:
    """{field, a, b} → one row a field in which two runs' specs differ."""
    return [{"field": str(each["field"]), "a": _plain(each["a"]), "b": _plain(each["b"])} for each in found]


def class_difference_rows(found: Found) -> list[Row]:
    """{class, a, b, difference, low, high}, IoU and the 95 % interval of b - a → one row a class, largest gain first."""
    return [{"class": str(each["class"])} | _scores(each) for each in _by_difference(found, lambda value: -value)]


def image_difference_rows(found: Found, most: int = 10) -> list[Row]:
    """{id, a, b, difference} → the `most` images that changed most, in either direction, largest change first."""
    ranked = _by_difference(found, lambda value: -abs(value))[:most]
    return [{"image": str(each["id"])} | _scores(each) for each in ranked]


def run_rows(found: Found) -> list[Row]:
    """{run, preset, method, clip, state, started, seconds, headline numbers…} → one row a run, in the order given."""
    rows = []
    for each in found:
        row = {key: number(value) if isinstance(value, float) else _plain(value) for key, value in each.items()}
        if defined(each.get("seconds")):
            row["seconds"] = duration(each["seconds"])
        rows.append({{"seconds": "took"}.get(key, key): value for key, value in row.items()})
    return rows


def print_comparison(console: Console, a: str, b: str, spec: Found, classes: Found, images: Found, note: str = "") -> None:
    """Print what differs between the runs named `a` and `b`; `note` is the protocol of the scores."""
    for title, rows, words in _tables(a, b, spec, classes, images, note):
        print_rows(console, title, rows, [words], ["class", "image", "field", *(("a", "b") if title == "Spec" else ())])


def _tables(a: str, b: str, spec: Found, classes: Found, images: Found, note: str) -> Sequence[Table]:
    runs = f"a: {a}, b: {b}"
    return (
        ("Spec", spec_difference_rows(spec), runs),
        ("IoU by class", class_difference_rows(classes), "; ".join(filter(None, [runs, note]))),
        ("Images that changed most", image_difference_rows(images), runs),
    )


def _by_difference(found: Found, key: Any) -> list[Mapping[str, Any]]:
    """Ranked by their difference; those without one last."""
    return sorted(found, key=lambda each: (not defined(each.get("difference")), key(each.get("difference") or 0.0)))


def _scores(each: Mapping[str, Any]) -> Row:
    difference = interval(each, "difference", sign="+")
    return {"a": number(each.get("a")), "b": number(each.get("b")), "b - a": difference}


def _plain(value: Any) -> str:
    return "–" if value is None else ", ".join(map(_plain, value)) if isinstance(value, list | tuple) else str(value)
