"""The tools whose corrections come back. A tool is one entry of READERS and the file that reads it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from excel_core.imports.annotated import Annotated
from excel_core.imports.cvat import read_cvat
from excel_core.imports.label_studio import read_label_studio

__all__ = ["READERS", "LabelReader"]


@dataclass(frozen=True)
class LabelReader:
    """How a tool's file is read.

    read(path) → its images; DataError for another file
    predictions: whether `read` also takes `predictions`: pre-annotations count where nobody annotated
    """

    read: Callable[..., Iterator[Annotated]]
    predictions: bool = False


READERS = {"cvat": LabelReader(read_cvat), "label-studio": LabelReader(read_label_studio, predictions=True)}
