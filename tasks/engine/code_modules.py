"""The project's modules as text: what each one defines, what its imports bind, and which statements run when it is imported."""

import ast
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from tasks.engine.code_text import is_text, last_name

__all__ = [
    "IMPORT",
    "ROOT",
    "SPECS",
    "WHOLE",
    "Definition",
    "ModuleSource",
    "bindings",
    "is_below",
    "read_module",
    "sources_below",
]

ROOT = Path(__file__).resolve().parent.parent.parent
PACKAGES = ("excel_core", "tasks", "artifacts", "tests")
SPECS = "excel_core.config"
WHOLE = "*"  # in the place of a definition's name: everything in the module
IMPORT = "<import>"  # likewise: the statements that run when the module is imported
Definition = tuple[str, str]  # module, name


@dataclass(frozen=True)
class ModuleSource:
    """A module's source: the top-level statements that define each name, and what each imported name may be bound to: (module,
    name in it), or (module, WHOLE) for a module. Of a spec, each method is a definition of its own, named Class.method, and so
    are its fields, named Class(): who calls the class takes their defaults."""

    definitions: dict[str, list[ast.stmt]] = field(default_factory=dict)
    imports: dict[str, set[Definition]] = field(default_factory=dict)

    def define(self, name: str, statement: ast.stmt) -> None:
        """One more statement for a name."""
        self.definitions.setdefault(name, []).append(statement)

    def is_keyed(self, name: str) -> bool:
        """Whether a function's result is in the key."""
        return any(
            isinstance(statement, ast.FunctionDef)
            and any(last_name(mark) == "result_in_key" for mark in statement.decorator_list)
            for statement in self.definitions.get(name, ())
        )

    def bound_to(self, name: str) -> list[Definition]:
        """What an imported name, or a call of one, stands for."""
        call = "()" if name.endswith("()") else ""
        return [
            (module, inner if inner == WHOLE else inner + call)
            for module, inner in self.imports.get(name.removesuffix("()"), ())
        ]


@cache
def sources_below(root: Path) -> dict[str, tuple[str, bool]]:
    """(source, whether it is a package's) of every module below `root`, as they are at the first call."""
    sources = {}
    for path in (path for package in PACKAGES for path in (root / package).rglob("*.py")):
        names = path.relative_to(root).with_suffix("").parts
        is_package = names[-1] == "__init__"
        sources[".".join(names[:-1] if is_package else names)] = (
            path.read_text(errors="replace", encoding="utf-8"),
            is_package,
        )
    return sources


sources_below(ROOT)


@cache
def read_module(name: str, root: Path) -> ModuleSource:
    """The definitions and imports of a module of `sources_below(root)`."""
    module = ModuleSource()
    for statement in _statements(sources_below(root)[name][0]):
        for local, target in bindings(statement, name, root):
            module.imports.setdefault(local, set()).add(target)
        if isinstance(statement, ast.Import | ast.ImportFrom) or is_text(statement) or _never_runs(statement):
            continue
        if isinstance(statement, ast.ClassDef) and _is_spec(statement, name):
            _define_spec(module, statement)
            continue
        names = _defined_names(statement)
        for defined in names if _only_defines(statement) else {*names, IMPORT}:
            module.define(defined, statement)
            if isinstance(statement, ast.AnnAssign | ast.Assign) and isinstance(statement.value, ast.Dict):
                _define_entries(module, defined, statement.value)
    return module


@cache
def _statements(source: str) -> list[ast.stmt]:
    return ast.parse(source).body


def _define_spec(module: ModuleSource, statement: ast.ClassDef) -> None:
    """Its methods, its fields, and the rest of it."""
    fields, rest = deepcopy(statement), deepcopy(statement)
    fields.body, rest.body = [], [ast.Pass()]
    for inner in statement.body:
        if isinstance(inner, ast.FunctionDef):
            module.define(f"{statement.name}.{inner.name}", inner)
        elif isinstance(inner, ast.AnnAssign) and _is_field(inner):
            fields.body.append(inner)
        else:
            rest.body.append(inner)
    module.define(statement.name, rest)
    module.define(f"{statement.name}()", fields)


def _define_entries(module: ModuleSource, name: str, table: ast.Dict) -> None:
    """Each entry of a dict with constant keys, named TABLE[KEY]."""
    for key, value in zip(table.keys, table.values, strict=True):
        if isinstance(key, ast.Constant):
            module.define(f"{name}[{key.value!r}]", ast.Expr(value))


def _is_spec(statement: ast.ClassDef, module: str) -> bool:
    return is_below(module, (SPECS,)) and any(ast.unparse(base).endswith("Spec") for base in statement.bases)


def _is_field(statement: ast.AnnAssign) -> bool:
    is_private = isinstance(statement.target, ast.Name) and statement.target.id.startswith("_")
    return not is_private and "ClassVar" not in ast.unparse(statement.annotation)


def _only_defines(statement: ast.stmt) -> bool:
    """Whether it binds names of its module and does nothing else, such as changing a table."""
    targets = statement.targets if isinstance(statement, ast.Assign) else [getattr(statement, "target", None)]
    if isinstance(statement, ast.Assign | ast.AnnAssign):
        return all(isinstance(target, ast.Name | ast.Tuple) for target in targets)
    return isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)


def _defined_names(statement: ast.stmt) -> set[str]:
    """Names that a top-level statement binds or changes, whatever it is nested in; not those inside functions and classes."""
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return {statement.name}
    names = set()
    for node in _outside_definitions(statement):
        if isinstance(node, ast.Assign):
            targets = node.targets
        elif isinstance(node, ast.AnnAssign | ast.AugAssign | ast.For | ast.NamedExpr):
            targets = [node.target]
        elif isinstance(node, ast.withitem) and node.optional_vars:
            targets = [node.optional_vars]
        else:
            targets = []
        # `TABLE["key"] = value` and `TABLE.field = value` change TABLE.
        names |= {inner.id for target in targets for inner in ast.walk(target) if isinstance(inner, ast.Name)}
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
    return names


def _outside_definitions(statement: ast.AST) -> Iterator[ast.AST]:
    """The statement and what is in it, without what is inside a function or a class."""
    yield statement
    if not isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        for child in ast.iter_child_nodes(statement):
            yield from _outside_definitions(child)


def bindings(statement: ast.AST, module: str, root: Path) -> Iterator[tuple[str, Definition]]:
    """(local name, what it is bound to) of every import in a statement, but for those inside functions and classes."""
    for node in _outside_definitions(statement):
        if isinstance(node, ast.Import):
            for alias in node.names:
                # `import a.b` binds `a`, `import a.b as c` binds the module a.b.
                yield (
                    alias.asname or alias.name.split(".")[0],
                    ((alias.asname and alias.name) or alias.name.split(".")[0], WHOLE),
                )
        elif isinstance(node, ast.ImportFrom):
            yield from _bindings_from(node, module, root)


def _bindings_from(node: ast.ImportFrom, module: str, root: Path) -> Iterator[tuple[str, Definition]]:
    package = node.module or ""
    if node.level:
        is_package = module in sources_below(root) and sources_below(root)[module][1]
        around = module.split(".")
        package = ".".join([*around[: len(around) - node.level + is_package], *package.split(".")]).strip(".")
    for alias in node.names:
        if alias.name == "*" and package in sources_below(root):
            every = read_module(package, root)
            yield from ((name, (package, name)) for name in (*every.definitions, *every.imports))
        submodule = f"{package}.{alias.name}"
        if submodule in sources_below(root):
            yield alias.asname or alias.name, (submodule, WHOLE)
        yield alias.asname or alias.name, (package, alias.name)


def is_below(module: str, packages: tuple[str, ...]) -> bool:
    """Whether a module is one of the packages, or inside one."""
    return any(f"{module}.".startswith(f"{package}.") for package in packages)


def _never_runs(statement: ast.stmt) -> bool:
    """Whether it runs neither when the module is imported nor when something in it is called."""
    return isinstance(statement, ast.If) and ast.unparse(statement.test) in ("__name__ == '__main__'", "TYPE_CHECKING")
