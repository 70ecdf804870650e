"""Timestamps are ints of nanoseconds since 1970; where one is asked for, a `datetime` will do."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final, TypeAlias

from engine.errors import InvalidValue

Moment: TypeAlias = int | datetime
"""Nanoseconds since 1970, or a `datetime` with a time zone."""

TS_MAX: Final = (1 << 63) - 1
"""What fits wherever a ts is kept and sent."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


def ts_of(moment: Moment) -> int:
    """
    The timestamp of `moment`, exactly: a datetime is a whole number of microseconds.

    Raises:
        InvalidValue: a datetime without a time zone, a number that is no ts, or something else.
    """
    if isinstance(moment, datetime):
        if moment.tzinfo is None:
            raise InvalidValue(
                f"{moment!r} has no time zone; write datetime(..., tzinfo=UTC) or .astimezone()"
            )
        ts = (moment - _EPOCH) // _MICROSECOND * 1000
    elif isinstance(moment, int) and not isinstance(moment, bool):
        ts = int(moment)
    else:
        raise InvalidValue(f"a ts is an int of nanoseconds or an aware datetime, not {moment!r}")
    if not 0 <= ts <= TS_MAX:
        raise InvalidValue(f"{moment!r} is {'before 1970' if ts < 0 else 'after 2262'}")
    return ts
