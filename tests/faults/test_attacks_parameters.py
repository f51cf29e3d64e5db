"""Hostile parameters of a deployment, as anyone who may start a run can send them: refused in a short line, with little memory.

A flow's parameters are the fields of a request: `settings` are texts with YAML in them, `edits` is nested JSON, the rest
are names and paths.
"""

import json
import tracemalloc
from typing import Any

import pytest

from excel_core.config.setting_text import MAX_CHARACTERS
from excel_core.errors import ExcelError, PromptError
from excel_core.text.prompts import load_prompts
from flows.request import PaperRequest, RunRequest

MAX_MESSAGE = 1000  # characters; the valid fields of a group are some 300
MAX_BYTES = 32 << 20


def laughs() -> str:
    """YAML of 500 characters that stands for 10^9 texts."""
    lists = ["&a [x,x,x,x,x,x,x,x,x,x]"]
    lists += [f"&{new} [{','.join(['*' + old] * 10)}]" for old, new in zip("abcdefgh", "bcdefghi", strict=True)]
    return "{" + ", ".join(f"{name}: {value}" for name, value in zip("abcdefghi", lists, strict=True)) + "}"


def nested(depth: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(depth):
        value = {"dataset": value}
    return value


SETTINGS = {
    "a tag that runs a command": "dataset.val_splits=!!python/object/apply:os.system ['true']",
    "a tag that names a function": "dataset.max_bad=!!python/name:os.system",
    "a tag of a number": "dataset.max_images=!!int x",
    "a tag of a time": "dataset.train_split=!!timestamp x",
    "a month 13": "dataset.train_split=2001-13-45",
    "a tag that a document declares": "dataset.train_split=%TAG ! tag:yaml.org,2002:python/\n--- !name:os.system",
    "a billion laughs": f"dataset.val_splits={laughs()}",
    "a list that holds itself": "dataset.val_splits=&a [*a]",
    "a merge key": "dataset.val_splits={<<: {<<: 1}}",
    "lists without end": "dataset.val_splits=" + "[" * 5000,
    "lists in lists": "dataset.val_splits=" + "[" * 300 + "]" * 300,
    "ten million letters": "dataset.train_split=" + "x" * 10_000_000,
    "a number of many digits": "dataset.max_images=" + "9" * 9000,
    "a number of more digits than Python converts": "dataset.max_images=" + "9" * 4400,
    "a name of ten thousand parts": ".".join(["dataset"] * 10_000) + "=1",
    "a method": "dataset.__class__.__init__=1",
    "pydantic's own": "dataset.model_config=1",
    "not a number": "dataset.max_bad=.nan",
    "a class file outside": "dataset.prompts=../../../../etc/passwd",
    "a class file of any name": "dataset.prompts=/etc/passwd",
    "a class file with a long name": f"dataset.prompts={'a' * 300}.yaml",
    "a class file with a NUL": 'dataset.prompts="a\\0.yaml"',
    "attributes with a long name": f"knowledge.attributes_file={'a' * 300}.npy",
    "weights with a long name": f"clip.model=ViT-B-16:{'a' * 300}",
    "a checkpoint with a long path": "train.from_checkpoint=" + "a/" * 2500,
    "a file of descriptions with a long name": f"describe={{provider: file, file: {'a' * 300}}}",
    "a byte that is no text": "dataset.train_split=\udcff",
}
REQUESTS: dict[str, dict[str, Any]] = {
    "data with a NUL": {"preset": "voc", "data": "a\0b"},
    "data with a long name": {"preset": "voc", "data": "a" * 300},
    "data with a long path": {"preset": "voc", "data": "a/" * 3000},
    "a store with a NUL": {"store": "a\0b"},
    "a store with a long path": {"store": "a/" * 3000},
    "a runner of a megabyte": {"runner": "x" * 1_000_000},
    "a preset of a megabyte": {"preset": "x" * 1_000_000},
    "a CLIP that is a tag": {"clip": "!!python/name:os.system"},
    "a CLIP with a NUL": {"clip": "a\0b"},
    "a hundred thousand settings": {"settings": ["dataset.max_bad=1"] * 100_000},
    "edits of a long name": {"edits": {"x" * 1_000_000: 1}},
    "edits that are a long list": {"edits": {"dataset": [1] * 1_000_000}},
    "edits without end": {"edits": nested(900)},
    "edits within a field": {"edits": {"dataset": {"train_split": nested(900)}}},
    "edits of a megabyte": {"edits": {"dataset": {"train_split": "x" * 1_000_000}}},
    "edits that are numbered": {"edits": {1: {2: 3}}},
}


@pytest.fixture(autouse=True, scope="module")
def _imports() -> None:
    """What the first class file and the first table import is not counted as memory of a request."""
    for request in ({"preset": "voc", "settings": ["dataset.prompts=none"]}, {"preset": "voc", "data": "/none"}):
        with pytest.raises(ExcelError):
            RunRequest.checked(**request).resolve()


def refuse(request: dict[str, Any], model: type[RunRequest] | type[PaperRequest] = RunRequest) -> str:
    """The message with which the request is refused, which is short and one line; and that it took little memory."""
    tracemalloc.start()
    try:
        with pytest.raises(ExcelError) as refused:
            checked = model.checked(**request)
            # The settings of a run are refused without its data; those of a table with them.
            checked.spec() if isinstance(checked, RunRequest) and checked.settings else checked.resolve()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    message = str(refused.value)
    assert len(message) < MAX_MESSAGE and "\n" not in message, message[:2000]
    assert peak < MAX_BYTES
    return message


@pytest.fixture(scope="module", autouse=True)
def _everything_imported() -> None:
    RunRequest.checked(preset="demo").spec()


@pytest.mark.parametrize("name", SETTINGS)
def test_hostile_settings_are_refused(name: str) -> None:
    refuse({"preset": "voc", "settings": [SETTINGS[name]]})


@pytest.mark.parametrize("name", SETTINGS)
def test_hostile_settings_of_a_table_are_refused(name: str) -> None:
    refuse({"table": "table-1", "settings": [SETTINGS[name]]}, PaperRequest)


@pytest.mark.parametrize("name", REQUESTS)
def test_hostile_requests_are_refused(name: str) -> None:
    refuse({"preset": "demo"} | REQUESTS[name])


def test_what_settings_need_is_read() -> None:
    names = [f"split_{number}" for number in range(500)]
    settings = [f"dataset.val_splits=[{', '.join(names)}]", "predict.scales=[0.5, 1.0]", "dataset.train_split='2001-13-45'"]
    settings += ["dataset.seed_splits=[split_0]"]
    settings += ["dataset.max_images=null", "train.learning_rate=1e-4"]
    run = RunRequest.checked(preset="demo", settings=settings).spec()
    assert len(settings[0]) < MAX_CHARACTERS
    assert run.dataset.val_splits == tuple(names) and run.dataset.train_split == "2001-13-45"
    assert (run.predict.scales, run.dataset.max_images, run.train.learning_rate) == ((0.5, 1.0), None, 1e-4)


@pytest.mark.parametrize("suffix", [".yaml", ".json"])
def test_a_class_file_nested_without_end_is_refused(tmp_path: Any, suffix: str) -> None:
    path = tmp_path / f"classes{suffix}"
    path.write_text("[" * 20_000 + "]" * 20_000)
    with pytest.raises(PromptError, match="without end|must be a mapping"):
        load_prompts(path)


def test_a_class_file_runs_nothing(tmp_path: Any) -> None:
    path, mark = tmp_path / "classes.yaml", tmp_path / "ran"
    path.write_text(
        f"template: !!python/object/apply:os.system [{json.dumps(f'touch {mark}')}]\nclasses: [a]\nbackground: [b]\n"
    )
    with pytest.raises(PromptError):
        load_prompts(path)
    assert not mark.exists()
