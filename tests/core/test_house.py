"""The one direction of imports, and that the core stands without Prefect, Dask and the command line."""

import ast
import pkgutil
import subprocess
import sys

import excel_core
from tests.conftest import ROOT

ALLOWED = {
    "excel_core": {"excel_core"},
    "artifacts": {"artifacts", "excel_core"},
    "tasks": {"tasks", "artifacts", "excel_core"},
    "flows": {"flows", "tasks", "artifacts", "excel_core"},
}


def test_importing_the_core_imports_no_orchestration():
    names = [module.name for module in pkgutil.walk_packages(excel_core.__path__, "excel_core.")]
    assert "excel_core.models.calibration" in names and "excel_core.datasets.voc" in names
    code = (
        f"import importlib, sys\nfor name in {names!r}: importlib.import_module(name)\n"
        "bad = {'prefect', 'dask', 'distributed', 'typer', 'flows', 'tasks', 'artifacts'} & set(sys.modules)\n"
        "assert not bad, bad"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, cwd=ROOT)


def test_imports_go_one_way():
    for room, allowed in ALLOWED.items():
        for path in (ROOT / room).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
                names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                wrong = [n for n in names if n.split(".")[0] in ALLOWED and n.split(".")[0] not in allowed]
                assert not wrong, f"{path}: {wrong}"


def test_nothing_unsafe_is_called():
    for room in ALLOWED:
        for path in (ROOT / room).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Call):
                    called = ast.unparse(node.func)
                    keywords = {k.arg: ast.unparse(k.value) for k in node.keywords}
                    assert called not in ("eval", "exec", "pickle.loads", "pickle.load"), path
                    assert called != "torch.load" or keywords.get("weights_only") == "True", path
                    assert keywords.get("allow_pickle", "False") == "False", path
