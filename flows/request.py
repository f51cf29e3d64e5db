"""What a user can ask for, written once: the command line, Prefect's forms and Python callers share these models.

A field holds its type, bounds and choices (request_fields.py), its description in Prefect's form, and its option. From the
fields flows/parameters.py makes the flows' parameters, and flows/cli/options.py those of the commands.
"""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, Self, get_args

import typer
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from pydantic_core import ErrorDetails

from excel_core.errors import SettingError, shown
from flows.request_fields import (
    MAX_GPUS,
    MAX_METHODS,
    MAX_SEEDS,
    MAX_SETTINGS,
    METHOD_HELP,
    STORE_HELP,
    MethodName,
    Preset,
    Settings,
    Table,
    Text,
    option,
    path_option,
)

if TYPE_CHECKING:  # `excel --help` imports this module: what imports torch is imported where it is used
    from excel_core.config import RunSpec
    from tasks.engine.stage import RunEnvironment

__all__ = [
    "BenchmarkRequest", "DataRequest", "LoggedRequest", "PaperRequest", "Request", "ResolvedRun", "RunRequest", "ScoreRequest",
]  # fmt: skip


class ResolvedRun(NamedTuple):
    """A checked request: what to compute, and where."""

    run: "RunSpec"
    environment: "RunEnvironment"


class Request(BaseModel):
    """The options that all flows share."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    store: Annotated[Text | None, path_option(STORE_HELP)] = Field(
        None, description="Folder of all outputs, or s3://BUCKET/PREFIX; empty: the worker's $EXCEL_STORE, else runs/."
    )
    clip: Annotated[Text | None, option("excel-tiny, MODEL:TAG or MODEL:FILE")] = Field(
        None, description="excel-tiny, MODEL:TAG (downloaded) or MODEL:FILE; empty: the preset's."
    )
    device: Annotated[Literal["cpu", "cuda", "mps"], typer.Option(help="cpu, cuda or mps")] = Field(
        "cpu", description="Where tensors live."
    )
    gpus: Annotated[int, typer.Option(help="GPUs that train together, or processes with cpu; they share the batch")] = Field(
        1,
        ge=1,
        le=MAX_GPUS,
        description="Processes that train together, a GPU each; they share `train.batch_size`. With device cpu: CPU processes.",
    )
    runner: Annotated[str, typer.Option(help="sequential, dask or dask:tcp://HOST:PORT")] = Field(
        "sequential",
        pattern=r"^(sequential|dask(:tcp://[\w.-]+:\d{1,5})?)$",
        description="sequential (in the flow's own process), dask (workers on this machine) or dask:tcp://HOST:PORT.",
    )
    settings: Annotated[Settings, option("stage.field=value, repeatable", "--set")] = Field(
        [],
        max_length=MAX_SETTINGS,
        description="Edits as text, each stage.field=value with a YAML value; one needs no list. They win over `edits`.",
    )

    @classmethod
    def checked(cls, **values: Any) -> Self:
        """The request with these fields; SettingError, in place of pydantic's error, for a value that is not valid."""
        try:
            return cls(**values)
        except ValidationError as error:
            raise SettingError(_refusal(cls, error.errors()[0])) from None


class MethodRequest(Request):
    """The options of a flow that computes by one method."""

    method: Annotated[MethodName, typer.Option(help=METHOD_HELP)] = Field(
        "excel",
        description="The method and its variant: as its published code computes (reference), without that code's accidents "
        "(clean), or as ExCEL's equations are printed (paper). Variants alone are ExCEL's.",
    )

    @field_validator("method", mode="before")
    @classmethod
    def _known_method(cls, method: Any) -> Any:
        """SettingError for an unknown one, which says more than the list of all."""
        from excel_core.config.methods import parse_method

        parse_method(str(method))
        return method


class DataRequest(Request):
    """The options of a flow over one preset's data."""

    preset: Annotated[Preset, typer.Argument(help="voc, coco, photos or demo")] = Field(
        "voc",
        description="Data set with its hyper-parameters; photos: a folder of your own; demo: the built-in picture-book world.",
    )
    data: Annotated[Text | None, path_option("data folder in the preset's layout")] = Field(
        None,
        description="Data folder in the preset's layout, absolute or relative to the worker's; demo has its own.",
    )
    edits: dict[str, Any] | None = Field(
        None, description="Edits as a form, a group a stage; whatever is empty keeps the preset's value."
    )


class RunRequest(MethodRequest, DataRequest):
    """A run of the whole chain, of one stage, or of the ablation."""

    def spec(self) -> "RunSpec":
        """What to compute. Refuses what is wrong as far as it shows without the data folder."""
        from flows.settings import run_spec

        with _names_of_files():
            return run_spec(self)

    def resolve(self) -> ResolvedRun:
        """What to compute, and where. SettingError, DataError, ModelError or PromptError for anything wrong, before work
        starts: settings, data folder, device, GPUs, checkpoint."""
        from flows.settings import run_environment

        with _names_of_files():
            run = self.spec()
            return ResolvedRun(run, run_environment(run, self))


class LoggedRequest(RunRequest):
    """A run that trains, and may tell a tracker while it does."""

    log: Annotated[
        Annotated[Text, Field(pattern=r"^(tensorboard|mlflow|wandb):.*\S")] | None,
        option("tensorboard:FOLDER, mlflow:FOLDER, mlflow:http://HOST:PORT or wandb:PROJECT gets the losses while it trains"),
    ] = Field(
        None,
        description="Tracker that gets the losses while the run trains, and its scores: tensorboard:FOLDER, mlflow:FOLDER, "
        "mlflow:http://HOST:PORT or wandb:PROJECT; empty: none. It changes no result.",
    )

    def resolve(self) -> ResolvedRun:
        """As RunRequest. SettingError too for a tracker that is not there, or a place that cannot be one."""
        from tasks.trackers.target import check_target, parse_target

        if self.log is not None:
            check_target(parse_target(self.log))
        return super().resolve()


class ScoreRequest(RunRequest):
    """A score of the training-free label maps, compared with an earlier run's."""

    against: Annotated[Text | None, option("run to compare with: its id or beginning, its Prefect name, or `latest`")] = Field(
        None,
        description="Run to compare with: its id or its beginning, its name, or `latest`; empty: the newest "
        "complete run of the same data with other texts.",
    )

    def resolve(self) -> ResolvedRun:
        """As RunRequest. SettingError too for a run to compare with that is not complete, or made no label maps."""
        from tasks.history.earlier_run import named_run

        resolved = super().resolve()
        if self.against is not None:
            named_run(resolved.environment.store, self.against)
        return resolved


class PaperRequest(MethodRequest):
    """A table of the paper, or its figures 4 to 6."""

    table: Annotated[Table, typer.Argument(help="table-1 … table-7, or figures")] = Field(
        "table-1", description="table-1 to table-7, or figures."
    )
    data: Annotated[Text | None, path_option("PASCAL VOC 2012, as downloaded")] = Field(
        None, description="PASCAL VOC 2012, as downloaded."
    )
    coco: Annotated[Text | None, path_option("MS COCO 2014, for its rows in tables 1 and 7")] = Field(
        None, description="MS COCO 2014 as downloaded, for its rows in tables 1 and 7; empty: they are left out."
    )
    checkpoint: Annotated[Text | None, path_option("a segmenter of the published code, instead of training")] = Field(
        None, description="A segmenter that the published code trained, instead of training the full method."
    )
    limit: Annotated[
        Annotated[int, Field(ge=1)] | None,
        typer.Option(min=1, help="so many images a split, to try it: no reproduction", show_default=False),
    ] = Field(None, description="Images of each split, to try a table out; the result is no reproduction.")
    clip: Annotated[Text | None, option("excel-tiny, MODEL:TAG or MODEL:FILE")] = Field(
        None, description="excel-tiny, MODEL:TAG (downloaded) or MODEL:FILE; empty: ViT-B-16:openai."
    )
    settings: Annotated[Settings, option("stage.field=value, repeatable", "--set")] = Field(
        [],
        max_length=MAX_SETTINGS,
        description="Edits as text, each stage.field=value with a YAML value; with voc. or coco. before it, of that data set "
        "alone.",
    )

    @field_validator("table", mode="before")
    @classmethod
    def _named(cls, table: Any) -> Any:
        """`5` is short for `table-5`."""
        return f"table-{table}" if str(table).isdigit() else table

    def resolve(self) -> list[ResolvedRun]:
        """A run for each data set that is named, VOC first. Raises what RunRequest.resolve raises."""
        from flows.paper_runs import paper_runs

        with _names_of_files():
            return paper_runs(self)


class BenchmarkRequest(DataRequest):
    """Methods on the same images."""

    methods: Annotated[list[MethodName], option("NAME[:VARIANT],…; the others are compared with the first", "--methods")] = (
        Field(
            [],
            max_length=MAX_METHODS,
            description="NAME or NAME:VARIANT each, the one that the others are compared with first; empty: all, as published.",
        )
    )
    seeds: Annotated[
        Annotated[int, Field(ge=1, le=MAX_SEEDS)] | None,
        option("seeds of k-means and training, from the run's own on; default 3, of the demo 2"),
    ] = Field(None, description="Seeds of k-means and training, from the run's own on; empty: 3, of the demo 2.")
    limit: Annotated[Annotated[int, Field(ge=1)] | None, option("so many images a split, to try it out")] = Field(
        None, description="Images of each split, to try it out; on VOC and COCO training is shortened in proportion."
    )
    settings: Annotated[Settings, option("[METHOD.]stage.field=value, repeatable", "--set")] = Field(
        [],
        max_length=MAX_SETTINGS,
        description="Edits as text, each stage.field=value with a YAML value; with a method's name before it, of that method "
        "alone. They win over `edits`.",
    )

    @field_validator("methods", mode="before")
    @classmethod
    def _one_by_one(cls, methods: Any) -> Any:
        """`a,b` is short for two of them. SettingError for an unknown one."""
        from excel_core.config.methods import parse_method

        texts = [methods] if isinstance(methods, str) else methods
        if not isinstance(texts, list):
            return methods
        names = [name.strip() for text in texts for name in str(text).split(",")]
        for name in names:
            parse_method(name)
        return names

    def resolve(self) -> ResolvedRun:
        """The run of the first method that holds the comparison. Raises what RunRequest.resolve raises, for any method."""
        from flows.benchmark_run import benchmark_run

        with _names_of_files():
            return benchmark_run(self)


@contextmanager
def _names_of_files() -> Iterator[None]:
    """SettingError where a path that the request names is longer than the file system's names."""
    try:
        yield
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        raise SettingError(f"{shown(error.filename)}: no file has so long a name; shorten it") from None


def _refusal(model: type[Request], problem: ErrorDetails) -> str:
    """What a user reads in place of pydantic's words."""
    name, value = str(problem["loc"][0]), shown(problem["input"])
    tool = shown(str(problem["input"]).partition(":")[0])  # what follows may be an address with a password
    if problem["type"] == "literal_error":
        valid = "valid" + {"preset": " presets"}.get(name, "")
        return f"unknown {name} {value}; {valid}: {', '.join(get_args(model.model_fields[name].annotation))}"
    expected = {
        "runner": f"unknown runner {value}; valid: sequential, dask, dask:tcp://HOST:PORT",
        "gpus": f"--gpus {value}: expected 1 to {MAX_GPUS}",
        "seeds": f"--seeds {value}: expected 1 to {MAX_SEEDS}",
        "log": f"--log {tool}: expected tensorboard:FOLDER, mlflow:FOLDER, mlflow:http://HOST:PORT or wandb:PROJECT",
        "settings": f"--set {value}: expected stage.field=value, e.g. refine.par.iterations=10",
    }
    return expected.get(name, f"--{name} {value}: {problem['msg']}")
