"""What a run would do, without doing it: which stages and parts are missing and why, and what they took before."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from excel_core.config import RunSpec
from excel_core.errors import StoreError
from tasks.chain import graph, work_of
from tasks.engine.build import complete_output, output_folder, part_works
from tasks.engine.outputs import StageOutput, read_marker
from tasks.engine.stage import RunEnvironment, Work

__all__ = ["Step", "plan_run"]

SHOWN = 3  # reasons named
PART_FIELDS = {
    "rows": "images", "sight": "texts or CLIP", "cams": "CAMs", "labels": "label maps", "train": "the trained segmenter",
    "texts": "descriptions",
}  # fmt: skip


@dataclass(frozen=True)
class Step:
    """One stage of the plan. `parts` and `missing` are 0 for a stage in one piece, None where they hang on an input that
    is not built yet. `seconds` and `bytes` are what earlier runs lead to expect, None where none did the like."""

    name: str
    runs: bool
    why: str
    parts: int | None = 0
    missing: int | None = 0
    missing_names: tuple[str, ...] = ()
    seconds: float | None = None
    bytes: int | None = None


def plan_run(run: RunSpec, place: RunEnvironment, last: str) -> list[Step]:
    """A step a stage, in the order in which they would run."""
    steps: list[Step] = []
    outputs: dict[str, StageOutput] = {}
    nodes = graph(run, place, last).nodes
    for key, node in nodes.items():
        waiting = [name for name, needed in node.inputs.items() if needed not in outputs]
        if waiting:
            seconds, size = _whole(place.store / node.stage.name)
            name = f"{node.stage.name} ({node.variant})" if node.variant else node.stage.name
            several = None if node.stage.parts else 0
            steps.append(Step(name, True, _waits_for(waiting), several, several, (), seconds, size))
            continue
        work = work_of(node, place, outputs)
        found = complete_output(work)
        if found is None:
            steps.append(_missing(work))
        else:
            outputs[key] = found
            steps.append(Step(work.name, False, "complete", len(found.parts)))
    _changes_of.cache_clear()
    return steps


def _waits_for(inputs: list[str]) -> str:
    names = ", ".join(inputs[:SHOWN]) + (f" and {len(inputs) - SHOWN} more" if len(inputs) > SHOWN else "")
    return f"reads {names}, to be built first; what comes out the same is not run again"


def _missing(work: Work) -> Step:
    """The step of a stage whose inputs are complete and whose output is not."""
    pieces = part_works(work)
    missing = [piece for piece in pieces if complete_output(piece) is None]
    if pieces:
        seconds, size = _by_item(work.place.store / f"{work.kind}-parts", missing)
    else:
        seconds, size = _whole(work.place.store / work.kind)
    names = tuple(piece.this_part.name for piece in missing)
    return Step(work.name, True, _reason(work), len(pieces), len(missing), names, seconds, size)


def _reason(work: Work) -> str:
    folder = output_folder(work)
    if folder.exists():
        return "its output is damaged"
    partial = folder.with_name(f"{folder.name}.partial")
    if work.stage.resumable and any(partial.glob("*")):
        return "was interrupted; goes on from its checkpoint"
    changes = [_differences(earlier, json.loads(json.dumps(work.basis()))) for earlier in _changes_of(folder.parent)]
    if not changes:
        return "was never built"
    nearest = min(changes, key=len)
    named = "; ".join(nearest[:SHOWN]) + (f"; and {len(nearest) - SHOWN} more" if len(nearest) > SHOWN else "")
    return named or "its output was removed"


def _differences(earlier: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """In words, once each, how two bases differ."""
    old, new = dict(_leaves(earlier)), dict(_leaves(now))
    changed = sorted(path for path in {*old, *new} if old.get(path) != new.get(path))
    words = [_worded(path, old.get(path), new.get(path)) for path in changed if not path.startswith("parts.")]
    by_field: dict[str, set[str]] = {}
    for part, field in (path.split(".")[1:3] for path in changed if path.startswith("parts.")):
        by_field.setdefault(field, set()).add(part)
    for field, parts in by_field.items():
        if field != "spec":  # it stands among the words already
            words.append(f"{PART_FIELDS.get(field, field)} of {min(parts) if len(parts) == 1 else f'{len(parts)} parts'}")
    return list(dict.fromkeys(words))


def _worded(path: str, old: Any, new: Any) -> str:
    head, _, rest = path.partition(".")
    if head == "spec":
        return f"{rest}: {old} → {new}"
    if head == "inputs":
        if rest == "lists":
            return "the images of a split changed"
        return f"input {rest.split('.')[0]} changed"
    if path == "outside.attributes":
        return "the file of attributes changed"
    return {"code": "its code changed", "outside": "data, prompts or weights outside the store changed"}.get(head, path)


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted path, value) of every leaf of nested dicts; lists are leaves."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _leaves(inner, f"{path}.{key}" if path else str(key))
    else:
        yield path, value


@cache
def _changes_of(folder: Path) -> list[dict[str, Any]]:
    """The bases of every complete output of a kind."""
    return [marker["origin"]["basis"] for marker in _markers(folder)]


def _whole(folder: Path) -> tuple[float | None, int | None]:
    """Seconds and bytes of the newest output of a kind."""
    newest = max(_markers(folder), key=lambda marker: marker["origin"]["finished"], default=None)
    return (newest["output"]["seconds"], newest["output"]["bytes"]) if newest else (None, None)


def _by_item(folder: Path, missing: list[Work]) -> tuple[float | None, int | None]:
    """Seconds and bytes of the missing parts, by what an item took and left in all earlier parts that do the same."""
    items: dict[str, int] = {}
    for piece in missing:
        items[piece.this_part.what] = items.get(piece.this_part.what, 0) + piece.this_part.items
    seconds, size = 0.0, 0.0
    markers = _markers(folder)
    for what, wanted in items.items():
        like = [marker for marker in markers if marker["origin"]["what"] == what]
        share = wanted / max(1, sum(marker["origin"]["items"] for marker in like))
        if not like:
            return None, None
        seconds += share * sum(marker["output"]["seconds"] for marker in like)
        size += share * sum(marker["output"]["bytes"] for marker in like)
    return seconds, round(size)


def _markers(folder: Path) -> list[dict[str, Any]]:
    found = []
    for marker in folder.glob("*/stage.json"):
        try:
            found.append(read_marker(marker.parent))
        except StoreError:
            continue
    return found
