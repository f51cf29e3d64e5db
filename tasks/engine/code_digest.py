"""A digest of the code that a stage's results depend on: the definitions that its work reaches, without what changes no result.

Why not version numbers: a forgotten bump gives wrong results in silence. Why not whole files: a comment would recompute
everything. So the digest follows names. It starts at a function. It takes every top-level definition of the project that the
function names, also in annotations, then those that these name, and so on; nothing is executed. Of a class it takes all
methods, since the source does not tell which ones are called. Of a name that is imported it takes what the import says, so
that a name bound to something else counts, in a library too. A module that is used takes with it the statements that run when
it, or a package around it, is imported. It drops comments, layout, docstrings, functions' annotations and the text of log
messages.

Two ways to say that a run does not compute with something. Of a registry that the run's settings choose from, the chosen
entry alone is taken (`choices`): an edit of one layout's reader leaves runs with another layout alone. A function marked
`result_in_key` is not followed: what it returns is in the key itself. Nor is the mask guard, which computes nothing.

Left out on purpose: `tasks.engine`, `tasks.history` and `tasks.pipeline` decide when and where a stage runs, not what it
computes. Fields and validators of specs (excel_core/config) are settings, whose values are in the key already; a method of a
spec is taken where something that is reached reads an attribute of its name.

What it cannot see: a name that is put together while the program runs (`getattr(module, "read_" + layout)`); a definition that
another module replaces or registers (`module.function = other`, `@register`) where nothing names that module; code that reads
a docstring, or a function's annotations through one of PLAIN_DECORATORS (code_text.py); files that are no Python, such as
weights, class sets and templates, which belong into a key as fingerprints (KeyParts.outside); versions of Python and of
libraries; and an import inside a function that runs after its file was edited. Sources are read once, when this module is
imported, since what is edited later is not what this process runs.
"""

import ast
import hashlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from tasks.engine.code_text import is_text, last_name, strip

__all__ = ["ROOT", "Choices", "code_digest", "reached_definitions", "result_in_key"]

ROOT = Path(__file__).resolve().parent.parent.parent
PACKAGES = ("excel_core", "tasks", "artifacts", "tests")
ORCHESTRATION = ("tasks.engine", "tasks.history", "tasks.pipeline")
SPECS = "excel_core.config"
# They end a stage or let it pass; whatever they let pass computes the same.
CHECKS = {("excel_core.datasets.masks", "check_mask_access")}
WHOLE = "*"  # in the place of a definition's name: everything in the module
IMPORT = "<import>"  # likewise: the statements that run when the module is imported
Definition = tuple[str, str]  # module, name
Choices = tuple[tuple[Definition, str], ...]  # a registry (a dict in a module), and the key of the entry that a run uses
Function = TypeVar("Function", bound=Callable[..., Any])


def result_in_key(function: Function) -> Function:
    """Decorator for a function whose result a stage's key holds, so that its code need not be in there too."""
    return function


def code_digest(function: Callable[..., Any], root: Path = ROOT, choices: Choices = ()) -> str:
    """SHA-256 in hex over what `function` reaches in the packages below `root`. A function that is made inside another one, as
    tests do, stands for that one, and a lambda for its whole module."""
    module, name = function.__module__, function.__qualname__.partition(".")[0]
    is_defined = module in _sources(root) and name in _module(module, root).definitions
    return _digest(module, name if is_defined else WHOLE, root, choices)


@cache
def _digest(module: str, name: str, root: Path, choices: Choices) -> str:
    digest = hashlib.sha256()
    for definition in reached_definitions(module, name, root, choices):
        digest.update("\0".join((*definition, _stripped_source(*definition, root), "")).encode())
    return digest.hexdigest()


def reached_definitions(module: str, name: str, root: Path = ROOT, choices: Choices = ()) -> list[Definition]:
    """(module, name) of everything that `name` of `module` reaches, itself included, sorted: definitions, and imported names
    on the way to them."""
    sources, chosen = _sources(root), dict(choices)
    reached: set[Definition] = set()
    pending = [(module, name)]
    while pending:
        module, name = target = pending.pop()
        if target in reached or module not in sources or _is_below(module, ORCHESTRATION):
            continue
        if target in CHECKS or _module(module, root).is_keyed(name):
            continue
        entry = f"{name}[{chosen.get(target)!r}]"  # a definition of its own
        if entry in _module(module, root).definitions:
            target = (module, entry)
            name = entry
        reached.add(target)
        source = _module(module, root)
        if name == WHOLE:
            pending += [(module, defined) for defined in (*source.definitions, *source.imports)]
            pending += [(below, WHOLE) for below in sources if below.startswith(f"{module}.")]  # of a package
        elif name in source.definitions:
            pending += _named(module, name, root)
            pending += [(around, IMPORT) for around in _with_packages(module)]
        elif name not in source.imports and name != IMPORT and f"{module}.{name}" not in sources:
            pending.append((module, "__getattr__"))  # which may make any name
        pending += source.bound_to(name)
    return sorted(definition for definition in reached if _stripped_source(*definition, root))


@dataclass(frozen=True)
class _Module:
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
def _sources(root: Path) -> dict[str, tuple[str, bool]]:
    """(source, whether it is a package's) of every module below `root`, as they are at the first call."""
    sources = {}
    for path in (path for package in PACKAGES for path in (root / package).rglob("*.py")):
        names = path.relative_to(root).with_suffix("").parts
        is_package = names[-1] == "__init__"
        sources[".".join(names[:-1] if is_package else names)] = (path.read_text(errors="replace"), is_package)
    return sources


_sources(ROOT)


@cache
def _module(name: str, root: Path) -> _Module:
    module = _Module()
    for statement in _statements(_sources(root)[name][0]):
        for local, target in _bindings(statement, name, root):
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


def _define_spec(module: _Module, statement: ast.ClassDef) -> None:
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


def _define_entries(module: _Module, name: str, table: ast.Dict) -> None:
    """Each entry of a dict with constant keys, named TABLE[KEY]."""
    for key, value in zip(table.keys, table.values, strict=True):
        if isinstance(key, ast.Constant):
            module.define(f"{name}[{key.value!r}]", ast.Expr(value))


def _is_spec(statement: ast.ClassDef, module: str) -> bool:
    return _is_below(module, (SPECS,)) and any(ast.unparse(base).endswith("Spec") for base in statement.bases)


def _is_field(statement: ast.AnnAssign) -> bool:
    is_private = isinstance(statement.target, ast.Name) and statement.target.id.startswith("_")
    return not is_private and "ClassVar" not in ast.unparse(statement.annotation)


@cache
def _spec_methods(root: Path) -> dict[str, list[Definition]]:
    """Methods of all specs by their own name."""
    methods: dict[str, list[Definition]] = {}
    for module in (module for module in _sources(root) if _is_below(module, (SPECS,))):
        for name in (name for name in _module(module, root).definitions if "." in name):
            methods.setdefault(name.partition(".")[2], []).append((module, name))
    return methods


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


def _bindings(statement: ast.AST, module: str, root: Path) -> Iterator[tuple[str, Definition]]:
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
        is_package = module in _sources(root) and _sources(root)[module][1]
        around = module.split(".")
        package = ".".join([*around[: len(around) - node.level + is_package], *package.split(".")]).strip(".")
    for alias in node.names:
        if alias.name == "*" and package in _sources(root):
            every = _module(package, root)
            yield from ((name, (package, name)) for name in (*every.definitions, *every.imports))
        submodule = f"{package}.{alias.name}"
        if submodule in _sources(root):
            yield alias.asname or alias.name, (submodule, WHOLE)
        yield alias.asname or alias.name, (package, alias.name)


@cache
def _named(module: str, name: str, root: Path) -> set[Definition]:
    """What a definition names, as far as it may be of the project. A local variable that is called like a definition counts as
    it: too many definitions cost a rerun, too few would give stale results."""
    source = _module(module, root)
    local: set[str] = set()  # names of this module
    named: set[Definition] = set()
    for node in (node for statement in source.definitions[name] for node in ast.walk(statement)):
        if isinstance(node, ast.Import | ast.ImportFrom):  # inside a function
            named |= {target for _, target in _bindings(node, module, root)}
        elif isinstance(node, ast.Name):
            local.add(node.id)
        elif isinstance(node, ast.Call):
            local.add(f"{last_name(node.func)}()")
        elif isinstance(node, ast.Attribute):
            named |= set(_spec_methods(root).get(node.attr, ()))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            local.add(node.value)  # in a table of names
            named |= {(node.value, WHOLE)} if "." in node.value else set()  # a module, as for `python -m`
        for annotation in _quoted_annotations(node):
            local |= {inner.id for inner in ast.walk(annotation) if isinstance(inner, ast.Name)}
    # What is imported from a library stands in the definition's own text (_stripped_source).
    imported = {name for name, targets in source.imports.items() if any(target in _sources(root) for target, _ in targets)}
    return named | {(module, used) for used in local if used in source.definitions or used.removesuffix("()") in imported}


def _quoted_annotations(node: ast.AST) -> Iterator[ast.expr]:
    """Annotations of a function, an argument or a variable that are written as texts."""
    annotations = [getattr(node, "annotation", None), getattr(node, "returns", None)]
    for inner in (inner for annotation in annotations if annotation for inner in ast.walk(annotation)):
        if isinstance(inner, ast.Constant) and isinstance(inner.value, str):
            with suppress(SyntaxError):
                yield ast.parse(inner.value, mode="eval").body


def _is_below(module: str, packages: tuple[str, ...]) -> bool:
    return any(f"{module}.".startswith(f"{package}.") for package in packages)


def _with_packages(module: str) -> list[str]:
    """The module and the packages around it, all of which are run when it is imported."""
    names = module.split(".")
    return [".".join(names[:count]) for count in range(1, len(names) + 1)]


@cache
def _stripped_source(module: str, name: str, root: Path) -> str:
    """A definition without what cannot change a result, and what its imported names are bound to."""
    source = _module(module, root)
    stripped = [strip(statement) for statement in source.definitions.get(name, ())]
    bound = sorted({name, *(used for _, names in stripped for used in names)} & source.imports.keys())
    return "\n".join([*(text for text, _ in stripped), *(f"{used}: {sorted(source.imports[used])}" for used in bound)])


def _never_runs(statement: ast.stmt) -> bool:
    """Whether it runs neither when the module is imported nor when something in it is called."""
    return isinstance(statement, ast.If) and ast.unparse(statement.test) in ("__name__ == '__main__'", "TYPE_CHECKING")
