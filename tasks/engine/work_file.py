"""A stage's work as a JSON file, for a process that is to do it elsewhere. It names folders and settings, no secrets."""

from pathlib import Path
from typing import Any

from excel_core.config import RunSpec
from excel_core.files import read_json, write_json
from tasks.engine.outputs import StageOutput
from tasks.engine.stage import RunEnvironment, Stage, Work

__all__ = ["read_work", "write_work"]


def write_work(path: Path, work: Work) -> None:
    """Write what `read_work` needs to make the same work of the same stage."""
    inputs = {name: output.model_dump(mode="json") for name, output in work.inputs.items()}
    run, place = work.run.model_dump(mode="json"), work.place.model_dump(mode="json")
    write_json(path, {"run": run, "place": place, "inputs": inputs, "folder": str(work.folder), "variant": work.variant})


def read_work(path: Path, stage: Stage) -> Work:
    """The work of `stage` that `write_work` left in `path`."""
    found: dict[str, Any] = read_json(path)
    return Work(
        stage,
        RunSpec.model_validate(found["run"]),
        RunEnvironment.model_validate(found["place"]),
        {name: StageOutput.model_validate(output) for name, output in found["inputs"].items()},
        folder=Path(found["folder"]),
        variant=found["variant"],
    )
