"""
The database against a dictionary, driven by Hypothesis: what it finds, it shrinks to a few steps.

A node runs on a trio thread with a clock that stands still, and each rule asks it something. The
model has every state there ever was, so any of them can be asked for again, as of its timestamp.
"""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Final, TypeVar

import pytest
import trio
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from trio.testing import MockClock, wait_all_tasks_blocked

from engine.app.registry import Application
from engine.errors import FilterError, InvalidValue, PushRefused, SchemaViolation
from engine.functions.targets import call_target
from engine.indexes.verify import verify
from engine.kernel.runtime import EPOCH_2026_NS, VirtualRuntime
from engine.model.limits import ENTRY_HEAD_BYTES, Limits
from engine.model.values import Int64
from engine.node import Node
from engine.store.memory_store import MemoryStore
from engine.transaction import past
from tests.node import database_app as app
from tests.node.database_app import UNIQUE, Broken, Indexes, deployed
from tests.node.database_model import Model, Position, Refused, place
from tests.node.javascript import ABSENT, same
from tests.node.nodes import ADMIN, serving

T = TypeVar("T")

# What is drawn.

LONG: Final = "long" * (ENTRY_HEAD_BYTES // 4 + 30)
EDGE: Final = "e" * (ENTRY_HEAD_BYTES - 4)
VALUES: Final[list[Any]] = [
    *(ABSENT, None, True, False),
    *(0, 1, -1.5, -0.0, 2.0**60, float("inf"), float("-inf"), float("nan"), 5e-324),
    *(Int64(0), Int64(1), Int64(-(2**40)), Int64(2**63 - 1), Int64(-(2**63))),
    *("", "a", "a\0b", "é", "\U0001f600", "\uffee", LONG, LONG + "a", LONG + "b"),
    *(EDGE, EDGE + "\0", EDGE + "\0b", EDGE + "e", EDGE + "e\0b"),
    *(b"", b"\x00\xff", [], [1, "a"], [1], [Int64(1)], {}, {"x": 1}, {"x": None, "y": [2]}),
]
NUMBERS: Final = [x for x in VALUES if isinstance(x, int | float)]


def one_of_these(choices: list[Any]) -> st.SearchStrategy[Any]:
    """As `sampled_from`, which shows all of them whenever it is shown: these are long."""
    return st.integers(0, len(choices) - 1).map(lambda place: choices[place])


values = one_of_these(VALUES)
numbers = one_of_these(NUMBERS)
places = st.integers(0, 30)
fields = st.fixed_dictionaries(
    {},
    optional={
        "a": values,
        "b": values | st.fixed_dictionaries({"x": values}),
        "c": st.sampled_from([1, 2, "x", None, ABSENT]),
        "u": st.sampled_from([1, 2, 3, ABSENT]),
    },
)
operands = st.one_of(
    st.tuples(st.just("field"), st.sampled_from(["a", "b", "b.x", "c", "u", "_id"])),
    st.tuples(st.just("value"), values | numbers),
)
computed = operands | st.one_of(
    st.tuples(st.sampled_from(["add", "sub", "mul", "div", "mod"]), operands, operands),
    st.tuples(st.just("neg"), operands),
)


def comparisons(of: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.tuples(st.sampled_from(["eq", "neq", "lt", "lte", "gt", "gte"]), of, of)


def conditions(of: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Filters that nest two levels, as lists."""
    compared = comparisons(of)
    joined = st.sampled_from(["and", "or"]).flatmap(
        lambda verb: st.lists(compared, min_size=1, max_size=2).map(lambda all_: (verb, *all_))
    )
    return st.one_of(compared, joined, st.tuples(st.just("not"), compared))


tame = conditions(operands)
wild = conditions(computed) | computed
ALL: Final = {
    "by_a": [(), ("a",)],
    "by_ab": [(), ("a", "b")],
    "by_nested": [(), ("b.x", "a")],
    "by_c": [(), ("c",), ("c", "a")],
    UNIQUE: [(), ("u",), ("u",), ("c", "u")],
}
"""The indexes that may be deployed, and the fields that each may have; none is no index."""

deployments: st.SearchStrategy[Indexes] = st.fixed_dictionaries(
    {name: st.sampled_from(ways) for name, ways in ALL.items()}
).map(lambda chosen: tuple((name, ways) for name, ways in chosen.items() if ways))


@st.composite
def bounds(draw: st.DrawFn, indexes: Indexes) -> tuple[str, list[Any]]:
    """An index, and a range of it."""
    own = {"by_creation_time": (), "by_id": ()}
    name, paths = draw(st.sampled_from(list({**own, **dict(indexes)}.items())))
    equal = draw(st.integers(0, len(paths)))
    found: list[Any] = [["eq", path, draw(values)] for path in paths[:equal]]
    if equal < len(paths):
        verbs = [draw(st.sampled_from([None, f"{side}t", f"{side}te"])) for side in "gl"]
        found += [[verb, paths[equal], draw(values)] for verb in verbs if verb]
    return name, found


@st.composite
def reads(draw: st.DrawFn, indexes: Indexes, *, is_tame: bool = False) -> dict[str, Any]:
    """A read, as `database_app.run_read` takes it; a tame one is no error."""
    index, found = draw(bounds(indexes))
    ends = ["collect", "collect", "take", "first", "for"] + ([] if is_tame else ["unique"])
    return {
        "index": index,
        "bounds": found,
        "order": draw(st.sampled_from([None, "asc", "desc"])),
        "filter": draw(st.none() | (tame if is_tame else wild)),
        "where": draw(st.sampled_from([None, None, "str", "int"])),
        "end": draw(st.sampled_from(ends)),
        "n": draw(st.integers(1, 4)),
    }


def steps(indexes: Indexes, depth: int = 0) -> st.SearchStrategy[list[Any]]:
    """What a transaction does."""
    return st.lists(step(indexes, depth), min_size=1, max_size=5)


writes = st.one_of(
    st.tuples(st.just("insert"), fields),
    st.tuples(st.sampled_from(["insert", "stamp"]), fields),
    st.tuples(st.sampled_from(["patch", "replace"]), places, fields),
    st.tuples(st.just("delete"), places),
)


others = st.one_of(
    st.tuples(st.just("note"), st.integers(0, len(app.NOTES) - 1)),
    st.tuples(st.just("schedule"), st.integers(0, 3)),
    st.tuples(st.just("cancel"), places),
)


def step(indexes: Indexes, depth: int) -> st.SearchStrategy[Any]:
    looks = st.tuples(st.sampled_from(["look", "ask"]), reads(indexes, is_tame=True))
    kinds = [writes, writes, looks, others]
    if depth < 2:
        kinds.append(st.tuples(st.just("nest"), steps(indexes, depth + 1), st.booleans()))
    return st.one_of(kinds)


def plain(value: Any) -> Any:
    """Tuples as the lists that arguments are made of."""
    if isinstance(value, dict):
        return {name: plain(each) for name, each in value.items()}
    return [plain(each) for each in value] if isinstance(value, tuple | list) else value


EVERYTHING: Final[dict[str, Any]] = {
    "index": "by_creation_time",
    "bounds": [],
    "order": None,
    "filter": None,
    "where": None,
    "end": "collect",
    "n": 1,
}

# Where it runs.

UNHURRIED: Final = Limits(user_time_s_max=60.0, system_time_s_max=60.0)
"""A machine that is busy with other things for a second is nothing that was found."""


class TrioThread:
    """A trio loop whose clock stands still, for a thread that asks it things."""

    def __init__(self) -> None:
        self.clock = MockClock()
        self._is_ready = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._error: BaseException | None = None
        self._thread.start()
        self._is_ready.wait()

    def _run(self) -> None:
        try:
            trio.run(self._main, clock=self.clock)
        except BaseException as error:
            self._error = error

    async def _main(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        self._ended = trio.Event()
        async with trio.open_nursery() as self.nursery:
            self._is_ready.set()
            await self._ended.wait()

    def run(self, work: Callable[..., Awaitable[T]], *args: Any) -> T:
        try:
            return trio.from_thread.run(work, *args, trio_token=self._token)
        except trio.RunFinishedError:
            self._thread.join()
            raise self._error or AssertionError("the loop has ended") from None

    def run_sync(self, work: Callable[[], T]) -> T:
        """For what is the loop's while the loop runs, as a store in memory is."""
        return trio.from_thread.run_sync(work, trio_token=self._token)

    def stop(self) -> None:
        with suppress(trio.RunFinishedError):
            trio.from_thread.run_sync(self._ended.set, trio_token=self._token)
        self._thread.join()


@dataclass
class Life:
    """A node that runs until it is told to end."""

    node: Node
    end: trio.Event
    has_ended: trio.Event

    async def close(self) -> None:
        self.end.set()
        await self.has_ended.wait()


async def live(
    store: MemoryStore,
    app: Application,
    seed: int,
    limits: Limits,
    *,
    interleaves: bool = False,
    task_status: trio.TaskStatus[Life],
) -> None:
    has_ended = trio.Event()
    now_ns = EPOCH_2026_NS + round(trio.current_time() * 1e9)
    runtime = VirtualRuntime(seed, start_ns=now_ns, interleaves=interleaves)
    async with serving(app, store=store, runtime=runtime, limits=limits) as node:
        end = trio.Event()
        task_status.started(Life(node, end, has_ended))
        await end.wait()
    has_ended.set()


@dataclass
class Reader:
    """Somebody who turns pages, each read anew whenever data changes."""

    spec: dict[str, Any]
    fields: tuple[str, ...] | None
    """Of its index, by which cursors are to be understood."""
    moment: int | None
    """Which state it reads, if not the newest."""
    cursors: list[str | None] = field(default_factory=lambda: [None])
    positions: list[Position | None] = field(default_factory=lambda: [None])
    is_done: bool = False


class DatabaseMachine(RuleBasedStateMachine):
    limits = UNHURRIED

    def __init__(self) -> None:
        super().__init__()
        self.trio = TrioThread()
        self.store = MemoryStore()
        self.indexes: Indexes = ()
        self.lives = 0
        self.model = Model()
        self.states: list[tuple[int, Model, Indexes]] = []
        self.readers: list[Reader] = []
        self.committed_ts = 0
        """Of the last mutation, or, if it wrote nothing, what it read."""
        self.is_open = False

    @initialize(indexes=deployments, found=st.lists(fields, min_size=2, max_size=12))
    def begin(self, indexes: Indexes, found: list[dict[str, Any]]) -> None:
        self.indexes = indexes
        self.open()
        self.note()
        self.commit([["insert", each] for each in found], fails=False)

    def teardown(self) -> None:
        try:
            if self.is_open:
                self.close()
                self.check_whole()
        finally:
            self.trio.stop()

    # What others do to it.

    @rule(data=st.data(), fails=st.sampled_from([False, False, False, True]))
    def transact(self, data: st.DataObject, fails: bool) -> None:
        self.commit(plain(data.draw(steps(self.indexes), "steps")), fails)

    @rule(todo=st.lists(writes | others, min_size=1, max_size=5), has_failed=st.booleans())
    def write(self, todo: list[Any], has_failed: bool) -> None:
        """Write, perhaps after trying to in a nested transaction, which failed."""
        tried = [["nest", todo, True]] if has_failed else []
        self.commit(plain([*tried, *todo]), fails=False)

    def commit(self, todo: list[Any], fails: bool) -> None:
        then = self.model.foresee(todo)
        answer, error = self.ask("mutation", app.transact, todo, self.model.known, fails)
        if fails or then.has_duplicates(self.indexes):
            assert isinstance(error, Broken if fails else SchemaViolation), (answer, error)
            return
        assert error is None, error
        answers, known = answer
        before, self.model.ts = self.model.ts, self.committed_ts
        assert before <= self.model.ts
        self.model.transact(todo, answers, self.indexes)
        self.model.learn(known)
        # What is published by now may be later: entries of a dropped index are swept beside this.
        self.note(self.committed_ts)

    @rule(indexes=deployments)
    def push(self, indexes: Indexes) -> None:
        is_refused = self.model.has_duplicates(indexes)
        try:
            self.trio.run(self.life.node.push, deployed(indexes))
        except PushRefused:
            assert is_refused
            return
        assert not is_refused
        self.indexes = indexes
        self.readers = [r for r in self.readers if r.fields == self.fields_of(r.spec, r.moment)]
        self.note()

    @rule(has_crashed=st.booleans())
    def restart(self, has_crashed: bool) -> None:
        self.check_whole()
        store = self.trio.run_sync(self.store.durable_copy) if has_crashed else self.store
        self.close()
        self.store = store
        self.open()
        self.note()

    @precondition(lambda self: any(job.state == "pending" for job in self.model.jobs.values()))
    @rule()
    def a_minute_passes(self) -> None:
        self.trio.clock.jump(app.DELAY_MS / 1000 + 1)
        self.trio.run(wait_all_tasks_blocked)
        for job in self.model.jobs.values():
            job.state = "success" if job.state == "pending" else job.state
        self.note()

    # What it is asked.

    @rule(data=st.data())
    def read(self, data: st.DataObject) -> None:
        for spec in data.draw(st.lists(reads(self.indexes), min_size=1, max_size=3), "reads"):
            self.compare(plain(spec), self.model, self.indexes, None)

    @rule(data=st.data(), back=places, just_before_the_next=st.booleans())
    def read_as_of(self, data: st.DataObject, back: int, just_before_the_next: bool) -> None:
        moment = self.back_to(back)
        ts, model, _ = self.states[moment]
        indexes = self.indexes_at(moment)
        if just_before_the_next and moment + 1 < len(self.states):
            ts = max(ts, self.states[moment + 1][0] - 1)
            # A push may have been at work then.
            stayed = set(indexes) & {*self.indexes, *self.indexes_at(moment + 1)}
            indexes = tuple(each for each in indexes if each in stayed)
        for spec in data.draw(st.lists(reads(indexes), min_size=1, max_size=3), "reads"):
            self.compare(plain(spec), model, indexes, ts)
        self.count(back)

    @precondition(lambda self: self.with_indexes_of_then())
    @rule(data=st.data(), which=places)
    def read_by_what_is_no_more(self, data: st.DataObject, which: int) -> None:
        found = self.with_indexes_of_then()
        ts, model, then = self.states[found[which % len(found)]]
        indexes = tuple(each for each in then if each[0] not in dict(self.indexes))
        for spec in data.draw(st.lists(reads(indexes), min_size=1, max_size=3), "reads"):
            self.compare(plain(spec), model, indexes, ts)

    def with_indexes_of_then(self) -> list[int]:
        """Places of the last states that had an index whose name none has now."""
        now = dict(self.indexes).keys()
        last = range(max(0, len(self.states) - 10), len(self.states))
        return [place for place in last if dict(self.states[place][2]).keys() - now]

    def count(self, back: int | None) -> None:
        """How many documents there are, and which jobs."""
        ts, model = self.state_of(None if back is None else self.back_to(back))
        ticks = sum(job.state == "success" for job in model.jobs.values())
        assert [len(model.docs), ticks, *model.notes] == self.value(app.count, ts=ts)
        found = {job_id: (state, n) for job_id, state, n in self.value(app.jobs, ts=ts)}
        assert {job_id: (job.state, job.n) for job_id, job in model.jobs.items()} == found

    @rule(data=st.data(), back=st.one_of(st.none(), st.none(), places), n=st.integers(1, 4))
    def open_pages(self, data: st.DataObject, back: int | None, n: int) -> None:
        moment = None if back is None else self.back_to(back)
        spec = plain(data.draw(reads(self.indexes_at(moment), is_tame=True), "of"))
        reader = Reader(spec, self.fields_of(spec, moment), moment)
        self.readers = [*self.readers[-3:], reader]
        self.turn(reader, n)

    @precondition(lambda self: any(not reader.is_done for reader in self.readers))
    @rule(which=places, n=st.integers(1, 4))
    def turn_page(self, which: int, n: int) -> None:
        open_ones = [reader for reader in self.readers if not reader.is_done]
        self.turn(open_ones[which % len(open_ones)], n)

    def turn(self, reader: Reader, n: int) -> None:
        ts, model = self.state_of(reader.moment)
        indexes = self.indexes_at(reader.moment)
        rest = list(model.beyond(reader.spec, indexes, reader.positions[-1], None))
        opts = {"numItems": n, "cursor": reader.cursors[-1]}
        shown = self.value(app.page, reader.spec, opts, ts=ts)
        assert same(rest[:n], shown["page"]), (reader, rest[:n], shown["page"])
        assert shown["isDone"] is (len(rest) < n)
        reader.is_done = shown["isDone"]
        last = None if reader.is_done else place(rest[n - 1], reader.spec, indexes)
        reader.cursors.append(shown["continueCursor"])
        reader.positions.append(last)

    @invariant()
    def pages_are_complete(self) -> None:
        """All pages that somebody shows: no document is in none of them, and none is in two."""
        for reader in self.readers:
            self.read_again(reader, by_journal=len(self.states) % 2 == 0)

    def read_again(self, reader: Reader, *, by_journal: bool) -> None:
        ts, model = self.state_of(reader.moment)
        indexes = self.indexes_at(reader.moment)
        for number, cursor in enumerate(reader.cursors[:-1]):
            end = reader.cursors[number + 1]
            after, upto = reader.positions[number : number + 2]
            expected = list(model.beyond(reader.spec, indexes, after, upto))
            found = self.page(reader, cursor, end, ts, by_journal=by_journal)
            assert same(expected, found["page"]), (reader, number, expected, found["page"])
            if (middle := found["splitCursor"]) is not None:
                halves = [
                    self.page(reader, cursor, middle, ts)["page"],
                    self.page(reader, middle, end, ts)["page"],
                ]
                assert same(expected, halves[0] + halves[1]), (reader, number, expected, halves)
                assert all(halves)

    @invariant()
    def everything_is_there(self) -> None:
        if self.is_open:
            self.compare(EVERYTHING, self.model, self.indexes, None)
            self.count(None)

    # Within.

    def open(self) -> None:
        self.lives += 1
        start = self.trio.nursery.start
        self.life: Life = self.trio.run(
            start, live, self.store, deployed(self.indexes), self.lives, self.limits
        )
        self.is_open = True

    def back_to(self, back: int) -> int:
        """The place of a state, counted back from the newest."""
        return len(self.states) - 1 - back % len(self.states)

    def close(self) -> None:
        self.trio.run(self.life.close)
        self.is_open = False

    def check_whole(self) -> None:
        *_, findings = self.trio.run_sync(lambda: list(verify(self.store.snapshot)))
        assert [] == findings.problems

    def note(self, ts: int | None = None) -> None:
        """Remember the state that was reached, at `ts` or by now."""
        reached = self.life.node.published.value if ts is None else ts
        self.states.append((reached, self.model.copy(), self.indexes))

    def ask(
        self, how: str, fn: Any, *args: Any, ts: int | None = None, journal: str | None = None
    ) -> tuple[Any, BaseException | None]:
        """What a function returned, and what it raised."""
        component, path, raw = call_target(fn, args, {}, "")
        functions = self.life.node.functions
        call = partial(getattr(functions, how), path, raw, caller=ADMIN, component=component)
        if how == "query" and ts is not None:
            call = partial(functions.query_at, path, raw, caller=ADMIN, component=component, ts=ts)
        elif how == "query":
            call = partial(call, journal=journal)
        result: Any = self.trio.run(call)
        if how == "query" and ts is None:
            result.live.release()
        if how == "mutation":
            self.committed_ts = result.ts
        return result.value, result.failure and result.failure.error

    def value(self, fn: Any, *args: Any, ts: int | None = None, journal: str | None = None) -> Any:
        value, error = self.ask("query", fn, *args, ts=ts, journal=journal)
        assert error is None, error
        return value

    def page(
        self,
        reader: Reader,
        cursor: str | None,
        end: str | None,
        ts: int | None,
        *,
        by_journal: bool = False,
    ) -> Any:
        opts = {"numItems": 1, "cursor": cursor}
        if by_journal and ts is None:
            return self.value(app.page, reader.spec, opts, journal=end)
        return self.value(app.page, reader.spec, {**opts, "endCursor": end}, ts=ts)

    def state_of(self, moment: int | None) -> tuple[int | None, Model]:
        return (None, self.model) if moment is None else self.states[moment][:2]

    def indexes_at(self, moment: int | None) -> Indexes:
        """Those that a state can be read by: of now, and of then if there is none of the name."""
        then = () if moment is None else self.states[moment][2]
        return tuple({**dict(then), **dict(self.indexes)}.items())

    def fields_of(self, spec: dict[str, Any], moment: int | None) -> tuple[str, ...] | None:
        return dict(self.indexes_at(moment)).get(spec["index"])

    def compare(self, spec: dict[str, Any], model: Model, indexes: Indexes, ts: int | None) -> None:
        found, error = self.ask("query", app.read, spec, ts=ts)
        try:
            expected = model.read(spec, indexes)
        except Refused:
            assert isinstance(error, FilterError | InvalidValue), (spec, found, error)
        else:
            assert error is None, (spec, expected, error)
            assert same(expected, found), (spec, expected, found)


class AnnexMachine(DatabaseMachine):
    """The same, where memory has no room for any past, and few rows are gone through at once."""

    limits = replace(UNHURRIED, past_bytes_max=1)

    def __init__(self) -> None:
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(past, "HIDDEN_AT_ONCE", 3)
        self.patch.setattr(past, "LOOK_EVERY", 2)
        super().__init__()

    def teardown(self) -> None:
        super().teardown()
        self.patch.undo()


class HardlyAnyMachine(AnnexMachine):
    """The same, where it has room for the past of a few rows: of others annexes have some."""

    limits = replace(UNHURRIED, past_bytes_max=2 * 8 * 2_000)


DatabaseMachine.TestCase.settings = settings(
    stateful_step_count=25, report_multiple_bugs=False, suppress_health_check=list(HealthCheck)
)
AnnexMachine.TestCase.settings = HardlyAnyMachine.TestCase.settings = settings(
    DatabaseMachine.TestCase.settings, max_examples=40
)
TestDatabase = pytest.mark.timeout(900)(DatabaseMachine.TestCase)
"""A few seconds, unless it finds something: then it is made small for up to five minutes."""
TestAnnexes = pytest.mark.timeout(900)(AnnexMachine.TestCase)
TestHardlyAnyMemory = pytest.mark.timeout(900)(HardlyAnyMachine.TestCase)
