"""Real text without a download: the standard library's docstrings, parsed, nothing imported."""

from __future__ import annotations

import ast
import sysconfig
from collections.abc import Iterator
from pathlib import Path

LEFT_OUT = {"site-packages", "test", "tests", "idlelib", "lib2to3", "turtledemo", "__pycache__"}
TEXT_CHARACTERS_MAX = 4_000

Entry = dict[str, str]


def entries() -> Iterator[Entry]:
    """Public modules, classes and functions that have a docstring, in a stable order."""
    root = Path(sysconfig.get_paths()["stdlib"])
    for path in sorted(root.rglob("*.py")):
        inside = path.relative_to(root)
        names = [*inside.parent.parts, inside.stem]
        if LEFT_OUT.isdisjoint(names) and not any(n.startswith("_") for n in names[:-1]):
            module = ".".join(names).removesuffix(".__init__")
            if not module.rpartition(".")[2].startswith("_"):
                yield from _of_module(path, module)


def _of_module(path: Path, module: str) -> Iterator[Entry]:
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (SyntaxError, UnicodeDecodeError):
        return
    seen: set[str] = set()
    for name, kind, node in _documented(tree, module):
        text = ast.get_docstring(node)
        if text and name not in seen:
            seen.add(name)
            yield {
                "module": module,
                "name": name,
                "kind": kind,
                "text": text[:TEXT_CHARACTERS_MAX],
            }


Documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def _documented(tree: ast.Module, module: str) -> Iterator[tuple[str, str, Documented]]:
    yield module, "module", tree
    for node in tree.body:
        yield from _definition(node, "")


def _definition(node: ast.stmt, prefix: str) -> Iterator[tuple[str, str, Documented]]:
    match node:
        case ast.ClassDef(name=name) if not name.startswith("_"):
            yield prefix + name, "class", node
            for inner in node.body:
                yield from _definition(inner, f"{prefix}{name}.")
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
            if not name.startswith("_"):
                yield prefix + name, "method" if prefix else "function", node
