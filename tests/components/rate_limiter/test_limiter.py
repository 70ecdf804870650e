"""The rate limiter as applications use it: mounted, called from mutations and actions."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from components.rate_limiter import RateLimiter, TokenBucket, component
from engine import (
    ActionCtx,
    App,
    ConvexError,
    MutationCtx,
    QueryCtx,
    action,
    mutation,
    query,
)
from engine.errors import EngineError
from engine.functions.loader import load
from engine.rehearsal.harness import Harness, open_place

app = App()
limits = app.use(component, name="limits")
others = app.use(component, name="others")
limiter = RateLimiter(
    limits,
    send=TokenBucket(rate=10, period=timedelta(minutes=1), capacity=3),
    hourly=TokenBucket(rate=1, period=timedelta(hours=1)),
)
other = RateLimiter(others, send=TokenBucket(rate=1, period=1000))


@mutation
async def take(ctx: MutationCtx, options: dict[str, Any]) -> Any:
    return await limiter.limit(ctx, options.pop("name", "send"), **options)


@mutation
async def take_elsewhere(ctx: MutationCtx) -> Any:
    return await other.limit(ctx, "send")


@mutation
async def take_and_fail(ctx: MutationCtx) -> None:
    await limiter.limit(ctx, "send")
    raise ConvexError("no")


@action
async def take_in_an_action(ctx: ActionCtx) -> Any:
    return await limiter.limit(ctx, "send")


@query
async def take_in_a_query(ctx: QueryCtx) -> Any:
    return await limiter.limit(ctx, "send")  # type: ignore[arg-type]


APPLICATION = load([app, take, take_elsewhere, take_and_fail, take_in_an_action, take_in_a_query])


@pytest.fixture
def t() -> Iterator[Harness]:
    with open_place(APPLICATION) as place:
        yield Harness(place)


async def test_a_burst_is_let_through_and_no_more(t: Harness) -> None:
    for _ in range(3):
        assert {"ok": True} == await t.mutation(take, {})

    assert {"ok": False, "retryAfter": 6_000} == await t.mutation(take, {})


async def test_it_is_let_through_again_when_it_said(t: Harness) -> None:
    for _ in range(3):
        await t.mutation(take, {})
    await t.advance(5_999)
    assert not (await t.mutation(take, {}))["ok"]

    await t.advance(1)

    assert (await t.mutation(take, {}))["ok"]


async def test_keys_have_tokens_of_their_own(t: Harness) -> None:
    for key in ("a", "b", None):
        found = [(await t.mutation(take, {"key": key}))["ok"] for _ in range(4)]
        assert [True, True, True, False] == found


async def test_mounts_have_tables_of_their_own(t: Harness) -> None:
    assert (await t.mutation(take_elsewhere))["ok"]
    assert not (await t.mutation(take_elsewhere))["ok"]

    assert (await t.mutation(take, {}))["ok"]


async def test_throwing_tells_the_client_when_to_come_back(t: Harness) -> None:
    await t.mutation(take, {"count": 3})

    with pytest.raises(ConvexError) as raised:
        await t.mutation(take, {"throws": True})

    assert {"kind": "RateLimited", "name": "send", "retryAfter": 6_000} == raised.value.data


async def test_being_refused_writes_nothing(t: Harness) -> None:
    await t.mutation(take, {"count": 3})
    before = await t.commit(take, {})

    after = await t.commit(take, {})

    assert before == after


async def test_a_mutation_that_fails_gives_its_tokens_back(t: Harness) -> None:
    for _ in range(5):
        with pytest.raises(ConvexError):
            await t.mutation(take_and_fail)

    assert (await t.mutation(take, {"count": 3}))["ok"]


async def test_what_is_reserved_is_waited_for(t: Harness) -> None:
    await t.mutation(take, {"name": "hourly"})

    reserved = await t.mutation(take, {"name": "hourly", "count": 100, "reserve": True})
    refused = await t.mutation(take, {"name": "hourly"})

    assert {"ok": True, "retryAfter": 100 * 3_600_000} == reserved
    assert {"ok": False, "retryAfter": 101 * 3_600_000} == refused


async def test_an_action_takes_tokens_for_good(t: Harness) -> None:
    assert {"ok": True} == await t.action(take_in_an_action)

    assert not (await t.mutation(take, {"count": 3}))["ok"]


async def test_a_query_cannot_take_any(t: Harness) -> None:
    with pytest.raises(TypeError, match="the ctx of a mutation"):
        await t.query(take_in_a_query)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"count": 4}, "count 4 exceeds 3"),
        ({"name": "sent"}, "'sent' is not defined; there are: hourly, send"),
    ],
)
async def test_a_call_that_is_wrong_is_an_error(
    t: Harness, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        await t.mutation(take, options)


async def test_clients_cannot_call_it() -> None:
    assert APPLICATION.find("functions:limit") is None
    assert APPLICATION.find("functions:limit", "limits") is not None


async def test_its_documents_are_out_of_reach_of_the_application(t: Harness) -> None:
    await t.mutation(take, {})

    async def look(ctx: MutationCtx) -> int:
        return await ctx.db.count("rateLimits")

    assert 0 == await t.run(look)


async def test_a_wrong_argument_is_named(t: Harness) -> None:
    with pytest.raises(EngineError, match="count"):
        await t.mutation(limits.limit, {"name": "send"})
