"""What applications use: named limits on a mounted rate limiter."""

from __future__ import annotations

from typing import NotRequired, TypedDict

from components.rate_limiter.bucket import TokenBucket
from engine import ActionCtx, ConvexError, Mount, MutationCtx, Value


class Limit(TypedDict):
    """
    What became of a request; `retryAfter` is in milliseconds.

    With `ok` it is there only for a reservation: the tokens are taken, and what they are for
    is to be done after that time.
    """

    ok: bool
    retryAfter: NotRequired[float]


class RateLimiter:
    """
    Args:
        mount: a rate limiter that the application uses.
        limits: by name.
    """

    def __init__(self, mount: Mount, /, **limits: TokenBucket) -> None:
        self._mount = mount
        self._limits = limits

    async def limit(
        self,
        ctx: MutationCtx | ActionCtx,
        name: str,
        /,
        *,
        key: str | None = None,
        count: float = 1,
        reserve: bool = False,
        throws: bool = False,
    ) -> Limit:
        """
        Take tokens from the limit `name`; if there are not enough, nothing is written.

        In a mutation this is a part of its transaction, in an action a transaction of its own.

        Args:
            key: whose tokens, such as a user's; each key has its own. Without, everybody's.
            count: how many.
            reserve: take them also if they are yet to come; see `Limit`.
            throws: raise instead of returning `ok: False`.

        Raises:
            ConvexError: with `throws`; its data is `{"kind": "RateLimited", "name": name,
                "retryAfter": milliseconds}`.
            ValueError: there is no such limit, or it could never give that many.
            TypeError: `ctx` is a query's, which cannot write.
        """
        bucket = self._bucket(name)
        bucket.check_count(name, count, reserve=reserve)
        if not isinstance(ctx, MutationCtx | ActionCtx):
            raise TypeError("limit() takes the ctx of a mutation or an `async def` action")
        args: dict[str, Value] = {
            "name": name,
            "config": _config(bucket),
            "count": count,
            "reserve": reserve,
            "key": key,
        }
        found: Limit = await ctx.run_mutation(self._mount.limit, args)
        if throws and not found["ok"]:
            data = {"kind": "RateLimited", "name": name, "retryAfter": found.get("retryAfter")}
            raise ConvexError(data)
        return found

    def _bucket(self, name: str) -> TokenBucket:
        bucket = self._limits.get(name)
        if bucket is None:
            known = ", ".join(sorted(self._limits)) or "none"
            raise ValueError(f"the rate limit {name!r} is not defined; there are: {known}")
        return bucket


def _config(bucket: TokenBucket) -> dict[str, Value]:
    config: dict[str, Value] = {
        "rate": bucket.rate,
        "period": bucket.period_ms,
        "capacity": bucket.size,
    }
    if bucket.max_reserved is not None:
        config["maxReserved"] = bucket.max_reserved
    return config
