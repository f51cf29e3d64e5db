"""Which edits of the code change the digest of which stage. An edit that is not seen would give stale results in silence."""

import shutil
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent
from types import SimpleNamespace
from typing import Any

import pytest

from tasks.engine.code_digest import ROOT, code_digest, reached_definitions
from tasks.engine.executor import LAYOUTS, PRODUCERS
from tasks.engine.stage import Sharded
from tasks.pipeline import STAGES

WORK = {
    name: (stage.work.build_part, stage.work.join) if isinstance(stage.work, Sharded) else (stage.work.build,)
    for name, stage in STAGES.items()
}
ALL = set(WORK)
CAMS = {"cams", "refine", "train", "dynamic", "sweep", "sweep_lvc", "curve", "figures"}  # make CAMs, or refine them
CRF = {"refine", "dynamic", "predict", "curve"}
MASKS = {"train", "sweep", "sweep_lvc", "curve", "ablation", "score", "evaluate"}  # name the masks of a data set


def _digests(root: Path, layout: str, producer: str = "patch_text") -> dict[str, list[str]]:
    """As `Step` makes them for a run with data of this layout, and CAMs of this producer."""
    choices = ((LAYOUTS, layout), *((table, producer) for table in PRODUCERS))
    return {name: [code_digest(function, root, choices) for function in functions] for name, functions in WORK.items()}


@pytest.fixture(scope="module")
def original(tmp_path_factory) -> Path:
    """A copy of the packages' source."""
    root = tmp_path_factory.mktemp("original")
    for path in (path for package in ("excel_core", "tasks", "artifacts") for path in (ROOT / package).rglob("*.[pch]*")):
        if path.suffix not in (".py", ".c", ".h"):
            continue
        copy = root / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)
    return root


@pytest.fixture
def changed(original, tmp_path) -> Callable[..., set[str]]:
    """The stages whose digests edits change; an edit is (path, old text, new text)."""

    def stages(*edits: tuple[str, str, str], layout: str = "voc", producer: str = "patch_text") -> set[str]:
        root = shutil.copytree(original, tmp_path / "edited")
        for path, old, new in edits:
            source = (root / path).read_text()
            assert old in source, f"{path} has no {old!r}"
            (root / path).write_text(source.replace(old, new, 1))
        before, after = _digests(original, layout, producer), _digests(root, layout, producer)
        return {name for name in WORK if after[name] != before[name]}

    return stages


def test_every_stages_work_is_a_definition_that_is_found():
    """Of a function that a decorator hides, or that is made while the program runs, the digest would know nothing."""
    for functions in WORK.values():
        for function in functions:
            definition = (function.__module__, function.__qualname__)
            assert definition in reached_definitions(*definition) and function.__module__.startswith("tasks.stages.")


def test_what_changes_no_result_changes_no_digest(changed):
    par, affinity, stage = "excel_core/cams/par.py", "excel_core/cams/affinity.py", "tasks/stages/predict.py"
    assert not changed(
        (par, "KERNEL_WIDTH = 0.3", "# A comment.\nKERNEL_WIDTH = (\n    0.3\n)"),
        (par, '"""Weights (B, 48, H, W)', '"""Other words (B, 48, H, W)'),
        (par, "def _pad(values: Tensor, reach: int) -> Tensor:", 'def _pad(values: "Any", reach) -> None:\n    """More."""'),
        (affinity, '"""Class-aware attention', '"""Other words: class-aware attention'),
        (affinity, "    matrix = attention\n", "    matrix = attention  # where it begins\n"),
        (stage, "parts: list[Part] = []", "parts: Any = []"),
        (
            "tasks/stages/train.py",
            'say(f"train: the checkpoint was trained otherwise: {difference}")',
            'say(f"Oh: {difference}")',
        ),
        (
            "tasks/stages/train_resume.py",
            'print(f"train: the checkpoint is damaged, training',
            'print(f"train: it is damaged, training',
        ),
        ("excel_core/exports/onnx_graph.py", "\n\n\ndef ", "\n\n\ndef nothing(): pass\n\n\ndef "),
        ("tasks/engine/executor.py", "KEY_DIGITS = 32", "KEY_DIGITS = 33"),
        ("tasks/engine/output.py", "os.link(source, target)", "os.symlink(source, target)"),
        ("tasks/history/plan.py", "MAX_REASONS = 3", "MAX_REASONS = 4"),
        ("tasks/pipeline.py", '"report") -> Graph:', '"evaluate") -> Graph:'),
        ("excel_core/world/train_clip.py", "import ", "import os, "),
        ("excel_core/kernels/loops/par.c", "/* Pixel-adaptive", "/* Other words // pixel-adaptive"),
        ("excel_core/kernels/loops/par.c", "float *restrict work, int64_t first", "float *restrict  work,  int64_t first"),
    )


@pytest.mark.parametrize(
    ("path", "old", "new", "stages"),
    [
        # A numeric literal, deep in a function. `predict` has CAMs' model, whose class has all its methods.
        ("excel_core/cams/affinity.py", "+ 1e-5)", "+ 2e-5)", CAMS | {"predict"}),
        ("excel_core/cams/affinity.py", "(matrix + matrix.mT) / 2", "(matrix + matrix.mT) / 3", CAMS),
        ("excel_core/cams/par.py", "KERNEL_WIDTH = 0.3", "KERNEL_WIDTH = 0.4", CAMS),
        ("excel_core/cams/crf.py", "MIN_PROBABILITY = 1e-5", "MIN_PROBABILITY = 1e-6",
         CRF),
        ("excel_core/training/samples.py", "MAX_CROP_DRAWS = 10", "MAX_CROP_DRAWS = 11", {"train"}),
        ("excel_core/evaluation/ablation.py", "BINS = 100", "BINS = 50", {"sweep", "sweep_lvc", "ablation"}),
        ("excel_core/paper/published.py", "0.112", "0.113", {"paper"}),
        # Defaults of a function, a kernel that is imported inside a function, a decorator.
        ("excel_core/evaluation/bootstrap.py", "seed: int = 0", "seed: int = 1",
         {"ablation", "benchmark", "evaluate", "score"}),
        ("excel_core/cams/affinity.py", "rescale: bool = True", "rescale: bool = False", CAMS),
        # Loops in C: a file, what it includes, and how they are compiled.
        ("excel_core/kernels/loops/par.c", "1e-8f", "2e-8f", CAMS),
        ("excel_core/kernels/loops/mean_field.c", "BELOW_LOGITS -1e30f", "BELOW_LOGITS -1e20f", CRF),
        ("excel_core/kernels/loops/rows.h", "CACHE_LINE 64", "CACHE_LINE 32", CRF),
        ("excel_core/kernels/loops/loops.h", "MIN_EXPONENT -46.0f", "MIN_EXPONENT -45.0f", CAMS | {"predict"}),
        ("excel_core/kernels/build.py", "-ffp-contract=fast", "-ffp-contract=off", CAMS | {"predict"}),
        ("tasks/stages/predict.py", "@torch.inference_mode()\n", "", {"predict"}),
        # A kernel in Triton, below its own decorator.
        ("excel_core/kernels/par_triton.py", "+ 1e-8) * kernel_width", "+ 2e-8) * kernel_width", CAMS),
        ("excel_core/kernels/lattice_triton.py", "mask=left >= 0", "mask=left > 0", {"refine", "dynamic", "predict"}),
        # What a name is bound to: in a library, inside a function, through a package.
        ("excel_core/cams/affinity.py", "from scipy import ndimage", "from cupyx.scipy import ndimage", CAMS),
        ("excel_core/cams/par.py", "import affinities, diffuse\n", "import diffuse as affinities, affinities as diffuse\n",
         CAMS),
        ("excel_core/config/__init__.py", "SegmenterSpec, TrainSpec\n", "TrainSpec as SegmenterSpec, TrainSpec\n",
         {"train", "dynamic", "predict", "sweep", "sweep_lvc", "curve", "figures"}),
        # A table that a function looks into: the layouts of data, of which these are of the run's.
        ("excel_core/datasets/layouts.py", "read=read_voc", "read=read_folder", MASKS | {"dataset", "paper"}),
        # Label maps are written and read in these colours, masks too.
        ("excel_core/datasets/palette.py", "7 - bit // 3", "6 - bit // 3",
         ALL - {"describe", "knowledge", "cams", "proposals", "figures"}),
        # The default of a setting, where runs are made from presets.
        ("excel_core/config/data.py", "max_bad: Unit = Field(0.01", "max_bad: Unit = Field(0.02",
         {"ablation", "benchmark", "paper"}),
        # A method of a spec, where something reads an attribute of its name.
        ("excel_core/config/data.py", "(self.train_split, *self.seed_splits)", "(*self.seed_splits, self.train_split)",
         {"refine", "dynamic", "quality", "dataset", "paper"} | MASKS),
        # A program of its own, which a stage starts.
        ("tasks/processes/train_process.py", 'init_process_group("gloo")', 'init_process_group("mpi")', {"train"}),
    ],
)  # fmt: skip
def test_an_edit_changes_the_stages_that_it_touches(changed, path, old, new, stages):
    assert changed((path, old, new)) == stages


def test_another_producer_is_no_part_of_a_run(changed):
    edit = ("excel_core/cams/gradcam.py", "EPSILON = 1e-7", "EPSILON = 1e-6")
    assert not changed(edit)


def test_the_producer_of_a_run_is_part_of_it(changed):
    edit = ("excel_core/cams/gradcam.py", "EPSILON = 1e-7", "EPSILON = 1e-6")
    assert changed(edit, producer="gradcam") == {"cams", "train", "dynamic"}


def test_the_reader_of_another_layout_is_no_part_of_a_run(changed):
    """Whoever adds a layout, or edits one, reruns nothing of the others."""
    edit = ("excel_core/datasets/coco.py", "def read_coco(", "def _new() -> None: ...\n\n\n@_new\ndef read_coco(")
    assert not changed(edit)


def test_the_reader_of_the_runs_own_layout_is(changed):
    edit = ("excel_core/datasets/coco.py", "def read_coco(", "def _new() -> None: ...\n\n\n@_new\ndef read_coco(")
    assert changed(edit, layout="coco") == MASKS | {"dataset", "paper"}


def test_a_new_name_for_masks_reruns_nothing(changed):
    """The guard knows the names of all layouts' masks; what it lets pass is the same."""
    edit = (
        "excel_core/datasets/mask_guard.py",
        'MASK_FOLDERS = ("SegmentationClass",',
        'MASK_FOLDERS = ("SegmentationClass", "Masks",',
    )
    assert not changed(edit)


def test_a_result_that_is_in_the_key_is_not_followed(changed):
    """The images of a split are in the keys of whatever reads them, and so are texts that are written already."""
    assert not changed(("excel_core/datasets/manifest.py", "    rows = manifest[", "    rows = None or manifest[")) & CAMS


STAGE = """
    from excel_core.core import compute

    def build(job, folder):
        return compute(job)
"""
FILES = {"excel_core/__init__.py": "", "excel_core/core.py": "def compute(job): return 1", "tasks/stage.py": STAGE}
SPECS = "from excel_core.config.base import Spec\n\n\nclass MySpec(Spec):\n    {}\n"


@pytest.fixture
def digest(tmp_path) -> Callable[[dict[str, str]], str]:
    """The digest of tasks/stage.py's `build` in a small project of these files."""
    count = iter(range(99))

    def of(files: dict[str, str]) -> str:
        root = tmp_path / str(next(count))
        for path, source in (FILES | files).items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_text(dedent(source))
        function: Any = SimpleNamespace(__module__="tasks.stage", __qualname__="build")
        return code_digest(function, root)

    return of


@pytest.mark.parametrize(
    ("core", "other", "old", "new"),
    [
        ("from excel_core import other\ndef compute(job): return other.f()", "def f(): return 1", "1", "2"),
        ("import excel_core.other\ndef compute(job): return excel_core.other.f()", "def f(): return 1", "1", "2"),
        ("import excel_core.other as o\ndef compute(job): return o.f()", "from math import floor as f", "floor", "ceil"),
        ("from excel_core.other import *\ndef compute(job): return f()", "def f(): return 1", "1", "2"),
        ("from .other import f\ndef compute(job): return f()", "def f(): return 1", "1", "2"),
        ("from . import other\ndef compute(job): return other.f()", "def f(): return 1", "1", "2"),
        ("def compute(job):\n    from excel_core.other import f as g\n    return g()", "def f(): return 1", "1", "2"),
        ("try:\n    from excel_core.other import f\nexcept ImportError:\n    f = None\ndef compute(job): return f()",
         "def f(): return 1", "1", "2"),
        ("from excel_core.other import f\ndef compute(job): return f()", "if True:\n    def f(): return 1", "1", "2"),
        ("from excel_core.other import f\ndef compute(job): return f()", "with open('x'):\n    f = 1", "1", "2"),
        ("from excel_core.other import T\nT['a'] = 0\ndef compute(job): return T", "T = {'a': 1}", "1", "2"),
        ("from excel_core.other import T\ndef compute(job): return T", "T = {}\nT['a'] = 1", "1", "2"),
        ("from excel_core.other import T\ndef compute(job): return T", "T = {}\nT.update(a=1)", "1", "2"),
        ("from excel_core.other import T\ndef compute(job): return T", "T = {}\nfor i in range(1): T[i] = i", "1", "2"),
        ("from excel_core.other import f\ndef compute(job): return f()", "def __getattr__(name): return lambda: 1", "1", "2"),
        ("from excel_core.other import A\nclass B(A): pass\ndef compute(job): return B()", "class A:\n    x = 1", "1", "2"),
        ("from excel_core.other import d\n@d\ndef compute(job): pass", "def d(f): return lambda job: 1", "1", "2"),
        ("from excel_core.other import x\ndef compute(job, y=x): return y", "x = 1", "1", "2"),
        ("from excel_core.other import A\ndef compute(job: 'list[A]'): return job[0].x()",
         "class A:\n    def x(self): return 1", "1", "2"),
        ("def compute(job): return run('-m', 'excel_core.other')", "def main(): return 1", "1", "2"),
        ("FUNCTIONS = {'a': 'f'}\ndef compute(job): return globals()[FUNCTIONS['a']]()\nfrom excel_core.other import f",
         "def f(): return 1", "1", "2"),
        ("from excel_core.other import A\ndef compute(job): return A(x='1')",
         "from pydantic import BaseModel as B\nclass A(B):\n    x: int", "int", "float"),
        ("from excel_core.other import A\ndef compute(job): return A(1)",
         "from dataclasses import dataclass\nfrom typing import ClassVar\n@dataclass\nclass A:\n    x: int = 1",
         "int", "ClassVar[int]"),
        ("from excel_core.other import f\ndef compute(job): return f('1')",
         "from pydantic import validate_call\n@validate_call\ndef f(x: int): return x", "int", "float"),
        ("from excel_core.other import f\ndef compute(job): f(job)", "def f(job): print('1', file=job.file)", "1", "2"),
        ("from excel_core.other import f\ndef compute(job): f(job)", "def f(job): print(job.write('1'))", "1", "2"),
        ("from excel_core.other import f\ndef compute(job): f(job)", "def f(job): print(f'{job.draw(1)}')", "1", "2"),
    ],
)  # fmt: skip
def test_no_way_to_a_definition_is_missed(digest, core, other, old, new):
    files = {"excel_core/core.py": core, "excel_core/other.py": other}
    assert digest(files | {"excel_core/other.py": other.replace(old, new)}) != digest(files)


def test_names_may_be_bound_to_something_else_that_is_reached_too(digest):
    """Nothing new is reached, and no definition's own text is another."""
    files = {"excel_core/a.py": "def f(): return 1", "excel_core/b.py": "def f(): return 2"}
    core = "from excel_core.a import f\nfrom excel_core.b import f as g\ndef compute(job): return f() - g()"
    swapped = core.replace("excel_core.a", "excel_core.c").replace("excel_core.b", "excel_core.a").replace("core.c", "core.b")
    assert digest(files | {"excel_core/core.py": core}) != digest(files | {"excel_core/core.py": swapped})
    package = {"excel_core/p/__init__.py": core.rpartition("\ndef")[0]} | files
    package["excel_core/core.py"] = "from excel_core.p import f, g\ndef compute(job): return f() - g()"
    other = package | {"excel_core/p/__init__.py": swapped.rpartition("\ndef")[0]}
    assert digest(package) != digest(other)


def test_what_runs_when_a_module_or_its_package_is_imported_counts(digest):
    core = {"excel_core/core.py": "from excel_core.p.m import f\ndef compute(job): return f()", "excel_core/p/__init__.py": ""}
    files = core | {"excel_core/p/m.py": "def f(): return 1"}
    for path in ("excel_core/__init__.py", "excel_core/p/__init__.py", "excel_core/p/m.py"):
        assert digest(files | {path: f"import os\nos.environ['A'] = '1'\n{files.get(path, '')}"}) != digest(files)
        never = "if __name__ == '__main__':\n    print()\n"
        assert digest(files | {path: f"{never}{files.get(path, '')}"}) == digest(files)


@pytest.mark.parametrize(
    ("before", "after", "core", "changes"),
    [
        ("x: int = 1", "x: int = 2", "return job.x", False),  # its value is in the key
        ("x: int = 1", "x: float = 1", "return job.x", False),
        ("x: int = 1", "x: int = 2", "return MySpec()", True),  # this one is no run's
        ("x: ClassVar[int] = 1", "x: ClassVar[int] = 2", "return MySpec.x", True),
        ("_x: int = PrivateAttr(1)", "_x: int = PrivateAttr(2)", "return MySpec.y(job)", True),
        ("def y(self): return 1", "def y(self): return 2", "return job.spec.y", True),  # wherever the spec comes from
        ("def y(self): return 1", "def y(self): return 2", "return job.spec.z", False),
    ],
)
def test_fields_of_specs_are_in_the_key_and_their_methods_in_the_code(digest, before, after, core, changes):
    files = {
        "excel_core/config/__init__.py": "from excel_core.config.mine import MySpec",
        "excel_core/config/base.py": "class Spec: pass",
        "excel_core/core.py": f"from excel_core.config import MySpec\ndef compute(job): {core}",
    }
    one, other = (digest(files | {"excel_core/config/mine.py": SPECS.format(body)}) for body in (before, after))
    assert (one != other) == changes


def test_what_is_edited_while_a_process_runs_is_not_what_it_runs(tmp_path):
    """A stage that begins hours after the edit computes with the code that was imported before it."""
    (tmp_path / "tasks").mkdir()
    path = tmp_path / "tasks" / "a.py"
    path.write_text("x = 1\ny = 1\ndef f(): return x\ndef g(): return y")
    f, g = (SimpleNamespace(__module__="tasks.a", __qualname__=name) for name in "fg")
    code_digest(f, tmp_path)
    edited = shutil.copytree(tmp_path, tmp_path / "edited")
    for source in (path, edited / "tasks" / "a.py"):
        source.write_text(path.read_text().replace("y = 1", "y = 2"))
    assert code_digest(g, tmp_path) != code_digest(g, edited)
