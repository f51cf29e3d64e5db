"""What a user can ask of a chain flow: one signature for all of them, and `Edits`, a form over every field of a run.

`Edits` is made from the specs in excel_core/config/, so a field's bounds, choices and description stand there alone.
Prefect turns both into the deployment's schema: its run form explains itself, and a wrong value is refused when the run
is created. (No `from __future__ import annotations` here: Prefect needs the types themselves.)
"""

from collections.abc import Callable
from typing import Annotated, Any, Literal, get_args

from prefect import Flow, flow
from pydantic import BaseModel, ConfigDict, Field, create_model
from pydantic.fields import FieldInfo

from excel_core.config import RunSpec, Spec
from flows.settings import MOST_GPUS, RUNNER_PATTERN, check_runner, make_environment, make_run
from tasks.engine.stage import RunEnvironment

__all__ = ["Device", "Edits", "Gpus", "Method", "Runner", "Setting", "Text", "chain_flow"]

Body = Callable[[RunSpec, RunEnvironment, str], str]
SETTING_PATTERN = r"^\w+(\.\w+)+ *="


def _edits_of(spec: type[BaseModel], leave_out: tuple[str, ...] = ()) -> type[BaseModel]:
    """`spec` with every field optional: None keeps the preset's value; nested specs likewise."""
    fields = {name: _optional(field) for name, field in spec.model_fields.items() if name not in leave_out}
    config = ConfigDict(extra="forbid", frozen=True)
    name = spec.__name__.removesuffix("Spec") + "Edits"
    return create_model(name, __config__=config, __doc__=spec.__doc__, **fields)  # type: ignore[call-overload, no-any-return]


def _optional(field: FieldInfo) -> tuple[Any, FieldInfo]:
    kind: Any = field.annotation
    if isinstance(kind, type) and issubclass(kind, Spec):
        return _edits_of(kind) | None, Field(None, description=kind.__doc__)
    bounds = tuple(field.metadata)
    bounded = Annotated[(kind, *bounds)] if bounds else kind  # bounds inside the union: None passes them
    unset = "empty: the preset's value" + ("; for None use `settings`" if type(None) in get_args(kind) else "")
    return bounded | None, Field(None, description=f"{field.description} ({unset})")


Edits = _edits_of(RunSpec, leave_out=("preset", "method", "paper"))

Preset = Literal["voc", "coco", "photos", "demo"]
Method = Literal["reference", "paper", "clean"]
Device = Literal["cpu", "cuda", "mps"]
Text = Annotated[str, Field(min_length=1)]
Runner = Annotated[str, Field(pattern=RUNNER_PATTERN)]
Gpus = Annotated[int, Field(ge=1, le=MOST_GPUS)]
Setting = Annotated[str, Field(pattern=SETTING_PATTERN)]


def chain_flow(name: str, description: str | None = None) -> Callable[[Body], Flow[..., str]]:
    """Decorator: `body(run, place, runner) -> path` as the Prefect flow `name` with the one signature. The run and its
    place are made first, so that a wrong setting ends the flow before any task."""

    def make(body: Body) -> Flow[..., str]:
        def chain(
            preset: Preset = "voc",
            method: Method = "reference",
            data: Text | None = None,
            store: Text | None = None,
            clip: Text | None = None,
            device: Device = "cpu",
            gpus: Gpus = 1,
            runner: Runner = "sequential",
            settings: list[Setting] = [],  # noqa: B006  Prefect shows it as the form's default; it is never changed
            edits: Edits | None = None,
        ) -> str:
            """What follows are the descriptions in Prefect's form; it overlooks those of `Annotated`.

            Args:
                preset: Data set with its hyper-parameters; photos: a folder of your own; demo: the built-in picture-book world.
                method: How to compute: as the published code does, as the paper's equations are printed, or cleaned up.
                data: Data folder in the preset's layout, absolute or relative to the worker's. demo needs none.
                store: Folder of all outputs; empty: the worker's $EXCEL_STORE, else runs/.
                clip: excel-tiny, MODEL:TAG (downloaded) or MODEL:FILE; empty: the preset's.
                device: Where tensors live.
                gpus: Processes that train together, a GPU each; they share `train.batch_size`. With device cpu: CPU processes.
                runner: sequential (in the flow's own process), dask (workers on this machine) or dask:tcp://HOST:PORT.
                settings: Edits as text, each stage.field=value with a YAML value; they win over `edits`.
                edits: Edits as a form, a group a stage; whatever is empty keeps the preset's value.
            """
            values = {} if edits is None else edits.model_dump(exclude_none=True)
            run = make_run(preset, method, settings, clip, values)
            return body(run, make_environment(run, data, store, device, gpus), check_runner(runner))

        for copied in ("__module__", "__name__", "__qualname__"):
            setattr(chain, copied, getattr(body, copied))
        return flow(name=name, description=description or body.__doc__, persist_result=False)(chain)

    return make
