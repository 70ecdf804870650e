"""A component and its client, as applications see one."""

from __future__ import annotations

from datetime import timedelta
from typing import NotRequired, TypedDict

from engine import Component, Mount, MutationCtx, Retry

component = Component("limiter")


class TokenBucket:
    """So many tokens a period, at most `capacity` of them at once."""

    def __init__(
        self, *, rate: float, period: float | timedelta, capacity: float | None = None
    ) -> None:
        self.rate = rate
        self.period = period
        self.capacity = capacity
        self.retry = Retry(initial_backoff=timedelta(seconds=1), base=2, max_attempts=3)


class Limit(TypedDict):
    ok: bool
    retryAfter: NotRequired[float]


class Limiter:
    """Takes the mount, so that it knows which of the component's places is meant."""

    def __init__(self, mount: Mount, /, **limits: TokenBucket) -> None:
        self._mount = mount
        self._limits = limits

    async def limit(self, ctx: MutationCtx, name: str, /, *, key: str | None = None) -> Limit:
        bucket = self._limits[name]
        args = {"name": name, "key": key, "rate": bucket.rate}
        found: Limit = await ctx.run_mutation(self._mount.limit, args)
        return found
