"""What functions log reaches the handlers of the host when what it speaks of has happened."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
import trio
import trio.testing

from engine.app.contexts import ActionCtx, MutationCtx, QueryCtx
from engine.app.decorators import action, mutation, query
from engine.errors import StoreFull
from engine.functions.targets import call_target
from engine.node import Node
from engine.store.memory_store import MemoryStore
from tests.node.nodes import ADMIN, ask, mutate, serving

log = logging.getLogger("shop.orders")


@mutation
async def order(ctx: MutationCtx, item: str) -> None:
    log.info("ordered %s", item)
    await ctx.db.insert("orders", {"item": item})
    if item == "nothing":
        raise ValueError(item)


@query
async def count(ctx: QueryCtx) -> int:
    log.debug("counted")
    return await ctx.db.count("orders")


@action
async def ship(ctx: ActionCtx) -> None:
    log.warning("shipping")
    await trio.sleep(1)


APP = [order, count, ship]


@pytest.fixture
def handled() -> Iterator[list[str]]:
    """What a handler of the host gets."""
    lines: list[str] = []

    class Collecting(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            assert logging.getLevelName(record.levelno) == record.levelname
            lines.append(f"{record.levelname} {record.getMessage()}")

    handler, level = Collecting(), log.level
    log.addHandler(handler)
    log.setLevel(logging.DEBUG)
    yield lines
    log.setLevel(level)
    log.removeHandler(handler)


async def act(node: Node) -> None:
    _, path, args = call_target(ship, (), {}, "")
    await node.functions.action(path, args, caller=ADMIN)


async def test_a_record_of_a_mutation_waits_until_what_it_wrote_is_durable(
    autojump_clock: trio.testing.MockClock, handled: list[str]
) -> None:
    store = MemoryStore()
    async with serving(APP, store=store) as node, trio.open_nursery() as nursery:
        hold = store.hold()
        nursery.start_soon(mutate, node, order, "tea")
        await hold.wait_reached()
        before = list(handled)
        hold.release()

    assert [] == before
    assert ["INFO ordered tea"] == handled


async def test_a_run_that_is_thrown_away_has_said_nothing(
    autojump_clock: trio.testing.MockClock, handled: list[str]
) -> None:
    store = MemoryStore()
    async with serving(APP, store=store) as node:
        store.fail_next(StoreFull("disk full"))
        await mutate(node, order, "tea")

    assert ["INFO ordered tea"] == handled


async def test_a_mutation_that_fails_tells_what_it_had_to_say(
    autojump_clock: trio.testing.MockClock, handled: list[str]
) -> None:
    async with serving(APP) as node:
        failed = await node.functions.mutation(
            call_target(order, (), {}, "")[1], {"item": "nothing"}, caller=ADMIN
        )

    assert failed.failure is not None
    assert ["INFO ordered nothing"] == handled


async def test_records_of_a_query_come_with_its_answer_and_only_when_it_runs(
    autojump_clock: trio.testing.MockClock, handled: list[str]
) -> None:
    async with serving(APP) as node:
        await ask(node, count)
        await ask(node, count)

    assert ["DEBUG counted"] == handled


async def test_records_of_an_action_go_on_at_once(
    autojump_clock: trio.testing.MockClock, handled: list[str]
) -> None:
    async with serving(APP) as node, trio.open_nursery() as nursery:
        nursery.start_soon(act, node)
        await trio.testing.wait_all_tasks_blocked(0.1)
        meanwhile = list(handled)

    assert ["WARNING shipping"] == meanwhile == handled


async def test_a_handler_that_fails_does_not_fail_what_is_done(
    autojump_clock: trio.testing.MockClock, handled: list[str]
) -> None:
    class Failing(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raise OSError(f"no room for {record}")

    failing = Failing()
    log.addHandler(failing)
    try:
        async with serving(APP) as node:
            await mutate(node, order, "tea")
            orders = await ask(node, count)
    finally:
        log.removeHandler(failing)

    assert 1 == orders
