"""What an edit of prompts did to the training-free label maps (excel-score-change/1, tasks/history/score_change.py): as tables,
as notes, in the terminal, and the images that changed most as one picture."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from rich.console import Console
from rich.text import Text

from artifacts.drawing import STEP_NAMES, class_mask, fit_image, fit_labels, overlay_labels
from artifacts.drawing.sheet import Panel, Paragraph, SheetRow, draw_sheet
from artifacts.rows import ABSENT, Row, defined, number, print_rows
from artifacts.tables import protocol_text
from artifacts.view import Labels, Pixels

__all__ = ["ChangedImage", "change_notes", "change_rows", "draw_changed_images", "print_change", "verdict"]

Change = Mapping[str, Any]  # the content of STORE/score/RUN.json
MIN_IMAGES = 10  # that hold a class; of fewer, resampled images tell no interval
SIDE = 300  # pixels, of a picture before it is drawn in its column
NO_EARLIER_RUN = "there is no earlier complete run of the same data to compare with: the next score is compared with this one"


@dataclass(frozen=True, eq=False)
class ChangedImage:
    """An image (H, W, 3) with its label maps (H, W) before and after, its truth, and its own mIoU before and after."""

    id: str
    split: str
    image: Pixels
    before: Labels
    after: Labels
    truth: Labels
    miou_before: float
    miou_after: float


def verdict(difference: Mapping[str, Any] | None) -> str:
    """`hurt` or `helped` where the 95 % interval of an IoU's difference leaves out 0, else `no clear change`; `few images`
    where fewer than MIN_IMAGES hold the class."""
    low, high = (None, None) if difference is None else (difference["low"], difference["high"])
    if difference is None or not defined(low) or not defined(high):
        return ABSENT
    if difference["images"] < MIN_IMAGES:
        return "few images"
    return "hurt" if high < 0 else "helped" if low > 0 else "no clear change"


def change_rows(change: Change, edited: bool = True) -> list[Row]:
    """A row for each split and class that was edited, the greatest loss first; else for the classes that nobody edited and
    that changed all the same."""
    rows: list[tuple[float, Row]] = []
    by_split: dict[str, list[Mapping[str, Any]]] = {}
    for result in change["results"]:
        by_split.setdefault(result["split"], []).append(result)
    words = {entry["class"]: entry for entry in change["classes"]}
    for split, results in by_split.items():
        for name in words:
            differences = [result["classes"].get(name) for result in results]
            is_shown = words[name]["edited"] if edited else not words[name]["edited"] and _is_clear(differences)
            if is_shown:
                last = differences[-1] or {}
                row = _row(words[name], results, differences)
                rows.append((last.get("difference") or 0.0, ({"split": split} if len(by_split) > 1 else {}) | row))
    return [row for _, row in sorted(rows, key=lambda pair: pair[0])]


def _is_clear(differences: Sequence[Mapping[str, Any] | None]) -> bool:
    return any(verdict(difference) in ("hurt", "helped") for difference in differences)


def _row(
    words: Mapping[str, Any], results: Sequence[Mapping[str, Any]], differences: Sequence[Mapping[str, Any] | None]
) -> Row:
    last = differences[-1] or {}
    row = {"class": words["class"], "verdict": verdict(differences[-1])}
    row |= {"IoU before": number(last.get("a")), "after": number(last.get("b"))}
    for result, difference in zip(reversed(results), reversed(differences), strict=True):
        row[f"Δ {STEP_NAMES.get(result['step'], result['step'])}"] = _difference(difference or {})
    row |= {
        "images": str(last.get("images", ABSENT)),
        "T_c moved": number(words["moved"], 4),
        "by chance": number(words["noise"], 4),
    }
    return row | ({"edit": _edit(words)} if words["edited"] else {})


def _difference(scores: Mapping[str, Any]) -> str:
    """`-0.212 [-0.390, +0.050]`: three digits, since small changes of IoU are the rule."""
    ends = [number(scores.get(name), sign="+") for name in ("low", "high")]
    return number(scores.get("difference"), sign="+") + (f" [{', '.join(ends)}]" if ABSENT not in ends else "")


def _edit(words: Mapping[str, Any]) -> str:
    """`bird avian → bird; texts +1 −1`."""
    parts = []
    if words["prompt"]:
        before, after = words["prompt"]
        parts.append(f"“{before}” → “{after}”")
    if words["added"] or words["removed"]:
        parts.append(f"texts +{len(words['added'])} −{len(words['removed'])}")
    return "; ".join(parts)


def change_notes(change: Change) -> list[str]:
    """How to read the tables: mIoU of every step, other things that differ, what was left out."""
    if change["before"] is None:
        return [NO_EARLIER_RUN, *_other_notes(change)]
    notes = [f"before: run {change['before']}, after: run {change['after']}"]
    for result in change["results"]:
        miou = result["miou"]
        notes.append(
            f"mIoU, {result['split']}, {STEP_NAMES.get(result['step'], result['step'])}: {number(miou['a'])} → "
            f"{number(miou['b'])}, difference {_difference(miou)}; {protocol_text(result['protocol'])}"
        )
    notes.append(
        "Δ: IoU after − before with its 95 % bootstrap interval over the same images, each class by itself. The verdict is "
        "about the last step: hurt or helped where the interval leaves out 0; few images: fewer than "
        f"{MIN_IMAGES} hold the class"
    )
    notes.append(
        f"T_c moved: 1 − cosine; by chance: the most that it moved in {change['reclusterings']} clusterings of the old texts "
        "with other seeds. An edit that moved T_c no further may as well have done nothing"
    )
    return [*notes, *_other_notes(change)]


def _other_notes(change: Change) -> list[str]:
    notes = []
    for sign, name in (("+", "added"), ("−", "removed")):
        if change["background"][name]:
            notes.append(f"background prompts {sign}: {', '.join(change['background'][name])}")
    if change["settings"]:
        differing = "; ".join(f"{entry['field']}: {entry['a']} → {entry['b']}" for entry in change["settings"])
        notes.append(f"not of the texts alone, these settings differ too: {differing}")
    if change["code"]:
        notes.append(f"not of the texts alone, the code of these stages was edited too: {', '.join(change['code'])}")
    notes += [f"left out: {what}: {why}" for what, why in change["left_out"].items()]
    return notes + [f"not compared with run {run}: {why}" for run, why in change["passed_over"].items()]


def print_change(change: Change, console: Console) -> None:
    """Print the classes that were edited, the others that changed, and the notes."""
    edited, others = change_rows(change), change_rows(change, edited=False)
    if change["before"] is not None and not any(entry["edited"] for entry in change["classes"]):
        console.print(Text("no class was edited since the run before"))
    print_rows(console, "Classes that were edited", edited, [], ["class", "verdict", "edit"])
    print_rows(console, "Other classes that changed", others, [], ["class", "verdict"])
    for note in change_notes(change):
        console.print(Text(note, style="dim"), soft_wrap=True)


def draw_changed_images(images: Sequence[ChangedImage], class_names: Sequence[str]) -> bytes:
    """A row an image, photo, before, after and truth → PNG."""
    rows = [
        SheetRow(
            f"{image.id}: mIoU {image.miou_before:.2f} → {image.miou_after:.2f}",
            f"{image.split}; {'worse' if image.miou_after < image.miou_before else 'better'} than before",
            (
                Panel(fit_image(image.image, SIDE)),
                _panel(image, image.before, f"mIoU {image.miou_before:.2f}"),
                _panel(image, image.after, f"mIoU {image.miou_after:.2f}"),
                _panel(image, image.truth, ""),
            ),
        )
        for image in images
    ]
    return draw_sheet(["photo", "before", "after", "truth"], rows, [], [_numbers(images, class_names)])


def _panel(image: ChangedImage, labels: Labels, words: str) -> Panel:
    picture = overlay_labels(fit_image(image.image, SIDE), fit_labels(labels, SIDE))
    return Panel(picture, (Paragraph(words, faint=True),) if words else ())


def _numbers(images: Sequence[ChangedImage], class_names: Sequence[str]) -> str:
    """`1 house, 3 car`: the classes that the label maps hold."""
    maps = [labels for image in images for labels in (image.before, image.after, image.truth)]
    values = sorted({int(value) for labels in maps for value in np.unique(labels[class_mask(labels)])})
    return ", ".join(f"{value} {class_names[value - 1]}" for value in values if value <= len(class_names))
