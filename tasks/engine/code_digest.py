"""A digest of the code that a stage's results depend on: the definitions that its work reaches, without what changes no result.

Why not version numbers: a forgotten bump gives wrong results in silence. Why not whole files: a comment would recompute
everything. So the digest follows names. It starts at a function. It takes every top-level definition of the project that the
function names, also in annotations, then those that these name, and so on. Of a class it takes all methods, since the source
does not tell which ones are called. It drops comments, layout, docstrings, annotations, and the text of log messages.

Two things are left out on purpose. `tasks.engine` and `tasks.history` decide when and where a stage runs, not what it
computes. Fields of specs (excel_core/config) are settings, whose values are in the key already; methods of specs are taken.
"""

import ast
import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

__all__ = ["ROOT", "code_digest", "reached_definitions"]

ROOT = Path(__file__).resolve().parent.parent.parent
PACKAGES = ("excel_core", "tasks", "artifacts")
ORCHESTRATION = ("tasks.engine", "tasks.history")
LOG_CALLS = {"say", "print", "notify"}
Definition = tuple[str, str]  # module, name


def code_digest(function: Callable[..., Any], root: Path = ROOT) -> str:
    """SHA-256 in hex over what `function` reaches in the packages below `root`. A function that is made inside another one, as
    tests do, stands for its whole module."""
    return _digest(function.__module__, function.__qualname__.partition(".")[0], root)


@cache
def _digest(module: str, name: str, root: Path) -> str:
    digest = hashlib.sha256()
    for definition in reached_definitions(module, name, root):
        digest.update("\0".join((*definition, _stripped_source(*definition, root), "")).encode())
    return digest.hexdigest()


def reached_definitions(module: str, name: str, root: Path = ROOT) -> list[Definition]:
    """(module, name) of every definition that `name` of `module` reaches, itself included, sorted; nothing is executed."""
    reached: set[Definition] = set()
    pending = [(module, name)]
    while pending:
        definition = _defining(*pending.pop(), root)
        if definition is None or definition in reached:
            continue
        reached.add(definition)
        source = _module(definition[0], root)
        # Statements that run at import, such as a registration, belong to whatever uses the module.
        for statement in (*source.definitions[definition[1]], *source.effects):
            pending += _named(statement, source, root)
    return sorted(reached)


@dataclass(frozen=True)
class _Module:
    """A module's source: its top-level definitions by name, what its imports bind, and its other statements. An import binds a
    local name to (module, name in it), or to (module, "") for a module itself."""

    name: str
    definitions: dict[str, list[ast.stmt]]
    imports: dict[str, Definition]
    effects: list[ast.stmt]


@cache
def _module(name: str, root: Path) -> _Module:
    path = _file(name, root)
    assert path is not None, name
    definitions: dict[str, list[ast.stmt]] = {}
    imports: dict[str, Definition] = {}
    effects: list[ast.stmt] = []
    for statement in ast.parse(path.read_text()).body:
        if isinstance(statement, ast.Import | ast.ImportFrom):
            imports |= _bindings(statement, root)
        elif names := _defined_names(statement):
            for defined in names:
                definitions.setdefault(defined, []).append(statement)
        elif not _is_text(statement):
            effects.append(statement)
    return _Module(name, definitions, imports, effects)


def _file(module: str, root: Path) -> Path | None:
    """The source file of a project module, None for any other."""
    if module.split(".")[0] not in (*PACKAGES, "tests"):
        return None
    path = root.joinpath(*module.split("."))
    candidates = (path.with_suffix(".py"), path / "__init__.py")
    return next((candidate for candidate in candidates if candidate.is_file()), None)


def _defined_names(statement: ast.stmt) -> list[str]:
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return [statement.name]
    if isinstance(statement, ast.AnnAssign | ast.AugAssign):
        targets: list[ast.expr] = [statement.target]
    else:
        targets = statement.targets if isinstance(statement, ast.Assign) else []
    return [node.id for target in targets for node in ast.walk(target) if isinstance(node, ast.Name)]


def _bindings(statement: ast.Import | ast.ImportFrom, root: Path) -> dict[str, Definition]:
    """What an import binds in the project; relative imports are not used in it."""
    bound: dict[str, Definition] = {}
    for alias in statement.names:
        if isinstance(statement, ast.Import):
            # `import a.b` binds `a`, `import a.b as c` binds the module a.b.
            bound[alias.asname or alias.name.split(".")[0]] = (alias.name, "")
        elif statement.module is not None:
            submodule = f"{statement.module}.{alias.name}"
            target = (submodule, "") if _file(submodule, root) else (statement.module, alias.name)
            bound[alias.asname or alias.name] = target
    return {name: target for name, target in bound.items() if _file(target[0], root)}


def _defining(module: str, name: str, root: Path) -> Definition | None:
    """Where a name is defined, through packages that pass it on; None outside the project and in orchestration."""
    if _file(module, root) is None or any(f"{module}.".startswith(f"{package}.") for package in ORCHESTRATION):
        return None
    source = _module(module, root)
    if name in source.definitions:
        return module, name
    return _defining(*source.imports[name], root) if name in source.imports else None


def _named(statement: ast.stmt, source: _Module, root: Path) -> Iterator[Definition]:
    """The project's definitions that a statement names. A local variable that is called like one counts as it: too many
    definitions cost a rerun, too few would give stale results."""
    imports = dict(source.imports)
    for node in ast.walk(statement):
        if isinstance(node, ast.Import | ast.ImportFrom):  # inside a function
            imports |= _bindings(node, root)
    for node in ast.walk(statement):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value in source.definitions:
            yield source.name, node.value  # a quoted annotation
        if not isinstance(node, ast.Name):
            continue
        if node.id in source.definitions:
            yield source.name, node.id
        elif node.id in imports:
            module, name = imports[node.id]
            if name:
                yield module, name
            else:
                yield from ((module, defined) for defined in _module(module, root).definitions)


@cache
def _stripped_source(module: str, name: str, root: Path) -> str:
    source = _module(module, root)
    statements = [*source.definitions[name], *source.effects]
    copies = [ast.parse(ast.unparse(statement)).body[0] for statement in statements]
    return "\n".join(ast.unparse(_Strip().visit(copy)) for copy in copies)


class _Strip(ast.NodeTransformer):
    """Removes from a definition what cannot change a result."""

    def __init__(self) -> None:
        self._classes: list[ast.ClassDef] = []

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.returns = None
        arguments = node.args
        everyone = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg]
        for argument in everyone:
            if argument is not None:
                argument.annotation = None
        self._classes.append(ast.ClassDef("function", [], [], [], []))  # what is inside is no class body
        self.generic_visit(node)
        self._classes.pop()
        node.body = node.body or [ast.Pass()]
        return node

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        self._classes.append(node)
        self.generic_visit(node)
        self._classes.pop()
        node.body = node.body or [ast.Pass()]
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST | None:
        """In a spec, a field goes whole. In a pydantic model the type converts values and stays; elsewhere it goes."""
        bases = {base.id for base in self._classes[-1].bases if isinstance(base, ast.Name)} if self._classes else set()
        if "Spec" in bases:
            return None
        if bases & {"BaseModel", "StageResult"}:
            return self.generic_visit(node)
        node.annotation = ast.Constant(None)  # the name stays: it is a dataclass' field
        return self.generic_visit(node)

    def visit_Expr(self, node: ast.Expr) -> ast.AST | None:
        if _is_text(node):
            return None
        if _is_log_call(node.value):
            node.value = _WithoutText().visit(node.value)
        return self.generic_visit(node)


class _WithoutText(ast.NodeTransformer):
    """Empties texts; what a formatted text computes stays."""

    def visit_JoinedStr(self, node: ast.JoinedStr) -> ast.AST:
        values = [part.value for part in node.values if isinstance(part, ast.FormattedValue)]
        return self.generic_visit(ast.Tuple(values, ast.Load()))

    def visit_Constant(self, node: ast.Constant) -> ast.AST:
        return ast.Constant("") if isinstance(node.value, str) else node


def _is_text(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)


def _is_log_call(value: ast.expr) -> bool:
    return isinstance(value, ast.Call) and isinstance(value.func, ast.Name) and value.func.id in LOG_CALLS
