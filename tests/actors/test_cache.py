"""A query is answered from the cache exactly when running it would give the same."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import pytest
import trio
import trio.testing

from engine.functions.cache import ENTRY_BYTES, CacheKey, QueryCache
from engine.log.recent import Recent
from engine.model.reads import ReadSet
from engine.subscriptions.handle import Subscriptions
from engine.subscriptions.token import POINT_BYTES, Live
from tests.unit.subscriptions.touch import Touch, reads_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    ts: int
    live: Live
    journal: str | None = None
    observed_identity: bool = False
    observed_time: bool = False
    size_bytes: int = 100
    failure: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """What running a query does, besides reading `row`."""

    row: bytes = b"row"
    takes_s: float = 0
    personal: bool = False
    tells_time: bool = False
    journal: str | None = None
    size_bytes: int = 100
    failure: str | None = None
    error: Exception | None = None

    def reads(self) -> ReadSet:
        return reads_of(points=[self.row])


QUICK = Query()
WEIGHT = ENTRY_BYTES + POINT_BYTES + QUICK.size_bytes + 2
"""What an answer to a question with two bytes of arguments weighs."""
SLOW = Query(takes_s=5)


@dataclass(eq=False)
class House:
    """A cache over real subscriptions; `ran` names whoever ran a query himself."""

    bytes_max: int = 1 << 20
    ran: list[str | None] = field(default_factory=list)
    ts: int = 1

    def __post_init__(self) -> None:
        self.recent: Recent[Touch] = Recent(0, count_max=100)
        self.subscribed = Subscriptions(self.recent, processed_ts=self.ts)
        self.cache: QueryCache[Answer] = QueryCache(
            self.bytes_max, self.subscribed, monotonic=trio.current_time, time_age_s_max=17
        )

    async def ask(
        self,
        who: str | None = None,
        query: Query = QUICK,
        *,
        ts: int | None = None,
        args: bytes = b"{}",
        path: str = "messages:list",
        journal: str | None = None,
    ) -> Answer:
        """Ask as `who`; the caller has a hold of the answer."""
        at = self.ts if ts is None else ts
        key = CacheKey(component="", path=path, args_bytes=args, journal=journal)
        return await self.cache.fetch(key, who, at, self.runner(who, query, at))

    async def look(self, who: str | None = None, query: Query = QUICK) -> int:
        """Ask, let go of the answer, and return its `ts`."""
        answer = await self.ask(who, query)
        answer.live.release()
        return answer.ts

    def runner(self, who: str | None, query: Query, ts: int) -> Callable[[], Awaitable[Answer]]:
        async def run() -> Answer:
            self.ran.append(who)
            await trio.sleep(query.takes_s)
            if query.error is not None:
                raise query.error
            return Answer(
                ts=ts,
                live=self.subscribed.subscribe(query.reads(), ts),
                journal=query.journal,
                observed_identity=query.personal,
                observed_time=query.tells_time,
                size_bytes=query.size_bytes,
                failure=query.failure,
            )

        return run

    def commit(self, row: bytes, *, process: bool = True) -> None:
        """Publish a write to `row`, and let subscriptions see it unless they lag behind."""
        self.ts += 1
        self.recent.append(Touch(ts=self.ts, rows=frozenset({row})))
        if process:
            self.process()

    def process(self, *, tidy: bool = True) -> None:
        seen = self.subscribed.processed.value
        self.subscribed.advance(self.recent.between(seen, self.ts), self.ts)
        if tidy:
            assert not self.subscribed.tidy()


@pytest.fixture
def house() -> House:
    return House()


async def test_the_same_question_is_run_once(house: House) -> None:
    first = await house.ask("ada")
    second = await house.ask("ada")

    assert second is first
    assert house.ran == ["ada"]


async def test_other_arguments_paths_and_journals_are_other_questions(house: House) -> None:
    await house.ask()
    await house.ask(args=b"{1}")
    await house.ask(path="messages:count")
    await house.ask(journal="page 2", query=Query(journal="page 2"))

    assert len(house.ran) == 4


async def test_a_commit_elsewhere_leaves_it_and_one_that_touches_it_does_not(house: House) -> None:
    answered = [await house.look()]
    house.commit(b"elsewhere")
    answered.append(await house.look())
    house.commit(b"row")
    answered.append(await house.look())

    assert answered == [1, 1, 3]
    assert len(house.ran) == 2


async def test_an_answer_that_was_touched_leaves_the_cache_though_nobody_asks(house: House) -> None:
    await house.look()
    before = house.cache.statistics()
    house.commit(b"row")
    after = house.cache.statistics()

    assert (before.entries, after.entries, after.size_bytes) == (1, 0, 0)


async def test_an_answer_that_was_touched_while_it_was_found_is_not_kept(
    house: House, autojump_clock: trio.testing.MockClock
) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(house.ask, None, SLOW)
        await trio.testing.wait_all_tasks_blocked()
        house.commit(b"row")

    assert house.cache.statistics().entries == 0


async def test_a_question_about_the_past_is_not_answered_with_the_present(house: House) -> None:
    house.commit(b"row")
    new = await house.ask(ts=2)
    old = await house.ask(ts=1)

    assert (new.ts, old.ts) == (2, 1)


async def test_what_was_found_earlier_does_not_replace_what_was_found_later(house: House) -> None:
    house.commit(b"elsewhere")
    later = await house.ask(ts=2)
    earlier = await house.ask(ts=1)

    assert (later.ts, earlier.ts) == (2, 1)
    assert await house.ask(ts=2) is later


async def test_what_is_kept_is_not_served_before_it_is_known_to_hold(house: House) -> None:
    await house.ask("ada")
    house.commit(b"row", process=False)
    answers: list[Answer] = []

    async def ask() -> None:
        answers.append(await house.ask("bob"))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        await trio.testing.wait_all_tasks_blocked()
        assert answers == []
        house.process()

    assert [answer.ts for answer in answers] == [2]
    assert house.ran == ["ada", "bob"]


async def test_what_does_not_depend_on_who_asks_is_everybodys(house: House) -> None:
    answers = {id(await house.ask(who)) for who in ("ada", "bob", None)}

    assert len(answers) == 1
    assert house.ran == ["ada"]


async def test_what_depends_on_who_asks_is_his_alone(house: House) -> None:
    personal = Query(personal=True)
    for who in ("ada", "bob", None, "ada", "bob", None):
        await house.ask(who, personal)

    assert house.ran == ["ada", "bob", None]


async def test_one_whose_answer_depends_on_him_has_his_own_beside_everybodys(house: House) -> None:
    await house.ask("ada", Query(personal=True))
    everybodys = await house.ask("bob", Query(personal=False))
    adas = await house.ask("ada")
    carls = await house.ask("carl")

    assert house.ran == ["ada", "bob"]
    assert adas.observed_identity
    assert carls is everybodys


async def test_an_answer_that_saw_the_clock_ages_and_another_does_not(
    house: House, autojump_clock: trio.testing.MockClock
) -> None:
    clock = Query(tells_time=True)
    for after_s in (0, 17, 0.5, 17):
        await trio.sleep(after_s)
        await house.ask("clock", clock, path="clock")
        await house.ask("plain", QUICK, path="plain")

    assert house.ran == ["clock", "plain", "clock"]


async def test_its_age_begins_when_the_run_began(
    house: House, autojump_clock: trio.testing.MockClock
) -> None:
    clock = Query(tells_time=True, takes_s=10)
    await house.ask("first", clock)
    await trio.sleep(7)
    await house.ask("second", clock)
    await trio.sleep(0.5)
    await house.ask("third", clock)

    assert house.ran == ["first", "third"]


async def test_an_answer_that_was_touched_is_given_to_nobody_before_it_is_freed(
    house: House,
) -> None:
    old = await house.ask("ada")
    house.commit(b"row", process=False)
    house.process(tidy=False)

    new = [await house.ask("ada"), await house.ask("bob")]
    kept = house.cache.statistics().entries
    past = await house.ask("ada", ts=old.ts)
    house.process()

    assert [answer.ts for answer in (old, *new, past)] == [1, 2, 2, 1]
    assert (house.ran, kept, house.cache.statistics().entries) == (["ada"] * 3, 1, 1)


async def test_a_failure_is_never_kept(house: House) -> None:
    failing = Query(failure="no such channel")
    answers = [await house.ask("ada", failing), await house.ask("ada", failing)]

    assert [answer.failure for answer in answers] == ["no such channel"] * 2
    assert house.ran == ["ada", "ada"]
    assert house.cache.statistics().entries == 0


async def test_a_page_is_found_again_by_the_journal_that_it_was_given(house: House) -> None:
    page = Query(journal="ends at m")
    first = await house.ask("ada", page)
    returning = await house.ask("bob", journal="ends at m")
    fresh = await house.ask("carl")

    assert first is returning is fresh
    assert house.cache.statistics().entries == 1
    house.commit(b"row")
    assert house.cache.statistics().entries == 0


async def test_what_was_not_used_for_longest_goes_first() -> None:
    house = House(bytes_max=3 * WEIGHT)
    for args in (b"#1", b"#2", b"#3", b"#1", b"#4", b"#3", b"#1", b"#2"):
        (await house.ask(args=args)).live.release()

    statistics = house.cache.statistics()

    assert (statistics.runs, statistics.hits, statistics.evictions) == (5, 3, 2)
    assert (statistics.entries, statistics.size_bytes) == (3, 3 * WEIGHT)


async def test_what_is_driven_out_lets_go_of_what_it_read() -> None:
    house = House(bytes_max=2 * WEIGHT)
    for number in range(10, 30):
        answer = await house.ask(query=Query(row=b"%d" % number), args=b"%d" % number)
        answer.live.release()

    assert house.cache.statistics().entries == 2
    assert house.subscribed.statistics().lives == 2


async def test_an_answer_too_large_to_keep_drives_nothing_out() -> None:
    house = House(bytes_max=10_000)
    await house.ask("small")
    huge = await house.ask("huge", Query(size_bytes=20_000), args=b"huge")
    huge.live.release()
    await house.ask("small")

    assert house.ran == ["small", "huge"]
    assert house.subscribed.statistics().lives == 1


async def test_clearing_lets_go_of_everything(house: House) -> None:
    for args in (b"1", b"2"):
        (await house.ask(args=args, query=Query(journal="j"))).live.release()

    house.cache.clear()

    statistics = house.cache.statistics()
    assert (statistics.entries, statistics.size_bytes) == (0, 0)
    assert house.subscribed.statistics().lives == 0
