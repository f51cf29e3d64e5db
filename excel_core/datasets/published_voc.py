"""What excel ships of VOC 2012: the list `train_aug`, on which the published programs train, and image-level labels.

voc2012.csv.gz     image,labels,split     10,582 images of train_aug in the published order, then the 1,449 of val

They are facts: no photos and no masks. VOC as downloaded has no `train_aug` list: the list came with SBD's masks, which
training does not need. The labels are the published ones; VOC's own Annotations differ from them for some images.
"""

import csv
import gzip
import hashlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType

__all__ = ["AUGMENTED", "has_voc_classes", "published_digest", "published_labels", "published_list"]

FILE = Path(__file__).with_name("voc2012.csv.gz")
AUGMENTED = ("train_aug", "trainaug")  # two names of one list


@dataclass(frozen=True)
class _Published:
    train_aug: tuple[str, ...]
    labels: Mapping[str, tuple[str, ...]]
    class_names: frozenset[str]


def has_voc_classes(class_names: Sequence[str]) -> bool:
    """Whether they are VOC's twenty, in any order."""
    return len(class_names) == len(_table().class_names) and _table().class_names == set(class_names)


def published_list(split: str) -> tuple[str, ...]:
    """The 10,582 ids of train_aug, under either of its names, in the published order; () for another split."""
    return _table().train_aug if split in AUGMENTED else ()


def published_labels() -> Mapping[str, tuple[str, ...]]:
    """Image id → names of its classes, of the 12,031 images of train_aug and val."""
    return _table().labels


@cache
def published_digest() -> str:
    """SHA-256 of the shipped table, in hex: part of the key of what is read with it."""
    return hashlib.sha256(FILE.read_bytes()).hexdigest()


@cache  # 12,031 rows, parsed once per process
def _table() -> _Published:
    rows = list(csv.DictReader(io.StringIO(gzip.decompress(FILE.read_bytes()).decode())))
    labels = {row["image"]: tuple(row["labels"].split()) for row in rows}
    class_names = frozenset(name for names in labels.values() for name in names)
    augmented = tuple(row["image"] for row in rows if row["split"] == AUGMENTED[0])
    return _Published(augmented, MappingProxyType(labels), class_names)
