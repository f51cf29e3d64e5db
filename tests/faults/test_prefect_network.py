"""Prefect's server goes bad during a run, seen from the command line: a line says so, nothing is lost, the next run goes on."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.faults.tcp_proxy import proxy
from tests.prefect_server import PATIENCE_SECONDS, shared_server

# `excel run` as far as the knowledge base, by the same functions.
PROGRAM = """
import importlib, sys
from pathlib import Path
from flows.cli import app, main
run = importlib.import_module("flows.cli.run")
def stage(store: str):
    run._use_prefect_of(Path(store))
    from flows import stages
    from flows.request import RunRequest
    run._call(stages.knowledge, RunRequest(preset="demo", store=store))
app.command()(stage)
sys.argv = ["excel", "stage", sys.argv[1]]
main()
"""


def _start(store: Path, url: str) -> subprocess.Popen[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")} | {
        "PREFECT_API_URL": f"{url}/api",
        "PREFECT_HOME": os.fspath(store.parent / "home"),
        "DO_NOT_TRACK": "1",
        "PREFECT_CLIENT_MAX_RETRIES": "1",
        "PREFECT_API_REQUEST_TIMEOUT": "10",
        "PYTHONPATH": os.fspath(ROOT),
    }
    command = [sys.executable, "-W", "ignore", "-c", PROGRAM, os.fspath(store)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def _markers(store: Path) -> dict[str, bytes]:
    return {path.relative_to(store).as_posix(): path.read_bytes() for path in store.glob("*/*/stage.json")}


@pytest.mark.parametrize("fault", ["reset", "html", "500", "503", "garbage"])
def test_a_server_that_is_none_is_one_line(fault, soak, tmp_path):
    if fault != "reset" and not soak:
        pytest.skip("the others with --soak")
    with proxy("http://127.0.0.1:9") as nowhere:
        nowhere.fault = fault
        process = _start(tmp_path / "store", nowhere.url)
        said, _ = process.communicate(timeout=4 * PATIENCE_SECONDS)
    assert process.returncode == 2 and said.count("\n") == 1, said
    # A reset may come while the connection is made.
    assert "no longer answers as it should" in said or (fault == "reset" and "does not answer" in said)


@pytest.mark.usefixtures("prefect_server")
@pytest.mark.parametrize("fault", ["reset", "html"])
def test_a_server_that_goes_bad_is_one_line_and_the_next_run_goes_on(fault, soak, tmp_path):
    if fault != "reset" and not soak:
        pytest.skip("the others with --soak")
    store = tmp_path / "store"
    with proxy(shared_server().url) as between:
        process = _start(store, between.url)
        while process.poll() is None and not _markers(store):
            time.sleep(0.02)
        between.fault = fault
        said, _ = process.communicate(timeout=4 * PATIENCE_SECONDS)
        finished = _markers(store)
        assert finished, said
        if process.returncode:  # it had not ended by itself before the server did
            assert process.returncode == 2 and "Traceback" not in said, said
            assert "no longer answers as it should" in said and "what is finished is kept" in said, said
        between.fault = ""
        again = _start(store, between.url)
        said, _ = again.communicate(timeout=4 * PATIENCE_SECONDS)
    assert again.returncode == 0, said
    markers = _markers(store)
    assert {name: markers[name] for name in finished} == finished  # none was built again
    assert any(name.startswith("knowledge/") for name in markers)
