"""Build what is missing: one piece of work at a time, or a stage with all of its parts."""

import errno
import os
import shutil
import socket
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from excel_core.datasets.masks import LABEL_FILES, forbid_mask_access
from excel_core.errors import StoreError
from tasks.engine.memory import MemoryWatch, largest
from tasks.engine.outputs import StageOutput, locked, read_output, seal
from tasks.engine.progress import Counter, say
from tasks.engine.stage import Work

__all__ = [
    "Builder", "Outputs", "PartsBuilder", "complete_output", "find_or_build", "in_turn", "output_folder", "part_works",
    "run_stage",
]  # fmt: skip

DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
Note = Callable[[str], None]
Outputs = dict[str, StageOutput]
Builder = Callable[[Work], StageOutput]
PartsBuilder = Callable[[list[Work], Builder, Counter], Outputs]


def output_folder(work: Work) -> Path:
    """Where the work's output is or will be."""
    return work.place.store / work.kind / work.identity()


def complete_output(work: Work) -> StageOutput | None:
    """The work's complete, undamaged output, or None."""
    return read_output(output_folder(work))


def part_works(work: Work) -> list[Work]:
    """The work of each of the stage's parts, in order; none for a stage that is built in one piece."""
    return [replace(work, part=part) for part in work.stage.parts(work)] if work.stage.parts else []


def run_stage(work: Work, build: Builder | None = None, build_parts: PartsBuilder | None = None) -> StageOutput:
    """The stage's output: reused when it is complete, else its parts are built, where it has any, and then itself."""
    build = build or find_or_build
    if complete_output(work) is not None:
        return build(work)
    pieces = part_works(work)
    if not pieces:
        return build(work)
    with Counter(work.name, sum(piece.this_part.items for piece in pieces)) as counter:
        outputs = (build_parts or in_turn)(pieces, build, counter)
    return build(replace(work, parts=outputs))


def in_turn(pieces: list[Work], build: Builder, counter: Counter) -> Outputs:
    """One part after the other, in this thread."""
    outputs = {}
    for piece in pieces:
        before = counter.done
        outputs[piece.this_part.name] = build(piece)
        counter.to(before + piece.this_part.items)
    return outputs


def find_or_build(work: Work, note: Note = say, origin: dict[str, str] | None = None) -> StageOutput:
    """The output of one piece of work, with the seconds and the peak memory that it took; those of a stage joined from parts
    are the sum of seconds and the largest peak. A second run at the same time waits for the first and takes what it made."""
    final = output_folder(work)
    with locked(final.with_name(f".{final.name}.lock"), note):
        found = read_output(final)
        if found is not None:
            return found
        if final.exists():
            note(f"{work.name}: {final} is damaged and is built again")
            shutil.rmtree(final)
        partial = _partial(work, final)
        started = time.perf_counter()
        with MemoryWatch(work.on_gpu) as watch:
            summary = _build(replace(work, folder=partial))
        seconds = time.perf_counter() - started + sum(part.seconds for part in work.parts.values())
        peak = largest([watch.peak, *(part.peak for part in work.parts.values())])
        output = {
            "stage": work.kind,
            "identity": final.name,
            "summary": summary,
            "seconds": round(seconds, 3),
            "parts": {name: output.content for name, output in work.parts.items()},
            "peak_host_bytes": peak.host_bytes,
            "peak_gpu_bytes": peak.gpu_bytes,
        }
        return seal(partial, final, output, _origin(work, origin or {}))


def _partial(work: Work, final: Path) -> Path:
    """The folder to fill: empty, or as a killed run left it where the stage goes on from there."""
    partial = final.with_name(f"{final.name}.partial")
    if partial.exists() and not (work.stage.resumable and work.part is None):
        shutil.rmtree(partial)
    partial.mkdir(exist_ok=True)
    for half_written in partial.rglob(".*.tmp"):
        half_written.unlink()
    return partial


def _origin(work: Work, extra: dict[str, str]) -> dict[str, Any]:
    """What the output was made from, when, where and by which run."""
    return {
        "basis": work.basis(),
        "inputs": {name: output.identity for name, output in work.inputs.items()},
        "parts": {name: output.identity for name, output in work.parts.items()},
        "items": work.part.items if work.part else 0,
        "what": work.part.what if work.part else "",
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "host": socket.gethostname(),
        "pid": os.getpid(),
        **extra,
    }


def _build(work: Work) -> dict[str, Any]:
    build = work.stage.build_part if work.part else work.stage.build
    assert build is not None
    try:
        if work.stage.sees_masks(work.run):
            return build(work)
        with forbid_mask_access(stage=work.stage.name, exempt=LABEL_FILES if work.stage.reads_labels else ()):
            return build(work)
    except OSError as error:
        if error.errno not in DISK_ERRORS:
            raise
        free = shutil.disk_usage(work.place.store).free
        raise StoreError(
            f"{work.name}: cannot write to {work.place.store} ({error.strerror}; {free / 2**20:.0f} MiB free). "
            "Finished stages and shards are kept; make room or choose another --store, and run again"
        ) from error
