"""The loops in C over pixels (loops/*.c), as functions. They run without Python's lock, so that threads share an image's rows
or take an image each.

The library is loaded from this folder alone (build.py puts it there), and only if it was built from the sources beside it.
Where it is missing or older, it is built anew. Where that fails, excel computes without: `has_loops()` is False.
"""

import ctypes
import logging
from functools import lru_cache
from threading import Lock
from typing import Any

import numpy as np

from excel_core.kernels.build import LEVELS, LIBRARY, build, source_digest

__all__ = ["call", "has_loops"]

log = logging.getLogger(__name__)
_loading = Lock()


def has_loops() -> bool:
    """Whether the loops can be called. Where there is no library and none can be built, this warns once."""
    return _library() is not None


def call(name: str, *arguments: Any) -> int:
    """Call a function of loops/*.c: arrays as pointers to their values, whole numbers as int64, others as float, None as NULL;
    → what it returns, if that is a whole number or a pointer."""
    library = _library()
    if library is None:
        raise RuntimeError(f"{LIBRARY} is not there: run `python -m excel_core.kernels.build`, which needs a C compiler")
    return int(library.function(name)(*(_converted(argument) for argument in arguments)))


def _converted(argument: Any) -> Any:
    if isinstance(argument, np.ndarray):
        if not argument.flags.c_contiguous:
            raise ValueError(f"the loops take C-contiguous arrays; this one has strides {argument.strides}")
        return ctypes.c_void_p(argument.ctypes.data)
    if isinstance(argument, float | np.floating):
        return ctypes.c_float(float(argument))
    return argument if argument is None or isinstance(argument, ctypes.Array) else ctypes.c_int64(argument)


class _Library:
    """A loaded library, and the level of the processor at hand."""

    def __init__(self) -> None:
        self._functions = ctypes.CDLL(str(LIBRARY))
        self._functions.excel_source_digest.restype = ctypes.c_char_p
        self._functions.excel_level.restype = ctypes.c_int64
        self.level = min(self._functions.excel_level(), len(LEVELS) - 1)

    def is_current(self) -> bool:
        """Whether it was built from the sources there are."""
        return bool(self._functions.excel_source_digest() == source_digest().encode())

    @lru_cache  # noqa: B019  one library a process
    def function(self, name: str) -> Any:
        """A function for the processor's level, which returns int64."""
        function = self._functions[f"{name}_level{self.level}"]
        function.restype = ctypes.c_int64
        return function


@lru_cache
def _library() -> _Library | None:
    with _loading:  # two threads do not build at once
        return _load()


@lru_cache
def _load() -> _Library | None:
    try:
        if LIBRARY.exists():
            library = _Library()
            if library.is_current():
                return library
        problem = "older than its sources" if LIBRARY.exists() else "missing"
        log.warning("excel compiles its loops, once: %s is %s", LIBRARY, problem)
        build()
        return _Library()
    except OSError as error:
        log.warning("excel computes PAR by torch and the dense CRF by pydensecrf, more slowly: %s", error)
        return None
