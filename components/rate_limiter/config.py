"""
What a limit allows, and the arithmetic of it: plain values in, plain values out.

Only what there was at one moment is kept of a limit; what is there at any
other is worked out from that.  Times are whole milliseconds since 1970, as
`ctx.now_ms` has them; a clock that was set back is taken to stand still.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from hashlib import blake2b
from typing import Final, Literal, NamedTuple, NotRequired, Self, TypedDict

SECOND: Final = 1_000
MINUTE: Final = 60 * SECOND
HOUR: Final = 60 * MINUTE
DAY: Final = 24 * HOUR
WEEK: Final = 7 * DAY

Kind = Literal["token bucket", "fixed window"]
TOKEN_BUCKET: Final = "token bucket"
FIXED_WINDOW: Final = "fixed window"

SHARDS_READ: Final = 2
"""
Of so many one request may take tokens: of all it would have to wait for whoever takes any.

The better of two that were picked blindly is nearly as good as the best of all (Mitzenmacher, "The
Power of Two Choices in Randomized Load Balancing", 2001).
"""

ROUNDING: Final = 1e-12
"""Of a capacity: far below a token, and far above what sums of floats are off."""

TIME_MS_MAX: Final = 1000 * 365 * DAY
"""A thousand years: what would take longer is a mistake, and times have to stay exact as floats."""
CLOCK_MS_MAX: Final = 2.0**52
"""Since 1970; with a thousand years more it is a whole number still."""
TOKENS_MAX: Final = 2.0**53
"""Beyond, one token more or less makes no difference to a float."""


class Level(NamedTuple):
    """How many tokens there were at one moment; below 0 is what was reserved."""

    value: float
    ts_ms: float


class Config(TypedDict):
    """A limit as it travels; times are in milliseconds."""

    kind: Kind
    rate: float
    period: float
    capacity: float
    shards: int
    maxReserved: NotRequired[float]
    start: NotRequired[float]


@dataclass(frozen=True, slots=True, kw_only=True)
class RateLimitConfig(ABC):
    """
    What the two kinds of limits have in common.

    Args:
        rate: tokens that come in a period.
        period: milliseconds, or a `timedelta`.
        capacity: tokens that are kept at most; `rate` unless said.
        max_reserved: tokens that may be taken in advance by `reserve=True`; any number unless
            said, as far as they come within a thousand years; none if 0.
        shards: into how many parts of equal size it is divided. What one part holds, or with more
            than two of them two parts, is the most that can be had at once.

    Raises:
        ValueError: a number that makes no sense.
    """

    rate: float
    period: float | timedelta
    capacity: float | None = None
    max_reserved: float | None = None
    shards: int = 1

    def __post_init__(self) -> None:
        for what, number in (
            ("rate", self.rate),
            ("period", self.period_ms),
            ("capacity", self.size),
        ):
            if not (math.isfinite(number) and number > 0):
                raise ValueError(f"{self}: {what} is a number above 0")
        if max(self.rate, self.size) > TOKENS_MAX:
            raise ValueError(
                f"{self}: these are more tokens than can be counted, {TOKENS_MAX:,.0f}"
            )
        if max(self.period_ms, self.size / self.rate * self.period_ms) > TIME_MS_MAX:
            raise ValueError(f"{self}: it takes more than a thousand years to fill")
        if self.max_reserved is not None and not self.max_reserved >= 0:
            raise ValueError(f"{self}: max_reserved is 0 or more")
        if not (math.isfinite(self.shards) and self.shards == int(self.shards) > 0):
            raise ValueError(f"{self}: shards is a whole number above 0")

    @property
    def period_ms(self) -> float:
        return _ms(self.period)

    @property
    def size(self) -> float:
        """The most tokens that it holds."""
        return self.rate if self.capacity is None else self.capacity

    def check_count(self, name: str, count: float, *, reserve: bool) -> None:
        """
        Refuse what could never be had, however long one waited.

        Raises:
            ValueError: `count` is more than the limit can ever give at once, or no count.
        """
        if not (math.isfinite(count) and count >= 0):
            raise ValueError(f"rate limit {name!r}: count {count:g} is no number of tokens")
        read = self.shards_read
        in_advance = self.in_advance if reserve else 0
        most = (self.size + in_advance) * read / self.shards
        if count > most + self.slack:
            of_all = f", the part of {read} of its {self.shards} shards" if self.shards > 1 else ""
            raise ValueError(f"rate limit {name!r}: count {count:.15g} exceeds {most:.15g}{of_all}")

    @property
    def shards_read(self) -> int:
        """
        Of how many shards a request may take tokens.

        Two of two would be all of them, and each request in the way of each other one.
        """
        return SHARDS_READ if self.shards > SHARDS_READ else 1

    def of_one_shard(self) -> Self:
        """What each of the shards allows by itself."""
        if self.shards == 1:
            return self
        parts = self.shards
        reserved = None if self.max_reserved is None else self.max_reserved / parts
        return replace(
            self,
            rate=self.rate / parts,
            capacity=self.size / parts,
            max_reserved=reserved,
            shards=1,
        )

    @property
    def in_advance(self) -> float:
        """How many tokens may be reserved that are yet to come."""
        come = TIME_MS_MAX / self.period_ms * self.rate
        allowed = TOKENS_MAX if self.max_reserved is None else self.max_reserved
        return min(come, allowed, TOKENS_MAX)

    @property
    def slack(self) -> float:
        """What may be missing for no other reason than that a third is no number of a computer."""
        return self.size * ROUNDING

    def kept(self, value: float, *, reserve: bool) -> float | None:
        """
        What is kept where `value` is left after a request; `None` if it is to be refused.

        That is `value`, unless some rounding stood between it and the least that is allowed.
        """
        for least in (0.0, -self.in_advance) if reserve else (0.0,):
            if value >= least - self.slack:
                return max(value, least)
        return None

    @abstractmethod
    def full(self, now_ms: float) -> Level:
        """What is there if nobody ever took any."""

    @abstractmethod
    def at(self, level: Level, now_ms: float) -> Level:
        """What `level` has become by now."""

    @abstractmethod
    def wait_ms(self, level: Level, value: float, now_ms: float) -> float:
        """How long it takes from now until `level`, which is one of now, is at `value` or above."""

    @property
    @abstractmethod
    def tick_ms(self) -> float:
        """The least time in which tokens come, as far as anybody can tell."""

    def to_wire(self) -> Config:
        wire: Config = {
            "kind": TOKEN_BUCKET,
            "rate": self.rate,
            "period": self.period_ms,
            "capacity": self.size,
            "shards": int(self.shards),
        }
        if self.max_reserved is not None and math.isfinite(self.max_reserved):
            wire["maxReserved"] = self.max_reserved
        return wire


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenBucket(RateLimitConfig):
    """
    Fills evenly, and lets bursts of up to `capacity` through; see `RateLimitConfig`.

    With `capacity=1` it is a cool-down: at most one per `period / rate`.
    """

    def full(self, now_ms: float) -> Level:
        return Level(self.size, now_ms)

    def at(self, level: Level, now_ms: float) -> Level:
        elapsed_ms = max(now_ms - level.ts_ms, 0)
        come = elapsed_ms * self.rate / self.period_ms
        return Level(min(level.value + come, self.size), max(now_ms, level.ts_ms))

    def wait_ms(self, level: Level, value: float, now_ms: float) -> float:
        until_ms = level.ts_ms + math.ceil((value - level.value) * self.period_ms / self.rate)
        return until_ms - now_ms

    @property
    def tick_ms(self) -> float:
        return 1


@dataclass(frozen=True, slots=True, kw_only=True)
class FixedWindow(RateLimitConfig):
    """
    `rate` tokens come at once at the beginning of each period; see `RateLimitConfig`.

    Args:
        start: when some window begins, and so all of them: an aware `datetime` or milliseconds
            since 1970, in the past or the future. Unless said each key has windows of its own, so
            that not everybody comes back at the same moment.
    """

    start: float | datetime | None = None

    def __post_init__(self) -> None:
        RateLimitConfig.__post_init__(self)
        if isinstance(self.start, datetime) and self.start.tzinfo is None:
            raise ValueError(f"{self}: start has no time zone; write tzinfo=UTC, or milliseconds")
        if not abs(self.start_ms) <= CLOCK_MS_MAX:
            raise ValueError(f"{self}: start is a time")

    @property
    def start_ms(self) -> float:
        return (
            self.start.timestamp() * 1000 if isinstance(self.start, datetime) else self.start or 0
        )

    def full(self, now_ms: float) -> Level:
        windows = (now_ms - self.start_ms) // self.period_ms
        return Level(self.size, self.start_ms + windows * self.period_ms)

    def at(self, level: Level, now_ms: float) -> Level:
        windows = max((now_ms - level.ts_ms) // self.period_ms, 0)
        come = self.rate * windows
        return Level(min(level.value + come, self.size), level.ts_ms + windows * self.period_ms)

    def wait_ms(self, level: Level, value: float, now_ms: float) -> float:
        windows = math.ceil((value - level.value) / self.rate)
        return level.ts_ms + windows * self.period_ms - now_ms

    @property
    def tick_ms(self) -> float:
        return self.period_ms

    def to_wire(self) -> Config:
        wire: Config = {**RateLimitConfig.to_wire(self), "kind": FIXED_WINDOW}
        if self.start is not None:
            wire["start"] = self.start_ms
        return wire


def for_key(config: RateLimitConfig, name: str, key: str | None) -> RateLimitConfig:
    """A limit as it is for one of its keys, whose windows begin at times of their own."""
    if not isinstance(config, FixedWindow) or config.start is not None:
        return config
    owner = f"{len(name)} {name} {'' if key is None else f'of {key}'}"
    dice = int.from_bytes(blake2b(owner.encode(), digest_size=6).digest(), "big")
    return replace(config, start=math.floor(dice / 2**48 * config.period_ms))


def config_of(wire: Config) -> RateLimitConfig:
    """
    The limit that `wire` is.

    Raises:
        ValueError: a number that makes no sense.
    """
    if wire["kind"] == FIXED_WINDOW:
        return FixedWindow(
            rate=wire["rate"],
            period=wire["period"],
            capacity=wire["capacity"],
            max_reserved=wire.get("maxReserved"),
            shards=wire["shards"],
            start=wire.get("start"),
        )
    return TokenBucket(
        rate=wire["rate"],
        period=wire["period"],
        capacity=wire["capacity"],
        max_reserved=wire.get("maxReserved"),
        shards=wire["shards"],
    )


def _ms(duration: float | timedelta) -> float:
    return duration / timedelta(milliseconds=1) if isinstance(duration, timedelta) else duration
