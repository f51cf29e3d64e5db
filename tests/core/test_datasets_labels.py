"""labels.csv on its own: what it may look like, and the line that an error names."""

from pathlib import Path

import pytest

from excel_core.datasets.labels import read_labels_csv
from excel_core.errors import DataError

CLASSES = ["dog", "cat", "person"]


def test_spaces_byte_order_mark_and_line_ends_do_not_matter(tmp_path: Path) -> None:
    table = "\ufeffimage, labels\r\n\r\na0 , person  dog dog\r\na1,\r\n"
    (tmp_path / "labels.csv").write_bytes(table.encode())
    assert read_labels_csv(tmp_path / "labels.csv", CLASSES) == {"a0": ["dog", "person"], "a1": []}


def test_a_table_in_another_encoding_is_refused(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_bytes("image,labels\na0,dög\n".encode("latin-1"))
    with pytest.raises(DataError, match="not a CSV file in UTF-8"):
        read_labels_csv(tmp_path / "labels.csv", CLASSES)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (
            "image,labels\na0,dog\na1,cat unicorn\n",
            "line 3: unknown label 'unicorn'; valid: dog, cat, person",
        ),
        ("id,names\na0,dog\n", "line 1: the header must be 'image,labels', got 'id,names'"),
        ("", "line 1: the header must be"),
        ("image,labels\na0,dog,cat\n", "line 2: expected image, labels"),
        ("image,labels\na0,dog\n\na0,cat\n", "line 4: a0 has a row already"),
        ('image,labels\na0,"dog\n', "not a CSV file"),
    ],
)
def test_a_wrong_labels_csv_names_its_line(tmp_path: Path, table: str, message: str) -> None:
    (tmp_path / "labels.csv").write_text(table)
    with pytest.raises(DataError, match=message):
        read_labels_csv(tmp_path / "labels.csv", CLASSES)
