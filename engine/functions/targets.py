"""What a call is of, and what it is given: the function as it was named, and its arguments."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from engine.app.references import reference_of
from engine.app.registered import RegisteredFunction
from engine.errors import InvalidValue
from engine.model.values import normalize


def call_target(
    fn: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], component: str
) -> tuple[str, str, Mapping[str, Any]]:
    """
    Component, path and canonical arguments of a call by somebody who may call anything.

    Args:
        component: whose function it is if that is not said.

    Raises:
        UsageError: it names no function, or some argument is no value.
    """
    target, path = reference_of(fn)
    return target or component, path, call_arguments(fn, args, kwargs)


def call_arguments(fn: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Mapping[str, Any]:
    """
    Canonical arguments, which are nobody else's: values are copied.

    Either a registered function followed by its arguments as in a call, or a
    reference or string followed by one mapping.  Runs code of the application
    where there are classes of it among the arguments.

    Raises:
        UsageError: it is neither, or some argument is no value.
    """
    if isinstance(fn, RegisteredFunction):
        return fn.signature.bind(args, dict(kwargs))
    given = args[0] if args else {}
    if kwargs or len(args) > 1 or not isinstance(given, Mapping):
        raise InvalidValue(
            "a reference or a string is followed by one dictionary of arguments; "
            "only a function object takes arguments as in a call"
        )
    canonical: Mapping[str, Any] = normalize(given)
    return canonical
