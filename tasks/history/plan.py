"""What a run would do, without doing it: which stages and parts are missing and why, and what they took before."""

import json
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from heapq import nlargest
from pathlib import Path
from typing import Any

from excel_core.errors import StoreError, and_more
from tasks.engine.executor import Step, complete_output, part_steps
from tasks.engine.graph import Graph, Node
from tasks.engine.output import MARKER, Marker, StageOutput, is_resumable, read_marker, resume_folder
from tasks.engine.stage import Sharded

__all__ = ["PlannedStage", "plan_run"]

MAX_REASONS = 3  # that are named
MAX_COMPARED = 20  # earlier outputs, to say why one is not reused
MAX_MEASURED = 100  # earlier parts, to expect time and disk
# What a part's key holds, in words.
PART_FIELDS = {
    "rows": "images", "model": "texts or CLIP", "cams": "CAMs", "proposals": "masks that vote", "labels": "label maps",
    "train": "the trained segmenter", "texts": "descriptions", "templates": "texts",
}  # fmt: skip


@dataclass(frozen=True)
class PlannedStage:
    """One stage of the plan. `parts` and `missing` are 0 for whole work, None where they depend on an input that is not built
    yet. `seconds` and `bytes` are what earlier runs lead to expect, None where none did the like."""

    name: str
    runs: bool
    why: str
    parts: int | None = 0
    missing: int | None = 0
    missing_names: tuple[str, ...] = ()
    seconds: float | None = None
    bytes: int | None = None


def plan_run(graph: Graph) -> list[PlannedStage]:
    """The stages in the order in which they would run."""
    stages: list[PlannedStage] = []
    outputs: dict[str, StageOutput] = {}
    for node in graph.nodes.values():
        waiting = [name for name, id in node.inputs.items() if id not in outputs]
        if waiting:
            stages.append(_waiting(node, waiting, graph.environment.store))
            continue
        step = Step(graph.job(node, outputs))
        output = complete_output(step)
        if output is None:
            stages.append(_missing(step))
        else:
            outputs[node.id] = output
            stages.append(PlannedStage(step.name, False, "complete", len(output.parts)))
    _earlier_keys.cache_clear()
    return stages


def _waiting(node: Node, inputs: list[str], store: Path) -> PlannedStage:
    """A stage that reads what is to be built first."""
    seconds, size = _of_newest(store / node.stage.name)
    name = f"{node.stage.name} ({node.variant})" if node.variant else node.stage.name
    parts = None if isinstance(node.stage.work, Sharded) else 0
    why = f"reads {and_more(inputs, MAX_REASONS)}, to be built first; what comes out the same is not run again"
    return PlannedStage(name, True, why, parts, parts, (), seconds, size)


def _missing(step: Step) -> PlannedStage:
    """A stage whose inputs are complete and whose output is not."""
    store = step.job.environment.store
    parts = part_steps(step.job)
    missing = [part for part in parts if complete_output(part) is None]
    seconds, size = _by_item(store / f"{step.kind}-parts", missing) if parts else _of_newest(store / step.kind)
    names = tuple(part.part.name for part in missing if part.part is not None)
    return PlannedStage(step.name, True, _reason(step), len(parts), len(missing), names, seconds, size)


def _reason(step: Step) -> str:
    if step.folder.exists():
        return "its output is damaged"
    if is_resumable(resume_folder(step.folder)):
        return "was interrupted; goes on from its checkpoint"
    key_parts = json.loads(json.dumps(step.key_parts))  # as the markers hold them
    differences = [_differences(earlier, key_parts) for earlier in _earlier_keys(step.folder.parent)]
    if not differences:
        return "was never built"
    nearest = min(differences, key=len)
    more = f"; and {len(nearest) - MAX_REASONS} more" if len(nearest) > MAX_REASONS else ""
    return "; ".join(nearest[:MAX_REASONS]) + more or "its output was removed"


def _differences(earlier: dict[str, Any], current: dict[str, Any]) -> list[str]:
    """In words, once each, how two keys differ."""
    before, after = dict(_leaves(earlier)), dict(_leaves(current))
    changed = sorted(path for path in {*before, *after} if before.get(path) != after.get(path))
    words = [_in_words(path, before.get(path), after.get(path)) for path in changed if not path.startswith("parts.")]
    parts_by_field: dict[str, set[str]] = {}
    for part, field in (path.split(".")[1:3] for path in changed if path.startswith("parts.")):
        parts_by_field.setdefault(field, set()).add(part)
    for field, parts in parts_by_field.items():
        if field != "spec":  # it stands among the words already
            words.append(f"{PART_FIELDS.get(field, field)} of {min(parts) if len(parts) == 1 else f'{len(parts)} parts'}")
    return list(dict.fromkeys(words))


def _in_words(path: str, old: Any, new: Any) -> str:
    head, _, rest = path.partition(".")
    if head == "settings":
        return f"{rest}: {old} → {new}"
    if head == "inputs":
        return "the images of a split changed" if rest == "lists" else f"input {rest.split('.')[0]} changed"
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
def _earlier_keys(folder: Path) -> list[dict[str, Any]]:
    """The key parts of a stage's newest complete outputs."""
    return [marker.origin.key_parts for marker in _newest(folder, MAX_COMPARED)]


def _of_newest(folder: Path) -> tuple[float | None, int | None]:
    """Seconds and bytes of a stage's newest output."""
    newest = next(iter(_newest(folder, 1)), None)
    return (newest.output["seconds"], newest.output["bytes"]) if newest else (None, None)


def _by_item(folder: Path, missing: list[Step]) -> tuple[float | None, int | None]:
    """Seconds and bytes of the missing parts, by what an item took and left in the newest parts of the same kind."""
    items_of_kind: dict[str, int] = {}
    for step in missing:
        assert step.part is not None
        items_of_kind[step.part.kind] = items_of_kind.get(step.part.kind, 0) + step.items
    seconds, size = 0.0, 0.0
    markers = _newest(folder, MAX_MEASURED)
    for kind, count in items_of_kind.items():
        like = [marker for marker in markers if marker.origin.kind == kind]
        if not like:
            return None, None
        share = count / max(1, sum(marker.origin.items for marker in like))
        seconds += share * sum(marker.output["seconds"] for marker in like)
        size += share * sum(marker.output["bytes"] for marker in like)
    return seconds, round(size)


def _newest(folder: Path, count: int) -> list[Marker]:
    """Markers of the `count` outputs of a stage, or parts, that were built last, the newest first. The others are not read: a
    store may hold thousands."""
    built: list[tuple[int, Path]] = []
    with suppress(FileNotFoundError), os.scandir(folder) as entries:
        for output in (Path(entry.path) for entry in entries if "." not in entry.name):
            with suppress(OSError):
                built.append(((output / MARKER).stat().st_mtime_ns, output))
    markers: list[Marker] = []
    for _, output in nlargest(2 * count, built):  # twice: some may be damaged, or of another version
        with suppress(StoreError):
            markers.append(read_marker(output))
        if len(markers) == count:
            break
    return markers
