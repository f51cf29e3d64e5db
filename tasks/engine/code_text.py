"""The text of a piece of code without what cannot change a result: comments, layout, docstrings, annotations, log messages."""

import ast
from functools import cache
from typing import TypeGuard

__all__ = ["is_text", "last_name", "strip"]

LOG_CALLS = {"say", "print", "notify"}
LOG_FILES = {"sys.stderr", "sys.stdout"}  # that `print` may name
# Decorators that look at no annotation. Others may, as triton's and pydantic's do.
PLAIN_DECORATORS = {
    "cache", "cached_property", "classmethod", "contextmanager", "inference_mode", "lru_cache", "no_grad",
    "property", "staticmethod",
}  # fmt: skip


@cache
def strip(statement: ast.stmt) -> tuple[str, frozenset[str]]:
    """Its text, "" where nothing is left of it, and the names in it."""
    stripped = _Strip().visit(ast.parse(ast.unparse(statement)).body[0])
    if stripped is None:
        return "", frozenset()
    return ast.unparse(stripped), frozenset(node.id for node in ast.walk(stripped) if isinstance(node, ast.Name))


def is_text(statement: ast.stmt) -> bool:
    """Whether it is a docstring, or another constant that nobody takes."""
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)


def last_name(function: ast.expr) -> str:
    """`cache` of `functools.cache` and of `cache(maxsize=3)`; "" of an expression without one."""
    function = function.func if isinstance(function, ast.Call) else function
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def _is_log_call(value: ast.expr) -> TypeGuard[ast.Call]:
    if not (isinstance(value, ast.Call) and isinstance(value.func, ast.Name) and value.func.id in LOG_CALLS):
        return False
    files = [ast.unparse(keyword.value) for keyword in value.keywords if keyword.arg == "file"]
    return all(file in LOG_FILES for file in files)


class _Strip(ast.NodeTransformer):
    """Removes from a definition what cannot change a result."""

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        if all(last_name(decorator) in PLAIN_DECORATORS for decorator in node.decorator_list):
            node.returns = None
            arguments = node.args
            for argument in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg):
                if argument is not None:
                    argument.annotation = None
        self.generic_visit(node)
        node.body = node.body or [ast.Pass()]
        return node

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        """Annotations in its body stay: dataclasses, named tuples and pydantic read them."""
        annotations = [(inner, inner.annotation) for inner in node.body if isinstance(inner, ast.AnnAssign)]
        self.generic_visit(node)
        for inner, annotation in annotations:
            inner.annotation = annotation
        node.body = node.body or [ast.Pass()]
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        node.annotation = ast.Constant(None)
        return self.generic_visit(node)

    def visit_Expr(self, node: ast.Expr) -> ast.AST | None:
        if is_text(node):
            return None
        if _is_log_call(node.value):
            node.value.args = [_WithoutText().visit(argument) for argument in node.value.args]
        return self.generic_visit(node)


class _WithoutText(ast.NodeTransformer):
    """Empties texts; what a formatted text computes stays, and a call with all its arguments."""

    def visit_Call(self, node: ast.Call) -> ast.AST:
        return node

    def visit_JoinedStr(self, node: ast.JoinedStr) -> ast.AST:
        values = [part.value for part in node.values if isinstance(part, ast.FormattedValue)]
        return self.generic_visit(ast.Tuple(values, ast.Load()))

    def visit_Constant(self, node: ast.Constant) -> ast.AST:
        return ast.Constant("") if isinstance(node.value, str) else node
