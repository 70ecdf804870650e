"""
Decisions of a rate limiter that are all granted, so each writes, and is answered on the disk.

One key that everybody asks for, 10,000 keys in turn, and one key in ten shards; one caller, and
fifty that each wait for their answer.  Beside it the library `limits` with its cheapest strategy,
a fixed window, on a Redis of its own that flushes before it answers (`appendfsync always`), over
a Unix socket, with a thread for each caller.
"""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from itertools import cycle
from pathlib import Path
from typing import Final

import trio

from bench.harness import Bench, Param, Result, percentile, progress
from components.rate_limiter import HOUR, FixedWindow, RateLimiter, TokenBucket, component
from engine.app.component import App
from engine.app.contexts import MutationCtx
from engine.app.decorators import mutation
from engine.host import Engine

KEYS: Final = 10_000
SHARDS: Final = 10
CALLERS: Final = (1, 50)
PLENTY: Final = 10**9
"""Tokens of which none of the cases takes all."""
NAMES: Final = {"one key": "bucket", "10,000 keys": "bucket", "one key, sharded": "sharded"}
"""Each case, and the limit that it asks."""
STARTING_S: Final = 10.0

app = App()
limiter = RateLimiter(
    app.use(component, name="limits"),
    bucket=TokenBucket(rate=PLENTY, period=HOUR),
    window=FixedWindow(rate=PLENTY, period=HOUR),
    sharded=TokenBucket(rate=PLENTY, period=HOUR, shards=SHARDS),
)


@mutation
async def take(ctx: MutationCtx, name: str, key: str) -> bool:
    return (await limiter.limit(ctx, name, key=key))["ok"]


def run(bench: Bench) -> Iterator[Result]:
    cases = [(case, callers) for case in NAMES for callers in CALLERS]
    seconds = bench.budget_s / (2 * len(cases))
    results: list[Result] = []
    trio.run(_ours, bench.directory / "data", cases, seconds, results)
    yield from results
    yield from _theirs(bench.directory, cases, seconds)


def _keys(case: str) -> Iterator[str]:
    return cycle([str(number) for number in range(KEYS if case == "10,000 keys" else 1)])


# Ours.


async def _ours(
    directory: Path, cases: list[tuple[str, int]], seconds: float, results: list[Result]
) -> None:
    async with Engine.open(directory, app=[app, take]) as engine:
        for case, callers in cases:
            progress(f"decisions of {case}, {callers} callers")
            keys, latencies_s = _keys(case), list[float]()
            ends = time.perf_counter() + seconds

            async def ask(
                case: str, keys: Iterator[str], latencies_s: list[float], ends: float
            ) -> None:
                while (began := time.perf_counter()) < ends:
                    assert await engine.mutation(take, NAMES[case], next(keys))
                    latencies_s.append(time.perf_counter() - began)

            async with trio.open_nursery() as nursery:
                for _ in range(callers):
                    nursery.start_soon(ask, case, keys, latencies_s, ends)
            results += _figures(case, callers, latencies_s, seconds, None)


# Theirs.


def _theirs(directory: Path, cases: list[tuple[str, int]], seconds: float) -> Iterator[Result]:
    try:
        label = f"limits {version('limits')} on Redis"
        version("redis")
    except PackageNotFoundError:
        progress("limits on Redis is skipped: pip install limits redis")
        return
    if shutil.which("redis-server") is None:
        progress("limits on Redis is skipped: apt-get install redis-server")
        return
    with _redis(directory) as url:
        hit = _hits(url)
        for case, callers in cases:
            if case == "one key, sharded":
                continue  # which it does not know
            progress(f"decisions of {label}, {case}, {callers} callers")
            latencies_s = _hitting(hit, case, callers, seconds)
            yield from _figures(case, callers, latencies_s, seconds, label)


@contextmanager
def _redis(directory: Path) -> Iterator[str]:
    """A Redis of its own, which flushes its log before it answers."""
    socket = directory / "redis.sock"
    command = ["redis-server", "--port", "0", "--unixsocket", socket.name, "--save", ""]
    command += ["--appendonly", "yes", "--appendfsync", "always", "--dir", "."]
    with (directory / "redis.log").open("wb") as log:
        process = subprocess.Popen(command, cwd=directory, stdout=log, stderr=log)
    try:
        ends = time.perf_counter() + STARTING_S
        while not socket.exists():
            assert time.perf_counter() < ends, (directory / "redis.log").read_text()
            time.sleep(0.02)
        yield f"redis+unix://{socket}"
    finally:
        process.terminate()
        process.wait()


def _hits(url: str) -> Callable[[str], bool]:
    import limits

    strategy = limits.strategies.FixedWindowRateLimiter(limits.storage.storage_from_string(url))
    item = limits.RateLimitItemPerHour(PLENTY)
    return lambda key: strategy.hit(item, key)


def _hitting(hit: Callable[[str], bool], case: str, callers: int, seconds: float) -> list[float]:
    keys, latencies_s = _keys(case), list[float]()
    ends = time.perf_counter() + seconds

    def ask() -> None:
        while (began := time.perf_counter()) < ends:
            assert hit(next(keys))
            latencies_s.append(time.perf_counter() - began)

    with ThreadPoolExecutor(callers) as threads:
        for asked in [threads.submit(ask) for _ in range(callers)]:
            asked.result()
    return latencies_s


def _figures(
    case: str, callers: int, latencies_s: list[float], seconds: float, peer: str | None
) -> Iterator[Result]:
    params: dict[str, Param] = {"limit": case, "callers": callers, "durable": "each decision"}
    figures = (
        ("rate", len(latencies_s) / seconds, "decisions/s"),
        ("p50", percentile(latencies_s, 0.5) * 1e3, "ms"),
        ("p99", percentile(latencies_s, 0.99) * 1e3, "ms"),
    )
    for metric, value, unit in figures:
        yield Result(
            name="limiter", params=params, metric=metric, value=value, unit=unit, peer=peer
        )
