"""A question asked while it is being answered waits for that answer, and never in vain for ever."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from tests.actors.test_cache import SLOW, Answer, House, Query


@pytest.fixture
def house() -> House:
    return House()


ANSWERED_S_MAX = 600
"""By then somebody who still waits will wait for ever."""


class Asking:
    """Somebody who asks, as a task that can be cancelled."""

    def __init__(self, house: House, who: str | None, query: Query, ts: int | None) -> None:
        self.scope = trio.CancelScope()
        self.answer: Answer | None = None
        self.error: Exception | None = None
        self.came_s = 0.0
        self._house, self._who, self._query, self._ts = house, who, query, ts

    async def run(self) -> None:
        with self.scope:
            try:
                self.answer = await self._house.ask(self._who, self._query, ts=self._ts)
            except OSError as error:
                self.error = error
        self.came_s = trio.current_time()


@asynccontextmanager
async def asking(
    house: House,
    whos: Sequence[str | None],
    query: Query = SLOW,
    *,
    then: Query | None = None,
    ts: int | None = None,
) -> AsyncIterator[list[Asking]]:
    """The first asks `query`, the others `then` while it runs; the block ends with all answered."""
    crowd = [
        Asking(house, who, query if number == 0 else then or query, ts)
        for number, who in enumerate(whos)
    ]
    with trio.fail_after(ANSWERED_S_MAX):
        async with trio.open_nursery() as nursery:
            for one in crowd:
                nursery.start_soon(one.run)
                await trio.testing.wait_all_tasks_blocked()
            yield crowd


async def test_whoever_asks_meanwhile_gets_the_same_answer(
    house: House, autojump_clock: MockClock
) -> None:
    async with asking(house, ["ada", "bob", None]) as crowd:
        pass

    assert house.ran == ["ada"]
    assert len({id(one.answer) for one in crowd}) == 1
    assert trio.current_time() == 5


async def test_each_of_them_has_a_hold_of_his_own(house: House, autojump_clock: MockClock) -> None:
    async with asking(house, ["ada", "bob", "carl"]) as crowd:
        pass
    house.cache.clear()

    holders = []
    for one in crowd:
        assert one.answer is not None
        holders.append(one.answer.live.holders)
        one.answer.live.release()

    assert holders == [3, 2, 1]
    assert house.subscribed.statistics().lives == 0


async def test_an_answer_about_somebody_else_is_not_taken(
    house: House, autojump_clock: MockClock
) -> None:
    personal = Query(takes_s=5, personal=True)
    async with asking(house, ["ada", "bob", "ada", "bob"], personal) as crowd:
        pass

    assert house.ran == ["ada", "bob"]
    assert crowd[0].answer is crowd[2].answer
    assert crowd[1].answer is crowd[3].answer
    assert [one.came_s for one in crowd] == [5, 10, 5, 10]


async def test_once_answers_depend_on_who_asks_nobody_waits_for_another(
    house: House, autojump_clock: MockClock
) -> None:
    personal = Query(takes_s=5, personal=True)
    async with asking(house, ["ada"], personal):
        pass
    house.commit(b"row")
    async with asking(house, ["ada", "bob", "carl", "bob"], personal) as crowd:
        pass

    assert [one.came_s for one in crowd] == [10, 10, 10, 10]
    assert house.ran == ["ada", "ada", "bob", "carl"]
    assert crowd[1].answer is crowd[3].answer


async def test_one_who_waited_for_another_in_vain_does_not_wait_for_a_third(
    house: House, autojump_clock: MockClock
) -> None:
    personal = Query(takes_s=5, personal=True)
    async with asking(house, ["ada"], personal):
        house.commit(b"elsewhere", process=False)
        async with asking(house, ["bob"], personal) as (bob,):
            await trio.sleep(6)
            (await house.ask(None, Query(personal=False), args=b"of everybody")).live.release()
            async with asking(house, ["carl"], personal) as (carl,):
                house.process()

    assert house.ran == ["ada", None, "carl", "bob"]
    assert bob.came_s == carl.came_s == 11


async def test_when_they_no_longer_depend_on_it_everybody_waits_again(
    house: House, autojump_clock: MockClock
) -> None:
    async with asking(house, ["ada"], Query(personal=True)):
        pass
    house.commit(b"row")
    async with asking(house, ["ada"], Query(personal=False)):
        pass
    house.commit(b"row")
    async with asking(house, ["ada", "bob", "carl"]):
        pass

    assert house.ran == ["ada"] * 3


async def test_whoever_waited_for_a_run_that_failed_runs_it_himself(
    house: House, autojump_clock: MockClock
) -> None:
    failing = Query(takes_s=5, failure="no such channel")
    async with asking(house, ["ada", "bob", "carl"], failing) as crowd:
        pass

    assert sorted(map(str, house.ran)) == ["ada", "bob", "carl"]
    assert [one.came_s for one in crowd] == [5, 10, 10]
    assert all(one.answer and one.answer.failure for one in crowd)


async def test_an_error_is_raised_where_it_ran_and_nowhere_else(
    house: House, autojump_clock: MockClock
) -> None:
    broken = Query(takes_s=5, error=OSError("disk on fire"))
    async with asking(house, ["ada", "bob"], broken, then=SLOW) as (ada, bob):
        pass

    assert str(ada.error) == "disk on fire"
    assert bob.answer is not None
    assert house.ran == ["ada", "bob"]


async def test_when_the_one_who_runs_it_is_cancelled_one_of_the_others_does(
    house: House, autojump_clock: MockClock
) -> None:
    async with asking(house, ["ada", "bob", "carl", "dora"]) as crowd:
        await trio.sleep(2)
        crowd[0].scope.cancel()

    assert crowd[0].answer is None
    assert [one.came_s for one in crowd] == [2, 7, 7, 7]
    assert len({id(one.answer) for one in crowd[1:]}) == 1
    assert len(house.ran) == 2


async def test_when_each_who_takes_over_is_cancelled_the_last_still_has_an_answer(
    house: House, autojump_clock: MockClock
) -> None:
    names = ["ada", "bob", "carl", "dora"]
    async with asking(house, names) as crowd:
        for _ in names[1:]:
            await trio.testing.wait_all_tasks_blocked()
            crowd[names.index(str(house.ran[-1]))].scope.cancel()
        await trio.testing.wait_all_tasks_blocked()

    answered = [one for one in crowd if one.answer is not None]
    assert len(answered) == 1
    assert sorted(map(str, house.ran)) == names


async def test_when_all_are_cancelled_nothing_is_left(
    house: House, autojump_clock: MockClock
) -> None:
    async with asking(house, ["ada", "bob", "carl"]) as crowd:
        for one in crowd:
            one.scope.cancel()

    statistics = house.cache.statistics()
    assert (statistics.in_flight, statistics.entries) == (0, 0)
    assert house.subscribed.statistics().lives == 0


async def test_one_who_stops_waiting_leaves_no_hold_behind(
    house: House, autojump_clock: MockClock
) -> None:
    async with asking(house, ["ada", "bob", "carl"]) as crowd:
        await trio.sleep(2)
        crowd[1].scope.cancel()
    house.cache.clear()

    for one in (crowd[0], crowd[2]):
        assert one.answer is not None
        one.answer.live.release()
    assert house.subscribed.statistics().lives == 0


async def test_an_answer_let_go_by_whoever_ran_it_is_still_there_for_those_who_wait(
    autojump_clock: MockClock,
) -> None:
    house = House(bytes_max=0)
    answers: list[Answer] = []

    async def run_and_let_go() -> None:
        (await house.ask("ada", SLOW)).live.release()

    async def wait() -> None:
        answers.append(await house.ask("bob", SLOW))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run_and_let_go)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(wait)

    assert house.ran == ["ada"]
    assert [answer.live.valid_at(1) for answer in answers] == [True]
    answers[0].live.release()
    assert house.subscribed.statistics().lives == 0


async def test_one_who_asks_later_does_not_take_what_a_commit_touched_meanwhile(
    house: House, autojump_clock: MockClock
) -> None:
    async with asking(house, ["ada"]) as (ada,):
        house.commit(b"row")
        async with asking(house, ["bob", "carl"]) as (bob, carl):
            pass

    assert [one.answer.ts for one in (ada, bob, carl) if one.answer] == [1, 2, 2]
    assert bob.answer is carl.answer
    assert len(house.ran) == 2


async def test_one_who_asks_later_takes_what_no_commit_touched(
    house: House, autojump_clock: MockClock
) -> None:
    async with asking(house, ["ada"]) as (ada,):
        house.commit(b"elsewhere")
        async with asking(house, ["bob"]) as (bob,):
            pass

    assert ada.answer is bob.answer
    assert house.ran == ["ada"]


async def test_one_who_asks_about_the_past_does_not_wait_for_the_present(
    house: House, autojump_clock: MockClock
) -> None:
    house.commit(b"row")
    async with asking(house, ["ada"]) as (ada,), asking(house, ["bob"], ts=1) as (bob,):
        pass

    assert [one.answer.ts for one in (ada, bob) if one.answer] == [2, 1]
    assert [ada.came_s, bob.came_s] == [5, 5]


async def test_an_answer_awaited_ahead_of_the_subscriptions_is_taken_when_they_are_there(
    house: House, autojump_clock: MockClock
) -> None:
    async with asking(house, ["ada"]):
        house.commit(b"elsewhere", process=False)
        async with asking(house, ["bob"]) as (bob,):
            await trio.sleep(60)
            assert bob.answer is None
            house.process()

    assert bob.answer is not None
    assert house.ran == ["ada"]
