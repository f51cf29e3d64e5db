"""What a stage is: a named step with inputs, a spec, and a function that fills its output folder. Knows no Prefect.

A large stage is built from *parts*: shards of images, or classes. Each part is content-addressed and sealed on its own,
so that an edit or a crash costs only the parts it touches; `build` then joins them into the stage's output folder.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from excel_core.config import RunSpec
from tasks.engine.code_version import code_version
from tasks.engine.identity import digest_of
from tasks.engine.outputs import StageOutput

__all__ = ["Dependency", "Part", "RunEnvironment", "Stage", "Work", "always"]


def always(run: RunSpec) -> bool:
    """`sees_masks` of a stage that opens masks in every run."""
    return True


class RunEnvironment(BaseModel):
    """Where a run happens; nothing here changes results, but `processes` their last bits."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    store: Path
    data: Path | None = None
    device: str = "cpu"
    processes: int = Field(1, ge=1)  # that train together, a GPU each


class Part(BaseModel):
    """A piece of a stage: a name that is unique in the stage, how many items it counts (images, texts), and `key`:
    plain data over everything it depends on beside the code."""

    model_config = ConfigDict(frozen=True)

    name: str
    items: int
    key: dict[str, Any]
    what: str = ""  # kind of part, where a stage has several
    about: dict[str, Any] = {}  # what `build_part` needs to find its items


@dataclass(frozen=True)
class Dependency:
    """An input of a stage: another stage, under this run or a variant of it."""

    stage: str
    run: RunSpec


@dataclass(frozen=True)
class Stage:
    """A named step: which stages it reads, which part of the run it depends on, and the function that fills its folder.

    `spec(run)` is plain data; `outside(run, place)` fingerprints what lies outside the store (data, weights).
    `parts(work)` lists the parts and `build_part(work)` builds one (`work.part`); `build(work)` gets them in `work.parts`.
    `needs(run, place)` adds inputs under names of their own. `takes(work)` says what it depends on of its inputs, where that is
    less than all of their content; parts say it for themselves. `reads_data`: the world, where it is the data, is an input.
    `sees_masks(run)`: it may open masks, for scoring or for fully supervised training; every other stage runs under the mask
    guard. `reads_labels`: there, it may open the files that hold both labels and masks. `resumable` keeps a partial folder for
    the next try.
    `parallel` is where parts may run: threads of this process, or a cluster's workers.
    `on_device`: it computes on the place's device, in its parts where it has any.
    """

    name: str
    inputs: tuple[str, ...]
    spec: Callable[[RunSpec], dict[str, Any]]
    build: Callable[["Work"], dict[str, Any]]
    parts: Callable[["Work"], list[Part]] | None = None
    build_part: Callable[["Work"], dict[str, Any]] | None = None
    needs: Callable[[RunSpec, RunEnvironment], dict[str, Dependency]] = field(default=lambda run, place: {})
    takes: Callable[["Work"], dict[str, Any]] | None = None
    outside: Callable[[RunSpec, RunEnvironment], Any] = field(default=lambda run, place: None)
    reads_data: bool = False
    sees_masks: Callable[[RunSpec], bool] = field(default=lambda run: False)
    reads_labels: bool = False
    resumable: bool = False
    on_device: bool = False
    parallel: Literal["threads", "workers"] = "workers"

    def all_needs(self, run: RunSpec, place: RunEnvironment) -> dict[str, Dependency]:
        """Every input by name."""
        names = ("world", *self.inputs) if self.reads_data and run.dataset.layout == "world" else self.inputs
        return {name: Dependency(name, run) for name in names} | self.needs(run, place)


@dataclass(frozen=True)
class Work:
    """One piece of work: a stage of a run at a place with its complete inputs, or one part of it. `build` and `build_part`
    get it with the folder to fill."""

    stage: Stage
    run: RunSpec
    place: RunEnvironment
    inputs: dict[str, StageOutput]
    part: Part | None = None
    parts: dict[str, StageOutput] = field(default_factory=dict)
    folder: Path = Path()
    variant: str = ""  # of the run: a row of the ablation

    def input(self, name: str) -> Path:
        """Output folder of an input."""
        return self.inputs[name].folder

    @property
    def data(self) -> Path:
        """The data folder: the drawn world where that is the data."""
        found = self.inputs["world"].folder if "world" in self.inputs else self.place.data
        assert found is not None, f"{self.stage.name} reads data, but the run has none"
        return found

    @property
    def name(self) -> str:
        """What logs and task runs call it."""
        name = f"{self.stage.name} {self.part.name}" if self.part else self.stage.name
        return f"{name} ({self.variant})" if self.variant else name

    @property
    def this_part(self) -> Part:
        """The part to build."""
        assert self.part is not None, f"{self.stage.name}: this is the work of a whole stage"
        return self.part

    @property
    def kind(self) -> str:
        """The store's folder for its kind: a stage's outputs and its parts lie apart."""
        return f"{self.stage.name}-parts" if self.part else self.stage.name

    @property
    def on_gpu(self) -> bool:
        """Whether it computes on a GPU. Joining parts never does, nor do stages that only read and write."""
        whole = self.part is None and self.stage.parts is not None
        return self.place.device == "cuda" and self.stage.on_device and not whole

    def basis(self) -> dict[str, Any]:
        """Plain data over everything that the output depends on."""
        code = code_version(self.stage.build.__module__)
        if self.part:
            return {"stage": self.kind, "key": self.part.key, "code": code}
        contents = {name: output.content for name, output in sorted(self.inputs.items())}
        return {
            "stage": self.stage.name,
            "spec": self.stage.spec(self.run),
            "inputs": self.stage.takes(self) if self.stage.takes else contents,
            "parts": {part.name: part.key for part in self.stage.parts(self)} if self.stage.parts else {},
            "outside": self.stage.outside(self.run, self.place),
            "code": code,
        }

    def identity(self) -> str:
        """32 hex digits of `basis`."""
        return digest_of(self.basis())[:32]
