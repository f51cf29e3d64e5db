"""The manifest's schema, its usable rows, and an image's digest."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from excel_core.datasets.manifest import Manifest, check_manifest, image_digest, usable
from excel_core.errors import DataError
from excel_core.stores import read_manifest, write_manifest

Change = Callable[[Manifest], Manifest]


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    for name in "abc":
        (tmp_path / name).write_bytes(name.encode() * 10)
    return pd.DataFrame(
        {
            "id": ["a", "b", "c"],
            "split": ["train", "train", "val"],
            "image": ["a", "b", "c"],
            "height": np.array([8, 9, 0], dtype=np.int32),
            "width": np.array([8, 9, 0], dtype=np.int32),
            "labels": [["dog"], ["dog", "cat"], []],
            "error": ["", "", "truncated"],
            "digest": ["1", "2", ""],
        }
    )


def test_usable_rows(manifest: Manifest) -> None:
    assert list(usable(manifest, "train")["id"]) == ["a", "b"] and usable(manifest, "val").empty
    with pytest.raises(DataError, match="'test' is not in the manifest; it holds: train, val"):
        usable(manifest, "test")


def test_parquet_keeps_the_schema(manifest: Manifest, tmp_path: Path) -> None:
    write_manifest(tmp_path / "manifest.parquet", manifest)
    back = check_manifest(read_manifest(tmp_path / "manifest.parquet"))
    pd.testing.assert_frame_equal(back, manifest)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.drop(columns="labels"), "columns must be"),
        (lambda m: m.assign(height=m["height"].astype("int64")), "'height' must be int32, got int64"),
        (lambda m: m.assign(id=[1, 2, 3]), "'id' must be text"),
        (lambda m: m.assign(labels=["dog", "cat", ""]), "'labels' of a must be a list"),
        (lambda m: m.assign(image=["a", "../b", "c"]), "'image' of b must be a path inside the root"),
        (lambda m: m.assign(image=["a", "b", "/c"]), "'image' of c must be a path inside the root"),
        (lambda m: m.assign(id=["a", "a", "c"]), "an id occurs twice"),
    ],
)
def test_schema(manifest: Manifest, change: Change, message: str) -> None:
    assert check_manifest(manifest) is manifest
    with pytest.raises(DataError, match=message):
        check_manifest(change(manifest))


def test_image_digest_follows_the_bytes(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"12345678")
    before = image_digest(path)
    path.write_bytes(b"12345679")  # the same size
    assert len(before) == 64 and image_digest(path) != before
    path.unlink()
    assert image_digest(path) == ""
