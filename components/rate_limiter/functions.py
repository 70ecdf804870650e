"""What the client calls: functions that run within the component, next to its table."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Final, NotRequired, TypedDict

from components.rate_limiter.config import HOUR, Config, Level, RateLimitConfig, config_of, for_key
from components.rate_limiter.decision import Decision, decide, full_ms, share
from components.rate_limiter.schema import RateLimit
from engine import (
    UNDEFINED,
    MutationCtx,
    Page,
    PaginationOptions,
    Query,
    QueryCtx,
    internal,
    internal_mutation,
    internal_query,
    mutation,
    query,
)

CLEARED_AT_ONCE: Final = 100
FORGOTTEN_AT_ONCE: Final = 200
"""Rows that one transaction deletes, so that others do not wait for long."""


class Answer(TypedDict):
    """Whether the tokens are there; `retryAfter`, in milliseconds, if some are yet to come."""

    ok: bool
    retryAfter: NotRequired[float]


class RateLimitValue(TypedDict):
    """
    What there was of one of `shards` shards at `ts`, and what `config` allows it: as data alone,
    from which `calculate_rate_limit` tells what is there at any time.
    """

    value: float
    ts: float
    shard: int
    shards: int
    config: Config


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A request, and the limit as it is for each shard of its key."""

    name: str
    key: str | None
    config: RateLimitConfig
    shards: int
    shards_read: int
    count: float
    reserve: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Granting:
    """What a request comes to at one shard, whose row is there or not."""

    shard: int
    row: RateLimit | None
    decision: Decision


@mutation
async def limit(
    ctx: MutationCtx,
    name: str,
    config: Config,
    count: float,
    reserve: bool,
    key: str | None = None,
) -> Answer:
    """Take tokens, if there are enough; otherwise write nothing."""
    asked = _asked(name, config, count, reserve, key)
    found = await _decide(ctx, asked)
    for each in found:
        if each.decision.is_ok:
            await _keep(ctx, asked, each)
    return _answer(found)


@query
async def check(
    ctx: QueryCtx,
    name: str,
    config: Config,
    count: float,
    reserve: bool,
    key: str | None = None,
) -> Answer:
    """What `limit` would answer, without taking any."""
    return _answer(await _decide(ctx, _asked(name, config, count, reserve, key)))


@mutation
async def reset(ctx: MutationCtx, name: str, key: str | None = None) -> None:
    """Make a key as if nobody had ever taken any of its tokens."""
    rows = ctx.db.query(RateLimit).with_index(
        "by_name_key_shard", lambda r: r.eq("name", name).eq("key", _stored(key))
    )
    async for row in rows:
        await ctx.db.delete(row["_id"])


@query
async def get_value(
    ctx: QueryCtx, name: str, config: Config, sample_shards: int = 1, key: str | None = None
) -> RateLimitValue:
    """
    The fullest of some shards.

    It reads no clock, so it changes only when what is stored does: they are compared as of the
    newest of them.
    """
    limits = config_of(config)
    of_shard = for_key(limits, name, key).of_one_shard()
    shards = min(max(sample_shards, 1), limits.shards)
    sampled = ctx.random.sample(range(limits.shards), shards) if limits.shards > 1 else [0]
    levels: dict[int, Level] = {}
    for shard in sampled:
        kept = _level(await _row(ctx, name, key, shard))
        levels[shard] = of_shard.full(0) if kept is None else kept
    newest_ms = max(level.ts_ms for level in levels.values())
    shard = max(levels, key=lambda each: of_shard.at(levels[each], newest_ms).value)
    value, ts_ms = levels[shard]
    return {
        "value": value,
        "ts": ts_ms,
        "shard": shard,
        "shards": limits.shards,
        "config": of_shard.to_wire(),
    }


@mutation
async def clear_all(
    ctx: MutationCtx,
    name: str | None = None,
    before: float | None = None,
    cursor: str | None = None,
) -> None:
    """
    Reset all keys of a limit, or all limits, in several transactions, of which this is the first.

    Args:
        before: only rows older than this, in milliseconds since 1970; the default is now, so
            that keys which are used meanwhile are not reset again.
        cursor: where to go on.
    """
    before = ctx.now_ms if before is None else before
    page = await _of_name(ctx, name).paginate({"numItems": CLEARED_AT_ONCE, "cursor": cursor})
    for row in page["page"]:
        if row["_creationTime"] < before:
            await ctx.db.delete(row["_id"])
    if not page["isDone"]:
        rest = {"name": name, "before": before, "cursor": page["continueCursor"]}
        await ctx.scheduler.run_after(0, internal.functions.clear_all, rest)


@internal_query
async def stored(ctx: QueryCtx, name: str | None, opts: PaginationOptions) -> Page[RateLimit]:
    """The rows of a limit or of all, for operators."""
    return await _of_name(ctx, name).paginate(opts)


@internal_mutation
async def forget(ctx: MutationCtx) -> None:
    """Delete rows of shards that are full again: without a row they are too."""
    idle = ctx.db.query(RateLimit).with_index("by_full", lambda r: r.lt("full_by", ctx.now_ms))
    rows = await idle.take(FORGOTTEN_AT_ONCE)
    for row in rows:
        await ctx.db.delete(row["_id"])
    if len(rows) == FORGOTTEN_AT_ONCE:
        await ctx.scheduler.run_after(0, internal.functions.forget, {})


def _of_name(ctx: QueryCtx, name: str | None) -> Query[RateLimit]:
    return ctx.db.query(RateLimit).with_index(
        "by_name_key_shard", lambda r: r if name is None else r.eq("name", name)
    )


def _asked(name: str, wire: Config, count: float, reserve: bool, key: str | None) -> Asked:
    config = config_of(wire)
    config.check_count(name, count, reserve=reserve)
    of_shard = for_key(config, name, key).of_one_shard()
    return Asked(
        name=name,
        key=key,
        config=of_shard,
        shards=config.shards,
        shards_read=config.shards_read,
        count=count,
        reserve=reserve,
    )


async def _decide(ctx: QueryCtx, asked: Asked) -> list[Granting]:
    """What becomes of a request; at more than one shard only if they share it."""
    shard = ctx.random.randrange(asked.shards) if asked.shards > 1 else 0
    first = await _at_shard(ctx, asked, shard)
    nothing_better = first.row is None and first.decision.is_ok
    if asked.shards_read == 1 or nothing_better:
        return [first]
    step = 1 + ctx.random.randrange(asked.shards - 1)
    second = await _at_shard(ctx, asked, (shard + step) % asked.shards)
    granted = [each for each in (first, second) if each.decision.is_ok]
    if granted:
        return [max(granted, key=lambda each: each.decision.after.value)]
    return _shared(asked, first, second, ctx.now_ms)


async def _at_shard(ctx: QueryCtx, asked: Asked, shard: int) -> Granting:
    row = await _row(ctx, asked.name, asked.key, shard)
    decision = decide(asked.config, _level(row), ctx.now_ms, asked.count, reserve=asked.reserve)
    return Granting(shard=shard, row=row, decision=decision)


def _shared(asked: Asked, first: Granting, second: Granting, now_ms: float) -> list[Granting]:
    levels = (_level(first.row), _level(second.row))
    decisions = share(asked.config, levels, now_ms, asked.count, reserve=asked.reserve)
    return [
        replace(each, decision=decision)
        for each, decision in zip((first, second), decisions, strict=True)
    ]


def _level(row: RateLimit | None) -> Level | None:
    return None if row is None else Level(row["value"], row["ts"])


def _answer(found: list[Granting]) -> Answer:
    decision = found[0].decision
    if decision.is_ok and decision.wait_ms == 0:
        return {"ok": True}
    wait_ms = max(each.decision.wait_ms for each in found)
    return {"ok": decision.is_ok, "retryAfter": wait_ms}


async def _row(ctx: QueryCtx, name: str, key: str | None, shard: int) -> RateLimit | None:
    return (
        await ctx.db.query(RateLimit)
        .with_index(
            "by_name_key_shard",
            lambda r: r.eq("name", name).eq("key", _stored(key)).eq("shard", shard),
        )
        .unique()
    )


def _stored(key: str | None) -> object:
    return UNDEFINED if key is None else key


async def _keep(ctx: MutationCtx, asked: Asked, granting: Granting) -> None:
    level = granting.decision.after
    full_from_ms = full_ms(asked.config, level, ctx.now_ms)
    state = {
        "value": level.value,
        "ts": level.ts_ms,
        # Rounded up, so that its index entry seldom moves.
        "full_by": math.ceil(full_from_ms / HOUR) * HOUR,
    }
    if granting.row is not None:
        await ctx.db.patch(granting.row["_id"], state)
        return
    owner = {"name": asked.name} if asked.key is None else {"name": asked.name, "key": asked.key}
    await ctx.db.insert(RateLimit, {**owner, "shard": granting.shard, **state})
