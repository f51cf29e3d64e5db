"""Runs stages, told by every setting to keep results; run as `python -m tests.faults.results_run STORE`.

A result file of Prefect's names its own reader, which may be pickle. Prints JSON: which files below the results' folder were
opened and which lie there, and, as a proof that this would be seen, what an ordinary Prefect task does with a planted file.
"""

import base64
import json
import os
import sys
from pathlib import Path
from typing import Any

from prefect import flow, task
from prefect.settings import get_current_settings

STORAGE = get_current_settings().results.local_storage_path
_opened: list[str] = []


def _watch(event: str, arguments: Any) -> None:
    if event == "open" and isinstance(arguments[0], str | os.PathLike) and str(STORAGE) in str(arguments[0]):
        _opened.append(Path(arguments[0]).name)


@task(cache_key_fn=lambda context, parameters: "ordinary")
def _ordinary() -> int:
    return 1


@flow
def _control() -> int:
    return _ordinary()


def _plant(path: Path, proof: Path) -> None:
    """A result that makes the folder `proof` when it is unpickled."""
    pickled = f"cposix\nmkdir\n(V{proof}\ntR."  # protocol 0: os.mkdir(proof)
    metadata = {"storage_key": str(path), "expiration": None, "serializer": {"type": "pickle"}, "prefect_version": "3.8.8"}
    blob = base64.b64encode(pickled.encode()).decode()
    path.write_text(json.dumps({"metadata": metadata, "result": blob}), encoding="utf-8")


def main(store: Path) -> None:
    from flows import stages

    sys.addaudithook(_watch)
    settings = ["dataset.train_scenes=2", "dataset.val_scenes=1"]
    for stage in (stages.knowledge, stages.dataset):
        stage("demo", settings=settings, store=str(store))
    written = sorted({*_opened, *(path.name for path in _files(STORAGE))})
    for planted in [*_files(STORAGE), *(STORAGE / name for name in _keys(store))]:
        planted.parent.mkdir(parents=True, exist_ok=True)
        _plant(planted, store / "ran")
    _opened.clear()
    for number, stage in enumerate((stages.knowledge, stages.dataset)):
        stage("demo", settings=[*settings, f"train.seed={number}"], store=str(store))
    opened, ran = sorted(set(_opened)), (store / "ran").exists()
    _control()
    planted = STORAGE / "ordinary"
    assert planted.exists(), "Prefect keeps the result of an ordinary task"
    _plant(planted, store / "control")
    try:
        _control()
    except Exception as error:  # of what the planted file returned
        print(error, file=sys.stderr)
    answer = {"written": written, "opened": opened, "ran": ran, "control_ran": (store / "control").exists()}
    print(json.dumps(answer))


def _keys(store: Path) -> list[str]:
    """Names that results of our task runs could have: keys of steps, and names of tasks."""
    return [path.name for path in store.glob("*/*") if path.is_dir()] + ["knowledge", "dataset", "world", "describe"]


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


if __name__ == "__main__":
    main(Path(sys.argv[1]))
