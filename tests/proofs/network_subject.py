"""
The process that the proof of networks talks to: counters, served.

    python -m tests.proofs.network_subject DIRECTORY [BUG]

It says `url URL` on a line and serves until it is killed.
"""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeAlias
from unittest.mock import patch
from weakref import WeakKeyDictionary

import trio
from msgspec import Raw

from engine.app.contexts import MutationCtx, QueryCtx
from engine.app.decorators import mutation, query
from engine.app.schema import Schema, Table
from engine.app.validators import v
from engine.functions import idempotence
from engine.functions.idempotence import Recorded
from engine.functions.results import QueryResult
from engine.host import Engine
from engine.kernel.trace import trace_to_stderr
from engine.model.commits import SessionRequest
from engine.model.limits import Limits
from engine.server.listener import ListenConfig
from engine.server.messages import Connect
from engine.server.outbox import Outbox
from engine.server.protocol import Plan, Protocol, Step
from engine.server.query_set import Query
from engine.store.lmdb_store import LmdbStore
from engine.transaction.transaction import Transaction

LIMITS: Final = Limits(ping_s=1.0, inactivity_s_max=20.0)
"""Clients of ours take some seconds of silence for a dead server."""
NEWEST_COUNT: Final = 5
FLUSH_S: Final = 0.02
"""On average, of a disk that is slower than this one."""

schema = Schema(
    totals=Table(v.object({"value": v.number()})),
    counters=Table(v.object({"who": v.string(), "value": v.number()})).index("by_who", ["who"]),
    entries=Table(
        v.object(
            {
                "who": v.string(),
                "number": v.number(),
                "answer": v.array(v.number()),
                "at": v.number(),
            }
        )
    ).index("by_who", ["who", "at"]),
)


@mutation
async def add(ctx: MutationCtx, who: str, number: float) -> list[float]:
    """Count for `who`; its counter and the total before, which are kept with `number`."""
    counter = await ctx.db.query("counters").with_index("by_who", who=who).unique()
    total = await ctx.db.query("totals").unique()
    own, all_ = counter["value"] if counter else 0, total["value"] if total else 0
    if counter is None:
        await ctx.db.insert("counters", {"who": who, "value": 1})
    else:
        await ctx.db.patch(counter["_id"], {"value": own + 1})
    if total is None:
        await ctx.db.insert("totals", {"value": 1})
    else:
        await ctx.db.patch(total["_id"], {"value": all_ + 1})
    answer = [own, all_]
    await ctx.db.insert("entries", {"who": who, "number": number, "answer": answer, "at": all_})
    return answer


@query
async def total(ctx: QueryCtx) -> float:
    found = await ctx.db.query("totals").unique()
    return found["value"] if found else 0


@query
async def counters(ctx: QueryCtx) -> dict[str, float]:
    return {doc["who"]: doc["value"] async for doc in ctx.db.query("counters")}


@query
async def newest(ctx: QueryCtx, who: str) -> list[float]:
    """The last numbers that `who` has counted with, newest first."""
    found = ctx.db.query("entries").with_index("by_who", who=who).order("desc")
    return [doc["number"] for doc in await found.take(NEWEST_COUNT)]


@query
async def ledger(ctx: QueryCtx, who: str, after: float) -> list[list[Any]]:
    """Numbers of `who` and what each was answered, the first thousands after a total."""
    found = ctx.db.query("entries").with_index("by_who", lambda q: q.eq("who", who).gt("at", after))
    return [[doc["number"], doc["answer"]] for doc in await found.take(4_000)]


# A disk that takes its time, so that what is said again meets its first run.

_apply = LmdbStore.apply


async def _apply_slowly(store: LmdbStore, batch: bytes) -> None:
    await trio.sleep(random.expovariate(1 / FLUSH_S))
    await _apply(store, batch)


APPLICATION: Final = [add, total, counters, newest, ledger, schema]


async def main(directory: Path) -> None:
    async with (
        Engine.open(directory, app=APPLICATION, limits=LIMITS) as engine,
        engine.listen(ListenConfig(bind=("127.0.0.1:0",))) as urls,
    ):
        os.write(1, f"url {urls[0]}\n".encode())
        await trio.sleep_forever()


# Bugs that the proof has to catch, each planted for the length of a block.

Plant: TypeAlias = Callable[[], AbstractContextManager[Any]]


def _in_place_of(owner: object, name: str, planted: object) -> Plant:
    return partial(patch.object, owner, name, planted)


def _record_nothing(*_: object, **__: object) -> None:
    """As if there were no sessions."""


_find = idempotence.find


def _find_published(transaction: Transaction, request: SessionRequest) -> Recorded | None:
    """What was staged while the last batch is written is not looked at."""
    found = _find(transaction, request)
    snapshot_ts = transaction.view.snapshot.ts
    return None if found is not None and found.ts > snapshot_ts else found


def _answer_anew(transaction: Transaction, request: SessionRequest) -> Recorded | None:
    found = _find(transaction, request)
    return None if found is None else replace(found, value=None)


_request_key = idempotence.request_key


def _key_without_session(request: SessionRequest) -> bytes:
    return _request_key(replace(request, session_id=bytes(16)))


_news = Protocol._news


def _news_but_one(
    protocol: Protocol, plan: Plan, results: Mapping[Query, QueryResult], request_id: str
) -> list[Raw]:
    """Of several queries that are shown already, the last one is left for the next transition."""
    if len(plan.asked) > 1 and all(one.shown is not None for one in plan.asked):
        results[plan.asked[-1]].live.release()
        plan = replace(plan, asked=plan.asked[:-1])
    return _news(protocol, plan, results, request_id)


_put, _put_transition = Outbox.put, Outbox.put_transition
_held: WeakKeyDictionary[Outbox, tuple[list[bytes], list[bytes]]] = WeakKeyDictionary()
"""Responses that no transition was sent after yet, and those that one was."""


def _hold(outbox: Outbox, message: bytes) -> None:
    """A response is sent after two transitions, of which one shows what it answers."""
    if b'"MutationResponse"' in message[:40]:
        _held.setdefault(outbox, ([], []))[0].append(message)
    else:
        _put(outbox, message)


def _put_transition_first(outbox: Outbox, parts: Sequence[bytes]) -> None:
    _put_transition(outbox, parts)
    early, late = _held.get(outbox, ([], []))
    _held[outbox] = ([], early)
    for message in late:
        _put(outbox, message)


@contextmanager
def _responses_late() -> Iterator[None]:
    with (
        patch.object(Outbox, "put", _hold),
        patch.object(Outbox, "put_transition", _put_transition_first),
    ):
        yield


def _sleep_on(_query: Query) -> None:
    """Whatever was written."""


_connect = Protocol._connect


def _connect_asleep(protocol: Protocol, message: Connect) -> Step:
    """Who comes back is told what it asks for, and not of what others write."""
    if message.connection_count:
        protocol.queries._touched = _sleep_on  # type: ignore[assignment]
    return _connect(protocol, message)


PLANTED: Final[Mapping[str, Plant]] = {
    "session records not kept": _in_place_of(idempotence, "record", _record_nothing),
    "a record of any session": _in_place_of(idempotence, "request_key", _key_without_session),
    "a repetition beside its first run": _in_place_of(idempotence, "find", _find_published),
    "a repetition answered otherwise": _in_place_of(idempotence, "find", _answer_anew),
    "a transition of two timestamps": _in_place_of(Protocol, "_news", _news_but_one),
    "a response after its transition": _responses_late,
    "a wake-up lost after a reconnect": _in_place_of(Protocol, "_connect", _connect_asleep),
}


if __name__ == "__main__":
    trace_to_stderr(level="critical")
    with PLANTED[sys.argv[2]]() if len(sys.argv) > 2 else nullcontext():
        setattr(LmdbStore, "apply", _apply_slowly)  # noqa: B010 - a method is not assigned to
        trio.run(main, Path(sys.argv[1]))
