"""The flows' parameters: the fields of a request, flat, with `edits` as a form over every field of a run.

Prefect makes the deployment's schema from them: its run form explains itself, and it refuses a wrong value when the run
is created. The form of `edits` comes from the specs in excel_core/config/, which alone hold bounds, choices and descriptions.

Of a deployment more is asked than of a caller in Python: `data` must be given, and `settings` must name fields that there are.
"""

from collections.abc import Callable, Sequence
from inspect import Parameter, Signature
from typing import Annotated, Any, TypeVar, get_args

from prefect import Flow, flow
from prefect.utilities.callables import parameter_schema
from pydantic import BaseModel, ConfigDict, Field, create_model
from pydantic.fields import FieldInfo
from typer.models import ParameterInfo

from excel_core.config import RunSpec, Spec
from excel_core.config.methods import METHODS
from flows.config_file import of_request
from flows.request import BenchmarkRequest, LoggedRequest, PaperRequest, Request, RunRequest, ScoreRequest
from flows.request_fields import MAX_SETTING, MAX_SETTINGS, Text

__all__ = ["Edits", "benchmark_flow", "chain_flow", "logged_flow", "paper_flow", "score_flow"]

RequestT = TypeVar("RequestT", bound=Request)
NOT_SET = ("preset", "method", "paper", "benchmark")  # fields of a run that have parameters of their own
# What may stand before a setting's name, so that it is of one data set or of one method alone.
PREFIXES: dict[type[Request], tuple[str, ...]] = {PaperRequest: ("voc", "coco"), BenchmarkRequest: tuple(METHODS)}
Decorator = Callable[[Callable[[RequestT], str]], Flow[..., str]]
# The order of the fields in the form.
RUN_PARAMETERS = ("preset", "method", "data", "store", "clip", "device", "gpus", "runner", "settings", "edits")
LOGGED_PARAMETERS = (*RUN_PARAMETERS[:8], "log", *RUN_PARAMETERS[8:])
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


def logged_flow(name: str, description: str | None = None) -> Decorator[LoggedRequest]:
    """Decorator: `body(request) -> path` as the Prefect flow `name`; its parameters are the fields of LoggedRequest."""
    return lambda body: _request_flow(body, LoggedRequest, LOGGED_PARAMETERS, name, description)


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
        request = model.checked(**values)
        with of_request(request):
            return body(request)

    run.__module__, run.__name__, run.__qualname__ = body.__module__, body.__name__, body.__qualname__
    run.__signature__ = signature  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters} | {"return": str}
    lines = [f"    {name}: {model.model_fields[name].description}" for name in names]
    run.__doc__ = "\n".join([f"{body.__doc__ or flow_name}\n\nArgs:", *lines])
    request_flow = flow(name=flow_name, description=description or body.__doc__, persist_result=False)(run)
    # `prefect deploy` reads the flow's signature, a call the function's.
    request_flow.__signature__ = Signature([_form_parameter(parameter, model) for parameter in parameters])  # type: ignore[attr-defined]
    request_flow.parameters = parameter_schema(request_flow)
    return request_flow


def _parameter(name: str, field: FieldInfo) -> Parameter:
    """A field as a parameter. Left out of its annotation: the command-line option, which Prefect does not know."""
    bounds = tuple(item for item in field.metadata if not isinstance(item, ParameterInfo))
    annotation: Any = Annotated[(field.annotation, *bounds)] if bounds else field.annotation
    if name == "edits":
        annotation = Edits | None
    return Parameter(name, Parameter.POSITIONAL_OR_KEYWORD, default=field.default, annotation=annotation)


def _form_parameter(parameter: Parameter, model: type[Request]) -> Parameter:
    """A parameter as a deployment asks for it. All by name: one that must be given may then follow one that need not."""
    parameter = parameter.replace(kind=Parameter.KEYWORD_ONLY)
    if parameter.name == "data" and model is not PaperRequest:  # whose data set may be COCO alone
        return parameter.replace(annotation=Text, default=Parameter.empty)
    if parameter.name == "settings":
        setting: Any = Annotated[str, Field(pattern=_setting_pattern(model), max_length=MAX_SETTING)]
        several = Annotated[list[setting], Field(max_length=MAX_SETTINGS)]
        return parameter.replace(annotation=several | setting)
    return parameter


def _setting_pattern(model: type[Request]) -> str:
    """What `stage.field=` must look like: fields that there are, and what may stand before them. The run checks values."""
    prefixes = PREFIXES.get(model, ())
    prefix = rf"(({'|'.join(prefixes)})\.)?" if prefixes else ""
    own = ("benchmark",) if model is BenchmarkRequest else ()
    return rf"^{prefix}({_field_pattern(RunSpec, [name for name in NOT_SET if name not in own])}) *="


def _field_pattern(spec: type[BaseModel], leave_out: Sequence[str] = ()) -> str:
    """The dotted names of all fields below a spec: `crop|segmenter\\.(width|layers)`."""
    names = []
    for name, field in spec.model_fields.items():
        inner: Any = field.annotation
        if name not in leave_out:
            is_group = isinstance(inner, type) and issubclass(inner, Spec)
            names.append(rf"{name}\.({_field_pattern(inner)})" if is_group else name)
    return "|".join(names)


def _edits_of(spec: type[BaseModel], leave_out: Sequence[str] = ()) -> type[BaseModel]:
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


Edits = _edits_of(RunSpec, leave_out=NOT_SET)
