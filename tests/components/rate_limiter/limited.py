"""An application with a limit of each kind, which a test asks while it moves the clock."""

from __future__ import annotations

from typing import Any, Final

from components.rate_limiter import (
    MINUTE,
    FixedWindow,
    RateLimitConfig,
    RateLimiter,
    RateLimitValue,
    TokenBucket,
    component,
)
from engine import App, ConvexError, MutationCtx, QueryCtx, mutation, query
from engine.functions.loader import load
from tests.components.inside import Inside

CONFIGS: Final[dict[str, RateLimitConfig]] = {
    "bucket": TokenBucket(rate=2, period=256, capacity=5, max_reserved=3),
    "window": FixedWindow(rate=2, period=90 * MINUTE, capacity=5, max_reserved=3, start=0),
    "shards": TokenBucket(rate=8, period=1024, capacity=20, max_reserved=12, shards=4),
}
"""Of numbers whose parts are exact as floats."""

app = App()
limits = app.use(component, name="limits")
limiter = RateLimiter(limits, **CONFIGS)


@mutation
async def ask(ctx: MutationCtx, name: str, options: dict[str, Any]) -> dict[str, Any]:
    """What `check` says, what `limit` says then by the same dice, and the time of both."""
    dice = ctx.random.getstate()
    checked = await limiter.check(ctx, name, **options)
    ctx.random.setstate(dice)
    taken = await limiter.limit(ctx, name, **options)
    return {"checked": checked, "taken": taken, "now": ctx.now_ms}


@mutation
async def ask_and_fail(ctx: MutationCtx, name: str, asked: list[dict[str, Any]]) -> None:
    for options in asked:
        await limiter.limit(ctx, name, **options)
    raise ConvexError("no")


@mutation
async def reset(ctx: MutationCtx, name: str, key: str | None) -> None:
    await limiter.reset(ctx, name, key=key)


@query
async def value(ctx: QueryCtx, name: str, options: dict[str, Any]) -> RateLimitValue:
    return await limiter.get_value(ctx, name, **options)


@mutation
async def clock(ctx: MutationCtx) -> float:
    return ctx.now_ms


inside = Inside(load([app, ask, ask_and_fail, reset, value, clock]), limits)
APPLICATION = inside.application
