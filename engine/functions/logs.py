"""
What functions print and log, as the lines that the clients show.

    print("posting", body)        [LOG] 'posting' 'hello'
    logging.info("sent %d", 3)    [INFO] 'sent 3'
    log.warning("late", by=2.0)   [WARN] 'late' { by: 2 }

A line begins with its level in brackets; values are spelled as in JavaScript's
console.  A function has so many lines, and a line so many bytes; what is more
is left out, and a line or a suffix says so.
"""

from __future__ import annotations

import logging
import math
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol, TypeAlias

from engine.functions.watchdog import slot_here
from engine.model.limits import Limits
from engine.model.values import Int64

if TYPE_CHECKING:
    from collections.abc import Iterator


Level: TypeAlias = Literal["DEBUG", "INFO", "LOG", "WARN", "ERROR"]

OVERFLOW: Final = "[ERROR] 'Log overflow (maximum {}). Remaining log lines omitted.'"
TRUNCATED: Final = " (truncated due to length)"
DEPTH_MAX: Final = 5
"""Lists and dictionaries further inside are shown as `[Array]` and `[Object]`."""


def add_line(lines: list[str], limits: Limits, level: Level, parts: Iterable[Any]) -> None:
    """Append what `parts` look like, within the limits."""
    room = limits.log_lines_max - len(lines)
    if room > 1:
        lines.append(line_of(level, parts, bytes_max=limits.log_line_bytes_max))
    elif room == 1:
        lines.append(OVERFLOW.format(limits.log_lines_max))


def line_of(level: Level, parts: Iterable[Any], *, bytes_max: int) -> str:
    """One line: the level and every part, cut at `bytes_max` of UTF-8."""
    text = f"[{level}] " + " ".join(shown(part) for part in parts)
    if len(text) * 4 <= bytes_max:
        return text
    data = text.encode("utf-8", "backslashreplace")
    if len(data) <= bytes_max:
        return text
    return data[: bytes_max - len(TRUNCATED)].decode("utf-8", "ignore") + TRUNCATED


# How a value looks.

_ESCAPES: Final = {
    **{code: f"\\x{code:02X}" for code in (*range(0x20), 0x7F)},
    ord("\b"): "\\b",
    ord("\t"): "\\t",
    ord("\n"): "\\n",
    ord("\f"): "\\f",
    ord("\r"): "\\r",
    ord("'"): "\\'",
    ord("\\"): "\\\\",
}


def shown(value: Any, depth: int = 0) -> str:
    """`value` as JavaScript's console shows it, or its `repr` if JavaScript has nothing like it."""
    if isinstance(value, str):
        return f"'{value.translate(_ESCAPES)}'"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, Int64):
        return f"{int(value)}n"
    if isinstance(value, float):
        return _number(value)
    if isinstance(value, Mapping):
        return _wrapped("{ {} }", "{}", "[Object]", _fields(value, depth), depth)
    if isinstance(value, list | tuple):
        return _wrapped("[ {} ]", "[]", "[Array]", _items(value, depth), depth)
    if isinstance(value, Set):
        return "Set " + _wrapped("{ {} }", "{}", "[Object]", _items(value, depth), depth)
    return _represented(value)


def _wrapped(frame: str, empty: str, deep: str, inner: Iterable[str], depth: int) -> str:
    if depth >= DEPTH_MAX:
        return deep
    text = ", ".join(inner)
    return frame.replace("{}", text) if text else empty


def _items(values: Sequence[Any] | Set[Any], depth: int) -> Iterable[str]:
    return (shown(value, depth + 1) for value in values)


def _fields(value: Mapping[Any, Any], depth: int) -> Iterable[str]:
    return (
        f"{key if isinstance(key, str) and key.isidentifier() else shown(key)}: "
        f"{shown(inner, depth + 1)}"
        for key, inner in value.items()
    )


def _number(value: float) -> str:
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    if value == int(value) and abs(value) < 1e21:
        return "-0" if value == 0 and math.copysign(1, value) < 0 else str(int(value))
    return repr(value)


def _represented(value: Any) -> str:
    try:
        return repr(value)
    except Exception as error:
        return f"<{type(value).__qualname__} whose repr raises {type(error).__name__}>"


# Who is listening.


class Listener(Protocol):
    """Takes log lines: an `Execution`, or the `Journal` of an action."""

    def log(self, level: Level, *parts: Any) -> None: ...


class Journal:
    """The log lines of an action, whose code may run in several threads."""

    def __init__(self, limits: Limits) -> None:
        self.lines: list[str] = []
        self._limits = limits

    def log(self, level: Level, *parts: Any) -> None:
        """Add a log line; beyond `log_lines_max` they are dropped, and one says so."""
        add_line(self.lines, self._limits, level, parts)


_action: ContextVar[Listener | None] = ContextVar("log lines of an action", default=None)


def listener() -> Listener | None:
    """Whose log lines are written here: the running slice's, or those of the action around it."""
    return slot_here().execution or _action.get()


@contextmanager
def listening(to: Listener) -> Iterator[None]:
    """Take what is printed and logged in the block, and in what it starts, as an action's lines."""
    token = _action.set(to)
    try:
        yield
    finally:
        _action.reset(token)


def print_line(*parts: Any, file: Any = None, **rest: Any) -> None:
    """What `print` does in modules of an application."""
    to = listener()
    if to is None or file not in (None, sys.stdout, sys.stderr):
        print(*parts, file=file, **rest)
    else:
        to.log("ERROR" if file is not None and file is sys.stderr else "LOG", *parts)


# The standard library's logging.

LEVELS: Final[tuple[tuple[int, Level], ...]] = (
    (logging.ERROR, "ERROR"),
    (logging.WARNING, "WARN"),
    (logging.INFO, "INFO"),
    (logging.NOTSET, "DEBUG"),
)
OWN_LOGGERS: Final = frozenset({"engine", "hypercorn", "trio", "asyncio"})
"""What the engine does on behalf of an action is not the action's to log."""


def level_of(number: int) -> Level:
    return next(level for least, level in LEVELS if number >= least)


def capture_logging() -> None:
    """
    Let log records that functions make become log lines too, once in a process.

    It is the record factory that is wrapped: handlers, levels and
    `logging.basicConfig` of the host stay as they are, and every record goes on
    to wherever it would have gone.
    """
    make = logging.getLogRecordFactory()
    if getattr(make, "captures", False):
        return
    logging.setLogRecordFactory(_capturing(make))


def _capturing(make: Callable[..., logging.LogRecord]) -> Callable[..., logging.LogRecord]:
    def capture(*args: Any, **kwargs: Any) -> logging.LogRecord:
        record = make(*args, **kwargs)
        to = listener()
        if to is not None and record.name.partition(".")[0] not in OWN_LOGGERS:
            to.log(level_of(record.levelno), _message(record))
        return record

    capture.captures = True  # type: ignore[attr-defined]  # how it is known again
    return capture


def _message(record: logging.LogRecord) -> str:
    try:
        message = record.getMessage()
    except Exception:
        message = str(record.msg)
    if record.exc_info and record.exc_info[0] is not None:
        message += "\n" + "".join(traceback.format_exception(*record.exc_info)).rstrip()
    return message


# structlog's verbs, in what application modules get from `structlog.get_logger`.

STRUCTLOG_LEVELS: Final[Mapping[str, Level]] = {
    "critical": "ERROR",
    "debug": "DEBUG",
    "err": "ERROR",
    "error": "ERROR",
    "exception": "ERROR",
    "fatal": "ERROR",
    "info": "INFO",
    "msg": "INFO",
    "warn": "WARN",
    "warning": "WARN",
}


def log_event(
    to: Listener, method: str, event: object, args: tuple[Any, ...], fields: Mapping[str, Any]
) -> None:
    """A structured event as a log line."""
    text = event % args if args and isinstance(event, str) else event
    values = {name: value for name, value in fields.items() if name != "exc_info"}
    if method == "exception" or fields.get("exc_info"):
        values["exception"] = traceback.format_exc().rstrip()
    to.log(STRUCTLOG_LEVELS[method], text, *([values] if values else []))
