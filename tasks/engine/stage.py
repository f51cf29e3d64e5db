"""What a stage is: its name, what it reads and makes, what its key depends on, and the work itself. Knows no Prefect.

Stage        a named step of the pipeline (tasks/pipeline.py lists them all)
Dependency   an edge: another stage, under this run or a variant of it
Whole        work in one piece          Sharded   work in parts that are cached one by one, and then joined
Part         one shard of images, or one class
Job          a stage of one run with its complete inputs: what the work gets
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from excel_core.config import RunSpec
from excel_core.datasets.mask_guard import LABELS_IN_MASK_FILES, forbid_mask_access, mask_places
from tasks.engine.output import StageOutput, StageResult

__all__ = [
    "Dependency", "Job", "KeyParts", "MaskAccess", "Part", "RunEnvironment", "Shard", "Sharded", "Stage", "Whole",
    "mask_access",
]  # fmt: skip

R = TypeVar("R", bound=StageResult)
P = TypeVar("P", bound=StageResult)
Plain = dict[str, Any]  # what JSON can hold


class RunEnvironment(BaseModel):
    """Where a run happens. Nothing here changes results; `processes` may change their last bits. `remote`: the address at which
    the store is shared with machines that have other disks (tasks/engine/object_store.py)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    store: Path
    remote: str | None = None
    data: Path | None = None
    device: str = "cpu"
    processes: int = Field(1, ge=1)  # that train together, one GPU each


@dataclass(frozen=True)
class Dependency:
    """An input of a stage: another stage, under this run or a variant of it."""

    stage: str
    run: RunSpec


@dataclass(frozen=True)
class Shard:
    """The images of `split` whose ids hash to number `index` of `count`. `scored_as`: the split that they are scored as."""

    split: str
    index: int
    count: int
    scored_as: str


@dataclass(frozen=True)
class Part:
    """A piece of a stage. `name` is unique in the stage, `items` counts its images or texts, `key` is plain data over
    everything it depends on beside the code, `kind` tells parts apart that do different work."""

    name: str
    items: int
    key: Plain
    kind: str = ""
    shard: Shard | None = None

    @property
    def images(self) -> Shard:
        """The shard of a part that is about images."""
        assert self.shard is not None, f"part {self.name} is not about images"
        return self.shard


@dataclass(frozen=True)
class Whole(Generic[R]):
    """Work in one piece: fills an empty folder. What it is to go on from after a kill it keeps in the `resume_folder`."""

    build: Callable[["Job", Path], R]


@dataclass(frozen=True)
class Sharded(Generic[P, R]):
    """Work in parts: `parts` lists them, `build_part` fills a folder for one, `join` fills the stage's folder from theirs.

    An edit or a crash costs only the parts that it touches. `run_on`: threads of the flow's process for parts that wait for a
    network, workers (this process or Dask's) for those that compute."""

    parts: Callable[["Job"], list[Part]]
    build_part: Callable[["Job", Part, Path], P]
    join: Callable[["Job", dict[str, StageOutput], Path], R]
    run_on: Literal["threads", "workers"] = "workers"


@dataclass(frozen=True)
class KeyParts:
    """What a stage's key is made of, beside its code. Each gives plain data.

    `settings(run)`: the fields of the run that matter. `inputs(job)`: what matters of its inputs; by default the content of all
    of them for whole work, and nothing for sharded work, whose parts have keys of their own. `outside(run, environment)`:
    fingerprints of files outside the store.
    """

    settings: Callable[[RunSpec], Plain]
    inputs: Callable[["Job"], Plain] | None = None
    outside: Callable[[RunSpec, RunEnvironment], Any] = field(default=lambda run, environment: None)


class MaskAccess(Enum):
    """Which stages may open segmentation masks. Every other stage runs under the mask guard."""

    NEVER = "never"
    LABELS_IN_MASK_FILES = "files that hold image-level labels beside masks, for the labels alone"
    FULL_SUPERVISION = "with train.supervision=masks alone"
    ALWAYS = "for scoring, or to draw them"


@dataclass(frozen=True)
class Stage:
    """A named step. `reads` names the stages that it always reads, under the same run; the drawn world is dropped from it where
    the data are real. `also_reads` adds inputs under names of their own, for some runs or under variants of the run.
    `makes`: its files, in words. `on_device`: it computes on the run's device, in its parts where it has any."""

    name: str
    reads: tuple[str, ...]
    makes: str
    work: Whole[Any] | Sharded[Any, Any]
    key: KeyParts
    also_reads: Callable[[RunSpec, RunEnvironment], dict[str, Dependency]] = field(default=lambda run, environment: {})
    masks: MaskAccess = MaskAccess.NEVER
    on_device: bool = False

    def dependencies(self, run: RunSpec, environment: RunEnvironment) -> dict[str, Dependency]:
        """Every input by name."""
        names = [name for name in self.reads if name != "world" or run.dataset.layout == "world"]
        return {name: Dependency(name, run) for name in names} | self.also_reads(run, environment)


@dataclass(frozen=True)
class Job:
    """A stage of one run in its environment, with the complete outputs of what it reads."""

    stage: Stage
    run: RunSpec
    environment: RunEnvironment
    inputs: dict[str, StageOutput]
    variant: str = ""  # what a variant of the run is called, such as a row of the ablation

    @property
    def name(self) -> str:
        """What logs and task runs call it."""
        return f"{self.stage.name} ({self.variant})" if self.variant else self.stage.name

    @property
    def data(self) -> Path:
        """The data folder: the drawn world where that is the data."""
        folder = self.inputs["world"].folder if "world" in self.inputs else self.environment.data
        assert folder is not None, f"{self.stage.name} reads data, but the run has none"
        return folder

    def folder(self, name: str) -> Path:
        """Output folder of an input."""
        return self.inputs[name].folder

    def result(self, name: str, kind: type[R]) -> R:
        """What an input's stage said of its output, as its own type."""
        return self.inputs[name].result_as(kind)


@contextmanager
def mask_access(job: Job) -> Iterator[None]:
    """Around the work of a job: whoever opens a mask that its stage may not open gets MaskLeakError."""
    stage, run = job.stage, job.run
    supervised = stage.masks is MaskAccess.FULL_SUPERVISION and run.train.supervision == "masks"
    if stage.masks is MaskAccess.ALWAYS or supervised:
        yield
        return
    data_folder = job.folder("world") if "world" in job.inputs else job.environment.data
    exempt = LABELS_IN_MASK_FILES if stage.masks is MaskAccess.LABELS_IN_MASK_FILES else ()
    with forbid_mask_access(*mask_places(run.dataset.layout, data_folder), stage=stage.name, exempt=exempt):
        yield
