"""A request's fields as a command's options, the options that several commands have, and what commands print to."""

import copy
import re
import sys
from collections.abc import Callable, Mapping
from inspect import Parameter, Signature, signature
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import typer
from pydantic.fields import FieldInfo
from rich.console import Console
from typer.models import ArgumentInfo, ParameterInfo

from excel_core.errors import SettingError
from flows.cli.complete import choices_of
from flows.request import Request
from flows.request_fields import STORE_HELP

__all__ = ["FILE_COLUMNS", "Name", "Store", "check_name", "console", "takes_request"]

FILE_COLUMNS = 160  # of a table in a file or pipe, so that nothing is cut

Store = Annotated[str | None, typer.Option(help=STORE_HELP, metavar="<path>", show_default=False)]


Name = Annotated[
    str | None,
    typer.Option("--name", help="call the run so, in Prefect, in the store and for other commands", show_default=False),
]
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,79}")
Config = Annotated[
    Path | None,
    typer.Option(help="options and settings from a YAML file; what is given here wins", metavar="<file>", show_default=False),
]


def takes_request(
    model: type[Request], names: str, optional: str = "", fixed: Mapping[str, str] | None = None
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Decorator of a command with a parameter `request`: on the command line, the fields `names` of `model` and `--config`
    stand in its place; positional arguments among them are required, here or in the file, unless they are `optional`. `fixed`:
    fields that the command sets itself. The command gets the request that they make; SettingError for a wrong value."""
    positional = {name for name in names.split() if isinstance(_option_of(model.model_fields[name]), ArgumentInfo)}
    required = positional - set(optional.split())
    parameters = [_parameter(name, model.model_fields[name], name in required) for name in names.split()]
    config = Parameter("config", Parameter.KEYWORD_ONLY, default=None, annotation=Config)

    def decorate(body: Callable[..., None]) -> Callable[..., None]:
        # The body's parameters before and after `request` are options of the command alone.
        own_parameters = list(signature(body).parameters.values())
        at = [parameter.name for parameter in own_parameters].index("request")
        in_order = [*own_parameters[:at], *parameters, config, *own_parameters[at + 1 :]]

        def command(**values: Any) -> None:
            options = {parameter.name: values.pop(parameter.name) for parameter in parameters}
            options = {name: value for name, value in options.items() if value is not None}
            fields = _with_config(values.pop("config"), options, names.split(), fixed or {})
            for name in sorted(required - set(fields)):
                valid = ", ".join(choices_of(model.model_fields[name].annotation))
                raise SettingError(f"{name.upper()} is missing: name it, or a file that has it, --config FILE; valid: {valid}")
            body(request=model.checked(**fields), **values)

        command.__name__, command.__doc__ = body.__name__, body.__doc__
        command.__annotations__ = {parameter.name: parameter.annotation for parameter in in_order}
        keyword_only = [parameter.replace(kind=Parameter.KEYWORD_ONLY) for parameter in in_order]
        command.__signature__ = Signature(keyword_only)  # type: ignore[attr-defined]
        return command

    return decorate


def _with_config(path: Path | None, given: dict[str, Any], names: list[str], fixed: Mapping[str, str]) -> dict[str, Any]:
    """The fields of the file under those of the command line; of settings, first those of the file, then the others."""
    if path is None:
        return {**fixed, **given}
    from flows.config_file import read_config

    file = read_config(path, (*fixed, *names))
    for name, value in fixed.items():
        if file.get(name, value) != value:
            raise SettingError(f"--config {path}: {name}: is {file[name]}, this command is of {value}")
    settings = [*file.get("settings", []), *given.get("settings", [])]
    return {**file, **fixed, **given} | ({"settings": settings} if settings else {})


def _option_of(field: FieldInfo) -> ParameterInfo:
    return next(item for item in field.metadata if isinstance(item, ParameterInfo))


def _parameter(name: str, field: FieldInfo, is_required: bool) -> Parameter:
    """A field as typer takes it: its plain type and its option, None where it is not given; the help says its default."""
    option = copy.copy(_option_of(field))
    if option.show_default is True and field.default and not is_required:
        option.help = f"{option.help}; default {field.default}"
    if choices := choices_of(field.annotation):
        option.autocompletion = lambda incomplete: [choice for choice in choices if choice.startswith(incomplete)]
    annotation: Any = Annotated[(_plain(field.annotation) | None, option)]
    return Parameter(name, Parameter.KEYWORD_ONLY, default=None, annotation=annotation)


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


def check_name(name: str | None) -> None:
    """SettingError for a name that no run can have."""
    if name is not None and (not NAME.fullmatch(name) or name == "latest"):
        raise SettingError(f"--name {name!r}: expected up to 80 letters, digits and . _ -, no . or - first, not `latest`")


def console(width: int = 100) -> Console:
    """Standard output; a file or pipe gets `width` columns."""
    return Console(width=None if sys.stdout.isatty() else width)
