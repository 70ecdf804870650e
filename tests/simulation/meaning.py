"""
What the log of a simulation means, said once more in plain Python, and what is wrong with it.

    meaning.take(record)          each record in turn, from the first one of the first life
    meaning.at(ts).answer("of_group", {"group": 1})

Nothing here asks the engine for more than the bytes of its records: what each call has to write and
to answer follows from the calls before it, and every row is compared.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Mapping
from copy import copy
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from engine.indexes.catalog import (
    CRONS,
    DEPLOYMENT_KEY,
    INDEXES,
    SCHEDULED_FUNCTIONS,
    TABLES,
)
from engine.log.records import GENESIS, Record, next_state_hash
from engine.model.commits import Kind, RowWrite
from engine.model.limits import USER_TABLE_NUMBER_MIN
from tests.simulation.shop import CANCELS, DROPS, MOVES, PLAIN, RANKED, STRICT

Doc = dict[str, Any]

LOG_AGE_S_MIN: Final = 3.0
"""How long the log of these runs is kept at least."""
EARLY_MS: Final = 0.01
"""Times are floats of milliseconds."""
EXTRA_INDEXES: Final = {
    PLAIN.digest: set[str](),
    RANKED.digest: {"by_rank"},
    STRICT.digest: {"one_of_a_rank"},
}
ENDS: Final = ("success", "failed", "canceled")
NEXT: Final = {"pending": (*ENDS, "inProgress"), "inProgress": ENDS}
INTERRUPTED: Final = "the engine stopped while this action ran"


class Item(NamedTuple):
    """In the order in which an index of a group has it, after its group."""

    rank: float
    created: float
    key: bytes
    token: float
    group: float


@dataclass(slots=True)
class State:
    """What there is after a record."""

    items: dict[float, Item] = field(default_factory=dict)
    counters: dict[float, float] = field(default_factory=dict)
    plans: frozenset[float] = frozenset()
    landed: frozenset[float] = frozenset()
    ticks: int = 0
    jobs: dict[float, str] = field(default_factory=dict)
    """The state of each, by its token."""
    digest: str = ""

    def next(self) -> State:
        """One to change."""
        after = copy(self)
        after.items, after.counters = dict(self.items), dict(self.counters)
        after.jobs = dict(self.jobs)
        return after

    def of_group(self, group: float) -> list[Item]:
        return sorted(item for item in self.items.values() if item.group == group)

    def tallies(self) -> list[list[float]]:
        """How many items each group has, if any."""
        groups = Counter(item.group for item in self.items.values())
        return [[group, n] for group, n in sorted(groups.items())]

    def answer(self, name: str, args: Mapping[str, Any]) -> Any:
        """What a query gives, `None` if it is not there."""
        match name:
            case "of_group":
                return [[item.token, item.rank] for item in self.of_group(args["group"])]
            case "counted":
                return [[key, n] for key, n in sorted(self.counters.items())]
            case "tallied":
                return self.tallies()
            case "sizes":
                return [len(self.items), len(self.landed), self.ticks, len(self.plans)]
            case "jobs":
                return sorted([token, state] for token, state in self.jobs.items())
            case "ranked" if self.digest == RANKED.digest:
                return self._ranked(args["rank"])
            case "ranked_then":
                return self._ranked(args["rank"])
        return None

    def _ranked(self, rank: float) -> list[float]:
        return sorted(item.token for item in self.items.values() if item.rank == rank)

    def bump(self, key: float, by: float) -> float:
        self.counters[key] = self.counters.get(key, 0) + by
        return self.counters[key]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a call: in which record it is, and what it answered."""

    ts: int
    value: Any


class Meaning:
    """The log so far."""

    def __init__(self) -> None:
        self.problems: list[str] = []
        self.outcomes: dict[float, Outcome] = {}
        self.last_ts = 0
        self._times: list[int] = []
        self._states: list[State] = []
        self._state = State()
        self._previous, self._state_hash = GENESIS, 0
        self._rows: dict[bytes, bytes] = {}
        self._docs: dict[int, dict[bytes, Doc]] = {}
        """Of each table, by key."""
        self._names: dict[int, str] = {}
        self.is_torn = False

    @property
    def state(self) -> State:
        return self._state

    @property
    def records(self) -> int:
        return len(self._times)

    def at(self, ts: int) -> State:
        """What there was at `ts`."""
        place = bisect_right(self._times, ts) - 1
        return self._states[place] if place >= 0 else State()

    def times(self) -> list[int]:
        """When there was another state."""
        return self._times

    def latest_due_ms(self) -> float:
        """When the last of all jobs is due."""
        jobs = self._docs.get(SCHEDULED_FUNCTIONS, {}).values()
        return max((job["scheduledTime"] for job in jobs), default=0.0)

    def job(self, token: float) -> Doc | None:
        """The row of what was planned under a token."""
        return next((job for job in self._jobs() if job["args"][0]["token"] == token), None)

    def take(self, record: Record, *, latest_ms: float, bound_ts: int) -> None:
        """
        Go on by one record.

        Args:
            latest_ms: the highest that any wall clock has shown so far.
            bound_ts: no timestamp is later, but for being just after the one before.
        """
        self._check_chain(record, bound_ts)
        self._check_trim(record)
        before = self._state
        self._state = before.next()
        value = self._carried_out(record)
        for write in record.writes:
            self._check_write(record, write, latest_ms)
        self._state.jobs = {job["args"][0]["token"]: job["state"]["kind"] for job in self._jobs()}
        self._check_own_job(record, before)
        touched = {write.table_number for write in record.writes}
        self._check_tables(record, touched)
        self._check_crons(record)
        if touched & {INDEXES, int.from_bytes(DEPLOYMENT_KEY[:4], "big")}:
            self._check_deployed(record)
        if value is not _NO_CALL:
            self._note_outcome(record, value)
        self._times.append(record.ts)
        self._states.append(self._state)
        self.last_ts = record.ts

    # The record itself.

    def _check_chain(self, record: Record, bound_ts: int) -> None:
        if record.ts <= self.last_ts:
            self._wrong(record, f"comes after {self.last_ts}: timestamps only rise")
        if record.ts > max(self.last_ts, bound_ts) + FRACTIONS_NS_MAX:
            self._wrong(record, f"is ahead of every clock, which said {bound_ts}")
        if record.previous != self._previous:
            self._wrong(record, "does not continue the record before it")
        self._state_hash = next_state_hash(self._state_hash, record.writes)
        if record.state_hash != self._state_hash:
            self._wrong(record, "has another state hash than its writes give")
        self._previous = record.hash

    def _check_trim(self, record: Record) -> None:
        """What a trim leaves begins after a record that there was, and not too lately."""
        if record.kind is not Kind.TRIM:
            return
        anchor_ts = record.covered[0]
        if anchor_ts not in self._times or record.ts - anchor_ts < LOG_AGE_S_MIN * 1e9:
            self._wrong(record, f"trims the log up to {anchor_ts}")

    def _check_write(self, record: Record, write: RowWrite, latest_ms: float) -> None:
        if self._rows.get(write.key) != write.before:
            self._wrong(record, f"takes the row {write.key.hex()} for another than it was")
        docs = self._docs.setdefault(write.table_number, {})
        if write.after is None or write.after_doc is None:
            self._rows.pop(write.key, None)
            docs.pop(write.key, None)
        else:
            self._rows[write.key] = write.after
            docs[write.key] = write.after_doc
        if write.table_number == TABLES and (doc := write.after_doc):
            self._names[int(doc["number"])] = doc["name"]
        if self._names.get(write.table_number) == "items":
            self._check_added(record, write)
        if write.table_number == SCHEDULED_FUNCTIONS:
            self._check_job(record, write, latest_ms)
        if write.key == DEPLOYMENT_KEY and write.after_doc is not None:
            self._state.digest = write.after_doc["digest"]

    def _check_added(self, record: Record, write: RowWrite) -> None:
        """An item has the timestamp of the commit that has brought it, wherever it is moved."""
        before, after = write.before_doc, write.after_doc
        added = record.ts if before is None else before["added"]
        if after is not None and after["added"] != added:
            self._wrong(record, f"has an item that was added at {after['added']}, not {added}")

    # Calls.

    def _carried_out(self, record: Record) -> Any:
        """Do to the state what the call of a record does, and answer what it answers."""
        name = record.source.path.rpartition(":")[2]
        if not isinstance(record.source.args, Mapping):
            return _NO_CALL
        args = record.source.args
        try:
            return self._call(name, args, record)
        except _MustFail as reason:
            self._wrong(record, f"should have failed: {reason}")
            return None

    def _call(self, name: str, args: Mapping[str, Any], record: Record) -> Any:
        state = self._state
        match name:
            case "add":
                return self._add(args, record)
            case "bump":
                return state.bump(args["key"], args["by"])
            case "move":
                return self._move(args["group"], args["to"])
            case "drop":
                return self._drop(args["group"])
            case "plan":
                state.plans |= {args["token"]}
                return None
            case "cancel":
                state.bump(CANCELS, 1)
                return args["which"] in state.plans
            case "land" | "miss" | "tick":
                self._run_by_clock(name, args, record)
                return _NO_CALL
        raise _MustFail(f"{name} never commits")

    def _move(self, group: float, to: float) -> float | None:
        state = self._state
        found = state.of_group(group)[:1]
        for item in found:
            state.items[item.token] = item._replace(group=to)
        state.bump(MOVES, 1)
        return found[0].token if found else None

    def _drop(self, group: float) -> float | None:
        state = self._state
        found = state.of_group(group)[-1:]
        for item in found:
            del state.items[item.token]
        state.bump(DROPS, 1)
        return found[0].token if found else None

    def _run_by_clock(self, name: str, args: Mapping[str, Any], record: Record) -> None:
        if name == "tick":
            self._state.ticks += 1
        elif name == "land":
            self._land(args["token"], record)

    def _add(self, args: Mapping[str, Any], record: Record) -> int:
        state = self._state
        token, group, rank = args["token"], args["group"], args["rank"]
        if token in state.items:
            raise _MustFail("there is this item already")
        if state.digest == STRICT.digest and rank in {item.rank for item in state.items.values()}:
            raise _MustFail("another item has this rank")
        key, doc = next(
            (write.key, write.after_doc)
            for write in record.writes
            if self._names.get(write.table_number) == "items"
        )
        assert doc is not None
        state.items[token] = Item(rank, doc["_creationTime"], key, token, group)
        return len(state.of_group(group))

    def _land(self, token: float, record: Record) -> None:
        state = self._state
        if token in state.landed:
            raise _MustFail("it has landed already")
        state.landed |= {token}
        job = self.job(token)
        if job is None:
            raise _MustFail("nobody had planned it")
        is_own_job = record.source.request_id == f"job-{job['_id']}"
        kind = job["state"]["kind"]
        if is_own_job and job["name"].endswith(":land") and kind != "pending":
            raise _MustFail(f"its job was {kind}")
        if is_own_job and job["name"].endswith(":act") and kind == "pending":
            raise _MustFail("its action had not begun")

    def _note_outcome(self, record: Record, value: Any) -> None:
        assert isinstance(record.source.args, Mapping)
        token = record.source.args["token"]
        if token in self.outcomes:
            self._wrong(record, f"is of a call that was committed at {self.outcomes[token].ts}")
        self.outcomes[token] = Outcome(record.ts, value)

    def _check_tables(self, record: Record, touched: set[int]) -> None:
        state = self._state
        for number, name in sorted(self._names.items()):
            # Whether a trigger wrote what it should have is asked of every record.
            if number < USER_TABLE_NUMBER_MIN or (number not in touched and name != "tallies"):
                continue
            docs = self._docs.get(number, {}).values()
            there: Any
            expected: Any
            match name:
                case "items":
                    there = sorted((doc["token"], doc["group"], doc["rank"]) for doc in docs)
                    expected = sorted((i.token, i.group, i.rank) for i in state.items.values())
                case "tallies":
                    there = sorted([doc["group"], doc["n"]] for doc in docs if doc["n"])
                    expected = state.tallies()
                case "counters":
                    there = sorted((doc["key"], doc["n"]) for doc in docs)
                    expected = sorted(state.counters.items())
                case "plans" | "landed":
                    there = sorted(doc["token"] for doc in docs)
                    expected = sorted(state.plans if name == "plans" else state.landed)
                case _:
                    there, expected = len(docs), state.ticks if name == "ticks" else 0
            if there != expected:
                self._wrong(record, f"leaves in {name} {there}, and should {expected}")

    # Jobs and crons.

    def _jobs(self) -> Iterator[Doc]:
        rows = self._docs.get(SCHEDULED_FUNCTIONS, {}).values()
        return (row for row in rows if "cron" not in row)

    def _check_job(self, record: Record, write: RowWrite, latest_ms: float) -> None:
        before, after = write.before_doc, write.after_doc
        doc = after or before
        assert doc is not None, "a write changes something"
        was = None if before is None else before["state"]["kind"]
        begins = before is not None and was == "pending"
        ends_late = begins and before is not None and before["scheduledTime"] > latest_ms + EARLY_MS
        kind = None if after is None else after["state"]["kind"]
        is_push = record.source.path == "_system:push"
        if ends_late and kind != "canceled" and not is_push:
            self._wrong(record, f"runs {doc['name']} before its time")
        if "cron" in doc:
            return
        token, landed = doc["args"][0]["token"], self._state.landed
        if after is None:
            self._wrong(record, f"loses the job {token:g}")
        elif before is None:
            if kind != "pending" or record.source.path.rpartition(":")[2] != "plan":
                self._wrong(record, f"makes a job {token:g} that is {kind}")
        elif kind not in NEXT.get(str(was), ()):
            self._wrong(record, f"makes {kind} of a job {token:g} that was {was}")
        elif kind == "success" and doc["name"].endswith(":land") and token not in landed:
            self._wrong(record, f"ends the job {token:g} without what it does")

    def _check_own_job(self, record: Record, before: State) -> None:
        """Whether what ends a job is in one record with what the job does."""
        name, args = record.source.path.rpartition(":")[2], record.source.args
        if not isinstance(args, Mapping):
            return
        was, now = (each.jobs.get(args.get("which", 0)) for each in (before, self._state))
        if name == "cancel" and was in NEXT and now != "canceled":
            self._wrong(record, f"leaves the job {args['which']:g} as it was")
        job = self.job(args["token"]) if name == "land" else None
        if job is not None and job["name"].endswith(":land") and job["state"]["kind"] != "success":
            self._wrong(record, f"does what the job {args['token']:g} is for and does not end it")

    def _check_crons(self, record: Record) -> None:
        rows = self._docs.get(SCHEDULED_FUNCTIONS, {}).values()
        ticks = Counter(row["cron"] for row in rows if "cron" in row)
        ids = {row["_id"] for row in rows}
        for cron in self._docs.get(CRONS, {}).values():
            if ticks[cron["_id"]] != 1 or cron["tick"] not in ids:
                self._wrong(record, f"leaves {ticks[cron['_id']]} ticks of {cron['cron']}")
        for write in record.writes:
            if write.table_number == CRONS and record.source.path != "_system:push":
                self._check_beat(record, write)

    def _check_beat(self, record: Record, write: RowWrite) -> None:
        """A cron keeps its place: later by whole periods, of which all but one were skipped."""
        before, after = write.before_doc, write.after_doc
        if before is None or after is None:
            return
        period_ms = after["schedule"]["seconds"] * 1000
        periods = (after["nextTime"] - after["runs"][-1]["scheduledTime"]) / period_ms
        skipped = after["skipped"] - before["skipped"]
        if periods < 1 or abs(periods - round(periods)) > 1e-6 or skipped != round(periods) - 1:
            self._wrong(record, f"moves {after['cron']} by {periods} periods, {skipped} skipped")
        same = before["schedule"] == after["schedule"]
        if same and after["runs"][-1]["scheduledTime"] != before["nextTime"]:
            self._wrong(record, f"runs {after['cron']} for another time than was due")

    def _check_deployed(self, record: Record) -> None:
        """Indexes are those of the version that is deployed, from one record to the next."""
        enabled = {
            row["name"]
            for row in self._docs.get(INDEXES, {}).values()
            if row["state"] == "enabled" and self._names.get(int(row["table"])) == "items"
        }
        digest = self._state.digest
        expected = {"by_group", "by_token", *EXTRA_INDEXES[digest]} if digest else set()
        if enabled != expected:
            self._wrong(record, f"leaves the indexes {sorted(enabled)}, not {sorted(expected)}")
        ranks = Counter(item.rank for item in self._state.items.values())
        if digest == STRICT.digest and max(ranks.values(), default=0) > 1:
            self._wrong(record, "deploys what two items forbid")

    def _wrong(self, record: Record, what: str) -> None:
        self.problems.append(f"record {record.ts} of {record.source.path} {what}")


class _MustFail(Exception):
    """A call that cannot have been committed."""


FRACTIONS_NS_MAX: Final = 5_000_000
"""A commit is later than the documents it brings, whose times are fractions of 244 ns apart."""

_NO_CALL: Final = object()
"""No client waits for it."""
