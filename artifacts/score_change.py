"""What an edit of prompts did to the training-free label maps (excel-score-change/1, tasks/history/score_change.py): as tables,
as notes, in the terminal."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.text import Text

from artifacts.drawing import STEP_NAMES
from artifacts.rows import ABSENT, Row, defined, number, print_rows
from artifacts.tables import protocol_text

__all__ = ["FEW_IMAGES", "MIN_IMAGES", "change_notes", "change_rows", "difference_text", "print_change", "verdict"]

Change = Mapping[str, Any]  # the content of STORE/score/RUN.json
MIN_IMAGES = 10  # that hold a class; of fewer, resampled images tell no interval
FEW_IMAGES = "few images"
VERDICTS = ("hurt", "helped", "no clear change")
NO_EARLIER_RUN = "there is no earlier complete run of the same data to compare with: the next score is compared with this one"


def verdict(difference: Mapping[str, Any] | None, words: tuple[str, str, str] = VERDICTS) -> str:
    """The first of `words` where the 95 % interval of an IoU's difference lies below 0, the second where it lies above, else
    the third; FEW_IMAGES where fewer than MIN_IMAGES hold the class."""
    low, high = (None, None) if difference is None else (difference["low"], difference["high"])
    if difference is None or not defined(low) or not defined(high):
        return ABSENT
    if difference["images"] < MIN_IMAGES:
        return FEW_IMAGES
    worse, better, unclear = words
    return worse if high < 0 else better if low > 0 else unclear


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
                last_difference = differences[-1] or {}
                row = _row(words[name], results, differences)
                rows.append((last_difference.get("difference") or 0.0, ({"split": split} if len(by_split) > 1 else {}) | row))
    return [row for _, row in sorted(rows, key=lambda pair: pair[0])]


def _is_clear(differences: Sequence[Mapping[str, Any] | None]) -> bool:
    return any(verdict(difference) in VERDICTS[:2] for difference in differences)


def _row(
    words: Mapping[str, Any], results: Sequence[Mapping[str, Any]], differences: Sequence[Mapping[str, Any] | None]
) -> Row:
    last_difference = differences[-1] or {}
    row = {"class": words["class"], "verdict": verdict(differences[-1])}
    row |= {"IoU before": number(last_difference.get("a")), "after": number(last_difference.get("b"))}
    for result, difference in zip(reversed(results), reversed(differences), strict=True):
        row[f"Δ {STEP_NAMES.get(result['step'], result['step'])}"] = difference_text(difference or {})
    row |= {
        "images": str(last_difference.get("images", ABSENT)),
        "T_c moved": number(words["moved"], 4),
        "by chance": number(words["noise"], 4),
    }
    return row | ({"edit": _edit(words)} if words["edited"] else {})


def difference_text(scores: Mapping[str, Any]) -> str:
    """`-0.212 [-0.390, +0.050]`: three digits, since small changes of IoU are the rule."""
    ends = [number(scores.get(name), sign="+") for name in ("low", "high")]
    return number(scores.get("difference"), sign="+") + (f" [{', '.join(ends)}]" if ABSENT not in ends else "")


def _edit(words: Mapping[str, Any]) -> str:
    """`bird avian → bird; texts +1 −1`."""
    edits = []
    if words["prompt"]:
        before, after = words["prompt"]
        edits.append(f"“{before}” → “{after}”")
    if words["added"] or words["removed"]:
        edits.append(f"texts +{len(words['added'])} −{len(words['removed'])}")
    return "; ".join(edits)


def change_notes(change: Change) -> list[str]:
    """How to read the tables: mIoU of every step, other things that differ, what was left out."""
    if change["before"] is None:
        return [NO_EARLIER_RUN, *_other_notes(change)]
    notes = [f"before: run {change['before']}, after: run {change['after']}"]
    for result in change["results"]:
        miou = result["miou"]
        notes.append(
            f"mIoU, {result['split']}, {STEP_NAMES.get(result['step'], result['step'])}: {number(miou['a'])} → "
            f"{number(miou['b'])}, difference {difference_text(miou)}; {protocol_text(result['protocol'])}"
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
    edited, unedited = change_rows(change), change_rows(change, edited=False)
    if change["before"] is not None and not any(entry["edited"] for entry in change["classes"]):
        console.print(Text("no class was edited since the run before"))
    print_rows(console, "Classes that were edited", edited, [], ["class", "verdict", "edit"])
    print_rows(console, "Other classes that changed", unedited, [], ["class", "verdict"])
    for note in change_notes(change):
        console.print(Text(note, style="dim"), soft_wrap=True)
