"""What the shell offers after <TAB>: the choices of an option, and the names of the store's runs."""

from contextlib import suppress
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

__all__ = ["choices_of", "run_names"]


def choices_of(annotation: Any) -> list[str]:
    """The words that a field's type allows; none where it is not a choice."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return [str(choice) for choice in arguments]
    if origin in (Annotated, Union, UnionType, list):
        return choices_of(arguments[0])
    return []


def run_names(incomplete: str) -> list[str]:
    """`latest`, and the names and ids of the runs in $EXCEL_STORE or runs/, the newest first."""
    from flows.local.state import store_folder
    from tasks.history.run_record import read_records

    names = ["latest"]
    with suppress(Exception):  # a shell that waits for words is no place for a message
        for record in reversed(read_records(store_folder(None))):
            names += [name for name in (record.flow_run_name, record.id) if name]
    return [name for name in dict.fromkeys(names) if name.startswith(incomplete)]
