"""The ExCEL method: arrays in, arrays out. Knows no Prefect, no command line and no global path.

The names below are the Python interface of excel_core/api.py, which is imported when one of them is first used.
"""

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from excel_core.api import (
        Descriptions,
        ExcelError,
        FrozenClip,
        ImageSource,
        KnowledgeBase,
        PhotoCams,
        PhotoLabels,
        PromptSet,
        RunSpec,
        Scores,
        TrainedSegmenter,
        TrainingFreeModel,
        build_knowledge,
        classes,
        describe,
        evaluate,
        load,
        load_clip,
        load_image,
        save,
        settings,
        train,
    )

# Before torch is imported: an idle OpenMP thread spins for some microseconds, then sleeps. By default it spins for long,
# which makes the many small operations of refinement up to a hundred times slower beside any other busy process; if it
# slept at once, they would take three times as long on a machine of their own.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")

__all__ = [
    "Descriptions", "ExcelError", "FrozenClip", "ImageSource", "KnowledgeBase", "PhotoCams", "PhotoLabels", "PromptSet",
    "RunSpec", "Scores", "TrainedSegmenter", "TrainingFreeModel", "build_knowledge", "classes", "describe", "evaluate", "load",
    "load_clip", "load_image", "save", "settings", "train",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    """A name of the interface (PEP 562): torch takes seconds to import, which `excel --help` must not wait for."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module("excel_core.api"), name)
    globals()[name] = value  # asked for once
    return value


def __dir__() -> list[str]:
    """What a notebook offers after `excel.`."""
    return __all__
