"""The modules of this repository as trees, and what each of them imports."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOLDERS = ("engine", "components", "bench", "ops", "tests")
NOT_OURS = {"node_modules", "templates"}
"""What lies in our folders and belongs to others, or to projects that are yet to be made."""

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True, slots=True, kw_only=True)
class Module:
    """
    One Python file.

    imports: the dotted name of everything it imports, wherever in the file: for
        `from a.b import c` both `a.b` and `a.b.c`, since the last may be a module too.
    """

    name: str
    path: Path
    tree: ast.Module
    imports: frozenset[str]

    def functions(self) -> Iterator[Function]:
        """Every function and method, nested ones too."""
        for node in ast.walk(self.tree):
            if isinstance(node, Function):
                yield node


def modules(*folders: str) -> tuple[Module, ...]:
    """The modules of these top-level folders, or of all of them."""
    paths = [path for folder in folders or FOLDERS for path in (ROOT / folder).rglob("*.py")]
    return tuple(read(path) for path in sorted(paths) if NOT_OURS.isdisjoint(path.parts))


@cache
def files() -> tuple[Path, ...]:
    """Every file that belongs to the repository, whether it is committed yet or not."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    paths = (ROOT / name for name in listed.stdout.split("\0") if name)
    return tuple(path for path in paths if path.is_file())


def parsed(path: Path, source: str) -> Module:
    """The module that `source` would be at `path`, relative to the repository."""
    parts = path.with_suffix("").parts
    is_package = parts[-1] == "__init__"
    name = ".".join(parts[:-1] if is_package else parts)
    tree = ast.parse(source, str(path))
    imports = frozenset(_imports(tree, name if is_package else name.rpartition(".")[0]))
    return Module(name=name, path=path, tree=tree, imports=imports)


def third_party(module: Module) -> frozenset[str]:
    """The top-level names it imports that are neither ours nor Python's."""
    tops = {name.partition(".")[0] for name in module.imports}
    return frozenset(tops - set(FOLDERS) - sys.stdlib_module_names)


def lines_of(function: Function) -> int:
    """How many lines a reader has to read: from `def` to its end, without the docstring."""
    first = function.body[0]
    has_docstring = ast.get_docstring(function, clean=False) is not None
    docstring = _height(first) if has_docstring else 0
    return _height(function) - docstring


def _height(node: ast.stmt) -> int:
    assert node.end_lineno is not None, "parsed from source"
    return node.end_lineno - node.lineno + 1


@cache
def read(path: Path) -> Module:
    """The module in a file, which is kept until `read.cache_clear`."""
    return parsed(path.relative_to(ROOT), path.read_text())


def _imports(tree: ast.Module, package: str) -> Iterator[str]:
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                yield from (alias.name for alias in names)
            case ast.ImportFrom(module=source, names=names, level=level):
                base = ".".join(filter(None, [_ancestor(package, level), source]))
                yield base
                yield from (f"{base}.{alias.name}" for alias in names)
            case _:
                pass


def _ancestor(package: str, level: int) -> str:
    """What a relative import of so many dots starts from; nothing for an absolute one."""
    if level == 0:
        return ""
    return ".".join(package.split(".")[: len(package.split(".")) - level + 1])
