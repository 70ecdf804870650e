"""
Bugs that histories of components have to catch, each for the length of a block.

    with Bug(names_of(APPLICATION, "pool"), "_end", "await worker.ping(ctx)", "pass").planted():
        ...
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from textwrap import dedent
from types import CodeType, FunctionType
from typing import Any, Protocol

from engine.app.registered import RegisteredFunction
from engine.app.registry import Application


class Planted(Protocol):
    """A bug, however it is made."""

    def planted(self) -> AbstractContextManager[None]:
        """Have it inside the block."""


@dataclass(frozen=True, slots=True)
class Bug:
    """`line` of a function is `instead`."""

    names: Mapping[str, Any]
    """Of a module that has the function, or knows it."""
    function: str
    """`f`, `Class.method`, `module.f`; behind a function stands what its own module has."""
    line: str
    instead: str

    @contextmanager
    def planted(self) -> Iterator[None]:
        fn = self._function()
        whole = fn.__code__
        fn.__code__ = _changed(fn, self.line, self.instead)
        try:
            yield
        finally:
            fn.__code__ = whole

    def _function(self) -> FunctionType:
        first, *further = self.function.split(".")
        found = _plain(self.names[first])
        for name in further:
            is_function = isinstance(found, FunctionType)
            found = _plain(found.__globals__[name] if is_function else getattr(found, name))
        function: FunctionType = found
        return function


@dataclass(frozen=True, slots=True)
class Instead:
    """A module has another function by a name, which is given the one that was there."""

    names: dict[str, Any]
    name: str
    planted_function: Any

    @contextmanager
    def planted(self) -> Iterator[None]:
        whole = self.names[self.name]
        self.names[self.name] = self.planted_function(whole)
        try:
            yield
        finally:
            self.names[self.name] = whole


def names_of(application: Application, mount: str) -> dict[str, Any]:
    """Those of the module `functions` that a mount runs: each has modules of its own."""
    functions = application.mounts[mount].functions
    path = next(path for path in functions if path.startswith("functions:"))
    handler: Any = functions[path].handler
    names: dict[str, Any] = handler.__globals__
    return names


def _plain(found: Any) -> Any:
    if isinstance(found, RegisteredFunction):
        return found.handler
    return found.fget if isinstance(found, property) else found


def _changed(fn: FunctionType, line: str, instead: str) -> CodeType:
    source = dedent(inspect.getsource(fn))
    assert source.count(line) == 1, f"{fn.__qualname__} has {line!r} {source.count(line)} times"
    lines = source.replace(line, instead)
    code = compile("from __future__ import annotations\n" + lines, fn.__code__.co_filename, "exec")
    return next(each for each in code.co_consts if isinstance(each, CodeType))
