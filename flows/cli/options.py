"""A request's fields as a command's options, the options that several commands have, and what commands print to."""

import sys
from collections.abc import Callable
from inspect import Parameter, Signature, signature
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import typer
from pydantic.fields import FieldInfo
from rich.console import Console
from typer.models import ArgumentInfo, ParameterInfo

from flows.request import STORE_HELP, Request

__all__ = ["FILE_COLUMNS", "Store", "console", "takes_request"]

FILE_COLUMNS = 160  # of a table in a file or pipe, so that nothing is cut

Store = Annotated[str | None, typer.Option(help=STORE_HELP, metavar="<path>", show_default=False)]


def takes_request(model: type[Request], names: str, optional: str = "") -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Decorator of a command with a parameter `request`: on the command line, the fields `names` of `model` stand in its
    place; positional arguments among them are required unless they are `optional`. The command gets the request that they
    make; SettingError for a value that is not valid."""
    parameters = [_parameter(name, model.model_fields[name], name in optional.split()) for name in names.split()]

    def decorate(body: Callable[..., None]) -> Callable[..., None]:
        # The body's parameters before and after `request` are options of the command alone.
        others = list(signature(body).parameters.values())
        at = [parameter.name for parameter in others].index("request")
        in_order = [*others[:at], *parameters, *others[at + 1 :]]

        def command(**values: Any) -> None:
            fields = {parameter.name: values.pop(parameter.name) for parameter in parameters}
            fields = {name: value for name, value in fields.items() if value is not None}
            body(request=model.checked(**fields), **values)

        command.__name__, command.__doc__ = body.__name__, body.__doc__
        command.__annotations__ = {parameter.name: parameter.annotation for parameter in in_order}
        keyword_only = [parameter.replace(kind=Parameter.KEYWORD_ONLY) for parameter in in_order]
        command.__signature__ = Signature(keyword_only)  # type: ignore[attr-defined]
        return command

    return decorate


def _parameter(name: str, field: FieldInfo, is_optional: bool) -> Parameter:
    """A field as typer takes it: its plain type, its option, and its default unless it is a required positional argument."""
    option = next(item for item in field.metadata if isinstance(item, ParameterInfo))
    default = Parameter.empty if isinstance(option, ArgumentInfo) and not is_optional else field.default or None
    annotation: Any = Annotated[(_plain(field.annotation), option)]
    return Parameter(name, Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _plain(annotation: Any) -> Any:
    """A type without bounds and choices. Typer would refuse a wrong value in its own words; the request does it in ours."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _plain(arguments[0])
    if origin is Literal:
        return str
    if origin is list:
        return list[_plain(arguments[0])] | None  # type: ignore[misc]
    if origin in (Union, UnionType):
        return _plain(arguments[0]) | None
    return annotation


def console(width: int = 100) -> Console:
    """Standard output; a file or pipe gets `width` columns."""
    return Console(width=None if sys.stdout.isatty() else width)
