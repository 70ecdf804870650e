"""Mutations that arrive at a rate of their own, whatever else goes on, and how late each is."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Final

import trio

from bench.harness import Param, Result, arrivals, percentile

IN_FLIGHT_MAX: Final = 250
"""
What arrives while so many wait is missed: a machine that is too slow is to say so, and not to
make a queue in which whatever is measured beside it waits as well.
"""


@dataclass
class _Seen:
    latencies_s: list[float] = field(default_factory=list)
    in_flight: int = 0
    missed: int = 0


async def arriving(
    per_s: float,
    mutate: Callable[[], Awaitable[object]],
    beside: Callable[[], Awaitable[object]],
    *,
    name: str,
    params: Mapping[str, Param],
) -> Iterator[Result]:
    """
    The figures of mutations for as long as `beside` takes.

    Args:
        per_s: how many begin in a second.
        mutate: one of them, which ends when it is on the disk; it is timed from when it was due.
    """
    seen = _Seen()

    async def one(due: float) -> None:
        if seen.in_flight == IN_FLIGHT_MAX:
            seen.missed += 1
            return
        seen.in_flight += 1
        await mutate()
        seen.in_flight -= 1
        seen.latencies_s.append(trio.current_time() - due)

    began = trio.current_time()
    is_done = False
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(arrivals, per_s, one, is_over=lambda: is_done))
        await beside()
        is_done = True
    return _figures(name, params, seen, trio.current_time() - began)


def _figures(
    name: str, params: Mapping[str, Param], seen: _Seen, seconds: float
) -> Iterator[Result]:
    figures = (
        ("mutations_per_s", len(seen.latencies_s) / seconds, "1/s"),
        ("missed", seen.missed, "mutations"),
        ("p50", percentile(seen.latencies_s, 0.5) * 1e3, "ms"),
        ("p99", percentile(seen.latencies_s, 0.99) * 1e3, "ms"),
    )
    for metric, value, unit in figures:
        yield Result(name=name, params=params, metric=metric, value=value, unit=unit)
