"""
One version of an application's modules, executed apart from every other version.

The modules import each other from a table of their own, never from
`sys.modules`, and get shims instead of some standard modules.  Everything else
they import in the ordinary way.  While a version is being loaded its modules
stand in `sys.modules`, where the standard library looks when it evaluates
annotations; afterwards the ones that stood there before are back, until
somebody makes this version the live one.
"""

from __future__ import annotations

import builtins
import importlib.util
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any, Final

from engine.app.registered import RegisteredFunction, innermost, loading
from engine.functions.generated import GeneratedModules
from engine.functions.shims import SHIMMED, builtins_of, shim_of
from engine.functions.sources import Source, Sources

_swapping: Final = threading.RLock()
"""Held while `sys.modules` shows a version that is being loaded."""


class Modules:
    """
    Args:
        sources: what is executed; files that change later are not looked at again.
    """

    def __init__(self, sources: Sources) -> None:
        self.sources = sources
        self.made: dict[str, Sequence[RegisteredFunction]] = {}
        """By module, the registered functions made while it was executed."""
        self._table: dict[str, ModuleType] = {}
        self._lock = threading.RLock()
        self._builtins = builtins_of(self._import)
        self._is_showing = False
        self.generated = GeneratedModules(sources.name)

    @property
    def table(self) -> Mapping[str, ModuleType]:
        """What has been executed, by what Python imports it as."""
        return self._table

    @contextmanager
    def shown(self) -> Iterator[None]:
        """In the block `sys.modules` has the modules of this version, and of no other."""
        with _swapping:
            before = {name: one for name, one in sys.modules.items() if self.sources.owns(name)}
            for name in before:
                del sys.modules[name]
            sys.modules.update(self._table)
            self._is_showing = True
            try:
                yield
            finally:
                self._is_showing = False
                for name in self._table:
                    sys.modules.pop(name, None)
                sys.modules.update(before)

    def load(self, name: str) -> ModuleType:
        """
        The module that is imported as `name`, executed unless it was.

        Raises:
            ModuleNotFoundError: it is not among the sources.
            BaseException: whatever its code raises; it is then as if never executed.
        """
        with self._lock:
            if (known := self._table.get(name)) is not None:
                return known
            parent, _, child = name.rpartition(".")
            if self.sources.owns(parent):
                self.load(parent)
            module, code = self._prepare(name)
            self._add(name, module)
            try:
                if code is not None:
                    with loading(self.sources.modules[name].path, module.__name__) as frame:
                        exec(code, vars(module))
                    self.made[name] = frame.functions
            except BaseException:
                self._remove(name)
                raise
            if self.sources.owns(parent):
                setattr(self._table[parent], child, module)
            return module

    def _prepare(self, name: str) -> tuple[ModuleType, CodeType | None]:
        if (written := self.generated.find(name)) is not None:
            return written, None
        source = self.sources.modules.get(name)
        folder = self.sources.folders.get(name)
        if source is None:
            if folder is None:
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)
            return _new_folder(name, folder), None
        module = _new_module(source)
        vars(module)["__builtins__"] = self._builtins
        return module, _compiled(source)

    def _add(self, name: str, module: ModuleType) -> None:
        self._table[name] = module
        if self._is_showing or self._is_live():
            sys.modules[name] = module

    def _remove(self, name: str) -> None:
        module = self._table.pop(name)
        if sys.modules.get(name) is module:
            del sys.modules[name]

    def _is_live(self) -> bool:
        root = self.sources.name
        return root in self._table and sys.modules.get(root) is self._table[root]

    # What `import` does in these modules.

    def _import(
        self,
        name: str,
        globals: Mapping[str, Any] | None = None,  # noqa: A002 - as `__import__` has it
        locals: Mapping[str, Any] | None = None,  # noqa: A002
        fromlist: Sequence[str] | None = (),
        level: int = 0,
    ) -> Any:
        absolute = _absolute(name, globals, level)
        if self.sources.owns(absolute):
            return self._import_own(absolute, fromlist or ())
        if level == 0 and (shim := _shim(absolute, fromlist)) is not None:
            return shim
        # What a library makes while it is imported is not the importing module's.
        with loading(absolute) if innermost() is not None else nullcontext():
            return builtins.__import__(name, globals, locals, fromlist or (), level)

    def _import_own(self, name: str, fromlist: Sequence[str]) -> ModuleType:
        module = self.load(name)
        if not fromlist:
            return self._top_of(module)
        if "*" in fromlist:
            fromlist = getattr(module, "__all__", ())
        for wanted in fromlist:
            below = f"{name}.{wanted}"
            if not hasattr(module, wanted) and self._has(below):
                self.load(below)
        return module

    def _top_of(self, module: ModuleType) -> ModuleType:
        """What `import a.b.c` binds: a."""
        top = module.__name__.partition(".")[0]
        return self.load(top) if self.sources.owns(top) else importlib.import_module(top)

    def _has(self, name: str) -> bool:
        return (
            name in self.sources.modules
            or name in self.sources.folders
            or self.generated.find(name) is not None
        )


def _absolute(name: str, names: Mapping[str, Any] | None, level: int) -> str:
    if level == 0:
        return name
    package = (names or {}).get("__package__") or ""
    if not package:
        raise ImportError("attempted relative import with no known parent package")
    return importlib.util.resolve_name("." * level + name, package)


def _shim(name: str, fromlist: Sequence[str] | None) -> ModuleType | None:
    """The shim that an import statement binds, if it is of a module that has one."""
    if fromlist:
        return shim_of(name) if name in SHIMMED else None
    top = name.partition(".")[0]
    if top not in SHIMMED:
        return None
    importlib.import_module(name)
    return shim_of(top)


def _new_folder(name: str, folder: Path) -> ModuleType:
    """A package without `__init__.py`."""
    spec = ModuleSpec(name, None, is_package=True)
    spec.submodule_search_locations = [str(folder)]
    return importlib.util.module_from_spec(spec)


def _compiled(source: Source) -> CodeType:
    try:
        return compile(source.text, str(source.file), "exec", dont_inherit=True)
    except SyntaxError as error:
        if error.filename is None:  # as of null bytes, for which nobody looks line by line
            error.filename, error.lineno = str(source.file), _line_of_null(source.text)
        raise


def _line_of_null(text: bytes) -> int:
    return text.partition(b"\0")[0].count(b"\n") + 1


def _new_module(source: Source) -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        source.name,
        source.file,
        submodule_search_locations=[str(source.file.parent)] if source.is_package else None,
    )
    assert spec is not None, "a .py file has a loader"
    return importlib.util.module_from_spec(spec)
