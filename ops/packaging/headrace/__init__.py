"""
Headrace, under the one name that is its own.

Everything here is the very object that `engine` exports: `headrace.query is engine.query`.
Applications import `headrace`, because `engine` and `components` are names they may have given to
something of theirs; where that is the case, this import fails and names the file in the way.
"""

from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any


def _check_names() -> None:
    engine = _found("engine")
    if engine is not None and not _is_ours(engine):
        _refuse("engine", engine.origin or str(list(engine.submodule_search_locations or ())))
    components = _found("components")
    # A folder without `__init__.py` shares the name, whoever it belongs to; a module takes it.
    if components is not None and components.origin is not None:
        _refuse("components", components.origin)


def _found(name: str) -> ModuleSpec | None:
    """Where Python would import `name` from, without importing it."""
    try:
        return find_spec(name)
    except ValueError:  # imported already, by something that left it without a spec
        return None


def _is_ours(engine: ModuleSpec) -> bool:
    folders = [Path(folder) for folder in engine.submodule_search_locations or ()]
    return any((folder / "committer" / "__init__.py").is_file() for folder in folders)


def _refuse(name: str, found: str) -> None:
    raise ImportError(
        f"headrace is built on its own package `{name}`, but Python finds {found} first."
        f" Rename that, or take its folder off sys.path.",
        name=name,
        path=found,
    )


_check_names()

import engine as _engine  # noqa: E402 - after the check
from engine import __all__ as __all__  # noqa: E402 - what `engine` exports, `headrace` does

_engine.check_platform()

if TYPE_CHECKING:
    from engine import *  # noqa: F403 - each name is listed in its __all__
else:  # like `engine`, which imports a name when it is first asked for

    def __getattr__(name: str) -> Any:
        if name not in __all__:
            raise AttributeError(f"module 'headrace' has no attribute {name!r}")
        value = globals()[name] = getattr(_engine, name)
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
