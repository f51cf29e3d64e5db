"""The version of the code a stage uses: a digest of its module and every project module it imports, directly or not."""

import ast
import hashlib
from functools import cache
from importlib.util import find_spec
from pathlib import Path

__all__ = ["code_version", "used_modules"]

PACKAGES = ("excel_core", "tasks", "artifacts")
ORCHESTRATION = ("tasks.engine", "tasks.team")  # these decide when and where a stage runs, not what it computes


@cache
def code_version(module: str) -> str:
    """Digest of the sources of `module` and the project modules it uses, comments and layout included."""
    digest = hashlib.sha256()
    for name in used_modules(module):
        digest.update(name.encode() + b"\0" + _source(name).read_bytes() + b"\0")
    return digest.hexdigest()


def used_modules(module: str) -> list[str]:
    """Project modules that `module` imports, itself included, transitively, sorted; nothing is executed."""
    found: set[str] = set()
    pending = [module]
    while pending:
        name = pending.pop()
        if name in found or any(f"{name}.".startswith(f"{room}.") for room in ORCHESTRATION):
            continue
        found.add(name)
        pending += [imported for imported in _imports(name) if imported.split(".")[0] in PACKAGES]
    return sorted(found)


def _imports(module: str) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(_source(module).read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module)
            # `from package import module` names a module; `from module import thing` does not.
            names |= {full for alias in node.names if _is_module(full := f"{node.module}.{alias.name}")}
    return names


def _is_module(name: str) -> bool:
    if name.split(".")[0] not in PACKAGES:
        return False
    try:
        return find_spec(name) is not None
    except ModuleNotFoundError:
        return False


def _source(module: str) -> Path:
    spec = find_spec(module)
    assert spec is not None and spec.origin is not None, module
    return Path(spec.origin)
