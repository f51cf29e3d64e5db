"""Arrays of the store as zarr, opened for reading: of the expected format, type and axes, with codecs that run no code."""

from pathlib import Path
from typing import Any

from excel_core.errors import StoreError
from excel_core.files import read_json
from excel_core.stores.damage import refuse_damaged

__all__ = ["open_array", "open_group"]

# What arrays are written with. A file of zarr names its own; of the others some run filters of a long list of libraries, and
# those of zarr's older format unpickle.
CODECS = {"bytes", "zstd", "crc32c", "sharding_indexed"}


def open_group(path: Path, expected: str, stage: str) -> Any:
    """A group whose attribute `format` is the `expected` one. StoreError for any other; `stage` is what to rerun."""
    import zarr

    with refuse_damaged(path, stage):
        group = zarr.open_group(path, mode="r", zarr_format=3)  # others have filters that unpickle
    if group.attrs.get("format") != expected:
        raise StoreError(f"{path}: format must be {expected}, got {group.attrs.get('format')}; rerun {stage}")
    return group


def open_array(path: Path, dtype: str, dimensions: int, stage: str) -> Any:
    """An array of zarr's format 3 whose metadata names this type, these many axes, and codecs of CODECS alone; StoreError for
    any other."""
    import zarr

    with refuse_damaged(path, stage):
        metadata = read_json(path / "zarr.json")
        fields = ("zarr_format", "node_type", "data_type")
        actual = (*(metadata[field] for field in fields), len(metadata["shape"]), metadata.get("storage_transformers", []))
        if actual != (3, "array", dtype, dimensions, []) or not _codec_names(metadata["codecs"]) <= CODECS:
            raise ValueError(f"expected {dtype} of {dimensions} axes with codecs {', '.join(sorted(CODECS))}")
        return zarr.open_array(path, mode="r", zarr_format=3)


def _codec_names(codecs: Any) -> set[str]:
    """Names of the codecs and of those inside them."""
    names: set[str] = set()
    for codec in codecs:
        names.add(str(codec["name"]))
        configuration = codec.get("configuration", {})
        names |= _codec_names([*configuration.get("codecs", []), *configuration.get("index_codecs", [])])
    return names
