"""What the client calls: functions that run within the component, next to its table."""

from __future__ import annotations

from typing import NotRequired, TypedDict

from components.rate_limiter.bucket import Level, TokenBucket, decide
from components.rate_limiter.schema import RateLimit
from engine import UNDEFINED, MutationCtx, mutation

SHARD = 0


class Config(TypedDict):
    """A `TokenBucket`, as it travels; `period` is in milliseconds."""

    rate: float
    period: float
    capacity: float
    maxReserved: NotRequired[float]


class Answer(TypedDict):
    """Whether the tokens were taken; `retryAfter`, in milliseconds, if there were not enough."""

    ok: bool
    retryAfter: NotRequired[float]


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
    bucket = TokenBucket(
        rate=config["rate"],
        period=config["period"],
        capacity=config["capacity"],
        max_reserved=config.get("maxReserved"),
    )
    bucket.check_count(name, count, reserve=reserve)
    row = await _row(ctx, name, key)
    level = None if row is None else Level(row["value"], row["ts"])
    decision = decide(bucket, level, ctx.now_ms, count, reserve=reserve)
    if decision.is_ok:
        await _keep(ctx, name, key, row, decision.after)
    if decision.retry_after_ms > 0:
        return {"ok": decision.is_ok, "retryAfter": decision.retry_after_ms}
    return {"ok": decision.is_ok}


async def _row(ctx: MutationCtx, name: str, key: str | None) -> RateLimit | None:
    wanted = UNDEFINED if key is None else key
    return (
        await ctx.db.query(RateLimit)
        .with_index(
            "by_name_key_shard",
            lambda r: r.eq("name", name).eq("key", wanted).eq("shard", SHARD),
        )
        .unique()
    )


async def _keep(
    ctx: MutationCtx, name: str, key: str | None, row: RateLimit | None, level: Level
) -> None:
    state = {"value": level.value, "ts": level.ts_ms}
    if row is not None:
        await ctx.db.patch(row["_id"], state)
        return
    owner = {"name": name} if key is None else {"name": name, "key": key}
    await ctx.db.insert(RateLimit, {**owner, "shard": SHARD, **state})
