"""The arguments of a function call, as a client spelled them."""

from __future__ import annotations

from collections.abc import Generator

from msgspec import Raw

from engine.errors import FunctionNotFound, InvalidValue, UsageError
from engine.functions.results import Failure, FailureKind
from engine.model.json_values import Json, from_wire
from engine.model.text import brief, speakable
from engine.model.values import UNDEFINED, Value
from engine.server.json_text import parse
from engine.server.large_text import LARGE_BYTES_MIN, read_in_steps
from engine.server.who import Who


def call_arguments(path: str, json: Json | Raw, *, component: str, who: Who) -> dict[str, Value]:
    """
    The arguments of a call that `who` may make, given as in `read_arguments`.

    Raises:
        FunctionNotFound: it is for a component's function, which only administrators reach.
        InvalidValue: the arguments are no object, or some part of them is no value.
    """
    if component and not who.admin:
        raise component_hidden(path, component)
    return read_arguments(path, json)


def component_hidden(path: str, component: str) -> FunctionNotFound:
    """What a client is told of a component's functions, whether or not they exist."""
    shown, place = brief(path), brief(component)
    return FunctionNotFound(f"Could not find public function for '{shown}' in '{place}'.")


def read_arguments(path: str, json: Json | Raw) -> dict[str, Value]:
    """
    The argument object of a call: clients send it bare or in an array of its own.

    Args:
        path: what is called, for the error.
        json: the `args` field, parsed or as text; `None`, an absent one, is no arguments.

    Raises:
        InvalidValue: it is neither, or some part of it is no value.
    """
    path = brief(path)
    if isinstance(json, Raw):
        try:
            json = parse(bytes(json))
        except ValueError as error:
            raise InvalidValue(f"Invalid arguments for {path}: {error}") from None
    wrapped = [{}] if json is None else json if isinstance(json, list) else [json]
    if len(wrapped) != 1 or not isinstance(wrapped[0], dict):
        raise _no_object(path)
    try:
        [args] = from_wire(wrapped, path="args")
    except InvalidValue as error:
        raise InvalidValue(f"Invalid arguments for {path}: {error}") from None
    if not isinstance(args, dict):  # {"$integer": ...} and the like
        raise _no_object(path)
    return args


def arguments_in_steps(
    path: str, json: Raw, *, component: str, who: Who, bytes_max: int
) -> Generator[None, None, dict[str, Value]]:
    """
    The same as `call_arguments`, a large text some milliseconds at a time.

    Args:
        bytes_max: of a large one; of others nothing is counted here.
    """
    if component and not who.admin:
        raise component_hidden(path, component)
    return (yield from read_arguments_in_steps(path, json, bytes_max))


def read_arguments_in_steps(
    path: str, json: Raw, bytes_max: int
) -> Generator[None, None, dict[str, Value]]:
    """The same as `read_arguments`, likewise."""
    if len(json) < LARGE_BYTES_MIN:
        return read_arguments(path, json)
    path, text = brief(path), bytes(json).strip()
    if not text.startswith(b"["):
        text = b"[%b]" % text
    try:
        wrapped = yield from read_in_steps(text, path="args", bytes_max=bytes_max)
    except InvalidValue as error:
        raise InvalidValue(f"Invalid arguments for {path}: {error}") from None
    if not isinstance(wrapped, list) or len(wrapped) != 1 or not isinstance(wrapped[0], dict):
        raise _no_object(path)
    return wrapped[0]


def _no_object(path: str) -> InvalidValue:
    return InvalidValue(
        f"Invalid arguments for {path}: expected one object, or an array of one object"
    )


def refusal_of(error: UsageError) -> Failure:
    """The failure of a call that never began; it holds nothing of what the client sent."""
    error.__traceback__ = error.__context__ = None
    return Failure(
        message=speakable(str(error)), data=UNDEFINED, error=error, kind=FailureKind.USAGE
    )
