"""
What a component is told about a mount: an object of a class that it declares.

It crosses as plain values: whoever mounts the component and the component itself may have been
given two copies of that class.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Final, TypeAlias

from engine.app.shapes import Scope, Shape, Unsupported, shape_of
from engine.errors import DeclarationError, InvalidValue
from engine.model.values import Value, normalize

Plain: TypeAlias = dict[str, Value]


def plain_configuration(kind: type | None, given: object) -> Plain:
    """
    A configuration as plain values.

    Args:
        kind: the class that it is of; `None` where there is none to be given.
        given: an instance of it, a mapping, or `None` for one that has only defaults.

    Raises:
        DeclarationError: it is none of that class; says which field.
    """
    if kind is None:
        if given is not None:
            raise DeclarationError(
                f"it takes no config, and is given {given!r}; leave that out, or have the "
                "component say of which class it is: Component(..., config=...)"
            )
        return {}
    shape = _shape(kind)
    try:
        dumped = given if shape.dump is None or given is None else shape.dump(given)
        plain: Plain = normalize({} if dumped is None else dumped, path="config")
        _load(shape, plain)
    except InvalidValue as error:
        raise DeclarationError(f"its config is no {kind.__name__}: {error}") from None
    return plain


def configuration(kind: type, plain: Mapping[str, Value]) -> Any:
    """An instance of the class, of values that `plain_configuration` has let through."""
    return _load(_shape(kind), normalize(plain))


def _shape(kind: type) -> Shape:
    try:
        return shape_of(kind, Scope(names=vars(sys.modules[kind.__module__])))
    except (Unsupported, KeyError) as refused:
        raise DeclarationError(f"{kind!r} cannot be a config: {refused}") from None


def _load(shape: Shape, plain: Value) -> Any:
    shape.validator.check(plain, lambda _table: None, "config")
    return plain if shape.load is None else shape.load(plain, lambda _table: None)


_mounting: Final[ContextVar[tuple[str, Mapping[str, Value]] | None]] = ContextVar(
    "package of the mount that is being loaded, and its configuration", default=None
)


@contextmanager
def mounting(package: str, plain: Mapping[str, Value]) -> Iterator[None]:
    """Inside, the component that `package` makes is one mount, which is told `plain`."""
    token = _mounting.set((package, plain))
    try:
        yield
    finally:
        _mounting.reset(token)


def told_to(package: str | None) -> Mapping[str, Value] | None:
    """What the component of a package is told, where it is being loaded as a mount."""
    loaded = _mounting.get()
    return loaded[1] if loaded is not None and loaded[0] == package else None
