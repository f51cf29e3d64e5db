"""The library of the loops in C: built anew where it is older than its sources, with the same results on every processor."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from setuptools import Distribution

from excel_core.cams.crf import dense_crf
from excel_core.cams.par import pixel_adaptive_refinement
from excel_core.config import CrfSpec, ParSpec
from excel_core.kernels import compiled
from excel_core.kernels.build import BY_LEVEL, LIBRARY, SOURCES, source_digest
from tests.conftest import ROOT

ASK = "from excel_core.kernels.compiled import call, has_loops; print(has_loops())"


def _ask(root: Path, path: str, code: str = ASK) -> subprocess.CompletedProcess[str]:
    """Run code beside a copy of the loops, with programs of PATH `path` alone."""
    environment = os.environ | {"PATH": path, "PYTHONPATH": str(root)}
    return subprocess.run([sys.executable, "-c", code], cwd=root, env=environment, capture_output=True, text=True)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The folder of a copy of excel_core/kernels, library and all."""
    assert compiled.has_loops()
    folder = tmp_path / "excel_core" / "kernels"
    shutil.copytree(ROOT / "excel_core" / "kernels", folder)
    (tmp_path / "excel_core" / "__init__.py").touch()
    return folder


def _digest_in(library: Path) -> bool:
    return source_digest().encode() in library.read_bytes()


def test_a_library_older_than_its_sources_is_refused_or_built_anew(copy):
    root, library, source = copy.parent.parent, copy / "loops" / LIBRARY.name, copy / "loops" / "resize.c"
    assert _digest_in(LIBRARY) and _ask(root, "").stdout == "True\n"  # as it was copied, it needs no compiler
    source.write_text(source.read_text().replace("float total = AT(", "float total = 2 * AT("))
    refused = _ask(root, "")
    assert refused.stdout == "False\n" and f"{library} is older than its sources" in refused.stderr
    assert "there is no C compiler on PATH" in refused.stderr and _digest_in(library)
    code = f"{ASK}\nimport numpy as np\nfrom excel_core.kernels.resize import axis_of, resized_window\n"
    code += "print(resized_window(np.full((1, 1, 3), 8, np.uint8), axis_of(1, 1, False), axis_of(1, 1, False)).sum())"
    built = _ask(root, os.environ["PATH"], code)
    assert built.stdout == "True\n24.0\n" and not _digest_in(library), built.stderr  # the term that was changed has weight 0
    assert _ask(root, "").stdout == "True\n" and list((copy / "loops").glob(".loops-*")) == []


def test_without_a_library_and_a_compiler_calls_say_what_to_do(copy):
    (copy / "loops" / LIBRARY.name).unlink()
    ran = _ask(copy.parent.parent, "", f"{ASK}\ncall('blur')")
    assert ran.stdout == "False\n" and ran.stderr.count("is missing") == 1
    assert "run `python -m excel_core.kernels.build`, which needs a C compiler" in ran.stderr


def test_sources_that_do_not_compile_are_an_error_with_the_compilers_words(copy):
    (copy / "loops" / "loops.h").write_text("#error here\n")
    ran = _ask(copy.parent.parent, os.environ["PATH"])
    assert ran.stdout == "False\n" and "cannot compile" in ran.stderr and "loops.h:1" in ran.stderr


def test_without_loops_torch_and_pydensecrf_compute_the_same(monkeypatch):
    image, maps = torch.rand(1, 3, 20, 30) * 255, torch.rand(1, 3, 20, 30)
    scores = maps[0].softmax(0).numpy()
    picture = image[0].permute(1, 2, 0).byte().numpy()
    with_loops = pixel_adaptive_refinement(image, maps, ParSpec()), dense_crf(picture, scores, CrfSpec())
    for module in ("par", "crf"):
        monkeypatch.setattr(f"excel_core.cams.{module}.has_loops", lambda: False)
    torch.testing.assert_close(pixel_adaptive_refinement(image, maps, ParSpec()), with_loops[0])
    np.testing.assert_allclose(dense_crf(picture, scores, CrfSpec()), with_loops[1], atol=5e-2)


@pytest.mark.parametrize("labels", [2, 4, 5, 12, 21, 40])
def test_every_level_of_processor_gives_the_same(labels, monkeypatch):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 255, (40, 31, 3), dtype=np.uint8)
    scores = torch.rand(labels, 40, 31, generator=torch.Generator().manual_seed(0)).softmax(0).numpy()
    maps, spec = torch.from_numpy(scores)[None], CrfSpec(least_probability=0.0, iterations=3)
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None].float()
    library = compiled._library()
    found = []
    for level in range(library.level + 1):
        other = compiled._Library()
        other.level = level
        monkeypatch.setattr(compiled, "_library", lambda other=other: other)
        found.append((dense_crf(image, scores, spec), pixel_adaptive_refinement(pixels, maps, ParSpec(iterations=3)).numpy()))
    for crf, par in found:
        np.testing.assert_allclose(crf, found[-1][0], atol=2e-4)
        np.testing.assert_allclose(par, found[-1][1], atol=2e-6)


def test_every_source_is_compiled_and_installed():
    assert {path.name for path in SOURCES.glob("*.c")} == {*BY_LEVEL, "levels.c"}
    packaged = Distribution()
    packaged.parse_config_files([str(ROOT / "pyproject.toml")])
    assert packaged.package_data["excel_core.kernels"] == ["loops/*.c", "loops/*.h"]
