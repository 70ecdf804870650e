"""What a call comes to: a value or a failure, with the log lines on the way."""

from __future__ import annotations

import enum
import linecache
import os
import traceback
from dataclasses import dataclass, field
from hashlib import blake2b
from types import TracebackType
from typing import Any, Literal, NamedTuple, TypeAlias

import outcome

from engine.errors import (
    ArgumentValidationError,
    ConvexError,
    EngineError,
    FunctionNotFound,
    FunctionTimeout,
    InvalidCursor,
    InvalidValue,
    ReturnsValidationError,
    UsageError,
    WrongFunctionKind,
)
from engine.functions.tracebacks import ENGINE, trimmed
from engine.model.codec import encode
from engine.model.identity import Identity
from engine.model.limits import ERROR_LENGTH_MAX, VALUE_BYTES_MAX
from engine.model.text import speakable
from engine.model.values import UNDEFINED, normalize, size_of
from engine.subscriptions.token import Live

Origin: TypeAlias = Literal["program", "session", "http", "job", "cron", "action", "operator"]
"""Where a call comes from: code of this process, a client that is connected, a request, ..."""


class FailureKind(enum.Enum):
    APPLICATION = "application"
    """The function raised; its data, if it is a ConvexError, is the client's to see."""
    USAGE = "usage"
    """The call could not be: no such function, wrong arguments, a limit."""


class Caller(NamedTuple):
    """Who calls: nobody, a user, or an administrator, who may call internal functions."""

    identity: Identity | None = None
    admin: bool = False
    request_id: str = ""
    origin: Origin = "program"


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """
    A function that raised.

    `message` is for developers: the error, then one line a frame of the
    application.  `data` is what a `ConvexError` carries, else `UNDEFINED`.
    `error` has the frames of the application alone: one of the engine would lead back
    here, and keep all that the function had until the garbage collector comes.
    """

    message: str
    data: Any
    error: BaseException
    kind: FailureKind


@dataclass(slots=True, kw_only=True, weakref_slot=True, eq=False)
class QueryResult:
    """
    `live` says for how long the result holds.

    Attributes:
        size_bytes: about as many as a client is shown.
    """

    ts: int
    value: Any
    failure: Failure | None
    log_lines: tuple[str, ...]
    journal: str | None
    live: Live
    observed_identity: bool = False
    observed_time: bool = False
    size_bytes: int = 0
    encoded: dict[str, bytes] = field(default_factory=dict)
    """Spellings of the value that somebody has already made, by format."""
    _digest: bytes = field(default=b"", init=False)

    @property
    def digest(self) -> bytes:
        """Equal for equal results; worked out when somebody compares two."""
        if not self._digest:
            self._digest = _digest_of(self.value, self.failure, self.journal)
        return self._digest


class PastResult(NamedTuple):
    """Of a query that was asked for as the past: it holds for ever, so it has no `live`."""

    ts: int
    value: Any
    failure: Failure | None
    log_lines: tuple[str, ...]


class MutationResult(NamedTuple):
    """`ts` is the commit, or, if nothing was written, the state that was read."""

    ts: int | None
    value: Any
    failure: Failure | None
    log_lines: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ActionResult:
    value: Any
    failure: Failure | None
    log_lines: tuple[str, ...]


def size_of_shown(value_bytes: int, failure: Failure | None, journal: str | None) -> int:
    """
    About how many bytes a client is shown.

    Args:
        value_bytes: of the value, as `values.size_of` counts them.
    """
    size = value_bytes + len(journal or "")
    if failure is not None:
        size += len(failure.message)
        size += size_of(failure.data) if failure.data is not UNDEFINED else 0
    return size


def _digest_of(value: Any, failure: Failure | None, journal: str | None) -> bytes:
    """A digest of what a client would be shown."""
    shown = [value, None] if failure is None else [None, failure.message]
    if failure is not None and failure.data is not UNDEFINED:
        shown.append(failure.data)
    return blake2b(encode([*shown, journal]), digest_size=16).digest()


def failure_of(error: BaseException) -> Failure:
    """
    Describe what a function raised, with the application's own frames.

    Raises nothing itself, whatever the error's text or data are made of; whoever calls it
    for an error of the application holds Ctrl-C back meanwhile.
    """
    try:
        return _described(error)
    except BaseException as broken:
        return undescribed(error, broken)


def undescribed(error: BaseException, broken: BaseException | None = None) -> Failure:
    """The failure for an error that cannot be described, as describing it raised `broken`."""
    why = f"raised {type(broken).__name__}" if broken else "did not end"
    name = type(error).__name__
    message = f"Uncaught Error: {name}: (it cannot be shown: what it is made of {why})"
    kind = FailureKind.APPLICATION
    return Failure(message=speakable(message), data=UNDEFINED, error=error, kind=kind)


def _described(error: BaseException) -> Failure:
    kind = FailureKind.USAGE if isinstance(error, UsageError) else FailureKind.APPLICATION
    data, complaint = _data_of(error)
    notes = [f"\n{note}" for note in (*getattr(error, "__notes__", ()), *complaint)]
    frames = _frames(error.__traceback__)
    told = f"{_cut(_told(error, frames))}{_cut(''.join(notes))}"
    message = f"{told}{frames}"
    return Failure(message=speakable(message), data=data, error=trimmed(error), kind=kind)


def _cut(text: str) -> str:
    if len(text) <= ERROR_LENGTH_MAX:
        return text
    return f"{text[:ERROR_LENGTH_MAX]}… (of {len(text):,} characters)"


def _data_of(error: BaseException) -> tuple[Any, list[str]]:
    """The data of an error that has some for clients, if it is a value; else what is wrong."""
    if not isinstance(error, ConvexError | InvalidCursor):
        return UNDEFINED, []
    try:
        data = normalize(error.data)
    except InvalidValue as invalid:
        return UNDEFINED, [f"The data of this ConvexError cannot be sent: {invalid}"]
    if (size := size_of(data)) > VALUE_BYTES_MAX:
        why = f"{size:,} bytes are over the limit of {VALUE_BYTES_MAX:,} (VALUE_BYTES_MAX)"
        return UNDEFINED, [f"The data of this ConvexError cannot be sent: {why}"]
    return data, []


def _text_of(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as broken:
        return f"(its text cannot be shown: str() raised {type(broken).__name__})"


def _told(error: BaseException, frames: str) -> str:
    """What is said of an error, in words of Convex's where it is one of the call itself."""
    match error:
        case FunctionNotFound() | WrongFunctionKind() if not frames:
            return _text_of(error)
        case ArgumentValidationError() | ReturnsValidationError() if not frames:
            return _named(error)
    return f"Uncaught {_named(error)}"


def _named(error: BaseException) -> str:
    if isinstance(error, ConvexError):
        return f"ConvexError: {_text_of(error)}"
    name, text = type(error).__name__, _text_of(error)
    if isinstance(error, EngineError) and not isinstance(error, FunctionTimeout):
        return f"{name}: {text}"
    return f"Error: {name}: {text}" if name != "Exception" else f"Error: {text}"


_CARRIER = os.path.dirname(outcome.__file__) + os.sep
"""By which errors come from threads and other loops; no frame of theirs is the application's."""


def _frames(trace: TracebackType | None) -> str:
    lines = []
    for frame, line in traceback.walk_tb(trace):
        path = frame.f_code.co_filename
        if path.startswith((ENGINE, _CARRIER)):
            continue
        source = linecache.getline(path, line).strip()
        shown = f"    at {frame.f_code.co_name} ({os.path.basename(path)}:{line})"
        lines.append(f"\n{shown}" + (f"  {source}" if source else ""))
    return "".join(lines)
