"""An application that shows its limits to clients."""

from __future__ import annotations

from components.rate_limiter import DAY, FixedWindow, RateLimiter, component
from engine import App, MutationCtx, QueryCtx, mutation

app = App()
limits = app.use(component, name="limits")
limiter = RateLimiter(limits, daily=FixedWindow(rate=3, period=DAY, start=0))


async def user(ctx: QueryCtx, key: str | None) -> str:
    return f"user {key}"


get_rate_limit, get_server_time = limiter.hook_api("daily", key=user)
get_everybodys = limiter.hook_api("daily").get_rate_limit
get_adas = limiter.hook_api("daily", key="user ada").get_rate_limit


@mutation
async def take(ctx: MutationCtx, key: str) -> None:
    await limiter.limit(ctx, "daily", key=key)
