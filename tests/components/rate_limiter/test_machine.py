"""Limits in any history, against a fraction for each key, by the engine's clock."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any, ClassVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from components.rate_limiter import HOUR, MINUTE, SECOND, calculate_rate_limit
from engine import ConvexError
from engine.rehearsal.harness import BlockingHarness, open_place
from tests.components.rate_limiter.limited import (
    APPLICATION,
    CONFIGS,
    ask,
    ask_and_fail,
    clock,
    inside,
    limits,
    reset,
    value,
)

KEYS = st.sampled_from([None, "", "a"])
COUNTS = st.sampled_from([Fraction(number, 4) for number in (0, 1, 4, 6, 8, 10, 12, 18, 20)]) | (
    st.integers(0, 2560).map(lambda number: Fraction(number, 512))
)
"""In quarters, and in quarters of the milliseconds that the bucket takes for them."""
PAUSES_MS = st.sampled_from([1, 7, 32, 100, 256, SECOND, 30 * MINUTE, 61 * MINUTE])


class Limit(RuleBasedStateMachine):
    """What one of the limits says and keeps; its model has no rows, no shards and no floats."""

    name: ClassVar[str]

    def __init__(self) -> None:
        super().__init__()
        config = CONFIGS[self.name]
        self.rate, self.period_ms = Fraction(config.rate), Fraction(config.period_ms)
        self.size, self.reserved = Fraction(config.size), Fraction(config.max_reserved or 0)
        self.parts = config.shards
        self.model: dict[str | None, tuple[Fraction, float]] = {}
        self.open = open_place(APPLICATION)
        self.t = BlockingHarness(self.open.__enter__())

    def teardown(self) -> None:
        self.open.__exit__(None, None, None)

    def come(self, since_ms: float, at_ms: float) -> Fraction:
        """How many tokens have come."""
        return Fraction(at_ms - since_ms) * self.rate / self.period_ms

    def until_ms(self, at_ms: float, missing: Fraction) -> float:  # noqa: ARG002 - windows ask
        """How long it takes until those that are missing have come."""
        return math.ceil(missing * self.period_ms / self.rate)

    def held(self, key: str | None, at_ms: float) -> Fraction:
        found, since_ms = self.model.get(key, (self.size, at_ms))
        return min(found + self.come(since_ms, at_ms), self.size)

    # What happens.

    @rule(pause_ms=PAUSES_MS)
    def time_passes(self, pause_ms: float) -> None:
        self.t.advance(pause_ms)
        for key in self.model:
            self.look(key)

    @rule(key=KEYS, count=COUNTS, reserve=st.booleans())
    def ask(self, key: str | None, count: Fraction, reserve: bool) -> None:
        before = self.rows()
        options = {"key": key, "count": float(count), "reserve": reserve}
        found = self.t.mutation(ask, self.name, options)

        assert found["checked"] == found["taken"]
        if not found["taken"]["ok"]:
            assert before == self.rows()
        self.answer_is_right(key, count, reserve, found["taken"], found["now"])
        if found["taken"]["ok"]:
            self.model[key] = (self.held(key, found["now"]) - count, found["now"])
            self.look(key)

    @rule(key=KEYS, counts=st.lists(COUNTS, max_size=3))
    def ask_in_vain(self, key: str | None, counts: list[Fraction]) -> None:
        before = self.rows()
        asked = [{"key": key, "count": float(count)} for count in counts]
        with pytest.raises(ConvexError):
            self.t.mutation(ask_and_fail, self.name, asked)
        assert before == self.rows()

    @rule(key=KEYS)
    def forget(self, key: str | None) -> None:
        self.t.mutation(reset, self.name, key)
        self.model.pop(key, None)

    # What holds.

    def look(self, key: str | None) -> None:
        kept = self.t.query(value, self.name, {"key": key, "sample_shards": self.parts})
        at_ms = self.t.mutation(clock)
        assert self.fullest(key, at_ms) == calculate_rate_limit(kept, now_ms=at_ms)["value"]

    def answer_is_right(
        self, key: str | None, count: Fraction, reserve: bool, told: Any, at_ms: float
    ) -> None:
        left = self.held(key, at_ms) - count
        assert (left >= (-self.reserved if reserve else 0)) == told["ok"]
        assert told.get("retryAfter", 0) == (self.until_ms(at_ms, -left) if left < 0 else 0)

    def fullest(self, key: str | None, at_ms: float) -> Fraction:
        return self.held(key, at_ms)

    @invariant()
    def who_has_no_row_has_all_of_it(self) -> None:
        rows = [(row.get("key"), row["shard"]) for row in self.rows()]
        assert len(rows) == len(set(rows))
        keys, at_ms = {key for key, _ in rows}, self.t.mutation(clock)
        assert keys <= set(self.model)
        assert all(self.size == self.held(key, at_ms) for key in set(self.model) - keys)

    @property
    def now_ms(self) -> int:
        return self.t.now_ns // 1_000_000

    def rows(self) -> list[Any]:
        return inside.rows(self.t, "rateLimits")


class Bucket(Limit):
    name = "bucket"


class Window(Limit):
    """Its tokens come at the beginnings of its windows."""

    name = "window"

    @rule(key=KEYS)
    def a_window_begins(self, key: str | None) -> None:
        """Look a millisecond before that, and then."""
        self.ask(key, Fraction(2), True)
        self.t.advance(self.until_ms(self.now_ms, Fraction(1)) - 1)
        self.ask(key, self.size, False)
        self.t.advance(1)
        self.look(key)

    @rule(key=KEYS)
    def a_cron_comes_late_in_the_hour_before_it_is_full(self, key: str | None) -> None:
        missing = self.size - self.held(key, self.now_ms)
        full_ms = self.now_ms + self.until_ms(self.now_ms, missing)
        hour_ms = full_ms // HOUR * HOUR + SECOND
        if self.now_ms < hour_ms < full_ms:
            self.t.advance(hour_ms - self.now_ms)
            self.t.mutation(limits.forget)

    def come(self, since_ms: float, at_ms: float) -> Fraction:
        return self.rate * Fraction(at_ms // self.period_ms - since_ms // self.period_ms)

    def until_ms(self, at_ms: float, missing: Fraction) -> float:
        windows = at_ms // self.period_ms + math.ceil(missing / self.rate)
        return float(windows * self.period_ms - Fraction(at_ms))


class Shards(Limit):
    """
    All shards together, which never give more than one limit would.

    They may give less: what comes to a shard that is full is lost, and nobody looks at all of them.
    Who reserves nothing may still be given what one shard has, while others are in debt.
    """

    name = "shards"

    def __init__(self) -> None:
        super().__init__()
        self.may_owe: set[str | None] = set()

    @rule(key=KEYS, reserve=st.booleans())
    def all_is_taken(self, key: str | None, reserve: bool) -> None:
        for _ in range(6):
            self.ask(key, Fraction(8), reserve)

    def answer_is_right(
        self, key: str | None, count: Fraction, reserve: bool, told: Any, at_ms: float
    ) -> None:
        in_advance = self.reserved if reserve else Fraction(0)
        if told["ok"]:
            self.may_owe |= {key} if reserve else set()
            owed = self.reserved if key in self.may_owe else Fraction(0)
            assert self.held(key, at_ms) >= count - owed
        else:
            assert min(self.levels(key, at_ms)) < count - in_advance / self.parts

    def fullest(self, key: str | None, at_ms: float) -> Fraction:
        return max(self.levels(key, at_ms))

    def levels(self, key: str | None, at_ms: float) -> list[Fraction]:
        """What each shard holds by now, of what its row says."""
        full, parts = self.size / self.parts, dict.fromkeys(range(self.parts), self.size)
        for row in self.rows():
            if row.get("key") == key:
                come = self.come(row["ts"], at_ms) / self.parts
                parts[int(row["shard"])] = Fraction(row["value"]) + come
        return [min(part, full) for part in parts.values()]

    @invariant()
    def they_hold_no_more_than_one_limit_would(self) -> None:
        at_ms = self.t.mutation(clock)
        for key in self.model:
            assert sum(self.levels(key, at_ms)) <= self.held(key, at_ms)


for machine in (Bucket, Window, Shards):
    machine.TestCase.settings = settings(max_examples=10, stateful_step_count=25, deadline=None)
TestBucket = Bucket.TestCase
TestWindow = Window.TestCase
TestShards = Shards.TestCase
