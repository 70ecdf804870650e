"""
What does `verify` cost an engine at full load, in transfers and in bytes of the file?

50 callers transfer between 100,000 accounts, each waiting for its answer.  First they are alone,
then the store is verified, again and again, as `headrace verify` has a server do it: a slice in a
snapshot of its own, and between two slices everybody gets a turn.  A snapshot keeps the pages that
it can see from being used again, so what it costs shows in the growth of the file, of which the
log is a part.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Final

import trio

from bench.harness import Bench, Param, Result, percentile, progress
from bench.macro.transfer import ACCOUNTS, QUICK_ACCOUNTS, Load, closed_loop, opened
from bench.people import data_file
from engine.host import Engine
from engine.indexes.verify import verify
from engine.store.interface import Tree

CALLERS: Final = 50
ALONE_SHARE: Final = 0.25
"""Of the budget, on top of it, before anything is verified."""


def run(bench: Bench) -> Iterator[Result]:
    """Measure transfers alone, then beside `verify` for the whole budget."""
    results: list[Result] = []
    trio.run(_measure, bench, results)
    yield from results


async def _measure(bench: Bench, results: list[Result]) -> None:
    accounts = QUICK_ACCOUNTS if bench.quick else ACCOUNTS
    directory = bench.directory / "accounts"
    async with opened(directory, accounts) as (engine, ids):
        load = Load(accounts, 0.0, bench.seed)
        transfers = partial(closed_loop, engine, ids, load, CALLERS)
        for beside, seconds in (
            ("nothing", bench.budget_s * ALONE_SHARE),
            ("verify", bench.budget_s),
        ):
            progress(f"transfers beside {beside}")
            checked = Checked()
            before = _sizes_mb(engine, directory)
            async with trio.open_nursery() as nursery:
                if beside == "verify":
                    nursery.start_soon(_verify, engine, checked)
                rate, latencies = await transfers(seconds)
                nursery.cancel_scope.cancel()
            grown = [
                now - then for now, then in zip(_sizes_mb(engine, directory), before, strict=True)
            ]
            params: dict[str, Param] = {"callers": CALLERS, "beside": beside, "seconds": seconds}
            results += _figures(params, rate, latencies, grown, checked)


@dataclass
class Checked:
    """What `verify` did: how often it came to the end, and how long each slice held everybody."""

    times: int = 0
    slices_s: list[float] = field(default_factory=list)


async def _verify(engine: Engine, checked: Checked) -> None:
    """Again and again, as a server does."""
    while True:
        slices = verify(engine.node.store.snapshot)
        began = perf_counter()
        for found in slices:
            checked.slices_s.append(perf_counter() - began)
            assert found.is_sound, found.problems
            await trio.lowlevel.checkpoint()
            began = perf_counter()
        checked.times += 1


def _sizes_mb(engine: Engine, directory: Path) -> tuple[float, float]:
    """Of the file, and of the log in it."""
    return data_file(directory).stat().st_size / 1e6, engine.node.store.size_bytes(Tree.LOG) / 1e6


def _figures(
    params: dict[str, Param],
    rate: float,
    latencies: Sequence[float],
    grown: Sequence[float],
    checked: Checked,
) -> Iterator[Result]:
    file_mb, log_mb = grown
    figures = [
        ("durable_tx_per_s", rate, "1/s"),
        ("p50", percentile(latencies, 0.5) * 1e3, "ms"),
        ("p99", percentile(latencies, 0.99) * 1e3, "ms"),
        ("file_growth", file_mb, "MB"),
        ("log_growth", log_mb, "MB"),
    ]
    if checked.slices_s:
        figures += [
            ("verified", checked.times, "times"),
            ("slice_p50", percentile(checked.slices_s, 0.5) * 1e3, "ms"),
            ("slice_p99", percentile(checked.slices_s, 0.99) * 1e3, "ms"),
        ]
    for metric, value, unit in figures:
        yield Result(name="verify", params=params, metric=metric, value=value, unit=unit)
