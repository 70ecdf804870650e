"""
`time` and `datetime` as application modules see them.

Inside a query or mutation every clock stands at the moment it began; elsewhere
they are the ordinary ones.  What these classes make are ordinary dates: the
type of `datetime.now()` is the standard library's, and so is that of
`datetime(2026, 1, 1)`.
"""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from engine.functions.slots import active

NS_PER_S: Final = 1_000_000_000


def frozen_ns() -> int | None:
    """The clock of the query or mutation that runs here, which depends on it from now on."""
    execution = active()
    return None if execution is None else execution.read_clock()


def _seconds(name: str) -> Callable[..., float]:
    def read(*args: Any) -> float:
        now_ns = frozen_ns()
        real: Callable[..., float] = getattr(time, name)
        return real(*args) if now_ns is None else now_ns / NS_PER_S

    read.__name__ = name
    return read


def _nanoseconds(name: str) -> Callable[..., int]:
    def read(*args: Any) -> int:
        now_ns = frozen_ns()
        real: Callable[..., int] = getattr(time, name)
        return real(*args) if now_ns is None else now_ns

    read.__name__ = name
    return read


def _broken_down(name: str, *, args_max: int) -> Callable[..., Any]:
    """A function of `time` that takes the time as its last argument, now if that is left out."""

    def read(*args: Any) -> Any:
        real: Callable[..., Any] = getattr(time, name)
        if len(args) == args_max and args[-1] is not None:
            return real(*args)
        now_ns = frozen_ns()
        if now_ns is None:
            return real(*args)
        given = args[: args_max - 1]
        if name in ("asctime", "strftime"):
            return real(*given, time.localtime(now_ns / NS_PER_S))
        return real(*given, now_ns / NS_PER_S)

    read.__name__ = name
    return read


TIME: Final[Mapping[str, Any]] = {
    **{
        name: _seconds(name)
        for name in ("time", "monotonic", "perf_counter", "process_time", "thread_time")
    },
    **{
        name: _nanoseconds(name)
        for name in (
            "time_ns",
            "monotonic_ns",
            "perf_counter_ns",
            "process_time_ns",
            "thread_time_ns",
        )
    },
    "clock_gettime": _seconds("clock_gettime"),
    "clock_gettime_ns": _nanoseconds("clock_gettime_ns"),
    **{
        name: _broken_down(name, args_max=1) for name in ("asctime", "ctime", "gmtime", "localtime")
    },
    "strftime": _broken_down("strftime", args_max=2),
}
"""What replaces functions of the module `time`."""


class _DateClass(type):
    """
    Of the two classes below: they stand for the standard library's in every comparison.

    Classes derived from them are ordinary classes.
    """

    original: type

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        if "original" in cls.__dict__:
            return cls.original(*args, **kwargs)
        return super().__call__(*args, **kwargs)

    def __instancecheck__(cls, instance: object) -> bool:
        if "original" in cls.__dict__:
            return isinstance(instance, cls.original)
        return super().__instancecheck__(instance)

    def __subclasscheck__(cls, subclass: type) -> bool:
        if "original" in cls.__dict__:
            return issubclass(subclass, cls.original)
        return super().__subclasscheck__(subclass)

    def __eq__(cls, other: object) -> bool:
        return cls is other or cls.__dict__.get("original") is other

    def __hash__(cls) -> int:
        return hash(cls.__dict__.get("original")) or super().__hash__()

    def __get_pydantic_core_schema__(cls, source: Any, handler: Callable[[Any], Any]) -> Any:
        """In models of pydantic too they are the standard library's."""
        return handler(cls.original)


class Date(datetime.date, metaclass=_DateClass):
    """`datetime.date`, with a `today` that asks the context."""

    original = datetime.date

    @classmethod
    def today(cls) -> Any:
        now_ns = frozen_ns()
        return cls.fromtimestamp(time.time() if now_ns is None else now_ns / NS_PER_S)


class DateTime(datetime.datetime, metaclass=_DateClass):
    """`datetime.datetime`, with `now`, `utcnow` and `today` that ask the context."""

    original = datetime.datetime

    @classmethod
    def now(cls, tz: datetime.tzinfo | None = None) -> Any:
        return cls.fromtimestamp(_now_s(), tz)

    @classmethod
    def today(cls) -> Any:
        return cls.fromtimestamp(_now_s())

    @classmethod
    def utcnow(cls) -> Any:
        return cls.fromtimestamp(_now_s(), datetime.UTC).replace(tzinfo=None)


def _now_s() -> float:
    """Seconds since 1970, whole microseconds."""
    now_ns = frozen_ns()
    return (time.time_ns() if now_ns is None else now_ns) // 1000 / 1e6


for _class, _name in ((Date, "date"), (DateTime, "datetime")):
    _class.__name__ = _class.__qualname__ = _name
    _class.__module__ = "datetime"

DATETIME: Final[Mapping[str, Any]] = {"date": Date, "datetime": DateTime}
"""What replaces classes of the module `datetime`."""
