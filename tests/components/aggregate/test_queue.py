"""Operations that are queued: what waits, what is applied, and what cannot be."""

from __future__ import annotations

from typing import Any

import pytest

from components.aggregate import PendingOperations, QueueFull, TableAggregate, component
from components.aggregate.queue import DEBOUNCE_MS
from engine import (
    App,
    Document,
    Id,
    Int64,
    MutationCtx,
    QueryCtx,
    Schema,
    Table,
    mutation,
    query,
    trigger,
)
from engine.functions.loader import load
from engine.rehearsal.harness import BlockingHarness, open_place
from tests.components.aggregate.counted import APPLICATION, Numbers, names_of
from tests.components.lives import Lives


def put(numbers: Numbers, *keys: Any, **more: Any) -> None:
    for key in keys:
        numbers.tell("insert", key=key, id="a", queued=True, **more)


def applied(numbers: Numbers, **where: Any) -> list[Any]:
    return [item["key"] for item in numbers.items(stale=True, **where)]


def pending(numbers: Numbers) -> Any:
    return numbers.ask("pending")


def letters(numbers: Numbers) -> list[tuple[str, Any]]:
    found = numbers.ask("dead_letters")
    return [
        (one["kind"], (one["operation"].get("new") or one["operation"]["old"])["key"])
        for one in found
    ]


def test_a_key_that_is_too_long_is_a_dead_letter_and_others_go_on(numbers: Numbers) -> None:
    put(numbers, "k" * 100_000, 2)
    numbers.t.finish_all_scheduled_functions()

    assert [("ITEM_TOO_LARGE", "k" * 100_000)] == letters(numbers)
    assert [2] == applied(numbers)


# What waits.


def test_a_queued_write_is_applied_soon_and_until_then_only_stale_reads_are_answered(
    numbers: Numbers,
) -> None:
    put(numbers, 1, 2, sum_value=5)

    assert (0, 2) == (numbers.ask("count", stale=True), pending(numbers)["queued"])
    for ask in (["count"], ["sum"], ["at", 0], ["index_of", 1], ["random"], ["max"]):
        with pytest.raises(PendingOperations, match="2 operations are queued"):
            numbers.ask(*ask)
    for error in (
        numbers.survive("insert", key=3, id="a"),
        numbers.survive("delete_if_exists", key=3, id="a"),
        numbers.survive("clear"),
        numbers.survive("clear_all"),
    ):
        assert "PendingOperations" == error
    numbers.t.finish_all_scheduled_functions()

    assert (2, 10) == (numbers.ask("count"), numbers.ask("sum"))
    assert {"queued": 0, "oldestAt": None, "applied": 2, "refused": 0, "deadLetters": 0} == pending(
        numbers
    )


def test_it_is_told_since_when_the_oldest_waits(numbers: Numbers) -> None:
    began = numbers.t.now_ns // 1_000_000
    put(numbers, 1)
    numbers.t.advance(5)
    put(numbers, 2)

    assert began <= pending(numbers)["oldestAt"] <= began + 1


def test_a_loop_that_has_applied_everything_has_no_job_to_come() -> None:
    with Lives(APPLICATION) as lives:
        put(Numbers(lives.place), 1, 2, 3)
        lives.t.finish_all_scheduled_functions()

        assert [] == lives.jobs()


def test_a_write_that_fails_leaves_nothing_in_the_queue(
    numbers: Numbers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(names_of("queue:add"), "QUEUED_MAX", 2)

    with pytest.raises(ValueError, match="finite number"):
        numbers.tell("insert", key=1, id="a", sum_value=float("inf"), queued=True)
    with pytest.raises(QueueFull, match="2 operations are queued"):
        numbers.tell("insert_batch", [{"key": n, "id": "a"} for n in range(3)], queued=True)

    assert 0 == pending(numbers)["queued"]


# What is applied.


def test_operations_are_applied_in_order_and_each_as_it_would_be_by_itself(
    numbers: Numbers,
) -> None:
    put(numbers, 1, 2)
    numbers.tell("delete", key=1, id="a", queued=True)
    numbers.tell("replace", {"key": 2, "id": "a"}, {"key": 9}, queued=True)
    numbers.tell("insert_if_does_not_exist", key=9, id="a", sum_value=4, queued=True)
    numbers.tell("delete_if_exists", key=7, id="a", queued=True)
    numbers.tell("replace_or_insert", {"key": 6, "id": "a"}, {"key": 8}, queued=True)
    numbers.tell("insert", key=1, id="a", namespace=None, queued=True)
    numbers.t.finish_all_scheduled_functions()

    assert [8, 9] == applied(numbers)
    assert 4 == numbers.ask("sum")
    assert [1] == applied(numbers, namespace=None)
    assert [] == letters(numbers)


def test_what_many_queue_is_applied_in_batches(numbers: Numbers) -> None:
    entries = [{"key": n, "id": "a"} for n in range(200)]
    numbers.tell("insert_batch", entries, queued=True)
    numbers.t.advance(DEBOUNCE_MS)

    assert list(range(200)) == applied(numbers)  # in one go, as there was more
    numbers.verify()


def test_draining_applies_everything_now(numbers: Numbers) -> None:
    put(numbers, *range(100))

    assert 100 == numbers.act("drain")
    assert 100 == numbers.ask("count")
    put(numbers, 5, 500)
    assert 2 == numbers.tell("drain")
    assert ([("KEY_EXISTS", 5)], 101) == (letters(numbers), numbers.ask("count"))
    assert 0 == numbers.tell("drain")


@pytest.mark.parametrize("limit", [0, -1])
def test_draining_nothing_is_refused(numbers: Numbers, limit: int) -> None:
    put(numbers, 1)

    with pytest.raises(ValueError, match=f"limit is {limit}; it must be positive"):
        numbers.t.mutation(numbers.mount.queue.drain, {"limit": limit})

    assert 1 == pending(numbers)["queued"]


def test_a_batch_that_reads_much_is_cut_and_the_rest_comes_next(numbers: Numbers) -> None:
    numbers.tell("clear", max_node_size=4)
    for n in range(24):
        put(numbers, "x" * 250_000, namespace=n)

    taken = numbers.t.mutation(numbers.mount.queue.drain, {})

    assert 1 < taken < 24
    assert 24 == numbers.act("drain") + taken
    assert [1] * 24 == numbers.ask("count_batch", [{"namespace": n} for n in range(24)])


# What cannot be.


def test_what_is_refused_is_a_dead_letter_and_the_others_go_on(numbers: Numbers) -> None:
    put(numbers, 1, 1, 2)
    numbers.tell("delete", key=5, id="a", queued=True)
    put(numbers, 3)
    numbers.t.finish_all_scheduled_functions()

    assert [1, 2, 3] == applied(numbers)
    assert [("DELETE_MISSING_KEY", 5), ("KEY_EXISTS", 1)] == letters(numbers)
    assert (3, 2) == (pending(numbers)["applied"], pending(numbers)["refused"])


def test_a_replacement_that_is_refused_leaves_the_old_item(numbers: Numbers) -> None:
    put(numbers, 1, 2, sum_value=Int64(7))
    numbers.tell("replace", {"key": 1, "id": "a"}, {"key": 2}, queued=True)
    numbers.tell("replace", {"key": 1, "id": "a"}, {"key": 3, "sumValue": 1}, queued=True)
    numbers.t.finish_all_scheduled_functions()

    assert [2, 3] == applied(numbers)
    assert (8, [("KEY_EXISTS", 2)]) == (numbers.ask("sum"), letters(numbers))


def test_what_fails_with_its_batch_is_found_and_set_aside_alone(numbers: Numbers) -> None:
    """A sum of more than 64 bits is noticed only when a node above it is written."""
    numbers.tell("clear", max_node_size=4, root_lazy=False)
    for n in range(5):
        numbers.tell("insert", key=n, id="a")
    put(numbers, 10, 11)
    put(numbers, 3.1, 3.2, sum_value=Int64(2**62))
    put(numbers, 12, 13)
    numbers.t.finish_all_scheduled_functions()

    assert [0, 1, 2, 3, 3.1, 4, 10, 11, 12, 13] == applied(numbers)
    (letter,) = numbers.ask("dead_letters")
    assert "more than 64 bits" in letter["error"]
    numbers.verify()


def test_a_dead_letter_is_queued_again_or_forgotten(numbers: Numbers) -> None:
    put(numbers, 1, 1, 1)
    numbers.t.finish_all_scheduled_functions()
    again, gone = [one["id"] for one in numbers.ask("dead_letters")]

    numbers.tell("delete", key=1, id="a")
    assert numbers.tell("retry_dead_letter", again)
    assert numbers.tell("discard_dead_letter", gone)
    numbers.t.finish_all_scheduled_functions()

    assert ([1], []) == (applied(numbers), letters(numbers))
    assert not numbers.tell("retry_dead_letter", again)
    assert not numbers.tell("discard_dead_letter", "nobody")


def test_dead_letters_are_kept_up_to_a_number(
    numbers: Numbers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(names_of("queue:add"), "LETTERS_KEPT", 3)
    for key in range(5):
        numbers.tell("delete", key=key, id="a", queued=True)
    numbers.t.finish_all_scheduled_functions()

    assert [4, 3, 2] == [key for _, key in letters(numbers)]
    assert (5, 3) == (pending(numbers)["refused"], pending(numbers)["deadLetters"])


# Behind a table.


class Score(Document):
    points: float


schema = Schema(scores=Table(Score))
app = App()
board = TableAggregate[Score](app.use(component), sort_key=lambda doc: doc["points"])
behind = trigger(Score)(board.trigger(queued=True))


@mutation
async def play(ctx: MutationCtx, points: float) -> Id[Score]:
    return await ctx.db.insert(Score, {"points": points})


@mutation
async def improve(ctx: MutationCtx, score: Id[Score], points: float, fails: bool) -> None:
    await ctx.db.patch(score, {"points": points})
    assert not fails


@query
async def standing(ctx: QueryCtx) -> list[float]:
    """How many are counted, and how many are to be."""
    queue = await board.pending(ctx)
    return [await board.count(ctx, stale=True), queue["queued"]]


def test_a_trigger_queues_in_the_transaction_of_the_write_and_a_screen_follows() -> None:
    with open_place(load([app, schema, behind, play, improve, standing])) as place:
        t = BlockingHarness(place)
        with t.subscribe(standing) as shown:
            assert [0, 0] == next(shown)
            score = t.mutation(play, points=1)
            assert [0, 1] == next(shown)
            with pytest.raises(AssertionError):
                t.mutation(improve, score=score, points=5, fails=True)
            t.finish_all_scheduled_functions()
            assert [1, 0] == next(shown)
        t.mutation(improve, score=score, points=5, fails=False)
        t.finish_all_scheduled_functions()

        assert [1, 0] == t.query(standing)
