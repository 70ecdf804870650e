"""
Functions by their path: `api.messages.list`, `internal.jobs.prune`, `limits.check`, a string.

A reference is only a name; whether there is such a function shows when it is
called.  `reference_of` reads all the ways in which a function can be given.
"""

from __future__ import annotations

from typing import Final

from engine.app.registered import RegisteredFunction
from engine.errors import UsageError


class Reference:
    """
    The path of a function, written with dots.

    `api.dir.module.name` is `dir/module:name`.  Both `api` and `internal` name
    any function; which of them callers may reach is the function's own matter.
    """

    __slots__ = ("_component", "_steps")

    def __init__(self, component: str = "", steps: tuple[str, ...] = ()) -> None:
        self._component = component
        self._steps = steps

    def __getattr__(self, name: str) -> Reference:
        if name.startswith("__"):
            raise AttributeError(name)
        return Reference(self._component, (*self._steps, name))

    def __getitem__(self, name: str) -> Reference:
        """For names that are no identifiers in Python."""
        return Reference(self._component, (*self._steps, name))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Reference):
            return NotImplemented
        return (self._component, self._steps) == (other._component, other._steps)

    def __hash__(self) -> int:
        return hash((self._component, self._steps))

    def __repr__(self) -> str:
        inside = f" in {self._component!r}" if self._component else ""
        return f"<reference to {'.'.join(self._steps)!r}{inside}>"


api: Final = Reference()
internal: Final = Reference()


def component_reference(component: str, name: str) -> Reference:
    """A function of the component mounted at `component`."""
    return Reference(component, (name,))


def reference_of(function: object) -> tuple[str, str]:
    """
    Where a function is: the path of its component ("" is the caller's own) and its path there.

    Args:
        function: a registered function, a `Reference` or a string such as "messages:list".

    Raises:
        UsageError: something else, or a registered function that no application has loaded.
    """
    if isinstance(function, str):
        return "", canonical_path(function)
    if isinstance(function, RegisteredFunction):
        if function.path is None:
            raise UsageError(
                f"{function!r} ({function.where}) is not part of the running application; "
                "is its module in the application's folder?"
            )
        return function.component, function.path
    if isinstance(function, Reference):
        return _written_with_dots(function)
    raise UsageError(
        f"{function!r} names no function; give a registered function, api.module.name or "
        '"module:name"'
    )


def _written_with_dots(reference: Reference) -> tuple[str, str]:
    component, steps = reference._component, reference._steps
    if not steps:
        raise UsageError("`api` names no function; go on: api.module.name")
    *modules, name = steps
    if modules:
        return component, f"{'/'.join(modules)}:{name}"
    return component, f"{COMPONENT_MODULE}:{name}" if component else f"{name}:default"


COMPONENT_MODULE: Final = "component"
"""Where a component keeps the functions that are its own: `limits.check` is `component:check`."""


def canonical_path(path: str) -> str:
    """
    One spelling for each function: "m.js:f", "m:default" and "m" become "m:f" and "m:default".

    Nothing is refused: what names no function will not be found.
    """
    module, colon, name = path.rpartition(":")
    if not colon:
        module, name = path, "default"
    return f"{module.removesuffix('.js')}:{name}"
