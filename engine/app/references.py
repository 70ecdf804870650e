"""
Functions by their path: `api.messages.list`, `internal.jobs.prune`, `limits.check`, a string.

A reference is only a name; whether there is such a function shows when it is
called.  `reference_of` reads all the ways in which a function can be given.
"""

from __future__ import annotations

from typing import Final, Generic, ParamSpec, Protocol, TypeVar

from engine.app.registered import RegisteredFunction
from engine.errors import UsageError

P = ParamSpec("P")
R_co = TypeVar("R_co", covariant=True)


class Place(Protocol):
    """Where a component is mounted; a mount inside another component learns it when loaded."""

    path: str


class Reference:
    """
    The path of a function, written with dots.

    `api.dir.module.name` is `dir/module:name`.  Both `api` and `internal` name
    any function; which of them callers may reach is the function's own matter.
    """

    __slots__ = ("_place", "_steps")

    def __init__(self, place: Place | None = None, steps: tuple[str, ...] = ()) -> None:
        self._place = place
        self._steps = steps

    def __getattr__(self, name: str) -> Reference:
        if name.startswith("__"):
            raise AttributeError(name)
        return Reference(self._place, (*self._steps, name))

    def __getitem__(self, name: str) -> Reference:
        """For names that are no identifiers in Python."""
        return Reference(self._place, (*self._steps, name))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Reference):
            return NotImplemented
        return (self._place, self._steps) == (other._place, other._steps)

    def __hash__(self) -> int:
        return hash((self._place, self._steps))

    def __repr__(self) -> str:
        inside = f" in {self._place.path!r}" if self._place else ""
        return f"<reference to {'.'.join(self._steps)!r}{inside}>"


api: Final = Reference()
internal: Final = Reference()


# What type checkers see: the typed `api` that `headrace codegen` writes has these, and registered
# functions are them. At run time a reference to any function is a `Reference`.


class QueryReference(Generic[P, R_co]):
    """Names a query: what is given with it to `run_query`, and what comes back."""


class MutationReference(Generic[P, R_co]):
    """Names a mutation: what is given with it to `run_mutation`, and what comes back."""


class ActionReference(Generic[P, R_co]):
    """Names an action: what is given with it to `run_action`, and what comes back."""


def make_function_reference(path: str) -> Reference:
    """The reference that `path` spells, as in "dir/module:name"."""
    module, _, name = canonical_path(path).rpartition(":")
    return Reference(None, (*module.split("/"), name))


def get_function_name(function: object) -> str:
    """The path of a function, however it is given; see `reference_of`."""
    return reference_of(function)[1]


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


def is_within_reach(component: str, other: str) -> bool:
    """Whether functions of `component` may name those of `other`: itself, or mounted in it."""
    if other == component:
        return True
    name = other.rpartition("/")[2]
    return other == (f"{component}/{name}" if component else name)


def _written_with_dots(reference: Reference) -> tuple[str, str]:
    component = reference._place.path if reference._place else ""
    steps = reference._steps
    if not steps:
        raise UsageError("`api` names no function; go on: api.module.name")
    *modules, name = steps
    if modules:
        return component, f"{'/'.join(modules)}:{name}"
    return component, f"{COMPONENT_MODULE}:{name}" if component else f"{name}:default"


COMPONENT_MODULE: Final = "functions"
"""
Where a component keeps the functions that are its own: `limits.check` is `functions:check`.

Not `component`: the package has that name for the component itself, and a module takes its place.
"""


def canonical_path(path: str) -> str:
    """
    One spelling for each function: "m.js:f", "m:default" and "m" become "m:f" and "m:default".

    Nothing is refused: what names no function will not be found.
    """
    module, colon, name = path.rpartition(":")
    if not colon:
        module, name = path, "default"
    return f"{module.removesuffix('.js')}:{name}"
