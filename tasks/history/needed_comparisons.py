"""Which pages of two runs stay: those of outputs that all stay. No run's record names them."""

from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path

from excel_core.errors import StoreError
from tasks.engine.object_store import remote_of
from tasks.engine.shared_outputs import known_marker
from tasks.history.shared_garbage import shared_outputs
from tasks.stages.compare import COMPARE

__all__ = ["needed_comparisons"]


def needed_comparisons(store: Path, outputs: Collection[str]) -> Iterator[str]:
    """kind/key of each comparison all of whose inputs are among `outputs`, which are kind/key too."""
    remote = remote_of(store)
    shared = shared_outputs(remote, COMPARE.name) if remote else {}
    for key in sorted({folder.name for folder in (store / COMPARE.name).glob("[!.]*")} | shared.keys()):
        with suppress(StoreError):  # half built, or damaged
            inputs = known_marker(store / COMPARE.name / key).origin.inputs
            # `evaluate` of run B, `A, evaluate` of run A.
            if all(f"{name.rpartition(', ')[2]}/{key_of_input}" in outputs for name, key_of_input in inputs.items()):
                yield f"{COMPARE.name}/{key}"
