"""The pickle inside a TorchScript archive, taken apart without running anything: a stack machine that knows the few operations
that such pickles consist of. An object becomes a dictionary of its attributes. A name stands for itself: nothing is imported or
called. Whatever else the pickle asks for is refused.
"""

import io
import math
import pickletools
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from excel_core.errors import ModelError

__all__ = ["DTYPES", "ModuleObject", "Name", "PickleInterpreter", "refused"]

MAX_AXES = 16
REBUILD, ORDERED_DICT = "torch._utils _rebuild_tensor_v2", "collections OrderedDict"
CLASS_PREFIX = "__torch__."  # of the archive's own classes; in a pickle they are `__torch__.MODULE NAME`
TAGS = "torch.jit._pickle "  # lists of one type, which newer versions of PyTorch write through these functions
TYPED_LISTS = {TAGS + name for name in ("build_intlist", "build_doublelist", "build_boollist", "build_tensorlist")}
DTYPES = {
    "torch DoubleStorage": torch.float64,
    "torch FloatStorage": torch.float32,
    "torch HalfStorage": torch.float16,
    "torch BFloat16Storage": torch.bfloat16,
    "torch LongStorage": torch.int64,
    "torch IntStorage": torch.int32,
    "torch ShortStorage": torch.int16,
    "torch CharStorage": torch.int8,
    "torch ByteStorage": torch.uint8,
    "torch BoolStorage": torch.bool,
}
NAMES = {REBUILD, ORDERED_DICT, TAGS + "restore_type_tag", *TYPED_LISTS, *DTYPES}


@dataclass(frozen=True)
class Name:
    """`MODULE NAME` in the pickle. It is never looked up."""

    text: str


@dataclass
class ModuleObject:
    """An object of one of the archive's classes: its attributes alone."""

    attributes: dict[Any, Any] = field(default_factory=dict)


def refused(path: Path, why: str) -> ModelError:
    """The error of an archive that is not read, with what to do next."""
    return ModelError(
        f"{path}: not readable as the weights in a TorchScript archive: {why}; nothing of it was run. Convert it where you "
        "trust it, or give a state dict (.pt) or .safetensors file"
    )


class PickleInterpreter:
    """A stack machine for the pickle operations of such archives. `run` gives what is on the stack at the end. `storage` gives
    the flat tensor that the pickle names; errors name the archive, `path`."""

    def __init__(self, path: Path, storage: Callable[[Any], Tensor]) -> None:
        self._path, self._storage = path, storage
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}

    def run(self, pickle: bytes) -> Any:
        """The pickle's object. ModelError for an operation that is not known here, or out of place."""
        try:
            for operation, argument, _ in pickletools.genops(io.BytesIO(pickle)):
                if operation.name == "STOP":
                    return self._stack.pop()
                self._step(operation.name, argument)
        except (IndexError, KeyError, ValueError) as error:  # of an empty stack, an unknown memo, a pickle that is cut off
            raise refused(self._path, f"its data.pkl is damaged ({type(error).__name__})") from None
        raise refused(self._path, "its data.pkl has no end")

    def _step(self, operation: str, argument: Any) -> None:
        stack = self._stack
        if operation == "PROTO":
            return
        if operation == "MARK":
            self._marks.append(len(stack))
        elif operation in ("BINPUT", "LONG_BINPUT"):
            self._memo[argument] = stack[-1]
        elif operation in ("BINGET", "LONG_BINGET"):
            stack.append(self._memo[argument])
        elif operation in _LITERALS:
            stack.append(argument)
        elif operation in _CONSTANTS:
            stack.append(_CONSTANTS[operation]())
        elif operation in _ACTIONS:
            _ACTIONS[operation](self, argument)
        else:
            raise self._refused(f"its data.pkl has the operation {operation}")

    def _since_mark(self) -> list[Any]:
        start = self._marks.pop()
        values = self._stack[start:]
        if len(self._stack) < start:
            raise IndexError
        del self._stack[start:]
        return values

    def _name(self, text: str) -> None:
        if text not in NAMES and not text.startswith(CLASS_PREFIX):
            raise self._refused(f"it asks for {text.replace(' ', '.')[:80]!r}, which no weights need")
        self._stack.append(Name(text))

    def _tuple(self, count: int) -> None:
        values = [self._stack.pop() for _ in range(count)]
        self._stack.append(tuple(reversed(values)))

    def _append(self, values: list[Any]) -> None:
        if not isinstance(self._stack[-1], list):
            raise self._refused("something is appended to what is no list")
        self._stack[-1].extend(values)

    def _set_items(self, values: list[Any]) -> None:
        target, keys = self._stack[-1], values[::2]
        if not isinstance(target, dict) or len(values) % 2 or not all(isinstance(key, str | int) for key in keys):
            raise self._refused("its dictionaries have other keys than names and numbers")
        target.update(zip(keys, values[1::2], strict=True))

    def _new_object(self) -> None:
        arguments, name = self._stack.pop(), self._stack.pop()
        if arguments != () or not isinstance(name, Name) or not name.text.startswith(CLASS_PREFIX):
            raise self._refused("it makes an object in an unusual way")
        self._stack.append(ModuleObject())

    def _build(self) -> None:
        state, target = self._stack.pop(), self._stack[-1]
        if not isinstance(target, ModuleObject) or not isinstance(state, dict):
            raise self._refused("it has an object whose state its own code alone can read (__setstate__)")
        target.attributes.update(state)

    def _reduce(self) -> None:
        arguments, function = self._stack.pop(), self._stack.pop()
        match function, arguments:
            case Name(text=text), () if text == ORDERED_DICT:
                self._stack.append({})
            case Name(text=text), (Tensor() as storage, offset, size, stride, *_) if text == REBUILD:
                self._stack.append(self._view(storage, offset, size, stride))
            case Name(text=text), (list() as values,) if text in TYPED_LISTS:
                self._stack.append(values)
            case Name(text=text), (value, str()) if text == TAGS + "restore_type_tag":
                self._stack.append(value)
            case _:
                raise self._refused("it calls something else than the functions that make tensors")

    def _view(self, storage: Tensor, offset: Any, size: Any, stride: Any) -> Tensor:
        """The tensor inside its storage. No number belongs to two places, so that a small file makes no large tensor."""
        if not isinstance(size, tuple) or not isinstance(stride, tuple) or not len(size) == len(stride) <= MAX_AXES:
            raise self._refused("a tensor's size and stride do not fit each other")
        if not all(type(number) is int and 0 <= number < 2**48 for number in (offset, *size, *stride)):
            raise self._refused("a tensor's size or stride is no number that it can be")
        last_index = offset + sum((length - 1) * step for length, step in zip(size, stride, strict=True))
        if math.prod(size) and (math.prod(size) > len(storage) or last_index >= len(storage)):
            raise self._refused("a tensor is larger than its storage")
        return storage.as_strided(size, stride, offset) if math.prod(size) else storage.new_empty(size)

    def _load_storage(self) -> None:
        self._stack.append(self._storage(self._stack.pop()))

    def _refused(self, why: str) -> ModelError:
        return refused(self._path, why)


_LITERALS = {"BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE"}
_CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_TUPLE": tuple,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
}
_ACTIONS: dict[str, Callable[[PickleInterpreter, Any], None]] = {
    "GLOBAL": lambda machine, text: machine._name(text),
    "TUPLE": lambda machine, _: machine._stack.append(tuple(machine._since_mark())),
    "TUPLE1": lambda machine, _: machine._tuple(1),
    "TUPLE2": lambda machine, _: machine._tuple(2),
    "TUPLE3": lambda machine, _: machine._tuple(3),
    "APPEND": lambda machine, _: machine._append([machine._stack.pop()]),
    "APPENDS": lambda machine, _: machine._append(machine._since_mark()),
    "SETITEM": lambda machine, _: machine._set_items([machine._stack.pop(), machine._stack.pop()][::-1]),
    "SETITEMS": lambda machine, _: machine._set_items(machine._since_mark()),
    "NEWOBJ": lambda machine, _: machine._new_object(),
    "BUILD": lambda machine, _: machine._build(),
    "REDUCE": lambda machine, _: machine._reduce(),
    "BINPERSID": lambda machine, _: machine._load_storage(),
}
