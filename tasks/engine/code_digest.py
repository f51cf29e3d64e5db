"""A digest of the code that a stage's results depend on: the definitions that its work reaches, without what changes no result.

Why not version numbers: a forgotten bump gives wrong results in silence. Why not whole files: a comment would recompute
everything. So the digest follows names. It starts at a function. It takes every top-level definition of the project that the
function names, also in annotations, then those that these name, and so on; nothing is executed. Of a class it takes all
methods, since the source does not tell which ones are called. Of a name that is imported it takes what the import says, so
that a name bound to something else counts, in a library too. A module that is used takes with it the statements that run when
it, or a package around it, is imported. It drops comments, layout, docstrings, functions' annotations and the text of log
messages. A function in C that `call` names (excel_core/kernels/compiled.py) takes its file and what that includes, without
comments and layout.

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
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from tasks.engine.code_c import c_sources, file_of_function, included_files, is_c, stripped_c
from tasks.engine.code_modules import IMPORT, ROOT, SPECS, WHOLE, Definition, bindings, is_below, read_module, sources_below
from tasks.engine.code_text import last_name, strip

__all__ = ["ROOT", "Choices", "code_digest", "reached_definitions", "result_in_key"]

ORCHESTRATION = ("tasks.engine", "tasks.history", "tasks.pipeline")
# They end a stage or let it pass; whatever they let pass computes the same.
CHECKS = {("excel_core.datasets.mask_guard", name) for name in ("check_mask_access", "inherited_guards")}
Choices = tuple[tuple[Definition, str], ...]  # a registry (a dict in a module), and the key of the entry that a run uses
Function = TypeVar("Function", bound=Callable[..., Any])

c_sources(ROOT)  # as the modules' sources


def result_in_key(function: Function) -> Function:
    """Decorator for a function whose result a stage's key holds, so that its code need not be in there too."""
    return function


def code_digest(function: Callable[..., Any], root: Path = ROOT, choices: Choices = ()) -> str:
    """SHA-256 in hex over what `function` reaches in the packages below `root`. A function that is made inside another one, as
    tests do, stands for that one, and a lambda for its whole module."""
    module, name = function.__module__, function.__qualname__.partition(".")[0]
    is_defined = module in sources_below(root) and name in read_module(module, root).definitions
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
    sources, chosen = sources_below(root), dict(choices)
    reached: set[Definition] = set()
    pending = [(module, name)]
    while pending:
        module, name = target = pending.pop()
        if is_c(module) and target not in reached:
            reached.add(target)
            pending += [(included, WHOLE) for included in included_files(module, root)]
        if target in reached or module not in sources or is_below(module, ORCHESTRATION):
            continue
        if target in CHECKS or read_module(module, root).is_keyed(name):
            continue
        entry = f"{name}[{chosen.get(target)!r}]"  # a definition of its own
        if entry in read_module(module, root).definitions:
            target = (module, entry)
            name = entry
        reached.add(target)
        source = read_module(module, root)
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


@cache
def _spec_methods(root: Path) -> dict[str, list[Definition]]:
    """Methods of all specs by their own name."""
    methods: dict[str, list[Definition]] = {}
    for module in (module for module in sources_below(root) if is_below(module, (SPECS,))):
        for name in (name for name in read_module(module, root).definitions if "." in name):
            methods.setdefault(name.partition(".")[2], []).append((module, name))
    return methods


@cache
def _named(module: str, name: str, root: Path) -> set[Definition]:
    """What a definition names, as far as it may be of the project. A local variable that is called like a definition counts as
    it: too many definitions cost a rerun, too few would give stale results."""
    source = read_module(module, root)
    local: set[str] = set()  # names of this module
    named: set[Definition] = set()
    for node in (node for statement in source.definitions[name] for node in ast.walk(statement)):
        if isinstance(node, ast.Import | ast.ImportFrom):  # inside a function
            named |= {target for _, target in bindings(node, module, root)}
        elif isinstance(node, ast.Name):
            local.add(node.id)
        elif isinstance(node, ast.Call):
            local.add(f"{last_name(node.func)}()")
            named |= _called_in_c(node, root)
        elif isinstance(node, ast.Attribute):
            named |= set(_spec_methods(root).get(node.attr, ()))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            local.add(node.value)  # in a table of names
            named |= {(node.value, WHOLE)} if "." in node.value else set()  # a module, as for `python -m`
        for annotation in _quoted_annotations(node):
            local |= {inner.id for inner in ast.walk(annotation) if isinstance(inner, ast.Name)}
    # What is imported from a library stands in the definition's own text (_stripped_source).
    imported = {name for name, targets in source.imports.items() if any(target in sources_below(root) for target, _ in targets)}
    return named | {(module, used) for used in local if used in source.definitions or used.removesuffix("()") in imported}


def _called_in_c(node: ast.Call, root: Path) -> set[Definition]:
    """The file of C whose function is called, as in call("diffuse", …)."""
    if last_name(node.func) != "call" or not node.args or not isinstance(node.args[0], ast.Constant):
        return set()
    path = file_of_function(str(node.args[0].value), root)
    return set() if path is None else {(path, WHOLE)}


def _quoted_annotations(node: ast.AST) -> Iterator[ast.expr]:
    """Annotations of a function, an argument or a variable that are written as texts."""
    annotations = [getattr(node, "annotation", None), getattr(node, "returns", None)]
    for inner in (inner for annotation in annotations if annotation for inner in ast.walk(annotation)):
        if isinstance(inner, ast.Constant) and isinstance(inner.value, str):
            with suppress(SyntaxError):
                yield ast.parse(inner.value, mode="eval").body


def _with_packages(module: str) -> list[str]:
    """The module and the packages around it, all of which are run when it is imported."""
    names = module.split(".")
    return [".".join(names[:count]) for count in range(1, len(names) + 1)]


@cache
def _stripped_source(module: str, name: str, root: Path) -> str:
    """A definition without what cannot change a result, and what its imported names are bound to."""
    if is_c(module):
        return stripped_c(module, root)
    source = read_module(module, root)
    stripped = [strip(statement) for statement in source.definitions.get(name, ())]
    bound = sorted({name, *(used for _, names in stripped for used in names)} & source.imports.keys())
    return "\n".join([*(text for text, _ in stripped), *(f"{used}: {sorted(source.imports[used])}" for used in bound)])
