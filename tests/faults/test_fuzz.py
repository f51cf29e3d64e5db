"""Every reader takes any bytes: it returns, or says in an ExcelError what is wrong. Nothing of a file is run.

A sample in `make test`; with --soak thousands of inputs a reader, always the same for the same seed. What was ever wrong stays
below as an input of its own.
"""

import json
import os
import subprocess
import sys

import pytest

from excel_core.errors import ExcelError
from tests.conftest import ROOT
from tests.faults.fuzz.mutations import mutate
from tests.faults.fuzz.worker import READERS

SAMPLE, ALL, SEED = 6, 1000, 1  # inputs a reader


def _fuzz(inputs, seed, *names):
    """A line of JSON for each reader, from a process of its own."""
    command = [sys.executable, "-W", "ignore", "-m", "tests.faults.fuzz.worker", str(inputs), str(seed), *names]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    return [json.loads(line) for line in ended.stdout.splitlines()]


def test_no_reader_meets_an_input_that_it_cannot_refuse(soak, figures):
    told = _fuzz(ALL if soak else SAMPLE, SEED)
    assert [reader["reader"] for reader in told] == [reader.name for reader in READERS]
    figures("fuzz", seed=SEED, inputs={reader["reader"]: reader["inputs"] for reader in told},
            refused={reader["reader"]: reader.get("refused") for reader in told},
            failed={reader["reader"]: reader["failed"] for reader in told})  # fmt: skip
    wrong = [(reader["reader"], failure) for reader in told for failure in reader["failures"]]
    assert not wrong, "\n\n".join(f"{name}: {failure['wrong']}\n{json.dumps(failure)[:1500]}" for name, failure in wrong[:5])


# What was once met by another error: reader, file, and what stands in it instead of what.
ONCE_WRONG = [
    ("text embeddings", "*.embedding", b"excel-embedding/1", b"excel-embedding/2"),
    ("segmenter", "segmenter.safetensors", b"neck.fuse.bias", b"neck.fuse.Bias"),
    ("segmenter", "segmenter.safetensors", b'{\\"clip\\"', b'[\\"clip\\"'),
    ("knowledge.zarr", "knowledge.zarr/zarr.json", b"{", b"["),
    ("knowledge.zarr", "knowledge.zarr/text/zarr.json", b'"float32"', b'"float99"'),
    ("knowledge.zarr", "knowledge.zarr/text/c/0/0", b"(\xb5/\xfd", b"(\xb5/\xfe"),
    ("cams.zarr", "cams.zarr/zarr.json", b'"node_type"', b'"node_kind"'),
    ("cams.zarr", "cams.parquet", b"PAR1", b"PAR2"),
    ("manifest", "manifest.parquet", b"PAR1", b"PAR2"),
    ("counts", "confusion.parquet", b"PAR1", b"PAR2"),
    ("golden arrays", "b.npz", b"PK\x01\x02", b"PK\x01\x03"),
    ("instruction", "describe.md", b"{class}", b"{class" + b"(" * 100_000 + b"}"),
    ("VOC's list", "ImageSets/Segmentation/train.txt", b"2007_000032", b"- " * 100_000),
]


@pytest.mark.parametrize(("name", "file", "before", "after"), ONCE_WRONG, ids=[f"{c[0]} {c[3][:20]!r}" for c in ONCE_WRONG])
def test_what_was_once_wrong(name, file, before, after, tmp_path):
    reader = next(reader for reader in READERS if reader.name == name)
    reader.make(tmp_path)
    (path,) = tmp_path.glob(file)
    assert before in path.read_bytes()
    path.write_bytes(path.read_bytes().replace(before, after))
    try:
        reader.read(tmp_path)
    except (ExcelError, MemoryError) as error:
        assert len(str(error)) <= 5001


def test_mutations_are_the_same_for_the_same_seed_and_differ_for_others():
    data = json.dumps({"a": [1, 2, {"b": "text"}]}, indent=1).encode()
    made = [mutate(f"0 {number}", data, (b'"a"',), [data]) for number in range(200)]
    assert made == [mutate(f"0 {number}", data, (b'"a"',), [data]) for number in range(200)]
    assert len(set(made)) > 150


@pytest.mark.parametrize(
    "deed",
    [
        "os.system('true')",
        "open(os.path.abspath('excel-fuzz-probe'), 'w').close() or os.remove('excel-fuzz-probe')",
        "__import__('socket').socket().bind(('', 0))",
    ],
)
def test_what_a_reader_must_not_do_is_noticed(deed, tmp_path):
    """The watch itself: a reader that does such a thing is told of."""
    program = (
        "import os, sys\nfrom pathlib import Path\nfrom tests.faults.fuzz.worker import _Watch\n"
        f"watch = _Watch(Path({str(tmp_path)!r}))\nwatch.on = True\n{deed}\nwatch.on = False\nprint(watch.events)"
    )
    ended = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert ended.stdout.strip() != "[]"
