"""What every command has: short options, `-q` for nothing but errors, and `--json` for results as data.

A command prints for people and calls `give` with its result. With `--json` alone that is all that standard output gets.
"""

import json
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from contextvars import ContextVar
from inspect import Parameter, signature
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from excel_core.errors import SettingError

__all__ = ["Command", "give", "is_silent", "with_output"]

STDOUT = "-"
SHORT = {
    "--set": "-s", "--data": "-d", "--method": "-m", "--config": "-c", "--name": "-n", "--out": "-o", "--force": "-f",
    "--yes": "-y", "--json": "-j", "--quiet": "-q",
}  # fmt: skip
Quiet = Annotated[bool, typer.Option("--quiet", help="print nothing but errors")]
Json = Annotated[
    str | None,
    typer.Option("--json", help="also write the result as JSON here; without a file, print that alone", metavar="[<file>]"),
]
_result: ContextVar[list[Any] | None] = ContextVar("result", default=None)
_silent: ContextVar[bool] = ContextVar("silent", default=False)


class Command(TyperCommand):
    """A command whose options have the same short names everywhere, and whose `--json` needs no value."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        taken = {name for param in self.params for name in param.opts}
        for param in self.params:
            for name in param.opts[:]:
                if SHORT.get(name, name) not in taken and name in SHORT:
                    param.opts.insert(0, SHORT[name])

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """`--json` at the end, or before another option, prints. Where a command takes any number of files, it never takes the
        next word for its own file, which would be overwritten: there, it is `--json=FILE`."""
        if any("--json" in param.opts and param.name == "json_place" for param in self.params):
            takes_many = any(param.nargs == -1 for param in self.params)
            args = list(_with_place(args, takes_many))
        return super().parse_args(ctx, args)


def _with_place(args: list[str], takes_many: bool) -> Iterator[str]:
    for at, word in enumerate(args):
        yield word
        following = args[at + 1] if at + 1 < len(args) else None
        is_file = following == STDOUT or (following is not None and not following.startswith("-") and not takes_many)
        if word in ("--json", SHORT["--json"]) and not is_file:
            yield STDOUT


def give(result: Any) -> None:
    """The command's result as plain data, for `--json`. Of several calls the last one counts."""
    results = _result.get()
    if results is not None:
        results[:] = [result]


def is_silent() -> bool:
    """Whether nobody reads what the command prints, so that it cannot ask a question either."""
    return _silent.get()


def with_output(body: Callable[..., Any]) -> Callable[..., Any]:
    """The command with `--quiet` and `--json`, unless it has options of that name itself."""
    own_parameters = list(signature(body).parameters.values())
    names = {parameter.name for parameter in own_parameters}
    extra = [
        Parameter(name, Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
        for name, default, annotation in (("json_place", None, Json), ("quiet", False, Quiet))
        if name not in names and not (name == "json_place" and "json_file" in names)
    ]

    def command(**values: Any) -> None:
        place = values.pop("json_place", None)
        quiet = values.pop("quiet", False)
        _check_place(place)
        with _written(place), _silenced(stdout=quiet or place == STDOUT, stderr=quiet):
            body(**values)

    command.__name__, command.__doc__, command.__module__ = body.__name__, body.__doc__, body.__module__
    command.__annotations__ = body.__annotations__ | {parameter.name: parameter.annotation for parameter in extra}
    in_order = [parameter.replace(kind=Parameter.KEYWORD_ONLY) for parameter in own_parameters] + extra
    command.__signature__ = signature(body).replace(parameters=in_order)  # type: ignore[attr-defined]
    return command


def _check_place(place: str | None) -> None:
    """SettingError for a file that cannot be written, before any work."""
    if place in (None, STDOUT):
        return
    path = Path(str(place))
    if not place or path.is_dir():
        raise SettingError(f"--json {place}: is a folder; name a file")
    above = next(folder for folder in path.absolute().parents if folder.exists())
    if not above.is_dir() or not os.access(above, os.W_OK):
        raise SettingError(f"--json {place}: {above} is no folder that can be written; name another file")


@contextmanager
def _silenced(stdout: bool, stderr: bool) -> Iterator[None]:
    with ExitStack() as stack:
        nowhere = stack.enter_context(open(os.devnull, "w", encoding="utf-8"))
        if stdout:
            stack.enter_context(redirect_stdout(nowhere))
        if stderr:
            stack.enter_context(redirect_stderr(nowhere))
        token = _silent.set(stdout)
        try:
            yield
        finally:
            _silent.reset(token)


@contextmanager
def _written(place: str | None) -> Iterator[None]:
    """After the block, write what it gave: also where it ends with an exit status of its own, such as `verify` of a damaged
    store, but not after an error."""
    results: list[Any] = []
    token = _result.set(results)
    try:
        yield
    except typer.Exit:
        _write(place, results)
        raise
    finally:
        _result.reset(token)
    _write(place, results)


def _write(place: str | None, results: list[Any]) -> None:
    from excel_core.files import write_json

    if place is None or not results:
        return
    if place == STDOUT:
        print(json.dumps(results[0], indent=2, ensure_ascii=False, default=str))
    else:
        write_json(Path(place), results[0])
