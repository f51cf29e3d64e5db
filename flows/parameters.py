"""The flows' parameters: the fields of a request, flat, with `edits` as a form over every field of a run.

Prefect makes the deployment's schema from them: its run form explains itself, and it refuses a wrong value when the run
is created. The form of `edits` comes from the specs in excel_core/config/, which alone hold bounds, choices and descriptions.
"""

from collections.abc import Callable
from inspect import Parameter, Signature
from typing import Annotated, Any, TypeVar, get_args

from prefect import Flow, flow
from pydantic import BaseModel, ConfigDict, Field, create_model
from pydantic.fields import FieldInfo
from typer.models import ParameterInfo

from excel_core.config import RunSpec, Spec
from flows.request import BenchmarkRequest, PaperRequest, Request, RunRequest, ScoreRequest

__all__ = ["Edits", "benchmark_flow", "chain_flow", "paper_flow", "score_flow"]

RequestT = TypeVar("RequestT", bound=Request)
Decorator = Callable[[Callable[[RequestT], str]], Flow[..., str]]
# The order of the fields in the form.
RUN_PARAMETERS = ("preset", "method", "data", "store", "clip", "device", "gpus", "runner", "settings", "edits")
SCORE_PARAMETERS = ("preset", "against", *RUN_PARAMETERS[1:])
PAPER_PARAMETERS = (
    "table", "data", "coco", "checkpoint", "limit", "method", "store", "clip", "device", "gpus", "runner", "settings",
)  # fmt: skip
BENCHMARK_PARAMETERS = (
    "preset", "methods", "seeds", "data", "limit", "store", "clip", "device", "gpus", "runner", "settings", "edits",
)  # fmt: skip


def chain_flow(name: str, description: str | None = None) -> Decorator[RunRequest]:
    """Decorator: `body(request) -> path` as the Prefect flow `name`; its parameters are the fields of RunRequest."""
    return lambda body: _request_flow(body, RunRequest, RUN_PARAMETERS, name, description)


def paper_flow(name: str) -> Decorator[PaperRequest]:
    """Decorator: `body(request) -> path` as the Prefect flow `name`; its parameters are the fields of PaperRequest."""
    return lambda body: _request_flow(body, PaperRequest, PAPER_PARAMETERS, name, None)


def benchmark_flow(name: str) -> Decorator[BenchmarkRequest]:
    """Decorator: `body(request) -> path` as the Prefect flow `name`; its parameters are the fields of BenchmarkRequest."""
    return lambda body: _request_flow(body, BenchmarkRequest, BENCHMARK_PARAMETERS, name, None)


def score_flow(name: str) -> Decorator[ScoreRequest]:
    """Decorator: `body(request) -> path` as the Prefect flow `name`; its parameters are the fields of ScoreRequest."""
    return lambda body: _request_flow(body, ScoreRequest, SCORE_PARAMETERS, name, None)


def _request_flow(
    body: Callable[[RequestT], str],
    model: type[RequestT],
    names: tuple[str, ...],
    flow_name: str,
    description: str | None,
) -> Flow[..., str]:
    """Prefect reads names, types and defaults from the signature, but descriptions from the docstring alone."""
    parameters = [_parameter(name, model.model_fields[name]) for name in names]
    signature = Signature(parameters, return_annotation=str)

    def run(*arguments: Any, **named: Any) -> str:
        values = signature.bind(*arguments, **named).arguments
        if isinstance(edits := values.get("edits"), BaseModel):
            values["edits"] = edits.model_dump(exclude_none=True)
        return body(model.checked(**values))

    run.__module__, run.__name__, run.__qualname__ = body.__module__, body.__name__, body.__qualname__
    run.__signature__ = signature  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters} | {"return": str}
    lines = [f"    {name}: {model.model_fields[name].description}" for name in names]
    run.__doc__ = "\n".join([f"{body.__doc__ or flow_name}\n\nArgs:", *lines])
    return flow(name=flow_name, description=description or body.__doc__, persist_result=False)(run)


def _parameter(name: str, field: FieldInfo) -> Parameter:
    """A field as a parameter. Left out of its annotation: the command-line option, which Prefect does not know."""
    bounds = tuple(item for item in field.metadata if not isinstance(item, ParameterInfo))
    annotation: Any = Annotated[(field.annotation, *bounds)] if bounds else field.annotation
    if name == "edits":
        annotation = Edits | None
    return Parameter(name, Parameter.POSITIONAL_OR_KEYWORD, default=field.default, annotation=annotation)


def _edits_of(spec: type[BaseModel], leave_out: tuple[str, ...] = ()) -> type[BaseModel]:
    """`spec` with every field optional: None keeps the preset's value; nested specs likewise."""
    fields = {name: _optional(field) for name, field in spec.model_fields.items() if name not in leave_out}
    config = ConfigDict(extra="forbid", frozen=True)
    name = spec.__name__.removesuffix("Spec") + "Edits"
    return create_model(name, __config__=config, __doc__=spec.__doc__, **fields)  # type: ignore[call-overload, no-any-return]


def _optional(field: FieldInfo) -> tuple[Any, Any]:
    annotation: Any = field.annotation
    if isinstance(annotation, type) and issubclass(annotation, Spec):
        return _edits_of(annotation) | None, Field(None, description=annotation.__doc__)
    bounds = tuple(field.metadata)
    bounded = Annotated[(annotation, *bounds)] if bounds else annotation  # bounds inside the union: None passes them
    unset = "empty: the preset's value" + ("; for None use `settings`" if type(None) in get_args(annotation) else "")
    return bounded | None, Field(None, description=f"{field.description} ({unset})")


Edits = _edits_of(RunSpec, leave_out=("preset", "method", "paper", "benchmark"))
