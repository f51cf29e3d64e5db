"""Compile the loops in C (loops/*.c) into one shared library beside them: when excel is installed (setup.py), by
`python -m excel_core.kernels.build`, and where sources are newer than the library (compiled.py).

Imports the standard library alone, for excel is not installed yet when setup.py calls it. Each file is compiled once per level
of the processor, so that a library runs on any processor of its kind and uses what the one at hand has.
"""

import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path

__all__ = ["LEVELS", "LIBRARY", "build", "source_digest"]

SOURCES = Path(__file__).parent / "loops"
LIBRARY = SOURCES / "loops.so"
COMPILERS = ("cc", "gcc", "clang")
# Products and sums may be fused, zero's sign is of no account, nothing else is reordered.
FLAGS = (
    *("-std=gnu11", "-O2", "-ftree-vectorize", "-fvect-cost-model=dynamic", "-fPIC"),
    *("-ffp-contract=fast", "-fno-math-errno", "-fno-trapping-math", "-fno-signed-zeros"),
)
# Flags of each level, in the order of excel_level() in loops/levels.c; the last part of its functions' names is `level` and its
# number.
LEVELS: tuple[tuple[str, ...], ...] = (
    ((), ("-mavx2", "-mfma"), ("-mavx512f", "-mavx512vl", "-mavx512dq", "-mavx512bw", "-mfma"))
    if platform.machine() in ("x86_64", "AMD64")
    else ((),)
)
BY_LEVEL = ("filter.c", "groups.c", "lattice.c", "mean_field.c", "par.c", "resize.c")
SECONDS = 300  # that a compiler may take


def source_digest() -> str:
    """SHA-256 in hex over the sources and the flags: the library holds the one that it was built from."""
    digest = hashlib.sha256(repr((FLAGS, LEVELS)).encode())
    for path in sorted(path for path in SOURCES.iterdir() if path.suffix in (".c", ".h")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def build(library: Path = LIBRARY) -> None:
    """Compile the library, under a temporary name that becomes its own. OSError where there is no compiler, where the compiler
    fails, or the folder cannot be written."""
    compiler = next((path for path in map(shutil.which, COMPILERS) if path), None)
    if compiler is None:
        raise OSError(f"there is no C compiler on PATH ({', '.join(COMPILERS)}); install one (Debian: apt install gcc)")
    with tempfile.TemporaryDirectory(prefix=".loops-", dir=library.parent.resolve()) as temporary:
        folder = Path(temporary)
        for name in ("any", *map(str, range(len(LEVELS)))):
            (folder / name).mkdir()
        sources = [str(SOURCES / name) for name in BY_LEVEL]
        _run(
            ([compiler, *FLAGS, f'-DSOURCE_DIGEST="{source_digest()}"', "-c", str(SOURCES / "levels.c")], folder / "any"),
            *(
                ([compiler, *FLAGS, *flags, f"-DLEVEL=level{level}", "-c", *sources], folder / str(level))
                for level, flags in enumerate(LEVELS)
            ),
        )
        _run(([compiler, "-shared", "-o", "loops.so", *map(str, sorted(folder.rglob("*.o"))), "-lm"], folder))
        os.replace(folder / "loops.so", library)


def _run(*commands: tuple[list[str], Path]) -> None:
    """Run a compiler's commands side by side, each in its folder, where its object files go."""
    running: list[subprocess.Popen[str]] = []
    try:
        for command, folder in commands:
            running.append(subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True, encoding="utf-8"))  # noqa: S603  no shell
        for process in running:
            _, problems = process.communicate(timeout=SECONDS)
            if process.returncode != 0:
                raise OSError(f"the C compiler cannot compile {SOURCES}:\n{problems.strip()[:2000]}")
    except subprocess.TimeoutExpired as error:
        raise OSError(f"the C compiler took more than {SECONDS} s over {SOURCES}") from error
    finally:
        for process in running:
            if process.poll() is None:
                process.kill()
            process.communicate()


if __name__ == "__main__":
    build()
    print(LIBRARY)
