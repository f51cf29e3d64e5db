"""A job as a JSON file, for a process that is to do it elsewhere. It names folders and settings, no secrets."""

from pathlib import Path

from pydantic import BaseModel

from excel_core.config import RunSpec
from excel_core.files import read_json, write_json
from tasks.engine.output import StageOutput
from tasks.engine.stage import Job, RunEnvironment, Stage

__all__ = ["read_job", "write_job"]


class _JobFile(BaseModel):
    run: RunSpec
    environment: RunEnvironment
    inputs: dict[str, StageOutput]
    folder: Path
    variant: str


def write_job(path: Path, job: Job, folder: Path) -> None:
    """Write what `read_job` needs to make the same job of the same stage, and the folder to fill."""
    content = _JobFile(run=job.run, environment=job.environment, inputs=job.inputs, folder=folder, variant=job.variant)
    write_json(path, content.model_dump(mode="json"))


def read_job(path: Path, stage: Stage) -> tuple[Job, Path]:
    """The job of `stage` that `write_job` left in `path`, and the folder to fill."""
    content = _JobFile.model_validate(read_json(path))
    return Job(stage, content.run, content.environment, content.inputs, content.variant), content.folder
