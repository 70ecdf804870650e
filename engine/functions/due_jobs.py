"""
Jobs that are due, each read once: who waits to begin, and up to where they are known.

    by_due of a component    known: they wait, run or are put off │ upto: not read yet ──▶

Mutations and actions of a component have such a line each, of bounded length: what waits in one is
passed over by the other, a slice at a time, so neither waits until the other has run, nor for what
is put off.  Passing over takes its time: 0.9 s for 20,000.  A commit that schedules something
before `upto` takes it back to there, many together take it back to the beginning; what ends jobs
moves nothing.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator
from heapq import heappop, heappush
from itertools import chain
from typing import Any, Final, NamedTuple

from engine.app.registered import Kind
from engine.app.registry import Application
from engine.functions.history import of_component
from engine.functions.job_rows import Standing, components_of, is_pending, standing
from engine.indexes.catalog import JOBS_BY_DUE, SCHEDULED_FUNCTIONS
from engine.indexes.entries import entry_key
from engine.indexes.snapshot import Snapshots
from engine.indexes.written import RecentCommits
from engine.kernel.runtime import Runtime
from engine.model.codec import decode, encode
from engine.model.keys import NUMBER_KEY_BYTES, decode_key
from engine.model.limits import ENTRY_TAIL_BYTES, Limits
from engine.model.reads import ReadSet
from engine.subscriptions.handle import Subscriptions
from engine.subscriptions.token import Live
from engine.transaction.view import View, view_of

LOOK_ROWS_MAX: Final = 64
"""Entries that one look goes through: half a millisecond, then others have their turn."""
NOTED_ROWS_MAX: Final = 512
"""Rows of commits that one look decodes: 3 ms. After a pause there may be a hundred thousand."""
EARLY_MS: Final = 0.001
"""Times in milliseconds are floats, so a job may be found due this much before its time."""


class Job(NamedTuple):
    """A job that is due."""

    key: bytes
    kind: Kind
    """As `DueJobs.kind_of`."""
    name: str
    """Of its function, in the component `target`."""
    target: str
    component: str
    """Whose job it is."""
    due_ms: float
    place: bytes
    """Its key in `by_due`, of which there is another when it waits for another time."""
    cron: str | None = None
    """The id of the cron that it is a tick of, if it is one."""

    @property
    def created_ms(self) -> float:
        """When it was scheduled."""
        (created,) = decode_key(self.place[-ENTRY_TAIL_BYTES : NUMBER_KEY_BYTES - ENTRY_TAIL_BYTES])
        assert isinstance(created, int | float), "a key ends with when the document was made"
        return created

    @property
    def path(self) -> str:
        """Of its function, and before it the component, if it is of one."""
        return of_component(self.target, self.name)


def as_job(key: bytes, row: Any, kind: Kind, place: bytes) -> Job:
    """The row of `_scheduled_functions` at `key`, as those see it who run it."""
    return Job(
        key,
        kind,
        row["name"],
        row["target"],
        row["component"],
        row["due"],
        place,
        row.get("cron"),
    )


def beginning_of(image: bytes, job: Job) -> bytes:
    """What rows of jobs begin with that are of the same function and component; no others do."""
    fields = {"name": job.name, "component": job.component, "target": job.target}
    pairs = encode(fields)[1:]
    assert image.startswith(pairs, 1), "these come first in a row of a job, behind its head"
    return image[: 1 + len(pairs)]


NOTHING_PASSED_OVER: Final = (b"\xff", Kind.QUERY)


class _Line:
    """Jobs of one kind of one component that wait to begin, and from where on more may follow."""

    __slots__ = ("next_due_ms", "refused", "upto", "waiting")

    def __init__(self, upto: bytes) -> None:
        self.waiting: list[tuple[bytes, Job]] = []
        """A heap, by place; those that are tried again come first."""
        self.refused: dict[bytes, int] = {}
        """How often the engine could not run a job that is still to be run, by key."""
        self.upto = upto
        self.next_due_ms = -math.inf
        """When the first is due that was not read; as early as can be if nobody has looked."""

    def take_back(self, place: bytes, due_ms: float) -> None:
        """There is a job at `place` that nobody here knows."""
        self.upto = min(self.upto, place)
        self.next_due_ms = min(self.next_due_ms, due_ms)


class _Component:
    """The lines of one component."""

    __slots__ = ("lines", "stand")

    def __init__(self, stand: Standing) -> None:
        self.stand = stand
        self.lines = {kind: _Line(stand.pending[0]) for kind in (Kind.MUTATION, Kind.ACTION)}


class DueJobs:
    """
    Args:
        recent: the newest commits, which tell what was scheduled.
        application: what is deployed. Jobs of a component that it has not mounted wait.
    """

    def __init__(
        self,
        application: Callable[[], Application],
        *,
        recent: RecentCommits,
        snapshots: Snapshots,
        subscriptions: Subscriptions,
        runtime: Runtime,
        limits: Limits,
    ) -> None:
        self._application = application
        self._recent = recent
        self._snapshots = snapshots
        self._subscriptions = subscriptions
        self._runtime = runtime
        self._bytes_max = limits.jobs_look_bytes_max
        self._waiting_max = limits.jobs_waiting_max
        self._put_off_max = limits.jobs_put_off_max
        self._components: dict[str, _Component] = {}
        """Those whose turn it is to be read first."""
        self._turns: dict[Kind, deque[str]] = {Kind.MUTATION: deque(), Kind.ACTION: deque()}
        """Components, that whose job is to begin next first."""
        self._known: dict[bytes, bytes] = {}
        """The places of all jobs that wait in a line, run or are put off."""
        self._live: Live | None = None
        self._seen_ts = -1
        """Commits up to here have moved what they move."""
        self._now_ms = -math.inf
        self._passed_over = NOTHING_PASSED_OVER
        """How rows of one function begin, and its kind: others of it need not be decoded."""

    # Looking

    def look(self, changed: Callable[[], None]) -> bool:
        """
        Read a slice of what is due and not known, in the newest state that is durable.

        Args:
            changed: called once when that is another one.

        Returns:
            Whether there may be more to be read, with others having their turn before.
        """
        snapshot = self._snapshots.acquire()
        try:
            view = view_of(snapshot)
            self._follow(view, changed)
            self._now_ms = self._runtime.now_ns() / 1e6 + EARLY_MS
            for name, component in self._components.items():
                lines = [line for line in component.lines.values() if self._wants(line)]
                if lines and self._is_mounted(name):
                    self._read(view, component, lines)
                    self._components[name] = self._components.pop(name)
                    return True
            return False
        finally:
            self._snapshots.release(snapshot)

    def renew(self) -> None:
        """Other code is deployed: what was a mutation may be an action now."""
        self._passed_over = NOTHING_PASSED_OVER
        waiting = list(self.all_waiting)
        for line in self._lines():
            line.waiting.clear()
        for turns in self._turns.values():
            turns.clear()
        self._look_anew()
        for job in waiting:
            self.put_back(job)

    def close(self) -> None:
        """Follow nothing any more."""
        if self._live is not None:
            self._live.release()
            self._live = None

    def _follow(self, view: View, changed: Callable[[], None]) -> None:
        """Go through the commits since the last look, and wait for the next one."""
        ts = view.begin_ts
        seen_ts, live = self._seen_ts, self._live
        if live is not None:
            touched_ts = live.invalidated_at
            untouched_ts = self._subscriptions.processed.value
            seen_ts = max(seen_ts, untouched_ts if touched_ts is None else touched_ts - 1)
        commits = None
        if self._seen_ts >= 0 and self._recent.covers(seen_ts):
            commits = list(self._recent.between(seen_ts, ts))
        if commits is None or sum(len(commit.writes) for commit in commits) > NOTED_ROWS_MAX:
            # Passing over what is known is the quicker way.
            self._look_anew()
            for name in components_of(view):
                self._component(name)
        else:
            for write in chain.from_iterable(commit.writes for commit in commits):
                if write.table_number == SCHEDULED_FUNCTIONS:
                    self._note(write.key, write.after_doc)
        self._seen_ts = ts
        if live is None or live.invalidated_at is not None:
            self.close()
            reads = ReadSet()
            reads.add_range(JOBS_BY_DUE.prefix, b"", None)
            self._live = self._subscriptions.subscribe(reads, ts)
            self._live.watch(changed)

    def _note(self, key: bytes, job: dict[str, Any] | None) -> None:
        if job is not None and is_pending(job):
            place = entry_key(JOBS_BY_DUE, job, key[4:])
            if self._known.get(key) != place:
                self._take_back(job["component"], place, job["due"])

    def _take_back(self, component: str, place: bytes, due_ms: float) -> None:
        for line in self._component(component).lines.values():
            line.take_back(place, due_ms)

    def _look_anew(self) -> None:
        for component in self._components.values():
            for line in component.lines.values():
                line.take_back(component.stand.pending[0], -math.inf)

    def _is_mounted(self, component: str) -> bool:
        return self._application().at(component) is not None

    def _wants(self, line: _Line) -> bool:
        return line.next_due_ms <= self._now_ms and 2 * len(line.waiting) <= self._waiting_max

    def _read(self, view: View, component: _Component, lines: list[_Line]) -> None:
        """Go on where the first of `lines` has stopped, until none of them wants more."""
        due_upto = component.stand.pending_until(self._now_ms)[1]
        lower, end = min(line.upto for line in lines), component.stand.pending[1]
        size = 0
        place: bytes | None = None
        entries = view.entries(JOBS_BY_DUE, lower, end, reverse=False)
        for count, (place, key) in enumerate(entries):
            if place >= due_upto or count == LOOK_ROWS_MAX or size >= self._bytes_max or not lines:
                break
            if key in self._known:
                # An attempt of which is not told yet that it has ended may be elsewhere already.
                self._known[key] = place
            else:
                # Its arguments, which may be megabytes, are let go of before the next row is read.
                image = view.row(key) or b""
                size += len(image)
                if self._is_passed_over(image, component, lines):
                    continue
                job = self._job(key, decode(image), place)
                line = component.lines[job.kind]
                if line in lines:
                    self._put(line, job)
                    if len(line.waiting) >= self._waiting_max:
                        lines.remove(line)
                        line.upto, line.next_due_ms = place + b"\0", job.due_ms
                else:
                    self._passed_over = beginning_of(image, job), job.kind
        else:
            place = None
        for line in lines:
            if place is None:
                line.upto, line.next_due_ms = end, math.inf
            elif place > line.upto:
                line.upto, line.next_due_ms = place, component.stand.due_ms(place)

    def _is_passed_over(self, image: bytes, component: _Component, lines: list[_Line]) -> bool:
        """Whether it is seen without decoding a row that it is of a line that wants no more."""
        beginning, kind = self._passed_over
        return image.startswith(beginning) and component.lines[kind] not in lines

    def _job(self, key: bytes, row: Any, place: bytes) -> Job:
        return as_job(key, row, self.kind_of(row["name"], row["target"]), place)

    def _put(self, line: _Line, job: Job) -> None:
        if not line.waiting:
            self._turns[job.kind].append(job.component)
        heappush(line.waiting, (b"" if job.key in line.refused else job.place, job))
        self._known[job.key] = job.place

    # Taking

    def take(self, kind: Kind) -> Job | None:
        """
        The job to begin next: of each component the first that is due, and these in turns.

        A component of which `jobs_put_off_max` of the kind could not be run begins no others of it.
        """
        turns = self._turns[kind]
        for _ in range(len(turns)):
            name = turns.popleft()
            line = self._components[name].lines[kind]
            job = heappop(line.waiting)[1] if self._may_begin(line) else None
            if line.waiting:
                turns.append(name)
            if job is not None:
                return job
        return None

    def put_off(self, job: Job) -> int:
        """The engine could not run it, and it waits elsewhere; returns how often that was so."""
        refused = self._line(job).refused
        refused[job.key] = refused.get(job.key, 0) + 1
        return refused[job.key]

    def _may_begin(self, line: _Line) -> bool:
        if not line.waiting:
            return False
        return len(line.refused) < self._put_off_max or line.waiting[0][1].key in line.refused

    def put_back(self, job: Job) -> None:
        """Have it wait to begin, as whatever it is by now."""
        times = self._line(job).refused.pop(job.key, 0)
        job = job._replace(kind=self.kind_of(job.name, job.target))
        line = self._line(job)
        if times:
            line.refused[job.key] = times
        self._put(line, job)

    def ended(self, job: Job) -> None:
        """It has run, durably; where its next attempt was seen it is read again."""
        self._line(job).refused.pop(job.key, None)
        place = self._known.pop(job.key)
        if place != job.place:
            component = self._component(job.component)
            self._take_back(job.component, place, component.stand.due_ms(place))

    def left_alone(self, job: Job) -> None:
        """It was not run; if it is still there it is of another kind by now, and is read again."""
        self.ended(job)
        self._take_back(job.component, job.place, job.due_ms)

    # Telling

    def waiting(self, kind: Kind) -> int:
        """How many are due and may begin, of those that were read."""
        lines = (component.lines[kind] for component in self._components.values())
        return sum(self._beginning(line) for line in lines)

    def _beginning(self, line: _Line) -> int:
        if len(line.refused) < self._put_off_max:
            return len(line.waiting)
        return int(self._may_begin(line))

    def kind_of(self, name: str, target: str) -> Kind:
        """An action, or a mutation: one that is missing fails where it would have run."""
        found = self._application().find(name, target)
        is_action = found is not None and found.kind is Kind.ACTION
        return Kind.ACTION if is_action else Kind.MUTATION

    @property
    def is_none_known(self) -> bool:
        """Whether none waits, runs or is put off."""
        return not self._known

    @property
    def all_waiting(self) -> Iterator[Job]:
        """Those that wait to begin, of those that were read."""
        return (job for line in self._lines() for _, job in line.waiting)

    @property
    def next_due_ms(self) -> float | None:
        """When the first job is due that was not due at the last look."""
        times = [
            line.next_due_ms
            for name, component in self._components.items()
            for line in component.lines.values()
            if self._now_ms < line.next_due_ms < math.inf and self._is_mounted(name)
        ]
        return min(times, default=None)

    def _line(self, job: Job) -> _Line:
        return self._component(job.component).lines[job.kind]

    def _lines(self) -> Iterator[_Line]:
        for component in self._components.values():
            yield from component.lines.values()

    def _component(self, name: str) -> _Component:
        found = self._components.get(name)
        if found is None:
            found = self._components[name] = _Component(standing(name))
        return found
