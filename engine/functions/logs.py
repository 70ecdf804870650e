"""
What functions print and log becomes lines of whoever is listening.

    print("posting", body)        [LOG] 'posting' 'hello'
    logging.info("sent %d", 3)    [INFO] 'sent 3'
    log.warning("late", by=2.0)   [WARN] 'late' { by: 2 }

What modules of an application log becomes lines from INFO on, without anybody
having configured `logging`, and what libraries log from the root's WARNING on;
where a logger has a level, or the root another than it comes with, that holds.

The handlers of the host get a record of `logging` too, by the levels of the
host.  One that a query or mutation makes waits for the answer: until then nobody
knows whether what it speaks of has happened, and a run that is thrown away has
said nothing.
"""

from __future__ import annotations

import logging
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from types import FrameType
from typing import Any, Final, NamedTuple, Protocol

from engine.functions.log_lines import Level, add_line
from engine.functions.slots import active
from engine.kernel.trace import tracer
from engine.model.limits import Limits

trace = tracer(__name__)

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
    return active() or _action.get()


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

    It is what hands a record from its logger to the handlers that is wrapped, and
    whether a logger makes records: handlers, levels and `logging.basicConfig` of
    the host stay as they are.  The records of an action go on at once to wherever
    they would have gone, those of a query or mutation when they are released;
    what the host's levels leave out becomes a line and goes nowhere.
    """
    is_enabled, handle = logging.Logger.isEnabledFor, logging.Logger.handle
    if getattr(handle, "captures", False):
        return

    def is_enabled_or_a_line(logger: logging.Logger, level: int) -> bool:
        return is_enabled(logger, level) or (
            level >= logging.INFO
            and listener() is not None
            and _is_left_as_it_comes(logger, level)
            and _is_called_by_an_application()
        )

    def capture(logger: logging.Logger, record: logging.LogRecord) -> None:
        running = active()
        to = running or _action.get()
        if to is not None and not _is_own(logger.name):
            to.log(level_of(record.levelno), _message(record))
            if not is_enabled(logger, record.levelno):
                return
            if running is not None:
                running.hold(_Held(partial(handle, logger), record))
                return
        handle(logger, record)

    capture.captures = True  # type: ignore[attr-defined]  # how it is known again
    logging.Logger.isEnabledFor = is_enabled_or_a_line  # type: ignore[method-assign, assignment]
    logging.Logger.handle = capture  # type: ignore[method-assign, assignment]


def _is_left_as_it_comes(logger: logging.Logger, level: int) -> bool:
    """Whether it is only the root's level of old that leaves out what a function logs."""
    if logger.disabled or logger.manager.disable >= level or _is_own(logger.name):
        return False
    while logger.parent is not None and logger.level == logging.NOTSET:
        logger = logger.parent
    return logger.parent is None and logger.level == logging.WARNING


def _is_called_by_an_application() -> bool:
    """Whether its own code logs, and no library, which may say in INFO what is a secret."""
    frame: FrameType | None = sys._getframe()
    while frame is not None and frame.f_globals.get("__name__") in (__name__, logging.__name__):
        frame = frame.f_back
    return frame is not None and frame.f_builtins.get("print") is print_line


def _is_own(name: str) -> bool:
    return name.partition(".")[0] in OWN_LOGGERS


class _Held(NamedTuple):
    """A record that no handler has taken yet, and what hands it to those of its logger."""

    handle: Callable[[logging.LogRecord], None]
    record: logging.LogRecord

    def release(self) -> None:
        """Hand it to the handlers, as its logger would have; one that fails does no harm."""
        try:
            self.handle(self.record)
        except Exception as error:
            trace.error("logs.handler_failed", logger=self.record.name, error=repr(error))


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
