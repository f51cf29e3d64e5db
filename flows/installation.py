"""Whether the packages that excel imports are its own.

`tasks`, `flows`, `artifacts` and `prompts` are common names. A tasks.py in the folder where Python starts, or another
distribution with such a package, would be imported in their place, and run.
"""

from importlib.util import find_spec
from pathlib import Path

__all__ = ["PACKAGES", "foreign_package"]

PACKAGES = ("excel_core", "tasks", "flows", "artifacts", "prompts")


def foreign_package(root: Path = Path(__file__).parents[1]) -> str | None:
    """What is wrong, in one line: the first package that Python would not import from `root`. None where all lie there."""
    for name in PACKAGES:
        spec = find_spec(name)
        places = [] if spec is None else list(spec.submodule_search_locations or [str(spec.origin)])
        if [Path(place).resolve() for place in places] != [(root / name).resolve()]:
            locations = ", ".join(places) or "nothing"
            return (
                f"excel needs its package {name!r} from {root}, but Python finds {locations}; rename that, start elsewhere, or "
                "uninstall the other distribution (PYTHONSAFEPATH=1 leaves the current folder out)"
            )
    return None
