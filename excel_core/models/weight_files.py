"""Files of weights from anywhere: what a file is, by its content, and its state dict under plain names.

The first bytes tell torch's formats from safetensors, whatever the file is called, and from what is no weights at all: a
pointer of git-lfs, a web page that was saved in place of the file, a download that brought nothing. Nothing is unpickled but
tensors, and nobody is told to do otherwise.

A state dict may be inside another dict (NESTED). Names lose the parts that PyTorch's wrappers put into them (WRAPPERS), such as
`module.` of DataParallel and `_orig_mod.` of torch.compile.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from excel_core.errors import ModelError, and_more, shown
from excel_core.files import first_sentence, is_dense_tensor, load_tensors

if TYPE_CHECKING:  # torch takes seconds to import, and `require_weights` needs none of it
    from torch import Tensor

__all__ = ["file_kind", "load_state", "require_weights"]

NESTED = ("state_dict", "model_state_dict", "model")
WRAPPERS = {"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}
SAFETENSORS = b"\0\0\0\0{"  # from the fifth byte on: the upper half of its header's length, and the header
TORCH = (b"PK\x03\x04", b"\x80")  # a zip, or torch's older format: a pickle
LFS = b"version https://git-lfs.github.com/spec/"
PAGES = (b"<!doctype html", b"<html", b"<head", b"<?xml")
HEAD_BYTES, SHOWN_BYTES = 512, 40
MAX_NAMED = 3  # weights in a message
UNREADABLE = "not readable as weights"

FileKind = Literal["torch", "safetensors", ""]


def file_kind(path: Path) -> FileKind:
    """By a file's first bytes; "" for neither."""
    return _kind(_head(path))


def require_weights(path: Path, wanted: str) -> None:
    """ModelError that says what `path` is, where its first bytes are not those of weights. `wanted`: what to give instead."""
    if not path.is_file():
        raise ModelError(f"{path}: {'is not a file' if path.exists() else 'there is no such file'}; {wanted}")
    try:
        head = _head(path)
    except OSError as error:
        raise ModelError(f"{path}: {UNREADABLE} ({error.strerror}); {wanted}") from None
    if not _kind(head):
        raise ModelError(f"{path}: {UNREADABLE}: {_what_it_is(head)}; {wanted}")


def load_state(path: Path, wanted: str) -> "dict[str, Tensor]":
    """The state dict of a file of torch (a TorchScript archive too) or safetensors: dense tensors on the CPU by their plain
    names. ModelError in one line for any other file."""
    from excel_core.models.torchscript_archive import is_torchscript, read_torchscript

    require_weights(path, wanted)
    try:
        if file_kind(path) == "safetensors":
            from safetensors.torch import load_file

            loaded: Any = load_file(path)
        elif is_torchscript(path):
            loaded = read_torchscript(path)
        else:
            loaded = load_tensors(path)
    except (ModelError, MemoryError):
        raise
    except Exception as error:  # torch, zip and safetensors raise many kinds; all mean an unreadable file
        raise ModelError(f"{path}: {UNREADABLE} ({first_sentence(error)}); {wanted}") from None
    return _plain_names(_state_dict(loaded, path, wanted), path)


def _state_dict(loaded: Any, path: Path, wanted: str) -> "dict[str, Tensor]":
    for name in NESTED:
        if isinstance(loaded, dict) and isinstance(loaded.get(name), dict):
            loaded = loaded[name]
    if not isinstance(loaded, dict) or not loaded:
        raise ModelError(f"{path}: holds no state dict; {wanted}")
    odd = [str(key) for key, value in loaded.items() if not isinstance(key, str) or not is_dense_tensor(value)]
    if odd:
        raise ModelError(f"{path}: holds no state dict of dense tensors alone: {and_more(odd, MAX_NAMED)}; {wanted}")
    return loaded


def _plain_names(state: "dict[str, Tensor]", path: Path) -> "dict[str, Tensor]":
    plain = {".".join(part for part in key.split(".") if part not in WRAPPERS): value for key, value in state.items()}
    if len(plain) < len(state):
        raise ModelError(
            f"{path}: has some weights twice, with and without `module.` (or `_orig_mod.`) in their names; save one of them"
        )
    return plain


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(HEAD_BYTES)


def _kind(head: bytes) -> FileKind:
    if head[4:9] == SAFETENSORS:  # first: the length of its header may begin as a pickle does
        return "safetensors"
    return "torch" if head.startswith(TORCH) else ""


def _what_it_is(head: bytes) -> str:
    if not head:
        return "the file is empty"
    if head.startswith(LFS):
        return "it is a pointer of git-lfs and not the file itself, which `git lfs pull` in its repository fetches"
    if head.lstrip().lower().startswith(PAGES):
        return "it is a web page; the download brought a page, such as one to sign in, in place of the file"
    return f"it is neither a file of torch nor safetensors, and begins with {shown(head[:SHOWN_BYTES])[1:]}"
