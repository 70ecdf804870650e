"""What applications use: named limits on a mounted rate limiter."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from inspect import isawaitable
from typing import NamedTuple, NotRequired, TypeAlias, TypedDict, TypeGuard

from components.rate_limiter.config import Level, RateLimitConfig, config_of
from components.rate_limiter.decision import decide
from components.rate_limiter.functions import RateLimitValue
from engine import (
    ActionCtx,
    ConvexError,
    Mount,
    MutationCtx,
    MutationFunction,
    QueryCtx,
    QueryFunction,
    Value,
    mutation,
    query,
)

RATE_LIMITED = "RateLimited"

AnyCtx: TypeAlias = QueryCtx | MutationCtx | ActionCtx
KeyOf: TypeAlias = Callable[[QueryCtx, str | None], str | Awaitable[str | None] | None]
"""Given what the client sent, whose tokens are meant: the place to ask who is calling."""


class Limit(TypedDict):
    """
    What became of a request; `retryAfter` is in milliseconds.

    With `ok` it is there only for a reservation: the tokens are taken, and what they are for
    is to be done after that time.
    """

    ok: bool
    retryAfter: NotRequired[float]


class CalculatedRateLimit(TypedDict):
    """What there is at `ts`; `retryAfter`, in milliseconds, if `value` is below 0."""

    value: float
    ts: float
    retryAfter: NotRequired[float]


class HookApi(NamedTuple):
    """The two public functions that a page needs, to be assigned to names in a module."""

    get_rate_limit: QueryFunction[..., RateLimitValue]
    get_server_time: MutationFunction[[], float]


class RateLimiter:
    """
    Args:
        mount: a rate limiter that the application uses.
        limits: by name.
    """

    def __init__(self, mount: Mount, /, **limits: RateLimitConfig) -> None:
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
        config: RateLimitConfig | None = None,
    ) -> Limit:
        """
        Take tokens from the limit `name`; if there are not enough, nothing is written.

        In a mutation this is a part of its transaction, in an action a transaction of its own.

        Args:
            key: whose tokens, such as a user's; each key has its own. Without, everybody's.
            count: how many.
            reserve: take them also if they are yet to come; see `Limit`.
            throws: raise instead of returning `ok: False`.
            config: of a limit that was not named when this was made.

        Raises:
            ConvexError: with `throws`; its data is `{"kind": "RateLimited", "name": name,
                "retryAfter": milliseconds}`.
            ValueError: there is no such limit, or it could never give that many.
            TypeError: `ctx` is a query's, which cannot write.
        """
        args = self._request(name, key, count, reserve, config)
        found: Limit = await _writer(ctx, "limit").run_mutation(self._mount.limit, args)
        return _thrown(name, found) if throws else found

    async def check(
        self,
        ctx: AnyCtx,
        name: str,
        /,
        *,
        key: str | None = None,
        count: float = 1,
        reserve: bool = False,
        throws: bool = False,
        config: RateLimitConfig | None = None,
    ) -> Limit:
        """
        What `limit` would return now, or raise; nothing is taken.

        In a query, what it returns is followed as data is: it changes when tokens are taken, and
        not by time passing. `get_value` is for showing what there is.
        """
        args = self._request(name, key, count, reserve, config)
        found: Limit = await _reader(ctx, "check").run_query(self._mount.check, args)
        return _thrown(name, found) if throws else found

    async def reset(
        self, ctx: MutationCtx | ActionCtx, name: str, /, *, key: str | None = None
    ) -> None:
        """
        Forget all that was taken of a key's tokens, or of everybody's without one.

        Raises:
            TypeError: `ctx` is a query's.
        """
        args: dict[str, Value] = {"name": name, "key": key}
        await _writer(ctx, "reset").run_mutation(self._mount.reset, args)

    async def get_value(
        self,
        ctx: AnyCtx,
        name: str,
        /,
        *,
        key: str | None = None,
        sample_shards: int = 1,
        config: RateLimitConfig | None = None,
    ) -> RateLimitValue:
        """
        What is stored of a limit: for `calculate_rate_limit`, here or in a browser.

        Args:
            sample_shards: how many shards to look at; the fullest is returned.

        Raises:
            ValueError: there is no such limit.
        """
        args: dict[str, Value] = {
            "name": name,
            "config": _wire(self._config(name, config)),
            "sample_shards": sample_shards,
            "key": key,
        }
        found: RateLimitValue = await _reader(ctx, "get_value").run_query(
            self._mount.get_value, args
        )
        return found

    def hook_api(
        self,
        name: str,
        /,
        *,
        key: str | KeyOf | None = None,
        sample_shards: int = 1,
        config: RateLimitConfig | None = None,
    ) -> HookApi:
        """
        Two public functions for a page that shows a limit: `get_value`, and the server's clock.

            get_rate_limit, get_server_time = limiter.hook_api("send", key=user)

        Args:
            key: whose limit is shown, or a function that says so.

        Raises:
            ValueError: there is no such limit.
        """
        self._config(name, config)  # known at once, and not when somebody looks
        shown_key = key

        @query
        async def get_rate_limit(
            ctx: QueryCtx,
            key: str | None = None,
            sampleShards: int = sample_shards,  # noqa: N803 - as clients have it
        ) -> RateLimitValue:
            whose = await _key_of(ctx, name, shown_key, key)
            return await self.get_value(
                ctx, name, key=whose, sample_shards=sampleShards, config=config
            )

        @mutation
        async def get_server_time(ctx: MutationCtx) -> float:
            return ctx.now_ms

        return HookApi(get_rate_limit, get_server_time)

    def _request(
        self, name: str, key: str | None, count: float, reserve: bool, given: RateLimitConfig | None
    ) -> dict[str, Value]:
        config = self._config(name, given)
        config.check_count(name, count, reserve=reserve)
        return {
            "name": name,
            "config": _wire(config),
            "count": count,
            "reserve": reserve,
            "key": key,
        }

    def _config(self, name: str, given: RateLimitConfig | None) -> RateLimitConfig:
        config = self._limits.get(name)
        if config is not None and given is not None:
            raise ValueError(f"the rate limit {name!r} is defined already; leave out config=")
        if config is None and given is None:
            known = ", ".join(sorted(self._limits)) or "none"
            raise ValueError(
                f"the rate limit {name!r} is not defined, and no config= is given; there are: "
                f"{known}"
            )
        found = config or given
        assert found is not None, "one of the two is there"
        return found


def calculate_rate_limit(
    level: RateLimitValue, /, *, now_ms: float, count: float = 0
) -> CalculatedRateLimit:
    """
    What there is of a limit at any time, after taking `count` tokens: no database is asked.

    Args:
        level: what `get_value` returned.
        now_ms: milliseconds since 1970, by the server's clock.
    """
    config = config_of(level["config"])
    kept = Level(level["value"], level["ts"])
    decision = decide(config, kept, now_ms, count, reserve=True)
    found: CalculatedRateLimit = {"value": decision.after.value, "ts": decision.after.ts_ms}
    if decision.after.value < 0:
        found["retryAfter"] = config.wait_ms(decision.after, 0, now_ms)
    return found


def is_rate_limit_error(error: object) -> TypeGuard[ConvexError]:
    """Whether `error` is what `throws=True` raises."""
    data = error.data if isinstance(error, ConvexError) else None
    return isinstance(data, Mapping) and data.get("kind") == RATE_LIMITED


def _thrown(name: str, found: Limit) -> Limit:
    if not found["ok"]:
        retry_after = found.get("retryAfter")
        raise ConvexError({"kind": RATE_LIMITED, "name": name, "retryAfter": retry_after})
    return found


def _writer(ctx: object, method: str) -> MutationCtx | ActionCtx:
    if not isinstance(ctx, MutationCtx | ActionCtx):
        raise TypeError(f"{method}() takes the ctx of a mutation or an `async def` action")
    return ctx


def _reader(ctx: object, method: str) -> AnyCtx:
    if not isinstance(ctx, QueryCtx | ActionCtx):
        raise TypeError(f"{method}() takes a ctx, and of actions that of an `async def` one")
    return ctx


def _wire(config: RateLimitConfig) -> dict[str, Value]:
    return dict(config.to_wire())


async def _key_of(
    ctx: QueryCtx, name: str, key: str | KeyOf | None, from_client: str | None
) -> str | None:
    """
    Raises:
        ConvexError: a client has sent a key, and nobody is there to say whether it may.
    """
    if callable(key):
        found = key(ctx, from_client)
        return await found if isawaitable(found) else found
    if from_client is not None:
        raise ConvexError(f"the rate limit {name!r} is shown for a key that the server chooses")
    return key
