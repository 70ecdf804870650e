"""From what a server says of a failure to the error that is raised here."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from engine.errors import (
    ConvexError,
    EngineError,
    FunctionFailed,
    FunctionNotFound,
    InvalidCursor,
    InvalidValue,
    Overloaded,
    RequestRefused,
    WrongFunctionKind,
)
from engine.model.json_values import Json, from_wire

_HEAD: Final = re.compile(r"\[Request ID: (\w+)\] Server Error\n?")
_ENGINES_OWN: Final = re.compile(r"(?:Uncaught )?(\w+): (.*)", re.DOTALL)
_OF_THE_CALL: Final[Mapping[str, type[EngineError]]] = {
    "Could not find ": FunctionNotFound,
    "Trying to execute ": WrongFunctionKind,
    "Invalid arguments for ": InvalidValue,
}
"""Errors whose names are not said, by how their text begins."""


def failure_of(path: str, answer: Mapping[str, Json]) -> Exception:
    """
    The error of a function that failed.

    Args:
        answer: has `errorMessage`, and `errorData` where that is for callers to see.
    """
    text = str(answer.get("errorMessage", ""))
    head = _HEAD.match(text)
    message = text[head.end() :] if head else text
    if "errorData" in answer:
        error = _error_with(from_wire(answer["errorData"]), message)
    else:
        error = _own_error(message) or FunctionFailed(message or "the server does not say why")
    request = f", request {head[1]}" if head else ""
    error.add_note(f"in {path}{request}")
    return error


def without_request(message: str) -> str:
    """An error message that is the same for the same failure of another request."""
    return _HEAD.sub("", message, count=1)


def refusal_of(status: int, answer: Mapping[str, Json]) -> EngineError:
    """The error of a request that was not carried out."""
    code, message = str(answer["code"]), str(answer.get("message", ""))
    if code == Overloaded.__name__:
        overloaded = Overloaded("the server", 0)
        overloaded.add_note(message)
        return overloaded
    known = _OWN.get(code)
    return RequestRefused(status, code, message) if known is None else known(message)


def _error_with(data: Any, message: str) -> Exception:
    if data == InvalidCursor.data:
        return _own_error(message) or InvalidCursor("this cursor belongs to another query")
    return ConvexError(data)


def _own_error(message: str) -> Exception | None:
    for beginning, cls in _OF_THE_CALL.items():
        if message.startswith(beginning):
            return cls(message)
    found = _ENGINES_OWN.match(message)
    known = _OWN.get(found[1]) if found else None
    if found is None or known is None:
        return None
    text, _, frames = found[2].partition("\n    at ")
    error: Exception = known(text)
    if frames:
        error.add_note(f"    at {frames}")
    return error


def _all_below(cls: type[EngineError]) -> Iterator[type[EngineError]]:
    for below in cls.__subclasses__():
        yield below
        yield from _all_below(below)


_OWN: Final[Mapping[str, Any]] = {
    cls.__name__: cls for cls in _all_below(EngineError) if cls.__init__ is EngineError.__init__
}
"""Errors of the engine that are made of their message alone, by name."""
