"""
Bugs that the simulation of a whole engine has to catch, each planted for the length of a block.

    with PLANTED["a wake-up that is lost"]():
        assert simulated(seed).problems         # with some seed
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final
from unittest.mock import Mock, patch

from engine.committer import retention
from engine.committer.actor import Committer, _CommitClock
from engine.errors import StoreFailed, StoreFull
from engine.functions import due_jobs, idempotence, jobs, scheduling
from engine.functions.crons import tick_ended
from engine.functions.job_rows import PENDING, add_job, standing
from engine.functions.mutations import Mutations
from engine.functions.run import Functions
from engine.functions.turns import Turns
from engine.indexes import annexes
from engine.indexes.catalog import JOBS_BY_DUE
from engine.indexes.taken_back import lay_all, take_back
from engine.kernel.runtime import VirtualRuntime
from engine.log.records import decode_record
from engine.log.retention import next_trim
from engine.model.ids import row_key_of
from engine.store.interface import Batch, Tree, decode_batch
from engine.store.memory_scratch import MemoryScratch
from engine.store.memory_store import MemoryStore
from engine.subscriptions.handle import Subscriptions
from engine.subscriptions.token import Live
from engine.transaction.transaction import Transaction
from tests.simulation.planted import PLANTED as PLANTED_IN_LISTS
from tests.simulation.planted import Plant, in_place_of

WAKE_UPS: Final = 10
"""One in so many is lost."""
LATER_S: Final = 2.5
"""Of the three seconds for which the log is kept in these runs."""


# The past.


def _take_back_but_the_last(log: Iterable[bytes], *rest: Any, **options: Any) -> Iterator[None]:
    return take_back(list(log)[:-1], *rest, **options)


async def _reached_the_next(functions: Functions, ts: int) -> int:
    newest = functions._snapshots.current
    return next((decode_record(data).ts for data in newest.log(ts, newest.ts)), ts)


def _lay_what_changed(_now: Any, *rest: Any, **options: Any) -> Iterator[bytes]:
    return lay_all(lambda *_: iter(()), *rest, **options)


def _lay_what_is(now: Any, _scratch: Any, *rest: Any, **options: Any) -> Iterator[bytes]:
    """Into the scratch, but without looking at what it has."""
    blind = Mock(wraps=_scratch)
    blind.snapshot = MemoryScratch().snapshot
    return lay_all(now, blind, *rest, **options)


# Jobs and crons.


def _begin_again(turn: Transaction) -> list[Any]:
    """What an earlier run of the engine had begun is begun once more."""
    where = standing("").begun
    begun = turn.read_slice(JOBS_BY_DUE, *where, reverse=False, rows_max=100).docs
    for job in begun:
        again = {**job, "state": {"kind": PENDING}, "due": job["scheduledTime"]}
        turn.put_row(row_key_of(job["_id"]), again)
    return []


def _end_separately(
    mutations: Mutations, key: bytes, job: Any, state: Any, request: Any, outcome: Any, *rest: Any
) -> int:
    """First what a job does, then that it has ended."""
    transaction, execution = rest
    ts = mutations._stage(request, outcome, execution, transaction, None)
    if outcome.failure is not None:
        return ts
    view = transaction.view
    after = Transaction(
        type(view)(
            view.snapshot,
            begin_ts=mutations._committer.head.ts,
            catalog=mutations._committer.head.catalog,
            counts=mutations._committer.head.counts,
            staged=mutations._committer.staged,
            generation=view.generation,
        ),
        usage=transaction.usage,
        now_ns=transaction.now_ms * 1_000_000,
        dice=mutations._runtime.random,
        schema=None,
    )
    scheduling.finish_job(after, key, job, state)
    return mutations._stage(request, outcome, execution, after, None)


_tick_ended = tick_ended


def _tick_twice(turn: Transaction, key: bytes, tick: Any, ended: Any) -> None:
    _tick_ended(turn, key, tick, ended)
    cron = turn.get(row_key_of(tick["cron"]))
    if cron is not None and cron["tick"] is not None:
        add_job(
            turn,
            owner=tick["component"],
            component=tick["target"],
            path=tick["name"],
            args=tick["args"][0],
            due_ms=cron["nextTime"],
            cron=tick["cron"],
        )


# Triggers.

_child_steps = Transaction.child_steps


def _steps_but_deletions(transaction: Transaction) -> Any:
    return [step for step in _child_steps(transaction) if step.after is not None]


# What is told.


def _missed_nothing(_subscriptions: Subscriptions, _reads: Any, _ts: int) -> None:
    """Whatever was committed while somebody subscribed."""


_wake = Live.wake


def _forgetful_wake() -> Any:
    count = 0

    def wake(live: Live, woken: Any) -> None:
        nonlocal count
        count += 1
        if count % WAKE_UPS:
            _wake(live, woken)

    return patch.object(Live, "wake", wake)


# Time.


def _as_the_clock_says(clock: _CommitClock, _last: int, _after: int) -> int:
    return clock._runtime.now_ns()


def _wall_clock(turns: Turns) -> int:
    return turns._runtime.now_ns()


def _stamped_in_vain(transaction: Transaction) -> int:
    """What is told of the commit is forgotten when it comes."""
    assert transaction._stamp is not None
    return transaction._stamp(0)


_validate = Committer.validate


def _whatever_has_passed(
    committer: Committer, reads: Any, begin_ts: int, path: str, _ts: int
) -> None:
    _validate(committer, reads, begin_ts, path, 1 << 63)


def _trim_early(snapshot: Any, *, before_ts: int, excess_bytes: int, floor_ts: int) -> Any:
    """Whatever is older than half a second goes, however little there is of it."""
    upto_ts = floor_ts + int(LATER_S * 1e9)
    assert before_ts < upto_ts, "it would not go yet"
    return next_trim(snapshot, before_ts=upto_ts, excess_bytes=excess_bytes, floor_ts=upto_ts)


# The disk.

_apply, _durable_copy = MemoryStore.apply, MemoryStore.durable_copy


async def _apply_or_not(store: MemoryStore, batch: bytes) -> None:
    """What may or may not be written is taken for what is not."""
    try:
        await _apply(store, batch)
    except StoreFailed as error:
        store._failure = None
        raise StoreFull(f"there is no room: {error}") from None


def _torn_copy(store: MemoryStore, *, in_flight: bool = False) -> MemoryStore:
    """Of the batch in flight, all but the entries."""
    copy = _durable_copy(store)
    if in_flight and store._in_flight is not None:
        torn = Batch()
        for tree, (keys, values) in zip(Tree, decode_batch(store._in_flight), strict=True):
            if tree is not Tree.ENTRIES:
                torn.merge(tree, dict(zip(keys, values, strict=True)))
        copy._write(torn.encode())
    return copy


def _unseeded(_runtime: VirtualRuntime, count: int) -> bytes:
    return os.urandom(count)


def _not_recorded(*_: Any, **__: Any) -> None:
    """Nobody will know that this request was answered."""


PLANTED: Final[Mapping[str, Plant]] = {
    name: PLANTED_IN_LISTS[name]
    for name in (
        "an answer before the fsync",
        "no validation",
    )
} | {
    "a session record that is not written": in_place_of(idempotence, "record", _not_recorded),
    "an unknown outcome that is taken for a failure": in_place_of(
        MemoryStore, "apply", _apply_or_not
    ),
    "a batch of which a power cut leaves a part": in_place_of(
        MemoryStore, "durable_copy", _torn_copy
    ),
    "an action that is begun again after a crash": in_place_of(jobs, "_fail_begun", _begin_again),
    "a job that ends in a transaction of its own": in_place_of(
        Mutations, "_stage_ended", _end_separately
    ),
    "a job that runs before its time": in_place_of(due_jobs, "EARLY_MS", 500.0),
    "a cron that ticks twice": in_place_of(scheduling, "tick_ended", _tick_twice),
    "a deletion that no trigger follows": in_place_of(
        Transaction, "child_steps", _steps_but_deletions
    ),
    "a commit that is missed while subscribing": in_place_of(
        Subscriptions, "_first_touch", _missed_nothing
    ),
    "a wake-up that is lost": _forgetful_wake,
    "a timestamp that follows the clock back": in_place_of(
        _CommitClock, "next_ts", _as_the_clock_says
    ),
    "a session that a leap of the clock makes silent": in_place_of(Turns, "next_ts", _wall_clock),
    "a commit that is stamped anew": in_place_of(Transaction, "reserve_ts", _stamped_in_vain),
    "a timestamp that has passed": in_place_of(Committer, "validate", _whatever_has_passed),
    "a log that is trimmed too early": in_place_of(retention, "next_trim", _trim_early),
    "an annex without its last record": in_place_of(annexes, "take_back", _take_back_but_the_last),
    "a past that has the next commit": in_place_of(Functions, "_reached", _reached_the_next),
    "an index of then without what stayed": in_place_of(annexes, "lay_all", _lay_what_changed),
    "an index of then with what came since": in_place_of(annexes, "lay_all", _lay_what_is),
    "a choice without a seed": in_place_of(VirtualRuntime, "random_bytes", _unseeded),
}
"""The last one is only caught by comparing two schedules."""
