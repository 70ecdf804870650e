"""
Fan-out: a state of the data, evaluated once and told to every client that shows it.

    sessions ──due──▶ [ fan-out ] ──round──▶ backend: each question once
        ▲                                       │
        └──────────── transition ◀──────────────┘

A round takes sessions that are due, `SUBSCRIBERS_MAX` at most, pins one timestamp for
them, asks each distinct question among their stale queries once, and tells each session
as soon as its last answer is there; other rounds find the answer in the cache.  While a
round waits for answers the next one begins, with those who are not in one already; so a
slow query holds up only clients that show it.

A question is asked on behalf of the first who shows it, and answers everybody,
unless the function looked at who was asking: then everybody asks for himself,
and does so at once the next time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import islice
from typing import Final, Protocol, TypeAlias

import trio

from engine.errors import LimitExceeded
from engine.functions.results import Caller, QueryResult
from engine.kernel.runtime import Runtime
from engine.model.limits import Limits
from engine.server.backend import Backend
from engine.server.protocol import Plan
from engine.server.query_set import Query
from engine.server.who import Who

TOLD_AT_ONCE: Final = 64
"""Clients told before others get their turn: some milliseconds."""

TOLD_BYTES_AT_ONCE: Final = 4 << 20
"""Or what they are told together: as long, since it is copied for each."""

SUBSCRIBERS_MAX: Final = TOLD_AT_ONCE
"""
In one round: the first are told while the next ones are planned for, each soon after its own plan.
With four times as many, 10,000 clients took a tenth more of the processor's time: what a plan had
touched was out of the caches again, and the garbage collector came upon plans that waited.
"""

Function: TypeAlias = tuple[str, str]
"""Component and path."""

Key: TypeAlias = tuple[Function, bytes, "str | None", bool, "str | None"]
"""Function, arguments, journal, whether an administrator asks, and maybe who."""


class Subscriber(Protocol):
    """A session, as the fan-out sees it."""

    def is_ahead_of(self, ts: int) -> bool:
        """Whether its client has been told of a later state."""
        ...

    def plan(self) -> Plan | None:
        """What it has to be told, or `None` for nothing, or not now."""
        ...

    def tell(self, plan: Plan, ts: int, results: dict[Query, QueryResult], request_id: str) -> None:
        """Tell its client, and come to `Fanout.release`; the results' holds are handed over."""
        ...

    def give_up(self, error: Exception) -> None:
        """The plan came to nothing; come to `Fanout.release` when it is worth trying again."""
        ...


@dataclass(slots=True, eq=False)
class _Part:
    """One session's part in a round."""

    subscriber: Subscriber
    plan: Plan
    results: dict[Query, QueryResult] = field(default_factory=dict)
    size_bytes: int = 0
    is_over: bool = False

    def take(self, query: Query, result: QueryResult, bytes_max: int) -> None:
        """Keep `result`, of which one hold is handed over; or give up, as it is all too much."""
        self.results[query] = result
        self.size_bytes += result.size_bytes
        if self.size_bytes > bytes_max:
            what = "results that one client is to be told at a time"
            self.give_up(LimitExceeded("results_bytes_max", self.size_bytes, bytes_max, what))

    def give_up(self, error: Exception) -> None:
        if not self.is_over:
            self.drop()
            self.subscriber.give_up(error)

    def drop(self) -> None:
        """Let go of what was found out so far, unless it was told."""
        if not self.is_over:
            self.is_over = True
            for result in self.results.values():
                result.live.release()


@dataclass(slots=True, eq=False)
class _Question:
    """What some parts of a round want to know."""

    key: Key
    query: Query
    who: Who
    is_personal: bool
    askers: list[tuple[_Part, Query]] = field(default_factory=list)


class Fanout:
    """
    Args:
        limits: of what one client is told at a time, and how much is asked at a time for it.
    """

    def __init__(self, backend: Backend, runtime: Runtime, limits: Limits) -> None:
        self._backend = backend
        self._runtime = runtime
        self._tasks_max = limits.parallel_queries_max
        self.results_bytes_max: Final = limits.results_bytes_max
        self._due: dict[Subscriber, None] = {}
        self._busy: set[Subscriber] = set()
        self._filled = trio.lowlevel.ParkingLot()
        self.telling = trio.Lock()
        """Of the round that tells a crowd: what others get between is bounded for all of them."""
        self.personal: set[Function] = set()
        """Functions whose last answer depended on who asked."""

    def due(self, subscriber: Subscriber) -> None:
        """`subscriber` may have something to tell its client."""
        if subscriber not in self._busy:
            if not self._due:
                self._filled.unpark_all()
            self._due[subscriber] = None

    def leave_out(self, subscriber: Subscriber) -> bool:
        """Whether `subscriber` is in no round, and may tell its client by itself what it has to."""
        if subscriber in self._busy:
            return False
        self._due.pop(subscriber, None)
        return True

    def release(self, subscriber: Subscriber) -> None:
        """`subscriber` has been told, or has given up, and may be in another round."""
        self._busy.discard(subscriber)

    def forget(self, subscriber: Subscriber) -> None:
        """`subscriber` is gone."""
        self._due.pop(subscriber, None)
        self._busy.discard(subscriber)

    async def run(self) -> None:
        """Be the one task that begins rounds, until cancelled."""
        async with trio.open_nursery() as rounds:
            while True:
                while not self._due:
                    await self._filled.park()
                await self._begin_round(rounds)

    async def _begin_round(self, rounds: trio.Nursery) -> None:
        with ExitStack() as lease:
            ts = lease.enter_context(self._backend.pin())
            if self._backend.processed.value < ts:
                await self._backend.processed.wait_reached(ts)
            subscribers = self._due_at(ts)
            for subscriber in subscribers:
                del self._due[subscriber]
            request_id = self._runtime.random_bytes(8).hex()
            parts = [part for each in subscribers if (part := self._part(each)) is not None]
            asking = [part for part in parts if part.plan.asked]
            if asking:
                round_ = _Round(self, self._backend, self._runtime, ts, request_id, asking)
                rounds.start_soon(round_.run, lease.pop_all(), self._tasks_max)
        for part in parts:
            if not part.plan.asked:
                part.subscriber.tell(part.plan, ts, {}, request_id)
        await trio.lowlevel.checkpoint()

    def _due_at(self, ts: int) -> list[Subscriber]:
        """Those who are told next, of the state of `ts`; others stay due."""
        due = islice(self._due, SUBSCRIBERS_MAX)
        if self._backend.processed.value == ts:
            return list(due)
        # It was waited for: others came to a later state meanwhile, and told some of it.
        return [each for each in due if not each.is_ahead_of(ts)]

    def _part(self, subscriber: Subscriber) -> _Part | None:
        """The part of `subscriber` in the round that begins, if it has one."""
        self._busy.add(subscriber)
        try:
            plan = subscriber.plan()
        except Exception as error:
            subscriber.give_up(error)
            return None
        if plan is None:
            self._busy.discard(subscriber)
            return None
        return _Part(subscriber, plan)


class _Round:
    """The questions of some sessions at one timestamp."""

    def __init__(
        self,
        fanout: Fanout,
        backend: Backend,
        runtime: Runtime,
        ts: int,
        request_id: str,
        parts: list[_Part],
    ) -> None:
        self._fanout = fanout
        self._backend = backend
        self._runtime = runtime
        self._ts = ts
        self._request_id = request_id
        self._parts = parts
        self._questions: dict[Key, _Question] = {}
        self._unasked: deque[_Question] = deque()

    async def run(self, lease: ExitStack, tasks_max: int) -> None:
        """Ask, and tell; whatever goes wrong ends the parts that it concerns."""
        with lease:
            try:
                for part, query in _in_turns(self._parts):
                    self._add(part, query)
                await self._runtime.pause("fanout.planned")
                await self._ask_all(tasks_max)
            except Exception as error:
                for part in self._parts:
                    part.give_up(error)

    def _add(self, part: _Part, query: Query) -> None:
        who = part.plan.who
        is_personal = query.function in self._fanout.personal
        asker = who.key if is_personal else None
        key: Key = (query.function, query.args_digest, query.journal, who.admin, asker)
        question = self._questions.get(key)
        if question is None:
            question = self._questions[key] = _Question(key, query, who, is_personal)
            self._unasked.append(question)
        question.askers.append((part, query))

    async def _ask_all(self, tasks_max: int) -> None:
        tasks = min(len(self._unasked), tasks_max)
        if tasks <= 1:
            await self._ask()
            return
        async with trio.open_nursery() as nursery:
            for _ in range(tasks):
                nursery.start_soon(self._ask)

    async def _ask(self) -> None:
        while self._unasked:
            question = self._unasked.popleft()
            # Whoever comes later asks anew: this one may have been answered by then.
            del self._questions[question.key]
            query, who = question.query, question.who
            caller = Caller(who.identity, who.admin, self._request_id, "session")
            try:
                result = await self._backend.query(
                    query.path,
                    query.args(),
                    caller=caller,
                    ts=self._ts,
                    journal=query.journal,
                    component=query.component,
                )
            except Exception as error:
                for part, _ in question.askers:
                    part.give_up(error)
                continue
            try:
                await self._answer(question, result)
            finally:
                result.live.release()

    async def _answer(self, question: _Question, result: QueryResult) -> None:
        """Hand a result to all who asked, and tell those who have all of theirs."""
        self._note(question, result)
        try:
            self._fanout.telling.acquire_nowait()
        except trio.WouldBlock:
            await self._fanout.telling.acquire()
        try:
            await self._tell(question, result)
        finally:
            self._fanout.telling.release()

    async def _tell(self, question: _Question, result: QueryResult) -> None:
        fit = TOLD_BYTES_AT_ONCE // (result.size_bytes or 1)
        at_once = min(max(fit, 1), TOLD_AT_ONCE)
        for count, (part, query) in enumerate(question.askers, start=1):
            if count % at_once == 0:
                await trio.lowlevel.checkpoint()
            if part.is_over:
                continue
            if result.observed_identity and part.plan.who.key != question.who.key:
                self._add(part, query)
                continue
            result.live.retain()
            part.take(query, result, self._fanout.results_bytes_max)
            if not part.is_over and len(part.results) == len(part.plan.asked):
                part.is_over = True
                part.subscriber.tell(part.plan, self._ts, part.results, self._request_id)

    def _note(self, question: _Question, result: QueryResult) -> None:
        function = question.query.function
        if result.observed_identity:
            self._fanout.personal.add(function)
        elif question.is_personal:
            self._fanout.personal.discard(function)


def _in_turns(parts: list[_Part]) -> Iterator[tuple[_Part, Query]]:
    """The queries of all parts, the first of each part first: one with many delays no other."""
    turn = 0
    while parts:
        for part in parts:
            yield part, part.plan.asked[turn]
        turn += 1
        parts = [part for part in parts if turn < len(part.plan.asked)]
