"""A crowd asks, gives up and commits at random, and every answer is what a fresh run would give."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import pytest
import trio
import trio.testing

from engine.functions.cache import CacheKey, QueryCache
from engine.kernel.actor import running
from engine.kernel.watermark import Watermark
from engine.log.recent import Recent
from engine.subscriptions.actor import SubscriptionsActor
from engine.subscriptions.handle import Subscriptions
from engine.subscriptions.token import Live
from tests.unit.subscriptions.touch import Touch, reads_of

ROWS = [b"row%d" % number for number in range(6)]
PEOPLE = ["ada", "bob", None]
PATHS = ["plain", "personal", "sometimes personal", "clock", "fails", "breaks"]
SECONDS = 60
AGE_S_MAX = 3.0
RUN_S_MAX = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    ts: int
    live: Live
    value: object
    found_s: float
    journal: None = None
    observed_identity: bool
    observed_time: bool
    failure: str | None
    size_bytes: int = 10


@dataclass(eq=False)
class Town:
    """Rows with all their versions, a cache over them, and people."""

    dice: random.Random
    versions: dict[bytes, list[int]] = field(default_factory=lambda: {row: [0] for row in ROWS})
    """What a row was, by timestamp."""
    answered: int = 0
    gave_up: int = 0

    def __post_init__(self) -> None:
        self.published = Watermark()
        self.recent: Recent[Touch] = Recent(0, count_max=50)
        self.subscribed = Subscriptions(self.recent)
        self.cache: QueryCache[Answer] = QueryCache(
            15_000, self.subscribed, monotonic=trio.current_time, time_age_s_max=AGE_S_MAX
        )

    def is_over(self) -> bool:
        return trio.current_time() >= SECONDS

    async def commit(self) -> None:
        while not self.is_over():
            await trio.sleep(self.dice.choice((0, 0.1, 1, 4)))
            row = self.dice.choice(ROWS)
            for name, versions in self.versions.items():
                versions.append(self.dice.randrange(60) if name == row else versions[-1])
            ts = self.published.value + 1
            self.recent.append(Touch(ts=ts, rows=frozenset({row})))
            self.published.advance(ts)

    async def ask_on(self) -> None:
        """Ask, and now and then about the past or with little patience."""
        while not self.is_over():
            await trio.sleep(self.dice.choice((0, 0.01, 0.2, 1)))
            path, row = self.dice.choice(PATHS), self.dice.choice(ROWS)
            who = self.dice.choice(PEOPLE)
            ts = max(self.published.value - self.dice.choice((0, 0, 0, 1, 5)), 0)
            with trio.move_on_after(self.dice.choice((0.1, 60, 60))) as scope:
                await self.ask(path, who, row, ts)
            self.gave_up += scope.cancelled_caught

    async def ask(self, path: str, who: str | None, row: bytes, ts: int) -> None:
        key = CacheKey(component="", path=path, args_bytes=row, journal=None)
        try:
            answer = await self.cache.fetch(key, who, ts, self.runner(path, who, row, ts))
        except OSError:
            assert self.breaks(path, row, ts)
            return
        try:
            assert self.value(path, who, row, ts) == answer.value
            assert self.fails(path, row, ts) == (answer.failure is not None)
            assert not self.breaks(path, row, ts)
            if path == "clock":
                assert trio.current_time() - answer.found_s <= AGE_S_MAX + RUN_S_MAX
            self.answered += 1
            await trio.sleep(self.dice.choice((0, 0.3)))
        finally:
            answer.live.release()

    def runner(
        self, path: str, who: str | None, row: bytes, ts: int
    ) -> Callable[[], Awaitable[Answer]]:
        async def run() -> Answer:
            found_s = trio.current_time()
            await trio.sleep(self.dice.choice((0, 0, 0.05, RUN_S_MAX)))
            if self.breaks(path, row, ts):
                raise OSError("disk on fire")
            return Answer(
                ts=ts,
                live=self.subscribed.subscribe(reads_of(points=[row]), ts),
                value=self.value(path, who, row, ts),
                found_s=found_s,
                observed_identity=self.is_personal(path, row, ts),
                observed_time=path == "clock",
                failure="no" if self.fails(path, row, ts) else None,
            )

        return run

    def value(self, path: str, who: str | None, row: bytes, ts: int) -> object:
        return (self.versions[row][ts], who if self.is_personal(path, row, ts) else "everybody")

    def is_personal(self, path: str, row: bytes, ts: int) -> bool:
        is_odd = self.versions[row][ts] % 2 == 1
        return path == "personal" or (path == "sometimes personal" and is_odd)

    def fails(self, path: str, row: bytes, ts: int) -> bool:
        return path == "fails" and self.versions[row][ts] % 3 == 0

    def breaks(self, path: str, row: bytes, ts: int) -> bool:
        return path == "breaks" and self.versions[row][ts] % 3 == 0


@pytest.mark.parametrize("seed", range(8))
async def test_every_answer_is_what_a_run_at_that_moment_would_give(
    seed: int, autojump_clock: trio.testing.MockClock
) -> None:
    town = Town(random.Random(seed))

    follower = SubscriptionsActor(town.published, town.recent, town.subscribed)
    async with running(follower, grace_s=5), trio.open_nursery() as nursery:
        nursery.start_soon(town.commit)
        for _ in range(20):
            nursery.start_soon(town.ask_on)

    served = town.cache.statistics()
    assert min(served.hits, served.shared, served.runs, served.evictions, town.gave_up) > 0
    assert served.hits + served.shared + served.runs >= town.answered > 0
    assert served.in_flight == 0
    assert town.subscribed.statistics().lives == served.entries
    town.cache.clear()
    assert (town.cache.statistics().size_bytes, town.subscribed.statistics().lives) == (0, 0)
