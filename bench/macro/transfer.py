"""
How many durable transfers between two accounts a second?

100,000 accounts; a transfer reads two and patches two, and is answered when it
is on the disk.  Closed loop: each caller waits for its answer and goes on.  Open
loop: transfers arrive at a given rate whatever the answers do, with queries
beside them.  At the end the balances are added up.  Raw LMDB and SQLite (WAL,
synchronous=FULL) do the same reads and writes in the same run: one transaction
after another for one caller, and `callers` of them sharing a commit for more,
which flatters them.
"""

from __future__ import annotations

import bisect
import itertools
import random
import shutil
import sqlite3
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lmdb
import trio

from bench.harness import Bench, Result, arrivals, percentile
from engine.app.contexts import MutationCtx, QueryCtx
from engine.app.decorators import mutation, query
from engine.app.schema import Schema, Table
from engine.app.types import Document
from engine.committer import actor as committer_actor
from engine.committer.actor import Committer
from engine.functions.execute import Executor
from engine.host import Engine
from engine.model.codec import decode, encode
from engine.model.ids import Id
from engine.store.lmdb_store import LmdbStore
from engine.transaction.transaction import Transaction

ACCOUNTS = 100_000
QUICK_ACCOUNTS = 10_000
BALANCE = 1_000
ALPHAS = (0.0, 1.5)
"""Of the Zipf law that chooses accounts: all alike, or half of the time one of two."""
OPEN_LOOP_SHARE = 0.6
"""Of the closed-loop rate at 50 callers: a load that leaves room to breathe."""
QUERY_CALLERS = 4
PAIRS = 200_000
"""Drawn for each case: more than are transferred in it, so that few accounts come twice."""


class Account(Document):
    owner: str
    balance: float


schema = Schema(accounts=Table(Account))


@mutation
async def create(ctx: MutationCtx, first: int, count: int) -> list[Id[Account]]:
    return [
        await ctx.db.insert(Account, {"owner": f"owner {n}", "balance": BALANCE})
        for n in range(first, first + count)
    ]


@mutation
async def transfer(
    ctx: MutationCtx, source: Id[Account], target: Id[Account], amount: float
) -> None:
    giver = await ctx.db.get(source)
    taker = await ctx.db.get(target)
    assert giver is not None
    assert taker is not None
    await ctx.db.patch(source, {"balance": giver["balance"] - amount})
    await ctx.db.patch(target, {"balance": taker["balance"] + amount})


@query
async def read(ctx: QueryCtx, account: Id[Account]) -> float:
    doc = await ctx.db.get(account)
    assert doc is not None
    return doc["balance"]


@query
async def balances(ctx: QueryCtx, after: str) -> list[Any]:
    """Number of accounts, sum of their balances, and the last id, of one part of the table."""
    part = ctx.db.query(Account).with_index("by_id", lambda r: r.gt("_id", after))
    docs = await part.take(10_000)
    return [len(docs), sum(d["balance"] for d in docs), docs[-1]["_id"] if docs else ""]


def run(bench: Bench) -> Iterator[Result]:
    """Measure every case, ours and the others'."""
    results: list[Result] = []
    trio.run(_measure_ours, bench, results)
    yield from results
    yield from _measure_peers(bench)


# Ours


@dataclass
class Load:
    """Pairs of accounts, uniform or by a Zipf law."""

    accounts: int
    alpha: float
    seed: int
    _dice: random.Random = field(init=False)
    _weights: list[float] = field(init=False)
    pair: Callable[[], tuple[int, int]] = field(init=False)
    """The next pair; all were drawn before anything is measured, and come again after the last."""

    def __post_init__(self) -> None:
        self._dice = random.Random(self.seed)
        self._weights = list(
            itertools.accumulate((n + 1) ** -self.alpha for n in range(self.accounts))
        )
        drawn = [self._draw() for _ in range(PAIRS)]
        self.pair = itertools.cycle(drawn).__next__

    def _draw(self) -> tuple[int, int]:
        source = self._one()
        while (target := self._one()) == source:
            pass
        return source, target

    def _one(self) -> int:
        if not self.alpha:
            return self._dice.randrange(self.accounts)
        return bisect.bisect_left(self._weights, self._dice.random() * self._weights[-1])


@asynccontextmanager
async def opened(directory: Path, accounts: int) -> AsyncIterator[tuple[Engine, list[Id[Account]]]]:
    """An engine with so many accounts, and their ids."""
    functions = [create, transfer, read, balances, schema]
    async with Engine.open(directory, app=functions) as engine:
        ids: list[Id[Account]] = []
        for first in range(0, accounts, 1_000):
            ids += await engine.mutation(create, first=first, count=1_000)
        yield engine, ids


async def _measure_ours(bench: Bench, results: list[Result]) -> None:
    accounts = QUICK_ACCOUNTS if bench.quick else ACCOUNTS
    async with opened(bench.directory / "ours", accounts) as (engine, ids):
        cases = [(a, c) for c in (1, 50, 500) for a in ALPHAS]
        seconds = bench.budget_s * 0.6 / (len(cases) + len(ALPHAS) + 1)
        rates: dict[tuple[float, int], float] = {}
        for alpha, callers in cases:
            load = Load(accounts, alpha, bench.seed)
            rate, latencies = await closed_loop(engine, ids, load, callers, seconds)
            rates[alpha, callers] = rate
            results += _figures({"alpha": alpha, "callers": callers}, rate, latencies)
        for alpha in ALPHAS:
            arrivals = rates[alpha, 50] * OPEN_LOOP_SHARE
            load = Load(accounts, alpha, 7)
            results += await _open_loop(engine, ids, load, arrivals, seconds)
        results += await _stages(engine, ids, Load(accounts, 0.0, 8), seconds)
        await _check_sum(engine, accounts)


async def closed_loop(
    engine: Engine, ids: list[Id[Account]], load: Load, callers: int, seconds: float
) -> tuple[float, list[float]]:
    latencies: list[float] = []
    end = trio.current_time() + seconds

    async def caller() -> None:
        while trio.current_time() < end:
            source, target = load.pair()
            began = time.perf_counter()
            await engine.mutation(transfer, source=ids[source], target=ids[target], amount=1)
            latencies.append(time.perf_counter() - began)

    began = time.perf_counter()
    async with trio.open_nursery() as nursery:
        for _ in range(callers):
            nursery.start_soon(caller)
    return len(latencies) / (time.perf_counter() - began), latencies


def _figures(
    params: dict[str, float | int | str], rate: float, latencies: list[float]
) -> list[Result]:
    name = "transfer"
    return [
        Result(name=name, params=params, metric="durable_tx_per_s", value=rate, unit="1/s"),
        *(
            Result(
                name=name,
                params=params,
                metric=label,
                value=percentile(latencies, share) * 1e3,
                unit="ms",
            )
            for label, share in (("p50", 0.5), ("p99", 0.99))
        ),
    ]


async def _open_loop(
    engine: Engine, ids: list[Id[Account]], load: Load, rate: float, seconds: float
) -> list[Result]:
    """Transfers that arrive on time, whoever still waits, and queries that never stop."""
    latencies: list[float] = []
    queries = 0
    end = trio.current_time() + seconds

    async def one(due: float) -> None:
        source, target = load.pair()
        await engine.mutation(transfer, source=ids[source], target=ids[target], amount=1)
        latencies.append(trio.current_time() - due)

    async def reader() -> None:
        nonlocal queries
        while trio.current_time() < end:
            await engine.query(read, account=ids[load.pair()[0]])
            queries += 1

    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        for _ in range(QUERY_CALLERS):
            nursery.start_soon(reader)
        await arrivals(rate, one, is_over=lambda: trio.current_time() >= end)
    params: dict[str, float | int | str] = {
        "alpha": load.alpha,
        "callers": "open",
        "arrivals_per_s": round(rate),
    }
    elapsed = trio.current_time() - began
    return [
        *_figures(params, len(latencies) / elapsed, latencies),
        Result(
            name="transfer",
            params=params,
            metric="queries_per_s",
            value=queries / elapsed,
            unit="1/s",
        ),
    ]


STAGES: tuple[tuple[str, Any, str], ...] = (
    ("arguments, handler, result", Executor, "_call"),
    ("finish", Transaction, "finish"),
    ("stage", Committer, "stage"),
    ("publish", Committer, "_publish"),
)


async def _stages(
    engine: Engine, ids: list[Id[Account]], load: Load, seconds: float
) -> list[Result]:
    """Microseconds a transaction, stage by stage; measuring adds about one to each."""
    spent: dict[str, float] = defaultdict(float)
    with _timed(spent):
        rate, latencies = await closed_loop(engine, ids, load, 50, seconds)
    count = len(latencies)
    whole = 1e6 / rate
    spent["everything else: lane, tasks, waiting for the disk"] = whole / 1e6 * count - sum(
        v for name, v in spent.items() if name != "flush (elsewhere)"
    )
    return [
        Result(
            name="transfer-stage",
            params={"stage": name, "alpha": 0.0, "callers": 50},
            metric="us_per_tx",
            value=seconds_spent / count * 1e6,
            unit="us",
        )
        for name, seconds_spent in spent.items()
    ]


@contextmanager
def _timed(spent: dict[str, float]) -> Iterator[None]:
    originals: list[tuple[Any, str, Any]] = []

    def replace(owner: Any, attribute: str, wrapped: Any) -> None:
        originals.append((owner, attribute, getattr(owner, attribute)))
        setattr(owner, attribute, wrapped)

    for name, owner, attribute in STAGES:
        replace(owner, attribute, _timer(spent, name, getattr(owner, attribute)))
    encode_batch = committer_actor._encode
    replace(committer_actor, "_encode", _timer(spent, "encode the batch", encode_batch))
    replace(LmdbStore, "apply", _timer(spent, "flush (elsewhere)", LmdbStore.apply))
    try:
        yield
    finally:
        for owner, attribute, original in originals:
            setattr(owner, attribute, original)


def _timer(spent: dict[str, float], name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    def plain(*args: Any, **kwargs: Any) -> Any:
        began = time.perf_counter()
        result = function(*args, **kwargs)
        if hasattr(result, "__await__"):
            return awaited(result, began)
        spent[name] += time.perf_counter() - began
        return result

    async def awaited(result: Any, began: float) -> Any:
        try:
            return await result
        finally:
            spent[name] += time.perf_counter() - began

    return plain


async def _check_sum(engine: Engine, accounts: int) -> None:
    count, total, after = 0, 0.0, ""
    while True:
        part, added, last = await engine.query(balances, after=after)
        if not part:
            break
        count, total, after = count + int(part), total + added, last
    assert (accounts, accounts * BALANCE) == (count, total), f"{count} accounts hold {total}"


# The others


def _measure_peers(bench: Bench) -> Iterator[Result]:
    accounts = QUICK_ACCOUNTS if bench.quick else ACCOUNTS
    seconds = bench.budget_s * 0.4 / 12
    for name, peer in (("lmdb", _Lmdb), ("sqlite", _Sqlite)):
        directory = bench.directory / name
        directory.mkdir()
        subject = peer(directory, accounts)
        for callers in (1, 50, 500):
            for alpha in (0.0, 1.5):
                load = Load(accounts, alpha, bench.seed)
                done, began = 0, time.perf_counter()
                while time.perf_counter() - began < seconds:
                    subject.transfer([load.pair() for _ in range(callers)])
                    done += callers
                yield Result(
                    name="transfer",
                    params={"alpha": alpha, "callers": callers},
                    metric="durable_tx_per_s",
                    value=done / (time.perf_counter() - began),
                    unit="1/s",
                    peer=name,
                )
        assert accounts * BALANCE == subject.total()
        subject.close()
        shutil.rmtree(directory)


class _Lmdb:
    """The bare library: one transaction a commit, the same documents in the same encoding."""

    def __init__(self, directory: Path, accounts: int) -> None:
        self._env = lmdb.open(str(directory), map_size=1 << 34)
        with self._env.begin(write=True) as txn:
            for n in range(accounts):
                doc = {"owner": f"owner {n}", "balance": BALANCE, "_id": f"{n:032d}"}
                txn.put(n.to_bytes(20, "big"), encode({**doc, "_creationTime": 1.5}))

    def transfer(self, pairs: list[tuple[int, int]]) -> None:
        with self._env.begin(write=True) as txn:
            for source, target in pairs:
                for account, change in ((source, -1), (target, 1)):
                    key = account.to_bytes(20, "big")
                    doc = decode(txn.get(key) or b"")
                    doc["balance"] += change
                    txn.put(key, encode(doc))

    def total(self) -> float:
        with self._env.begin() as txn:
            return float(sum(decode(value)["balance"] for _, value in txn.cursor()))

    def close(self) -> None:
        self._env.close()


class _Sqlite:
    """SQLite with a write-ahead log that is flushed at every commit."""

    def __init__(self, directory: Path, accounts: int) -> None:
        self._db = sqlite3.connect(directory / "transfer.db", isolation_level=None)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=FULL")
        self._db.execute("CREATE TABLE accounts (id INTEGER PRIMARY KEY, owner, balance)")
        self._db.execute("BEGIN")
        rows = ((n, f"owner {n}", BALANCE) for n in range(accounts))
        self._db.executemany("INSERT INTO accounts VALUES (?, ?, ?)", rows)
        self._db.execute("COMMIT")

    def transfer(self, pairs: list[tuple[int, int]]) -> None:
        execute = self._db.execute
        execute("BEGIN IMMEDIATE")
        for source, target in pairs:
            for account, change in ((source, -1), (target, 1)):
                row = execute("SELECT balance FROM accounts WHERE id = ?", (account,)).fetchone()
                execute("UPDATE accounts SET balance = ? WHERE id = ?", (row[0] + change, account))
        execute("COMMIT")

    def total(self) -> float:
        total: float = self._db.execute("SELECT sum(balance) FROM accounts").fetchone()[0]
        return total

    def close(self) -> None:
        self._db.close()
