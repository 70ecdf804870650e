"""
How long does this disk take for the two flushes of a durable commit?

A commit in LMDB is two flushes, one after the other: an fdatasync of the pages, then a write of
the meta page through O_DSYNC. Nothing durable is faster than their sum, and everything that is
measured on another disk should be compared by it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from time import perf_counter

from bench.disk import PAGE_BYTES, RECORD_BYTES, append_flushes_s, page_writes_s
from bench.harness import Bench, Param, Result, percentile

SLICE = 50
"""Flushes between two looks at the clock."""


def run(bench: Bench) -> Iterator[Result]:
    """Half of the time for each of the two."""
    append: dict[str, Param] = {"call": "write, fdatasync", "bytes": RECORD_BYTES}
    yield from _measured(bench, append, append_flushes_s)
    page: dict[str, Param] = {"call": "write with O_DSYNC", "bytes": PAGE_BYTES}
    yield from _measured(bench, page, page_writes_s)


def _measured(
    bench: Bench, params: Mapping[str, Param], flushes_s: Callable[[Path, int], list[float]]
) -> Iterator[Result]:
    until = perf_counter() + bench.budget_s / 2
    samples: list[float] = []
    while perf_counter() < until:
        samples += flushes_s(bench.directory, SLICE)
    for share in (0.5, 0.99):
        yield Result(
            name="flush",
            params=params,
            metric=f"p{share * 100:g}",
            value=percentile(samples, share) * 1e3,
            unit="ms",
        )
