"""
The arithmetic of token buckets: plain values in, plain values out.

A bucket fills evenly, `rate` tokens a period, up to its capacity.  Only its
value at one moment is kept; whatever is asked later is worked out from that.
Times are milliseconds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import timedelta
from typing import NamedTuple


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenBucket:
    """
    A limit that lets short bursts through.

    Args:
        rate: tokens that come in a period.
        period: milliseconds, or a `timedelta`.
        capacity: tokens that it holds at most; `rate` unless said.
        max_reserved: tokens that may be taken in advance by `reserve=True`; any number unless
            said, none if 0.

    Raises:
        ValueError: a number that makes no sense.
    """

    rate: float
    period: float | timedelta
    capacity: float | None = None
    max_reserved: float | None = None

    def __post_init__(self) -> None:
        for what, number in (
            ("rate", self.rate),
            ("period", self.period_ms),
            ("capacity", self.size),
        ):
            if not (math.isfinite(number) and number > 0):
                raise ValueError(f"{self}: {what} is a number above 0")
        if self.max_reserved is not None and not self.max_reserved >= 0:
            raise ValueError(f"{self}: max_reserved is 0 or more")

    @property
    def period_ms(self) -> float:
        period = self.period
        return period / timedelta(milliseconds=1) if isinstance(period, timedelta) else period

    @property
    def size(self) -> float:
        """The most tokens that it holds."""
        return self.rate if self.capacity is None else self.capacity

    def check_count(self, name: str, count: float, *, reserve: bool) -> None:
        """
        Refuse what could never be had, however long one waited.

        Raises:
            ValueError: `count` is more than the bucket can ever give, or no count.
        """
        if not (math.isfinite(count) and count >= 0):
            raise ValueError(f"rate limit {name!r}: count {count:g} is no number of tokens")
        if reserve and self.max_reserved is None:
            return
        most = self.size + (self.max_reserved or 0 if reserve else 0)
        if count > most:
            raise ValueError(f"rate limit {name!r}: count {count:g} exceeds {most:g}")


class Level(NamedTuple):
    """How many tokens there were at one moment; below 0 is what was reserved."""

    value: float
    ts_ms: float


class Decision(NamedTuple):
    """
    What became of a request.

    `after` is to be kept if it `is_ok`.  `retry_after_ms` is how long it takes until there are
    as many tokens as were asked for, and 0 if there are.
    """

    is_ok: bool
    after: Level
    retry_after_ms: float


def decide(
    bucket: TokenBucket, level: Level | None, now_ms: float, count: float, *, reserve: bool
) -> Decision:
    """
    Ask a bucket for tokens.

    Args:
        level: what was kept last; `None` is a bucket that nobody has asked yet: it is full.
        now_ms: a clock that has been set back since is taken to stand still.
        reserve: take tokens that are yet to come; whoever has them waits for them.
    """
    held = bucket.size if level is None else level.value
    since_ms = now_ms if level is None else level.ts_ms
    elapsed_ms = max(now_ms - since_ms, 0)
    value = min(held + elapsed_ms * bucket.rate / bucket.period_ms, bucket.size) - count
    after = Level(value, max(now_ms, since_ms))
    if value >= 0:
        return Decision(True, after, 0.0)
    allowed = math.inf if bucket.max_reserved is None else bucket.max_reserved
    return Decision(reserve and -value <= allowed, after, -value * bucket.period_ms / bucket.rate)
