"""knowledge.zarr: the texts of a run as unit vectors, and the names that belong to them."""

from dataclasses import asdict
from pathlib import Path

import torch

from excel_core.errors import StoreError
from excel_core.stores.damage import refuse_damaged
from excel_core.stores.zarr_arrays import open_array, open_group
from excel_core.text.knowledge import Knowledge, KnowledgeBase

__all__ = ["read_knowledge", "write_knowledge"]

KNOWLEDGE_FORMAT = "excel-knowledge/2"


def write_knowledge(path: Path, base: KnowledgeBase) -> None:
    """Write `knowledge.zarr`; `path` must not exist yet (stages fill an empty folder)."""
    import zarr

    from excel_core.stores.zarr_folder import ZarrFolder

    group = zarr.open_group(ZarrFolder(path), mode="w-", zarr_format=3)
    group.attrs.update(
        format=KNOWLEDGE_FORMAT,
        class_names=list(base.class_names),
        background=list(base.background),
        texts=list(base.texts),
    )
    for name, array in asdict(base.knowledge).items():
        group.create_array(name, data=array.numpy(), dimension_names=(name, "joint"))


def read_knowledge(path: Path) -> KnowledgeBase:
    """Read `knowledge.zarr`, checking that its parts fit each other."""
    with refuse_damaged(path, "knowledge"):
        group = open_group(path, KNOWLEDGE_FORMAT, "knowledge")
        arrays = ("text", "templates", "attributes", "descriptions")
        tensors = {name: torch.from_numpy(open_array(path / name, "float32", 2, "knowledge")[:]) for name in arrays}
        names, background, texts = (tuple(group.attrs[key]) for key in ("class_names", "background", "texts"))
    if len(tensors["text"]) != len(names) + len(background) or len(tensors["descriptions"]) != len(texts):
        raise StoreError(
            f"{path}: 'text' must have {len(names) + len(background)} rows and 'descriptions' {len(texts)}, got "
            f"{len(tensors['text'])} and {len(tensors['descriptions'])}; rerun knowledge"
        )
    return KnowledgeBase(Knowledge(**tensors), names, background, texts)
