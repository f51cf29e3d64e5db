"""The manifest's schema, its usable rows, and what its digest depends on."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from excel_core.datasets.manifest import Manifest, check_manifest, content_digest, usable
from excel_core.errors import DataError

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
        }
    )


def test_usable_rows(manifest: Manifest) -> None:
    assert list(usable(manifest, "train")["id"]) == ["a", "b"] and usable(manifest, "val").empty
    with pytest.raises(DataError, match="'test' is not in the manifest; it holds: train, val"):
        usable(manifest, "test")


def test_parquet_keeps_schema_and_digest(manifest: Manifest, tmp_path: Path) -> None:
    manifest.to_parquet(tmp_path / "manifest.parquet")
    back = check_manifest(pd.read_parquet(tmp_path / "manifest.parquet"))
    assert content_digest(back, tmp_path) == content_digest(manifest, tmp_path)


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


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m.assign(id=["a", "b", "d"]),
        lambda m: m.assign(split=["train", "val", "val"]),
        lambda m: m.assign(labels=[["dog"], ["dog"], ["cat"]]),
        lambda m: m.iloc[::-1],
        lambda m: m.iloc[:2],
    ],
)
def test_a_changed_record_changes_the_digest(manifest: Manifest, tmp_path: Path, change: Change) -> None:
    assert content_digest(change(manifest), tmp_path) != content_digest(manifest, tmp_path)


def test_a_replaced_image_changes_the_digest_a_moved_root_does_not(
    manifest: Manifest, tmp_path: Path
) -> None:
    before = content_digest(manifest, tmp_path)
    moved = tmp_path / "moved"
    moved.mkdir()
    for name in "abc":
        (moved / name).write_bytes((tmp_path / name).read_bytes())
    assert content_digest(manifest, moved) == before
    (moved / "b").write_bytes(b"B" + b"b" * 9)  # the same size
    assert content_digest(manifest, moved) != before
    (moved / "b").unlink()
    assert len(content_digest(manifest, moved)) == 64
