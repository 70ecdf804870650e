"""
The query cache: a query that was answered is answered again without being run.

    result = await cache.fetch(key, identity_key, ts, run)
    ...
    result.live.release()

A result is kept with its `Live`, for as long as no commit touched what it had
read; so a hit is what running the query at `ts` would have given.  Two places
are looked at: the caller's own, and that of results which did not depend on
who asked, which are everybody's.

The same question, asked while it is being answered, waits for that answer:

    asked ──▶ kept and valid? ──yes──▶ hit
                │ no
                ▼
              in flight, begun no later than `ts`? ──yes──▶ wait, and take it if it fits
                │ no                                          │ it does not, or there is none
                ▼                                             ▼
              run, keep, hand to all who wait               ask again

One who waited for a run that failed runs the query himself, since a failure
is never shared; one whose leader was cancelled asks again, and the first of
those leads.  Memory is bounded by bytes, the estimated weight of read sets
included: what was not used for longest goes first, and lets go of its `Live`.

An answer that a commit has touched is not looked for: whoever asks again finds
that it does not hold, and otherwise it goes when there is time.
"""

from __future__ import annotations

import enum
import math
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Generic, Protocol, TypeVar

import trio

from engine.subscriptions.handle import Subscriptions
from engine.subscriptions.token import Live

ENTRY_BYTES = 1024
"""About what an entry takes up besides its result, arguments and read set."""


class CachedResult(Protocol):
    """What the cache asks of the answer to a query."""

    @property
    def ts(self) -> int:
        """When what the query read was so."""
        ...

    @property
    def live(self) -> Live:
        """How long it remains so; one hold of it belongs to whoever was given the answer."""
        ...

    @property
    def journal(self) -> str | None: ...

    @property
    def observed_identity(self) -> bool: ...

    @property
    def observed_time(self) -> bool: ...

    @property
    def size_bytes(self) -> int: ...

    @property
    def failure(self) -> object | None: ...


R = TypeVar("R", bound=CachedResult)


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheKey:
    """What was asked: one key and identity at one `ts` has one answer."""

    component: str
    path: str
    args_bytes: bytes
    journal: str | None


class _Anyone(enum.Enum):
    """In place of an identity, where the answer does not depend on it."""

    ANYONE = enum.auto()


_Slot = tuple[CacheKey, str | _Anyone | None]


class _Fate(enum.Enum):
    """What became of a run."""

    LEFT = enum.auto()
    """It was cancelled, which says nothing about the query."""
    FAILED = enum.auto()
    DONE = enum.auto()


class _WaitFor(enum.Enum):
    """Whose run a caller still waits for."""

    ANYBODY = enum.auto()
    ITSELF = enum.auto()
    """Its own identity: an answer that it waited for was about somebody else."""
    NOBODY = enum.auto()
    """It waited for a run that failed."""


@dataclass(slots=True, eq=False)
class _Hits:
    """Answers of one function that were kept, since somebody asked for their number."""

    count: int = 0


@dataclass(slots=True, eq=False, kw_only=True)
class _Entry(Generic[R]):
    result: R
    size_bytes: int
    fresh_until: float
    slots: list[_Slot]
    hits: _Hits


@dataclass(slots=True, eq=False, kw_only=True)
class _Flight(Generic[R]):
    """
    A run that others may wait for.

    While somebody does, it holds the answer's `Live` for them: the leader may
    have let go of it, and the cache too, before they come to take it.
    """

    ts: int
    identity_key: str | None
    fresh_until: float
    fate: _Fate = _Fate.LEFT
    result: R | None = None
    waiting: int = 0
    settled: trio.Event = field(default_factory=trio.Event)

    def settle(self) -> None:
        if self.result is not None and self.waiting:
            self.result.live.retain()
        self.settled.set()

    def leave(self) -> None:
        self.waiting -= 1
        if self.result is not None and not self.waiting:
            self.result.live.release()


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryCacheStatistics:
    """What is kept now, and what was served since the start."""

    entries: int
    size_bytes: int
    in_flight: int
    hits: int
    shared: int
    """Answers taken from a run of somebody else that was under way."""
    runs: int
    evictions: int


class QueryCache(Generic[R]):
    """
    Answers of queries, as long as they hold.

    Args:
        bytes_max: what is kept weighs no more than this.
        subscriptions: what the answers' `Live`s belong to.
        monotonic: seconds of a clock that never jumps.
        time_age_s_max: an answer that saw the clock is served no longer than this.
    """

    def __init__(
        self,
        bytes_max: int,
        subscriptions: Subscriptions,
        *,
        monotonic: Callable[[], float],
        time_age_s_max: float,
    ) -> None:
        self._bytes_max = bytes_max
        self._processed = subscriptions.processed
        subscriptions.keep_until_touched(self._let_go)
        self._monotonic = monotonic
        self._time_age_s_max = time_age_s_max
        self._entries: dict[_Slot, _Entry[R]] = {}
        self._by_use: OrderedDict[_Entry[R], None] = OrderedDict()
        self._by_live: dict[Live, _Entry[R]] = {}
        self._flights: dict[_Slot, _Flight[R]] = {}
        self._personal: set[tuple[str, str]] = set()
        """Functions whose last answer depended on who asked: their callers wait for themselves."""
        self._hits_of: dict[tuple[str, str], _Hits] = {}
        self._size_bytes = 0
        self._hits = self._shared = self._runs = self._evictions = 0

    async def fetch(
        self, key: CacheKey, identity_key: str | None, ts: int, run: Callable[[], Awaitable[R]]
    ) -> R:
        """
        Return the answer at `ts`: one that is kept, one under way, or that of `run`.

        The caller has one hold of the answer's `live`, whichever it is, and
        releases it.  A failure is returned to whoever ran it and to nobody
        else.  `run` runs the query at `ts` for this identity, and does not
        itself fetch the same key.

        Args:
            key: the question.
            identity_key: equal for callers who look the same to a query; `None` is nobody.
            ts: a published timestamp.

        Raises:
            whatever `run` raises.
        """
        wait_for = _WaitFor.ANYBODY
        while True:
            if (kept := await self._kept(key, identity_key, ts)) is not None:
                return kept
            flight = self._flight_to_join(key, identity_key, ts, wait_for)
            if flight is None:
                return await self._lead(key, identity_key, ts, run, wait_for)
            flight.waiting += 1
            try:
                await flight.settled.wait()
                await self._catch_up(ts)
                if (shared := self._share(flight, identity_key, ts)) is not None:
                    return shared
            finally:
                flight.leave()
            wait_for = _wait_for_after(flight, identity_key, wait_for)

    def clear(self) -> None:
        """Forget everything that is kept, and let go of it."""
        self._personal.clear()
        while self._by_use:
            self._drop(next(iter(self._by_use)))

    def statistics(self) -> QueryCacheStatistics:
        return QueryCacheStatistics(
            entries=len(self._by_use),
            size_bytes=self._size_bytes,
            in_flight=len(self._flights),
            hits=self._hits,
            shared=self._shared,
            runs=self._runs,
            evictions=self._evictions,
        )

    def take_hits(self) -> list[tuple[str, str, int]]:
        """Component, path and number of the answers that were kept, since it was called last."""
        taken = [(*function, hits.count) for function, hits in self._hits_of.items() if hits.count]
        for hits in self._hits_of.values():
            hits.count = 0
        return taken

    async def _kept(self, key: CacheKey, identity_key: str | None, ts: int) -> R | None:
        slots: tuple[_Slot, _Slot] = ((key, identity_key), (key, _Anyone.ANYONE))
        if not any(slot in self._entries for slot in slots):
            return None
        await self._catch_up(ts)
        for slot in slots:
            entry = self._entries.get(slot)
            if entry is None:
                continue
            if entry.fresh_until < self._monotonic():
                self._drop(entry)
            elif entry.result.live.valid_at(ts) and entry.result.live.is_in_order():
                self._by_use.move_to_end(entry)
                self._hits += 1
                entry.hits.count += 1
                entry.result.live.retain()
                return entry.result
        return None

    def _flight_to_join(
        self, key: CacheKey, identity_key: str | None, ts: int, wait_for: _WaitFor
    ) -> _Flight[R] | None:
        if wait_for is _WaitFor.NOBODY:
            return None
        is_shared = wait_for is _WaitFor.ANYBODY and not self._is_personal(key)
        for slot in ((key, identity_key), (key, _Anyone.ANYONE)):
            flight = self._flights.get(slot)
            if flight is None or flight.ts > ts:
                continue
            if is_shared or flight.identity_key == identity_key:
                return flight
        return None

    def _share(self, flight: _Flight[R], identity_key: str | None, ts: int) -> R | None:
        """Take the answer of a settled flight, if it is one for this caller."""
        result = flight.result
        if (
            result is None
            or _is_about_another(result, flight, identity_key)
            or flight.fresh_until < self._monotonic()
            or not result.live.valid_at(ts)
            or not result.live.is_in_order()
        ):
            return None
        self._shared += 1
        result.live.retain()
        return result

    async def _lead(
        self,
        key: CacheKey,
        identity_key: str | None,
        ts: int,
        run: Callable[[], Awaitable[R]],
        wait_for: _WaitFor,
    ) -> R:
        """Run the query, so that others can wait for it unless others already wait for another."""
        is_shared = wait_for is _WaitFor.ANYBODY and not self._is_personal(key)
        slot: _Slot = (key, _Anyone.ANYONE if is_shared else identity_key)
        began = self._monotonic()
        flight = _Flight[R](ts=ts, identity_key=identity_key, fresh_until=math.inf)
        is_joinable = self._flights.setdefault(slot, flight) is flight
        self._runs += 1
        try:
            result = await run()
            if result.failure is not None:
                flight.fate = _Fate.FAILED
                return result
            if result.observed_time:
                flight.fresh_until = began + self._time_age_s_max
            flight.fate = _Fate.DONE
            flight.result = result
            self._keep(key, identity_key, result, flight.fresh_until)
        except Exception:
            flight.fate = _Fate.FAILED
            raise
        finally:
            if is_joinable:
                del self._flights[slot]
            flight.settle()
        return result

    def _keep(self, key: CacheKey, identity_key: str | None, result: R, fresh_until: float) -> None:
        self._note_who_asked(key, result)
        size_bytes = (
            result.size_bytes + result.live.size_bytes() + len(key.args_bytes) + ENTRY_BYTES
        )
        slots = self._slots_for(key, identity_key, result)
        live = result.live
        if live.invalidated_at is not None or not live.is_in_order():
            return  # nobody would be given it
        if not slots or size_bytes > self._bytes_max:
            return
        for slot in slots:
            if replaced := self._entries.get(slot):
                self._take_slot(replaced, slot)
        entry = _Entry(
            result=result,
            size_bytes=size_bytes,
            fresh_until=fresh_until,
            slots=slots,
            hits=self._hits_of.setdefault((key.component, key.path), _Hits()),
        )
        result.live.retain()
        self._by_live[result.live] = entry
        self._entries.update(dict.fromkeys(slots, entry))
        self._by_use[entry] = None
        self._size_bytes += size_bytes
        while self._size_bytes > self._bytes_max:
            self._drop(next(iter(self._by_use)))
            self._evictions += 1

    def _slots_for(self, key: CacheKey, identity_key: str | None, result: R) -> list[_Slot]:
        """
        Where to keep `result`, except where something newer is.

        A page that chose its own end is what comes back to whoever asks anew,
        and also to whoever asks again with the journal in which it says so.
        """
        who = identity_key if result.observed_identity else _Anyone.ANYONE
        slots: list[_Slot] = [(key, who)]
        if result.journal != key.journal:
            slots.append((replace(key, journal=result.journal), who))
        return [
            slot
            for slot in slots
            if (kept := self._entries.get(slot)) is None or kept.result.ts <= result.ts
        ]

    def _take_slot(self, entry: _Entry[R], slot: _Slot) -> None:
        if entry.slots == [slot]:
            self._drop(entry)
        else:
            entry.slots.remove(slot)
            del self._entries[slot]

    def _drop(self, entry: _Entry[R]) -> None:
        del self._by_use[entry]
        for slot in entry.slots:
            del self._entries[slot]
        self._size_bytes -= entry.size_bytes
        del self._by_live[entry.result.live]
        entry.result.live.release()

    def _let_go(self, live: Live) -> None:
        """Forget an answer that was touched, unless it has gone."""
        if (entry := self._by_live.get(live)) is not None:
            self._drop(entry)

    def _is_personal(self, key: CacheKey) -> bool:
        return (key.component, key.path) in self._personal

    def _note_who_asked(self, key: CacheKey, result: R) -> None:
        function = (key.component, key.path)
        if result.observed_identity:
            self._personal.add(function)
        else:
            self._personal.discard(function)

    async def _catch_up(self, ts: int) -> None:
        """Wait until it is known what held until `ts`: a step of the subscriptions, if that."""
        if self._processed.value < ts:
            await self._processed.wait_reached(ts)


def _wait_for_after(flight: _Flight[R], identity_key: str | None, wait_for: _WaitFor) -> _WaitFor:
    """Decide whom to wait for next, after waiting for `flight` in vain."""
    if flight.fate is _Fate.FAILED:
        return _WaitFor.NOBODY
    if flight.result is not None and _is_about_another(flight.result, flight, identity_key):
        return _WaitFor.ITSELF
    return wait_for


def _is_about_another(result: CachedResult, flight: _Flight[R], identity_key: str | None) -> bool:
    return result.observed_identity and flight.identity_key != identity_key
