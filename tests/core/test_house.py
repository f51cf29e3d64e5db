"""The one direction of imports, and that the core stands without Prefect, Dask and the command line."""

import ast
import pkgutil
import subprocess
import sys
from dataclasses import fields

import excel_core
from excel_core.training.loop import LossRow
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


MAX_LINES = 300


def test_a_file_is_no_longer_than_its_idea():
    for room in (*ALLOWED, "bench", "docs"):
        for path in (ROOT / room).rglob("*.py"):
            lines = len(path.read_text().splitlines())
            assert lines <= MAX_LINES, f"{path}: {lines} lines; a file of one idea has at most {MAX_LINES}"


def test_imports_go_one_way():
    for room, allowed in ALLOWED.items():
        for path in (ROOT / room).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
                names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                wrong = [n for n in names if n.split(".")[0] in ALLOWED and n.split(".")[0] not in allowed]
                assert not wrong, f"{path}: {wrong}"


# What `make check` (ruff's rules S) does not look for: what runs code that a file brings, whatever it is called through.
# Weights are read by excel_core/models/torchscript_pickle.py (an interpreter of its own over `pickletools`, which decodes
# alone), by `torch.load(weights_only=True)` and by safetensors.
CALLS_CODE = (
    "eval", "exec", "compile", "os.system", "os.popen", "torch.hub.load", "runpy.run_path", "torch.jit.load",
    "torch.serialization.add_safe_globals", "torch.serialization.safe_globals", "open_clip.create_model",
    "open_clip.create_model_and_transforms", "open_clip.load_checkpoint", "open_clip.load_openai_model",
)  # fmt: skip
IMPORTS_CODE = (
    "pickle",
    "cloudpickle",
    "dill",
    "joblib",
    "marshal",
    "shelve",
    "runpy",
    "code",
    "requests",
    "httpx",
    "telnetlib",
)
MAY_IMPORT = {"flows/live/label_studio.py": ("httpx",)}  # file → modules of IMPORTS_CODE: it fetches photos of one server alone
READS_BY_ITSELF = ("cv2", "imageio", "skimage", "tifffile", "rasterio", "pyarrow", "torchvision.io")  # past the mask guard
DECODES_BYTES = {"excel_core/datasets/jpeg.py": {"ImageReadMode", "decode_jpeg"}}  # file → names that open no file
YAML_CALLS = ("yaml.safe_load", "yaml.safe_dump", "yaml.compose", "yaml.parse")
UNPACKS = ("extractall", "extract", "unpack_archive")  # of an archive's members, to where their names lead


def test_nothing_unsafe_is_called():
    for path, node in _nodes(ast.Call):
        called = ast.unparse(node.func)
        keywords = {k.arg: ast.unparse(k.value) for k in node.keywords}
        assert called not in CALLS_CODE and called.rpartition(".")[2] not in UNPACKS, f"{path}: {called}"
        assert not called.startswith("yaml.") or called in YAML_CALLS, f"{path}: {called}"
        loader = keywords.get("Loader")
        safe = called in ("yaml.safe_load", "yaml.safe_dump") or loader in ("yaml.SafeLoader", "yaml.CSafeLoader")
        assert not called.startswith("yaml.") or safe, path
        assert called != "torch.load" or keywords.get("weights_only") == "True", path
        assert keywords.get("allow_pickle", "False") == "False", path
        assert keywords.get("shell", "False") == "False", path
        # Other versions of zarr's format have filters that unpickle.
        assert called != "zarr.open_group" or keywords.get("zarr_format") == "3", path


def test_text_is_utf_8_whatever_the_locale():
    """Files are read and written, and other programs understood, under LC_ALL=C as elsewhere."""
    for path, node in _nodes(ast.Call):
        called = ast.unparse(node.func).rpartition(".")[2]
        given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
        position = {"read_text": 0, "write_text": 1}.get(called)
        if (position is not None and len(node.args) <= position) or given.get("text") == "True":
            assert given.get("encoding") in ("'utf-8'", "'utf-8-sig'"), f"{path}:{node.lineno}: {called}"


def test_no_csv_holds_a_formula():
    """A cell that begins with = + - @ is a formula to a spreadsheet. Names of images and classes go to Parquet, JSON and label
    files, or through safe_csv.py, as those of benchmark.csv do; losses.csv is LossRow, whose fields are all numbers."""
    writers = [
        path.relative_to(ROOT).as_posix()
        for path, node in _nodes(ast.Call)
        if ast.unparse(node.func).endswith((".to_csv", ".to_excel", "csv.writer", "csv.DictWriter", ".savetxt"))
    ]
    assert set(writers) == {"artifacts/benchmark/tables.py", "tasks/stages/train.py", "excel_core/safe_csv.py"}
    assert {field.type for field in fields(LossRow)} == {int, float}


def test_nothing_is_imported_that_runs_what_it_reads():
    for kind in (ast.Import, ast.ImportFrom):
        for path, node in _nodes(kind):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
            allowed = MAY_IMPORT.get(path.relative_to(ROOT).as_posix(), ())
            wrong = [name for name in names if name.split(".")[0] in IMPORTS_CODE and name not in allowed]
            assert not wrong, f"{path}: {wrong}"
            taken = {alias.name for alias in node.names}
            if taken <= DECODES_BYTES.get(path.relative_to(ROOT).as_posix(), set()):
                continue
            wrong = [name for name in names if f"{name}.".startswith(tuple(f"{reader}." for reader in READS_BY_ITSELF))]
            assert not wrong, f"{path}: {wrong} opens files by itself, which the mask guard does not see"


def test_asserts_narrow_types_and_check_nothing_else():
    """`python -O` leaves asserts out, so that none may stand for a check of what comes from outside."""
    for path, node in _nodes(ast.Assert):
        test = node.test
        conditions = test.values if isinstance(test, ast.BoolOp) and isinstance(test.op, ast.And) else [test]
        for condition in conditions:
            text = ast.unparse(condition)
            assert text.endswith(" is not None") or text.startswith(("isinstance(", "issubclass(")), f"{path}: assert {text}"


def _nodes(kind):
    """Every node of one kind in the program's files, with its file."""
    for room in ALLOWED:
        for path in sorted((ROOT / room).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, kind):
                    yield path, node


def test_torch_unpickles_no_class_but_its_own():
    names = [module.name for module in pkgutil.walk_packages(excel_core.__path__, "excel_core.")]
    code = (
        f"import importlib, torch\nfor name in {names!r}: importlib.import_module(name)\n"
        "import open_clip, torch.distributed\n"
        "strange = [g for g in torch.serialization.get_safe_globals() if not g.__module__.startswith('torch.')]\n"
        "assert not strange, strange"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, cwd=ROOT)


def test_no_two_files_of_tests_have_one_name():
    """pytest takes the second for the first, and runs neither."""
    names = [path.name for path in (ROOT / "tests").rglob("test_*.py")]
    assert len(names) == len(set(names)), sorted(name for name in set(names) if names.count(name) > 1)
