"""Handlers, run by the real driver under a real watchdog."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

from engine.app.registered import Kind
from engine.functions.driver import CHECKPOINT, Execution, drive
from engine.functions.watchdog import Watchdog
from engine.model.limits import Limits

LIMITS = Limits(user_time_s_max=0.3)
NOW_NS = 1_767_225_600_123_456_789


class Context:
    """What a real context does to the driver, without a database behind it."""

    def __init__(self, execution: Execution) -> None:
        self.execution = execution

    async def call(self) -> str:
        self.execution.leave()
        try:
            return "done"
        finally:
            self.execution.enter()

    async def long_call(self) -> str:
        self.execution.leave()
        await Checkpoint()
        self.execution.enter()
        return "done"


class Checkpoint:
    def __await__(self) -> Any:
        yield CHECKPOINT


def execution(kind: Kind = Kind.MUTATION, *, limits: Limits = LIMITS, seed: int = 7) -> Execution:
    return Execution(kind=kind, path="messages:send", now_ns=NOW_NS, seed=seed, limits=limits)


async def run(
    handler: Callable[[Context], Coroutine[Any, Any, Any]],
    watchdog: Watchdog,
    *,
    limits: Limits = LIMITS,
    within: Execution | None = None,
) -> Any:
    running = within or execution(limits=limits)
    return await drive(handler(Context(running)), running, limits=limits, watchdog=watchdog)


async def run_plain(
    handler: Callable[[], Any], watchdog: Watchdog, *, within: Execution | None = None
) -> Any:
    running = within or execution()

    async def awaited() -> Any:
        result = handler()
        return await result if isinstance(result, Coroutine) else result

    return await drive(awaited(), running, limits=LIMITS, watchdog=watchdog)


@contextmanager
def watching(limits: Limits = LIMITS) -> Iterator[Watchdog]:
    watchdog = Watchdog(limits)
    watchdog.start()
    try:
        yield watchdog
    finally:
        watchdog.close()
