"""
Crons: rows of `_crons`, each with the one job that is its next tick.

    push ──▶ cron row ──▶ tick (a pending job) ──runs, ends──▶ next tick ──▶ ...

A tick ends, is taken away and is followed by the next one in one transaction:
the one that a mutation's writes are in.  So a cron has one tick at a time,
runs once for each, and never loses its place.  Times that passed while a tick
was late or took long are skipped, and counted; in a pause the time of the tick too.

A cron that is removed while it runs leaves its row until that run ends, marked
as removed: one that is added meanwhile by the same name goes on from there, so
two of a name never run beside each other.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, NamedTuple

import trio

from engine.app.crons import CronSpec, Interval, Schedule
from engine.app.registry import Application
from engine.app.types import Cron
from engine.errors import InvalidValue, LimitExceeded, PushRefused
from engine.functions.cron_times import NextTime, as_row, first_time, next_time, of_row
from engine.functions.job_rows import add_job, is_pending, job_of
from engine.functions.sweeping import Room
from engine.indexes.catalog import CRONS, CRONS_BY_NAME
from engine.kernel.trace import tracer
from engine.model.ids import row_key_of
from engine.model.keys import encode_key, past
from engine.model.limits import CRON_ERROR_LENGTH_MAX, CRON_RUNS_KEPT
from engine.model.values import normalize, size_of, strictly_equal
from engine.transaction.transaction import Transaction

trace = tracer(__name__)

Doc = dict[str, Any]

CRONS_SLICE_ROWS: Final = 64
"""Read, and compared with what is declared, before others have their turn: 4 ms."""
SKIPPED_SLICE_ROWS: Final = 32
"""Crons that one transaction looks at for a time that was missed: 5 ms, if all of them have one."""
AHEAD_MS_MAX: Final = 3_600_000.0
"""A clock that was ahead by less leaves crons silent for as long: what ran does not run again."""


LEFT: Final = ("_id", "_creationTime", "component", "cron", "tick", "nextTime")
"""What stays in the row of a cron that is removed while it runs."""


class _Wanted(NamedTuple):
    """A cron as the application that is pushed declares it."""

    component: str
    spec: CronSpec
    target: tuple[str, str]
    """Component and path of the function."""

    @property
    def what(self) -> Doc:
        """What it runs, as the rows of cron and tick have it."""
        component, path = self.target
        return {"name": path, "target": component, "args": [self.args]}

    @property
    def args(self) -> Doc:
        return normalize(dict(self.spec.args))  # type: ignore[no-any-return]  # of a dict a dict


def is_tick(job: Mapping[str, Any]) -> bool:
    """Whether a job is the tick of a cron."""
    return "cron" in job


async def sync_crons(turn: Transaction, parts: Mapping[str, Application]) -> list[str]:
    """
    Make the crons of the database those of an application and its mounts.

    Others have their turn meanwhile, but nobody writes: the lane is held.

    A cron that has not changed keeps its next time, unless that was worked out by a clock that was
    ahead by more than `AHEAD_MS_MAX`, and has been set back.

    Returns:
        What changed, a line each.

    Raises:
        PushRefused: a schedule that never comes.
    """
    stored = {}
    for row in _between(turn, b"", None):
        stored[row["component"], row["cron"]] = row
        await _breathe(len(stored))
    registered = {key for key, row in stored.items() if not _is_removed(row) and row["registered"]}
    lines = []
    for wanted in _declared(parts):
        key = (wanted.component, wanted.spec.name)
        if key in registered:
            raise PushRefused(
                f"{wanted.spec.where}: a function has registered a cron {wanted.spec.name!r} with "
                "ctx.crons; choose another name, or `headrace crons remove` that one. Nothing was "
                "changed."
            )
        before = stored.pop(key, None)
        line = _add(turn, wanted) if before is None else _update(turn, wanted, before)
        lines += [line] if line else []
    for count, (key, row) in enumerate(stored.items()):
        if key in registered:
            line = _set_right(turn, row) if _is_ahead(turn, row) else None
            lines += [line] if line else []
        elif not _is_removed(row):
            _remove(turn, row)
            lines.append(f"removed cron {_label(row)}")
        await _breathe(count)
    return lines


async def _breathe(count: int) -> None:
    if count % CRONS_SLICE_ROWS == 0:
        await trio.lowlevel.checkpoint()


def tick_ended(turn: Transaction, key: bytes, tick: Doc, ended: Doc) -> None:
    """
    Put the next tick in the place of one that has run, was canceled or could not be run.

    Args:
        ended: its state and when that was, for the row of the cron.
    """
    turn.put_row(key, None)
    cron_key = row_key_of(tick["cron"])
    cron = turn.own_row(cron_key)
    if cron is None:
        return
    if _is_removed(cron):
        turn.put_row(cron_key, None)
        return
    assert cron["tick"] == tick["_id"], "a cron has one tick"
    found = next_time(of_row(cron["schedule"]), _seed(cron), tick["scheduledTime"], turn.now_ms)
    skipped = 0 if found is None else found.skipped
    run = {
        "scheduledTime": tick["scheduledTime"],
        # A mutation begins and ends at one time, by its own clock.
        "startedTime": tick.get("startedTime", ended["completedTime"]),
        "skipped": skipped,
        **ended,
    }
    runs = [*cron.get("runs", ()), _shortened(run)][-CRON_RUNS_KEPT:]
    if skipped:
        trace.warning("cron.skipped", cron=cron["cron"], component=cron["component"], times=skipped)
    _plan(turn, cron_key, {**cron, "runs": runs}, skipped, found)


class Skipping(NamedTuple):
    """
    What a slice of crons has skipped.

    place: where the next slice begins; `None` if this was the last.
    times: how often, by the component and the name of the function.
    """

    place: bytes | None
    crons: int
    times: Counter[tuple[str, str]]


def skip_missed(turn: Transaction, place: bytes, until_ms: float) -> Skipping:
    """
    Have crons wait for the first time that is not before `until_ms`, and not run for one that is.

    A run that has begun is left alone, and sees to that itself.

    Args:
        place: of the first cron; `b""` is the first of all.
        until_ms: not later than now.
    """
    room = Room(SKIPPED_SLICE_ROWS)
    crons, times = 0, Counter[tuple[str, str]]()
    for entry, key in turn.view.entries(CRONS_BY_NAME, place, None, reverse=False):
        if not room.is_left:
            return Skipping(entry, crons, times)
        cron = turn.own_row(key)
        assert cron is not None, "an entry leads to a row"
        room.take(size_of(cron))
        if (missed := _skip_missed(turn, key, cron, until_ms)) > 0:
            crons += 1
            times[cron["target"], cron["name"]] += missed
    return Skipping(None, crons, times)


def _skip_missed(turn: Transaction, key: bytes, cron: Doc, until_ms: float) -> int:
    """How many times one cron has skipped; told with its last run, if there was one."""
    due_ms = cron.get("nextTime")
    if due_ms is None or due_ms >= until_ms or not _take_tick(turn, cron):
        return 0
    found = next_time(of_row(cron["schedule"]), _seed(cron), due_ms, until_ms)
    skipped = 1 + (0 if found is None else found.skipped)
    runs = cron.get("runs", [])
    told = [{**run, "skipped": run["skipped"] + skipped} for run in runs[-1:]]
    _plan(turn, key, {**cron, "runs": [*runs[:-1], *told]}, skipped, found)
    return skipped


def _plan(turn: Transaction, key: bytes, cron: Doc, skipped: int, found: NextTime | None) -> None:
    """Put a cron whose tick is gone with the next one, if there is one."""
    cron = {**cron, "skipped": cron["skipped"] + skipped}
    if found is not None:
        _put_with_tick(turn, key, cron, found.due_ms)
        return
    done = {name: value for name, value in cron.items() if name != "nextTime"}
    turn.put_row(key, {**done, "tick": None})


def _shortened(run: Doc) -> Doc:
    """An error is told whole where the run is told; here it says which one it was."""
    state = run["state"]
    if len(state.get("error", "")) <= CRON_ERROR_LENGTH_MAX:
        return run
    return {**run, "state": {**state, "error": state["error"][:CRON_ERROR_LENGTH_MAX] + "…"}}


def stored_crons(turn: Transaction) -> Iterator[Doc]:
    """The rows of all crons, by component and name."""
    return _present(_between(turn, b"", None))


def crons_of(turn: Transaction, component: str) -> Iterator[Doc]:
    """The rows of one component's crons, by name."""
    return _present(_left_of(turn, component))


def _left_of(turn: Transaction, component: str) -> Iterator[Doc]:
    """As `crons_of`, with those that were removed and run."""
    lower = encode_key([component])
    return _between(turn, lower, past(lower))


def _present(rows: Iterable[Doc]) -> Iterator[Doc]:
    return (row for row in rows if not _is_removed(row))


def _is_removed(row: Doc) -> bool:
    """Whether a row says of a cron only that it still runs, though it was removed."""
    return "removed" in row


def shown_cron(row: Doc) -> Cron:
    """A row as functions are told it."""
    return {
        "name": row["cron"],
        "function": row["name"],
        "args": row["args"][0],
        "schedule": row["schedule"],
        "registered": row["registered"],
        "nextTime": row.get("nextTime"),
        "skipped": row["skipped"],
        "runs": row.get("runs", []),
    }


def _between(turn: Transaction, lower: bytes, upper: bytes | None) -> Iterator[Doc]:
    while True:
        read = turn.read_slice(
            CRONS_BY_NAME, lower, upper, reverse=False, rows_max=CRONS_SLICE_ROWS
        )
        yield from read.docs
        if read.is_exhausted:
            return
        if (end := read.end) is not None:  # in the past it may take another look to begin
            lower = end + b"\0"


def _declared(parts: Mapping[str, Application]) -> Iterator[_Wanted]:
    for component, part in parts.items():
        for spec in part.crons.jobs if part.crons else ():
            target, path = spec.function_path()
            yield _Wanted(component, spec, (target or component, path))


def register(turn: Transaction, component: str, spec: CronSpec, target: tuple[str, str]) -> None:
    """
    Add a cron that stays until `unregister`, whatever is pushed.

    If one of its name was removed and runs, that run is its first, and its next time comes after.

    Args:
        target: component and path of the function that it runs.

    Raises:
        InvalidValue: a cron of that name is there, or no day fits its schedule.
        LimitExceeded: there are `crons_max`, or the function has scheduled too much.
    """
    row = _stored(turn, component, spec.name)
    if row is not None and not _is_removed(row):
        raise InvalidValue(f"there is a cron {spec.name!r} already; remove it, or choose another")
    wanted = _Wanted(component, spec, target)
    turn.usage.count_scheduled(size_of(wanted.args))
    try:
        if row is not None:
            _go_on(turn, wanted, row, registered=True)
        else:
            _refuse_too_many(turn)
            _add(turn, wanted, registered=True)
    except PushRefused:
        raise InvalidValue(f"cron {spec.name!r} would never run: no day fits it") from None


def _refuse_too_many(turn: Transaction) -> None:
    count = turn.size(turn.catalog.by_number[CRONS]) + 1
    if count > (allowed := turn.usage.limits.crons_max):
        advice = "Remove some, or have one cron go through a table of what is to be done."
        raise LimitExceeded("crons_max", count, allowed, "crons", advice)


def unregister(turn: Transaction, component: str, name: str, request_id: str = "") -> bool:
    """
    Remove a cron that was registered; returns whether it was there.  A run that has begun goes on.

    Args:
        request_id: of whoever removes it, which may be the run of its tick.

    Raises:
        InvalidValue: it is declared in the application.
    """
    row = _stored(turn, component, name)
    if row is None or _is_removed(row):
        return False
    if not row["registered"]:
        raise InvalidValue(f"the cron {name!r} is declared in the code, and goes with it")
    _remove(turn, row, job_of(request_id))
    return True


def forget_crons(turn: Transaction, components: Iterable[str]) -> None:
    """Remove all crons of some components, with the ticks that wait."""
    for component in components:
        for row in list(_left_of(turn, component)):
            _take_tick(turn, row)
            turn.put_row(row_key_of(row["_id"]), None)


def find_cron(turn: Transaction, component: str, name: str) -> Doc | None:
    """The row of a cron."""
    lower = encode_key([component, name])
    return next(_present(_between(turn, lower, past(lower))), None)


def _stored(turn: Transaction, component: str, name: str) -> Doc | None:
    """As `find_cron`, also one that was removed and runs; no limit forbids to change what is so."""
    lower = encode_key([component, name])
    return next(turn.own_rows(CRONS_BY_NAME, lower, past(lower)), None)


def _new_row(wanted: _Wanted, *, registered: bool) -> Doc:
    return {
        "component": wanted.component,
        "cron": wanted.spec.name,
        "schedule": as_row(wanted.spec.schedule),
        "skipped": 0,
        "registered": registered,
        **wanted.what,
    }


def _add(turn: Transaction, wanted: _Wanted, *, registered: bool = False) -> str:
    spec, row = wanted.spec, _new_row(wanted, registered=registered)
    due = first_time(spec.schedule, _seed(row), turn.now_ms)
    cron_id = turn.insert_row(turn.catalog.by_number[CRONS], row)
    _put_with_tick(turn, row_key_of(cron_id), row, _sure(due, spec))
    return f"added cron {_label(row)}"


def _go_on(turn: Transaction, wanted: _Wanted, left: Doc, *, registered: bool = False) -> str:
    """Add a cron whose tick is the one that runs since before one of its name was removed."""
    spec, row = wanted.spec, _new_row(wanted, registered=registered)
    _sure(first_time(spec.schedule, _seed(row), turn.now_ms), spec)
    kept = {name: value for name, value in left.items() if name != "removed"}
    turn.put_row(row_key_of(left["_id"]), {**kept, **row})
    return f"added cron {_label(row)}"


def _update(turn: Transaction, wanted: _Wanted, row: Doc) -> str | None:
    if _is_removed(row):
        return _go_on(turn, wanted, row)
    spec = wanted.spec
    schedule = as_row(spec.schedule)
    after = {**row, **wanted.what, "schedule": schedule}
    if strictly_equal(after, row):
        return _set_right(turn, row) if _is_ahead(turn, row) else None
    key = row_key_of(row["_id"])
    has_same_times = strictly_equal(schedule, row["schedule"])
    due = row.get("nextTime") if has_same_times else _due_anew(spec.schedule, after, turn.now_ms)
    if has_same_times and due is None:
        turn.put_row(key, after)
    elif _take_tick(turn, row):
        _put_with_tick(turn, key, after, _sure(due, spec))
    else:
        turn.put_row(key, after)
    return f"changed cron {_label(row)}"


def _is_ahead(turn: Transaction, row: Doc) -> bool:
    if row.get("nextTime") is None:
        return False
    due = _due_anew(of_row(row["schedule"]), row, turn.now_ms)
    return due is not None and bool(row["nextTime"] > due + AHEAD_MS_MAX)


def _set_right(turn: Transaction, row: Doc) -> str | None:
    """Plan a cron anew as from now, unless it runs."""
    due = _due_anew(of_row(row["schedule"]), row, turn.now_ms)
    if due is None or not _take_tick(turn, row):
        return None
    _put_with_tick(turn, row_key_of(row["_id"]), row, due)
    return f"changed cron {_label(row)}: it waited for a time by a clock that was ahead"


def _due_anew(schedule: Schedule, row: Doc, now_ms: float) -> float | None:
    """When a cron whose schedule was changed is due."""
    if isinstance(schedule, Interval):
        return now_ms + schedule.seconds * 1000
    return first_time(schedule, _seed(row), now_ms)


def _remove(turn: Transaction, row: Doc, running: str | None = None) -> None:
    """
    Args:
        running: the job whose run removes it: a mutation, which has not ended, is pending still.
    """
    key = row_key_of(row["_id"])
    is_own = running is not None and row["tick"] == running
    if not is_own and _take_tick(turn, row):
        turn.put_row(key, None)
    else:
        turn.put_row(key, {**{name: row[name] for name in LEFT}, "removed": True})


def _take_tick(turn: Transaction, row: Doc) -> bool:
    """Take away the tick that waits; not one that runs, which sees to the next one itself."""
    if row["tick"] is None:
        return True
    key = row_key_of(row["tick"])
    tick = turn.own_row(key)
    if tick is None or not is_pending(tick):
        return False
    turn.put_row(key, None)
    return True


def _put_with_tick(turn: Transaction, key: bytes, cron: Doc, due_ms: float) -> None:
    (args,) = cron["args"]
    tick = add_job(
        turn,
        owner=cron["component"],
        component=cron["target"],
        path=cron["name"],
        args=args,
        due_ms=due_ms,
        cron=cron["_id"],
    )
    turn.put_row(key, {**cron, "tick": tick, "nextTime": normalize(float(due_ms))})


def _sure(due_ms: float | None, spec: CronSpec) -> float:
    if due_ms is None:
        raise PushRefused(
            f"{spec.where}: cron {spec.name!r} would never run: no day fits its schedule. "
            "Nothing was changed."
        )
    return due_ms


def _label(cron: Doc) -> str:
    """What operators call it: a component's by its path too."""
    return f"{cron['component']}/{cron['cron']}" if cron["component"] else str(cron["cron"])


def _seed(cron: Doc) -> str:
    return f"{cron['component']} {cron['cron']}"
