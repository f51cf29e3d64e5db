"""A file that is not what was written is never taken for it."""

import json

import pytest

from excel_core.checked_files import read_checked, read_checked_json, write_checked, write_checked_json
from excel_core.errors import StoreError
from excel_core.files import write_json

VALUE = {"format": "x/2", "score": 0.1, "names": ["é", "b"], "nested": {"n": 3}, "none": None}


def test_json_comes_back_as_it_was_written(tmp_path):
    write_checked_json(tmp_path / "a.json", VALUE | {"pair": (1, 2)})
    assert read_checked_json(tmp_path / "a.json") == VALUE | {"pair": [1, 2]}
    assert len(json.loads((tmp_path / "a.json").read_text())["sha256"]) == 64


def test_no_flipped_bit_of_json_goes_unnoticed(tmp_path):
    """Every bit of the file in turn."""
    path = tmp_path / "a.json"
    write_checked_json(path, VALUE)
    whole = path.read_bytes()
    for bit in range(8 * len(whole)):
        content = bytearray(whole)
        content[bit // 8] ^= 1 << bit % 8
        path.write_bytes(content)
        with pytest.raises(StoreError, match="a.json"):
            read_checked_json(path, unchecked=["x/1"])


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        "1",
        "null",
        '"x"',
        "{}",
        '{"sha256": null}',
        '{"a": NaN, "sha256": ""}',
        "[" * 100_000,
        '{"a":' * 100_000,
        "9" * 5000,
        "",
    ],
    ids=lambda text: text[:12],
)
def test_json_of_any_other_kind_is_damaged(tmp_path, text):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(StoreError, match="a.json"):
        read_checked_json(tmp_path / "a.json", unchecked=["x/1"])
    (tmp_path / "a.json").write_bytes(b"\xff\xfe" + text.encode())
    with pytest.raises(StoreError, match="a.json: not readable"):
        read_checked_json(tmp_path / "a.json")


def test_files_of_earlier_versions_have_no_digest(tmp_path):
    write_json(tmp_path / "a.json", {"format": "x/1", "n": 1})
    assert read_checked_json(tmp_path / "a.json", unchecked=["x/1"]) == {"format": "x/1", "n": 1}
    with pytest.raises(StoreError, match="is damaged"):
        read_checked_json(tmp_path / "a.json")
    write_json(tmp_path / "a.json", {"format": "x/1", "n": 1, "sha256": "0"})
    with pytest.raises(StoreError, match="is damaged"):
        read_checked_json(tmp_path / "a.json", unchecked=["x/1"])


def test_no_flipped_bit_of_a_payload_goes_unnoticed(tmp_path):
    path = tmp_path / "a"
    write_checked(path, "x/1", b"payload", of="a dog")
    assert read_checked(path, "x/1", of="a dog") == b"payload"
    whole = path.read_bytes()
    for bit in range(8 * len(whole)):
        content = bytearray(whole)
        content[bit // 8] ^= 1 << bit % 8
        path.write_bytes(content)
        with pytest.raises(StoreError, match="is damaged, or no x/1"):
            read_checked(path, "x/1", of="a dog")
    for content in (whole[:-1], whole + b"x", b"", b"x/1", b"\0" * len(whole)):
        path.write_bytes(content)
        with pytest.raises(StoreError):
            read_checked(path, "x/1", of="a dog")
    path.write_bytes(whole)
    for format, of in (("x/2", "a dog"), ("x/1", "a cat"), ("x/1", "")):
        with pytest.raises(StoreError):
            read_checked(path, format, of=of)
