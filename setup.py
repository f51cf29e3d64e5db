"""What pyproject.toml cannot say: the loops in C (excel_core/kernels/loops/) are compiled when excel is installed, by any way:
`pip install .`, `pip install --editable .`, a wheel. excel_core/kernels/build.py does it."""

import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

sys.path.insert(0, str(Path(__file__).parent))  # pip runs this file from elsewhere

from excel_core.kernels.build import LIBRARY, SOURCES, build


class BuildLoops(build_ext):
    """Builds a library that ctypes loads, so it depends on no version of Python, and neither does its name."""

    def build_extension(self, ext: Extension) -> None:
        target = Path(self.get_ext_fullpath(ext.name))
        target.parent.mkdir(parents=True, exist_ok=True)
        build(target)

    def get_ext_filename(self, fullname: str) -> str:
        return str(Path(*fullname.split(".")).with_suffix(LIBRARY.suffix))


setup(
    ext_modules=[
        Extension("excel_core.kernels.loops.loops", [f"excel_core/kernels/loops/{path.name}" for path in SOURCES.glob("*.c")])
    ],
    cmdclass={"build_ext": BuildLoops},
)
