"""
Finds handlers of queries and mutations that change a global of their module, themselves or by a
function of the module that they call.

Such a change is no part of the transaction: it stays when the function fails,
happens again when it runs again, and is gone after a reload.  Only what can be
seen in the text is found, so a warning is all that comes of it.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import Final, TypeAlias

DECORATORS: Final = frozenset({"query", "mutation", "internal_query", "internal_mutation"})
CONTAINERS: Final = frozenset(
    {"Counter", "OrderedDict", "bytearray", "defaultdict", "deque", "dict", "list", "set"}
)
_CHANGES: Final = (
    "add append appendleft clear difference_update discard extend extendleft insert "
    "intersection_update move_to_end pop popitem popleft remove reverse rotate setdefault sort "
    "subtract symmetric_difference_update update"
)
CHANGES: Final = frozenset(_CHANGES.split())
"""Methods of containers that change them."""

Handler: TypeAlias = ast.FunctionDef | ast.AsyncFunctionDef


def find(text: bytes, file: str) -> Iterator[str]:
    """
    A sentence for each such line, with file and line.

    Args:
        text: the source of a module that compiles.
        file: how messages name it.
    """
    tree = ast.parse(text, file)
    names, containers = _globals_of(tree)
    for function, who in _run_by_handlers(tree):
        ours = names - _locals_of(function)
        found = {
            (getattr(node, "lineno", function.lineno), name)
            for node in ast.walk(function)
            for name in _changed(node, containers)
            if name in ours
        }
        for line, name in sorted(found):
            yield (
                f"{file}:{line}: {who} changes the module's global `{name}`, which is no "
                "part of the transaction: it stays if the function fails, happens again if it "
                "runs again, and is lost with a reload. Keep it in a table, or use an action"
            )


def _globals_of(tree: ast.Module) -> tuple[set[str], set[str]]:
    """Names of variables and classes of the module, and those of them that are containers."""
    names: set[str] = set()
    containers: set[str] = set()
    for statement in tree.body:
        targets: list[ast.expr] = []
        assigned: ast.expr | None = None
        match statement:
            case ast.Assign():
                targets, assigned = statement.targets, statement.value
            case ast.AnnAssign():
                targets, assigned = [statement.target], statement.value
            case ast.ClassDef():
                names.add(statement.name)
        bound = {node.id for target in targets for node in _names_in(target)}
        names |= bound
        if assigned is not None and _is_container(assigned):
            containers |= bound
    return names, containers


def _is_container(value: ast.expr) -> bool:
    match value:
        case ast.Dict() | ast.List() | ast.Set() | ast.DictComp() | ast.ListComp() | ast.SetComp():
            return True
        case ast.Call(func=function):
            return _last_name(function) in CONTAINERS
    return False


def _run_by_handlers(tree: ast.Module) -> Iterator[tuple[Handler, str]]:
    """The handlers, and the module's functions that they call; each with what to call it."""
    callers = list(_handlers(tree))
    yield from ((handler, handler.name) for handler in callers)
    helpers = {
        node.name: node
        for node in tree.body
        if isinstance(node, Handler) and not node.decorator_list
    }
    while callers:
        caller = callers.pop()
        for name in _called(caller):
            if (helper := helpers.pop(name, None)) is not None:
                yield helper, f"{name}, which {caller.name} calls,"
                callers.append(helper)


def _called(function: Handler) -> Iterator[str]:
    for node in ast.walk(function):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            yield node.func.id


def _handlers(tree: ast.Module) -> Iterator[Handler]:
    for node in ast.walk(tree):
        if isinstance(node, Handler) and any(
            _last_name(one.func if isinstance(one, ast.Call) else one) in DECORATORS
            for one in node.decorator_list
        ):
            yield node


def _locals_of(handler: Handler) -> set[str]:
    """Names that mean something of the handler's own."""
    arguments = {node.arg for node in ast.walk(handler) if isinstance(node, ast.arg)}
    stored = {
        node.id
        for node in ast.walk(handler)
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
    }
    shared = {
        name for node in ast.walk(handler) if isinstance(node, ast.Global) for name in node.names
    }
    return (arguments | stored) - shared


def _changed(node: ast.AST, containers: set[str]) -> Iterator[str]:
    """The names whose value this node changes."""
    match node:
        case ast.Assign(targets=targets) | ast.Delete(targets=targets):
            changed = targets
        case ast.AugAssign(target=target) | ast.AnnAssign(target=target) | ast.For(target=target):
            changed = [target]
        case ast.Call(func=ast.Attribute(value=ast.Name(id=name), attr=method)):
            if method in CHANGES and name in containers:
                yield name
            return
        case _:
            return
    for target in changed:
        for name_node in _names_in(target):
            yield name_node.id


def _names_in(target: ast.expr) -> Iterator[ast.Name]:
    """The names at the root of what is assigned: `a` in `a`, `a.b`, `a[0]` and `(a, *a)`."""
    match target:
        case ast.Name():
            yield target
        case ast.Attribute(value=value) | ast.Subscript(value=value) | ast.Starred(value=value):
            yield from _names_in(value)
        case ast.Tuple(elts=elements) | ast.List(elts=elements):
            for element in elements:
                yield from _names_in(element)


def _last_name(function: ast.expr) -> str:
    match function:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
    return ""
