"""What a killed training goes on from: the checkpoint in the stage's resume folder, and the segmenters kept so far.

RESUME/checkpoint.pt            the newest checkpoint; beside it the one before
RESUME/kept/<iteration>.kept    the file of a segmenter that `train.keep_every` asks for, with a checksum

Once the output is complete, its own folder has them as kept/<iteration>.safetensors.
"""

import os
import sys
from pathlib import Path

from excel_core.checked_files import read_checked, write_checked
from excel_core.errors import StoreError
from excel_core.files import written_then_renamed
from excel_core.models.checkpoints import CHECKPOINT_FORMAT, Architecture, load_checkpoint, previous_checkpoint

__all__ = ["CHECKPOINT", "check_resume_file", "copy_kept", "drop_damaged", "keep_segmenter", "kept_segmenters"]

SNAPSHOTS, CHECKPOINT = "kept", "checkpoint.pt"  # folder, file
KEPT_FORMAT = "excel-kept/1"


def keep_segmenter(resume: Path, iteration: int, content: bytes) -> None:
    """Write the bytes of a segmenter's file, as it was after `iteration` iterations."""
    path = _snapshot(resume, iteration)
    write_checked(path, KEPT_FORMAT, content, of=path.stem)


def drop_damaged(resume: Path, shape: Architecture, keep_every: int | None) -> None:
    """Leave the newest checkpoint that is whole, with the segmenters kept before it, or none. A damaged one must not end every
    run to come: training goes on from the one before it, or starts again, and says so."""
    checkpoint, damage = resume / CHECKPOINT, ""
    for path in (checkpoint, previous_checkpoint(checkpoint)):
        if not path.exists():
            continue
        try:
            for iteration in _kept_until(load_checkpoint(path, shape)["iteration"], keep_every):
                _read_snapshot(resume, iteration)
        except StoreError as error:
            damage = damage or str(error)
            path.unlink()
        else:
            os.replace(path, checkpoint)
            if damage:
                text = f"train: the checkpoint is damaged, training goes on from the one before it ({damage})"
                print(text, file=sys.stderr, flush=True)
            return
    if damage:
        print(f"train: the checkpoint is damaged, training starts again ({damage})", file=sys.stderr, flush=True)


def copy_kept(resume: Path, folder: Path, iterations: int, keep_every: int | None) -> None:
    """Write the segmenters kept in `iterations` iterations into the stage's output folder; StoreError where one is missing or
    damaged."""
    for iteration in _kept_until(iterations, keep_every):
        with written_then_renamed(_snapshot(folder, iteration).with_suffix(".safetensors"), sync=False) as file:
            file.write_bytes(_read_snapshot(resume, iteration))


def kept_segmenters(folder: Path, iterations: int) -> dict[int, Path]:
    """Files of the segmenters that a train stage's folder keeps, by the number of iterations done; the trained one is the
    last, whether `train.keep_every` asked for it or not."""
    snapshots = {int(path.stem): path for path in sorted((folder / SNAPSHOTS).glob("*.safetensors"))}
    return snapshots | {iterations: folder / "segmenter.safetensors"}


def check_resume_file(path: Path) -> None:
    """StoreError where a checkpoint or kept segmenter of a resume folder is damaged."""
    kept = path.suffix == _snapshot(path, 0).suffix
    read_checked(path, KEPT_FORMAT if kept else CHECKPOINT_FORMAT, of=path.stem if kept else "")


def _kept_until(iterations: int, keep_every: int | None) -> range:
    """Iterations after which a segmenter is kept."""
    return range(keep_every, iterations + 1, keep_every) if keep_every else range(0)


def _snapshot(folder: Path, iteration: int) -> Path:
    return folder / SNAPSHOTS / f"{iteration:06d}.kept"


def _read_snapshot(resume: Path, iteration: int) -> memoryview:
    """The bytes of a kept segmenter's file; StoreError where it is missing or damaged."""
    path = _snapshot(resume, iteration)
    try:
        return read_checked(path, KEPT_FORMAT, of=path.stem)
    except FileNotFoundError:
        raise StoreError(f"{path}: is missing") from None
