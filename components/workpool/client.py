"""What applications use: a pool, and what it tells of what it does."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, ClassVar, Final, Literal, TypeAlias, TypedDict, Unpack

from components.workpool.rules import LEVELS, Level, check_parallelism, size_of
from engine import (
    ActionCtx,
    ActionReference,
    ConvexError,
    Mount,
    MutationCtx,
    MutationReference,
    QueryCtx,
    QueryReference,
    Reference,
    Retry,
    Value,
)

ReadCtx: TypeAlias = QueryCtx | ActionCtx
WriteCtx: TypeAlias = MutationCtx | ActionCtx
Action: TypeAlias = ActionReference[..., Any] | Reference | str
Mutation: TypeAlias = MutationReference[..., Any] | Reference | str
Query: TypeAlias = QueryReference[..., Any] | Reference | str
Kind: TypeAlias = Literal["query", "mutation", "action"]

BATCH_ITEMS: Final = 500
"""Of one call; in an action each is a transaction."""
BATCH_BYTES: Final = 8_000_000
"""Likewise, about: half of what arguments may have, and a transaction write."""
CANCEL_PAGE: Final = 64
DUE_MS_MAX: Final = 2.0**53
"""Since 1970; beyond, a float does not tell one millisecond from the next."""


class Success(TypedDict):
    kind: Literal["success"]
    returnValue: Any


class Failed(TypedDict):
    kind: Literal["failed"]
    error: str


class Canceled(TypedDict):
    kind: Literal["canceled"]


Result: TypeAlias = Success | Failed | Canceled
"""How a work has ended, as `on_complete` is told."""


class Pending(TypedDict):
    """It waits: for room, for its time, or for the next attempt."""

    state: Literal["pending"]
    previousAttempts: float


class Running(TypedDict):
    """An attempt is under way."""

    state: Literal["running"]
    previousAttempts: float


class Finished(TypedDict):
    """It has ended, or there never was one of this id."""

    state: Literal["finished"]


Status: TypeAlias = Pending | Running | Finished


class Failure(TypedDict):
    """A work whose last attempt has failed; `at` in milliseconds since 1970."""

    workId: str
    name: str
    attempts: float
    error: str
    at: float


class Report(TypedDict, total=False):
    """What has ended since the last report, a minute at most while there is work; and rates."""

    maxParallelism: float
    completed: float
    succeeded: float
    failed: float
    retries: float
    canceled: float
    running: float
    backlog: float
    failureRate: float
    permanentFailureRate: float


class NonRetryable(ConvexError):
    """
    Raised by an action: it has failed, and trying it again is of no use.

    Args:
        message: what `on_complete` is told.
    """

    kind: ClassVar[str] = "NonRetryable"

    def __init__(self, message: str) -> None:
        super().__init__({"kind": self.kind, "message": message})
        self.args = (message,)


class Options(TypedDict, total=False):
    """How a call is made."""

    name: str
    """Whatever logs call it; the path of the function unless said."""
    on_complete: Mutation
    """A mutation that is told once how it ended, as `work_id`, `context` and `result`."""
    context: Any
    """Handed back to `on_complete`."""
    run_after: float | timedelta
    """No earlier than so many milliseconds, or a `timedelta`, from now."""
    run_at: float | datetime
    """No earlier than then: milliseconds since 1970, or an aware `datetime`."""
    retry: bool | Retry | None
    """Of actions: True is as the pool has it by default, False once, a `Retry` as it says."""


class Workpool:
    """
    A queue of calls of which so many are under way at a time.

    Args:
        mount: a workpool that the application uses.
        max_parallelism: at most so many, 0 to 200; 0 is a pause. `configure` changes it while the
            pool runs, until the code says another number.
        default_retry: how actions with `retry=True` are tried again.
        retry_actions_by_default: those too for which nothing is said.
        log_level: "INFO" has a log line for every work, "REPORT" one a minute.

    Raises:
        ValueError: a number or a level that cannot be.
    """

    def __init__(
        self,
        mount: Mount,
        /,
        *,
        max_parallelism: int = 10,
        default_retry: Retry | None = None,
        retry_actions_by_default: bool = False,
        log_level: Level = "REPORT",
    ) -> None:
        check_parallelism(max_parallelism)
        _check_level(log_level)
        self._mount = mount
        self._declared = {"max_parallelism": max_parallelism, "log_level": log_level}
        self._default_retry = default_retry or Retry()
        self._retries = retry_actions_by_default

    async def enqueue_action(
        self,
        ctx: WriteCtx,
        fn: Action,
        args: Mapping[str, Value] | None = None,
        /,
        **options: Unpack[Options],
    ) -> str:
        """
        Have an action run, at most once for each attempt.

        Returns:
            The id of the work.

        Raises:
            ValueError: arguments or context of over 1,000,000 bytes, a function of another kind, or
                an `on_complete` that is no mutation.
            TypeError: there is no such option.
        """
        return (await self._enqueue(ctx, "action", fn, [args or {}], options))[0]

    async def enqueue_mutation(
        self,
        ctx: WriteCtx,
        fn: Mutation,
        args: Mapping[str, Value] | None = None,
        /,
        **options: Unpack[Options],
    ) -> str:
        """As `enqueue_action`, for a mutation: exactly once, and what it raises is final."""
        return (await self._enqueue(ctx, "mutation", fn, [args or {}], options))[0]

    async def enqueue_query(
        self,
        ctx: WriteCtx,
        fn: Query,
        args: Mapping[str, Value] | None = None,
        /,
        **options: Unpack[Options],
    ) -> str:
        """As `enqueue_mutation`, for a query."""
        return (await self._enqueue(ctx, "query", fn, [args or {}], options))[0]

    async def enqueue_action_batch(
        self,
        ctx: WriteCtx,
        fn: Action,
        args: Iterable[Mapping[str, Value]],
        /,
        **options: Unpack[Options],
    ) -> list[str]:
        """As `enqueue_action`, once for each of `args`, with the same options."""
        return await self._enqueue(ctx, "action", fn, args, options)

    async def enqueue_mutation_batch(
        self,
        ctx: WriteCtx,
        fn: Mutation,
        args: Iterable[Mapping[str, Value]],
        /,
        **options: Unpack[Options],
    ) -> list[str]:
        """As `enqueue_mutation`, once for each of `args`, with the same options."""
        return await self._enqueue(ctx, "mutation", fn, args, options)

    async def enqueue_query_batch(
        self,
        ctx: WriteCtx,
        fn: Query,
        args: Iterable[Mapping[str, Value]],
        /,
        **options: Unpack[Options],
    ) -> list[str]:
        """As `enqueue_query`, once for each of `args`, with the same options."""
        return await self._enqueue(ctx, "query", fn, args, options)

    async def cancel(self, ctx: WriteCtx, work_id: str, /) -> None:
        """
        Do not begin a work, or not again; an attempt that is under way goes on.

        If that succeeds the work has succeeded. What has ended stays as it is.
        """
        await _tell(ctx, self._mount.cancel, {"work_id": work_id})

    async def cancel_all(self, ctx: WriteCtx, /, *, page_size: int = CANCEL_PAGE) -> None:
        """Cancel all works that there are now, `page_size` in a transaction, the newest first."""
        if page_size < 1:
            raise ValueError(f"page_size is {page_size}; it must be positive")
        await _tell(ctx, self._mount.cancel_all, {"page_size": page_size})

    async def status(self, ctx: ReadCtx, work_id: str, /) -> Status:
        """How a work is."""
        return (await self.status_batch(ctx, [work_id]))[0]

    async def status_batch(self, ctx: ReadCtx, work_ids: Sequence[str], /) -> list[Status]:
        """How works are, in order."""
        asked = {"work_ids": list(work_ids)}
        found: list[Status] = await ctx.run_query(self._mount.statuses, asked)
        return found

    async def configure(
        self,
        ctx: WriteCtx,
        /,
        *,
        max_parallelism: int | None = None,
        log_level: Level | None = None,
    ) -> None:
        """
        Change a pool that runs; fewer at a time ends nothing that is under way.

        Raises:
            ValueError: a number or a level that cannot be.
        """
        changes: dict[str, Value] = {}
        if max_parallelism is not None:
            check_parallelism(max_parallelism)
            changes["max_parallelism"] = max_parallelism
        if log_level is not None:
            _check_level(log_level)
            changes["log_level"] = log_level
        told = {"declared": self._declared, "changes": changes}
        await _tell(ctx, self._mount.configure, told)

    async def report(self, ctx: ReadCtx, /) -> Report:
        """How the pool is doing; empty before the first work."""
        found: Report = await ctx.run_query(self._mount.report, {})
        return found

    async def failures(self, ctx: ReadCtx, /, *, limit: int = 100) -> list[Failure]:
        """The works that have failed for good, the newest first; a thousand are kept."""
        found: list[Failure] = await ctx.run_query(self._mount.failures, {"limit": limit})
        return found

    async def retry_failure(self, ctx: WriteCtx, work_id: str, /) -> str | None:
        """
        Enqueue a work that is among the `failures` as it was, `retry` and `on_complete` included.

        Returns:
            The id of the new work, which is what `on_complete` is told; None if it was not there.

        Raises:
            ValueError: its arguments and context are too large together, and were not kept.
        """
        found: str | None = await _tell(ctx, self._mount.retry_failure, {"work_id": work_id})
        return found

    async def _enqueue(
        self,
        ctx: WriteCtx,
        kind: Kind,
        fn: Any,
        args: Iterable[Mapping[str, Value]],
        options: Options,
    ) -> list[str]:
        call = await self._call(ctx, kind, fn, options)
        calls = [{**call, "args": dict(one)} for one in args]
        ids: list[str] = []
        for batch in _batches(calls):
            told = {"calls": batch, "declared": self._declared}
            ids += await _tell(ctx, self._mount.enqueue, told)
        return ids

    async def _call(self, ctx: WriteCtx, kind: Kind, fn: Any, options: Options) -> dict[str, Value]:
        if unknown := sorted(options.keys() - Options.__annotations__.keys()):
            raise TypeError(
                f"enqueue_{kind}() has no {', '.join(unknown)}=; there are "
                f"{', '.join(Options.__annotations__)}"
            )
        known = await ctx.meta.get_function_metadata(fn)
        if known["kind"] != kind:
            raise ValueError(f"{known['name']} is a {known['kind']}; call enqueue_{known['kind']}")
        call: dict[str, Value] = {
            "fn": await ctx.create_function_handle(fn),
            "name": options.get("name", known["name"]),
            "kind": kind,
            "due": _due(ctx, options),
        }
        if "on_complete" in options:
            told = await ctx.meta.get_function_metadata(options["on_complete"])
            if told["kind"] != "mutation":
                raise ValueError(f"on_complete is a mutation, and {told['name']} is none")
            call["on_complete"] = await ctx.create_function_handle(options["on_complete"])
            call["context"] = options.get("context")
        retry = self._retry(kind, options.get("retry"))
        if retry is not None:
            call["retry"] = {
                "initial_backoff": retry.first_ms,
                "base": float(retry.base),
                "max_attempts": retry.max_attempts,
            }
        return call

    def _retry(self, kind: Kind, asked: bool | Retry | None) -> Retry | None:
        if kind != "action":
            if asked:
                raise ValueError(
                    f"retry={asked!r}: a {kind} runs once, and what it raises it raises again"
                )
            return None
        if isinstance(asked, Retry):
            return asked
        return self._default_retry if (self._retries if asked is None else asked) else None


def _batches(calls: Sequence[Mapping[str, Value]]) -> Iterator[list[Mapping[str, Value]]]:
    """The calls in order, as many together as fit."""
    batch: list[Mapping[str, Value]] = []
    batch_bytes = 0
    for call in calls:
        call_bytes = size_of(call)
        if batch and (len(batch) == BATCH_ITEMS or batch_bytes + call_bytes > BATCH_BYTES):
            yield batch
            batch, batch_bytes = [], 0
        batch.append(call)
        batch_bytes += call_bytes
    if batch:
        yield batch


async def _tell(ctx: WriteCtx, fn: Reference, args: Mapping[str, Value]) -> Any:
    if not isinstance(ctx, MutationCtx | ActionCtx):
        raise TypeError("a pool is told by the ctx of a mutation or an `async def` action")
    return await ctx.run_mutation(fn, args)


def _due(ctx: WriteCtx, options: Options) -> float:
    """
    Raises:
        ValueError: there are two times, one without a time zone, or one that no clock shows.
    """
    if "run_at" in options and "run_after" in options:
        raise ValueError("say either run_at or run_after")
    at = options.get("run_at")
    if isinstance(at, datetime):
        if at.tzinfo is None:
            raise ValueError("run_at needs a datetime with a time zone, such as ctx.now + delta")
        return at.timestamp() * 1000
    if at is None:
        after = options.get("run_after", 0)
        delay_ms = after / timedelta(milliseconds=1) if isinstance(after, timedelta) else after
        at = ctx.now_ms + delay_ms
    if not abs(at) <= DUE_MS_MAX:
        raise ValueError(f"a work is due at {at:g}: these are no milliseconds since 1970")
    return at


def _check_level(level: str) -> None:
    if level not in LEVELS:
        raise ValueError(f"log_level is {level!r}; there are {', '.join(LEVELS)}")
