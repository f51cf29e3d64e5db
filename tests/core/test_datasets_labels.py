"""labels.csv on its own: what it may look like, and the line that an error names."""

from pathlib import Path

import pytest

from excel_core.config.presets import preset
from excel_core.datasets.folder import check_folder, folder_class_names
from excel_core.datasets.labels import read_labels_csv
from excel_core.errors import DataError
from excel_core.text.class_sets import class_set

CLASSES = ["dog", "cat", "person"]


def test_spaces_byte_order_mark_and_line_ends_do_not_matter(tmp_path: Path) -> None:
    table = "\ufeffimage, labels\r\n\r\na0 , person  dog dog\r\na1,\r\n"
    (tmp_path / "labels.csv").write_bytes(table.encode())
    assert read_labels_csv(tmp_path / "labels.csv", CLASSES) == {"a0": ["dog", "person"], "a1": []}


@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_every_editors_encoding_is_read(tmp_path: Path, encoding: str, line_end: str) -> None:
    (tmp_path / "labels.csv").write_bytes(line_end.join(["image,labels", "é,dog", "a1,cat", ""]).encode(encoding))
    assert read_labels_csv(tmp_path / "labels.csv", CLASSES) == {"é": ["dog"], "a1": ["cat"]}


@pytest.mark.parametrize("cell", ["dog, cat", "dog,cat", "dog|cat", "['dog', 'cat']", "['dog']"])
def test_labels_that_are_separated_otherwise_are_refused_and_not_one_class(tmp_path: Path, cell: str) -> None:
    (tmp_path / "labels.csv").write_text(f'image,labels\na0,dog\na1,"{cell}"\n')
    with pytest.raises(DataError, match=r"line 3: labels are separated by ';', such as 'dog; cat', got"):
        folder_class_names(tmp_path)
    with pytest.raises(DataError, match=r"line 3: unknown label .* \(names are separated by ';'\); valid: dog, cat, person"):
        read_labels_csv(tmp_path / "labels.csv", CLASSES)


def test_a_class_file_may_have_names_with_commas(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text('image,labels\na0,"boat, sailing; dog"\n')
    classes = 'classes: [{name: "boat, sailing", synonyms: sail}, {name: dog, synonyms: dog}]'
    (tmp_path / "classes.yaml").write_text(f'name: mine\ntemplate: "a {{}}."\n{classes}\nbackground: [sky]\n')
    check_folder(tmp_path)
    names = class_set(preset("photos"), tmp_path).class_names
    assert read_labels_csv(tmp_path / "labels.csv", names) == {"a0": ["boat, sailing", "dog"]}


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
        ("image,labels\né,dog\ne\u0301,cat\n", "line 3: .* has a row already"),
        ('image,labels\na0,"dog\n', "not a CSV file"),
    ],
)
def test_a_wrong_labels_csv_names_its_line(tmp_path: Path, table: str, message: str) -> None:
    (tmp_path / "labels.csv").write_text(table)
    with pytest.raises(DataError, match=message):
        read_labels_csv(tmp_path / "labels.csv", CLASSES)
