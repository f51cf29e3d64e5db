"""What the fault tests share. `make test` runs a seeded sample of each; `make soak` runs all of it and writes its figures."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.conftest import ROOT

FIGURES = ROOT / "docs" / "faults"

Record = Callable[..., None]


@pytest.fixture
def soak(request: pytest.FixtureRequest) -> bool:
    """Whether everything is to run, not a sample: `--soak`."""
    return bool(request.config.getoption("--soak"))


@pytest.fixture
def figures(soak: bool) -> Record:
    """`figures(name, **values)` writes docs/faults/NAME.json under `--soak`, and prints the values in any case."""

    def record(name: str, **values: Any) -> None:
        print(f"{name}: {values}")
        if soak:
            FIGURES.mkdir(exist_ok=True)
            (FIGURES / f"{name}.json").write_text(json.dumps(values, indent=2) + "\n")

    return record
