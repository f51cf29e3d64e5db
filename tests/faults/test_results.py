"""The marker in the store is the only cache: Prefect keeps no result of ours and opens none, whatever a user's settings say."""

import importlib
import json
import os
import pkgutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml
from prefect import Flow, Task
from prefect.cache_policies import NO_CACHE

import flows
import tasks
from tests.conftest import ROOT
from tests.prefect_server import shared_server

KEEPING = {
    "PREFECT_RESULTS_PERSIST_BY_DEFAULT": "true",
    "PREFECT_TASKS_DEFAULT_PERSIST_RESULT": "true",
    "PREFECT_FLOWS_DEFAULT_PERSIST_RESULT": "true",
    "PREFECT_RESULTS_DEFAULT_SERIALIZER": "pickle",
    "PREFECT_LOGGING_LEVEL": "WARNING",
}


@pytest.fixture(params=["environment", "profile"])
def settings(request, tmp_path):
    """Settings that keep results, as variables or in the store's own profile, and where its results would lie."""
    home = tmp_path / "store" / "prefect"
    home.mkdir(parents=True)
    server = {name: value for name, value in shared_server().environment().items() if name != "PREFECT_HOME"}
    if request.param == "environment":
        return server | KEEPING | {"PREFECT_HOME": str(home)}
    lines = ['active = "kept"', "[profiles.kept]", *(f'{name} = "{value}"' for name, value in KEEPING.items())]
    (home / "profiles.toml").write_text("\n".join(lines))
    return server | {"PREFECT_HOME": str(home)}


def test_a_planted_result_is_never_opened(settings, tmp_path):
    command = [sys.executable, "-W", "ignore", "-m", "tests.faults.results_run", str(tmp_path / "store")]
    ran = subprocess.run(command, env=os.environ | settings, cwd=ROOT, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr[-3000:]
    told = json.loads(ran.stdout.splitlines()[-1])
    assert told == {"written": [], "opened": [], "ran": False, "control_ran": True}


def test_no_flow_and_no_task_keeps_results():
    for package in (flows, tasks):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if module.name == "flows.live.cvat_function" and find_spec("cvat_sdk") is None:
                continue  # of an extra
            for name, value in vars(importlib.import_module(module.name)).items():
                if isinstance(value, Flow | Task):
                    assert value.persist_result is False, f"{module.name}.{name}"
                    assert value.result_storage is None and value.result_serializer is None, f"{module.name}.{name}"
                if isinstance(value, Task):
                    assert value.cache_policy == NO_CACHE and value.cache_key_fn is None, f"{module.name}.{name}"


def test_no_deployment_asks_for_results():
    text = (Path(ROOT) / "prefect.yaml").read_text()
    assert "result" not in text and "serializer" not in text and yaml.safe_load(text)["pull"]
