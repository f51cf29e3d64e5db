"""Every error excel raises on purpose.

ExcelError                     base: something a person can act on
├── SettingError               a wrong setting, refused before work starts; lists the valid choices
├── ModelError                 a CLIP model or checkpoint that cannot be used, and what to do instead
├── DataError                  a data set that cannot be used as a whole
│   ├── ImageError             one bad image: recorded with its reason and skipped
│   └── MaskLeakError          a segmentation mask was opened outside evaluation
├── PromptError                a prompt or description file that does not fit its schema
├── DescriptionError           a language model that gives no usable descriptions of a class, or a server that does not answer
├── StoreError                 a store that is missing, damaged or of another shape
├── OutOfMemoryError           memory of the machine or the GPU that does not suffice; says what needs less
├── TrainingError              losses or weights of a training that are not finite; names the iteration and the last checkpoint
├── WorkerError                processes die over their work: a cluster's over a shard, again and again, or training's
└── ServerError                a local Prefect server or worker that does not come up; names its log
"""

import errno
from collections.abc import Sequence

__all__ = [
    "MACHINE_ERRORS",
    "DataError",
    "DescriptionError",
    "ExcelError",
    "ImageError",
    "MaskLeakError",
    "ModelError",
    "OutOfMemoryError",
    "PromptError",
    "ServerError",
    "SettingError",
    "StoreError",
    "TrainingError",
    "WorkerError",
    "and_more",
    "shown",
]


MAX_SHOWN = 200  # characters of a value in a message


MACHINE_ERRORS = (errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.EACCES, errno.EPERM)
MAX_MESSAGE_CHARACTERS = 5000  # a file that is quoted in a message may be of any length


class ExcelError(Exception):
    """Base of every error excel raises on purpose. A message that is too long to read is shown by its beginning."""

    def __str__(self) -> str:
        text = super().__str__()
        return text if len(text) <= MAX_MESSAGE_CHARACTERS else f"{text[: MAX_MESSAGE_CHARACTERS - 1]}…"


class SettingError(ExcelError):
    """A wrong setting, refused before work starts."""


class ModelError(ExcelError):
    """A CLIP model or checkpoint that cannot be used."""


class DataError(ExcelError):
    """A data set that cannot be used as a whole."""


class ImageError(DataError):
    """One image that cannot be used; its message is the reason recorded in the manifest."""


class MaskLeakError(DataError):
    """A segmentation mask was opened outside evaluation."""


class PromptError(ExcelError):
    """A prompt or description file that does not fit its schema."""


class DescriptionError(ExcelError):
    """A language model that gives no usable descriptions of a class, or a server that does not answer."""


class StoreError(ExcelError):
    """A store that is missing, damaged or of another shape than expected."""


class OutOfMemoryError(ExcelError):
    """Memory of the machine or the GPU that does not suffice."""


class TrainingError(ExcelError):
    """Losses or weights of a training that are not finite."""


class ServerError(ExcelError):
    """A local Prefect server or worker that does not come up."""


class WorkerError(ExcelError):
    """Processes die over their work: a cluster's workers over a shard, again and again, or those that train together."""


def and_more(names: Sequence[str], limit: int) -> str:
    """Name the first `limit` things in a message and count the others: `a, b and 3 more`."""
    return ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if len(names) > limit else "")


def shown(value: object) -> str:
    """A value that somebody else chose, in a message: its repr, shortened to MAX_SHOWN characters."""
    try:
        text = repr(value)
    except RecursionError:
        return f"a deeply nested {type(value).__name__}"
    return text if len(text) <= MAX_SHOWN else f"{text[: MAX_SHOWN - 1]}…"
