"""A store on a disk without hard links (exFAT, network shares, file systems in user space): copies, and the same outputs."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

NO_LINKS = """
#include <errno.h>
int link(const char *a, const char *b) { errno = EPERM; return -1; }
int linkat(int a, const char *b, int c, const char *d, int e) { errno = EPERM; return -1; }
"""
CHAIN = """
import json, os, sys
from pathlib import Path
from tasks.engine.stage import RunEnvironment
from tests.faults.small_chain import RUN
from tests.pipeline_runs import follow
outputs = follow(RUN, RunEnvironment(store=Path(sys.argv[1])), "refine")
print(json.dumps({name: [output.content, str(output.folder)] for name, output in outputs.items()}))
"""
CREDENTIALS = """
import sys
from pathlib import Path
from flows.local.access import credential_of, make_credential
from flows.local.private import private_folder, write_private
home = Path(sys.argv[1])
private_folder(home, print)
first = make_credential(home)
assert first and make_credential(home) == credential_of(home) == first
write_private(home / "credential", "another", replace=False)
assert credential_of(home) == first and (home / "credential").stat().st_mode & 0o777 == 0o600
assert [path.name for path in home.iterdir()] == ["credential"]
"""


@pytest.fixture(scope="module")
def no_links(tmp_path_factory):
    """The environment of a process in which no file gets a second name."""
    folder = tmp_path_factory.mktemp("layer")
    (folder / "layer.c").write_text(NO_LINKS)
    compiler = next(path for name in ("cc", "gcc", "c++", "g++") if (path := shutil.which(name)))
    library = folder / "layer.so"
    subprocess.run([compiler, "-x", "c", "-shared", "-fPIC", "-o", library, folder / "layer.c"], check=True)
    return os.environ | {"LD_PRELOAD": str(library), "PYTHONPATH": str(ROOT), "EXCEL_FSYNC": "0"}


def _python(program, place, env):
    ran = subprocess.run([sys.executable, "-c", program, place], env=env, cwd=ROOT, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def test_the_layer_refuses_links(no_links, tmp_path):
    (tmp_path / "a").touch()
    program = "import os, sys; os.link(sys.argv[1] + '/a', sys.argv[1] + '/b')"
    ran = subprocess.run([sys.executable, "-c", program, tmp_path], env=no_links, capture_output=True, text=True)
    assert "Operation not permitted" in ran.stderr


def test_a_run_without_links_makes_the_same(no_links, tmp_path):
    """Stages that join parts, and zarr's stores."""
    stores = {name: tmp_path / name for name in ("linked", "copied")}
    environments = {"linked": no_links | {"LD_PRELOAD": ""}, "copied": no_links}
    outputs = {name: json.loads(_python(CHAIN, store, environments[name])) for name, store in stores.items()}
    contents = {name: {stage: content for stage, (content, _) in of.items()} for name, of in outputs.items()}
    assert contents["linked"] == contents["copied"] and {"knowledge", "cams", "refine"} <= contents["copied"].keys()
    links = {name: {path.stat().st_nlink for path in store.rglob("*") if path.is_file()} for name, store in stores.items()}
    assert max(links["linked"]) > 1 and links["copied"] == {1}
    whole = Path(outputs["copied"]["cams"][1])
    assert not [path for path in whole.rglob("*") if path.name.endswith((".tmp", ".partial"))]


def test_a_key_is_made_without_links(no_links, tmp_path):
    _python(CREDENTIALS, tmp_path / "home", no_links)


def test_a_training_keeps_its_previous_checkpoint_without_links(no_links, tmp_path):
    program = """
import sys
from pathlib import Path
from excel_core.config import SegmenterSpec
from excel_core.models.checkpoints import Architecture, load_checkpoint, previous_checkpoint, save_checkpoint
path = Path(sys.argv[1]) / "checkpoint.pt"
architecture = Architecture("excel-tiny", 2, 8, ("a",), SegmenterSpec(width=8, layers=1, heads=2))
for iteration in (1, 2):
    save_checkpoint(path, architecture, {"iteration": iteration, "segmenter": {}, "losses": []})
states = [load_checkpoint(place, architecture)["iteration"] for place in (previous_checkpoint(path), path)]
assert states == [1, 2], states
"""
    _python(program, tmp_path, no_links)
