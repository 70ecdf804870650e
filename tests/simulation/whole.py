"""
A whole engine that lives several times, with everybody who uses it, all by a seed.

A life is an engine on what the one before it left on its disk: committer, subscriptions, scheduler,
functions, and the server with its sessions, on a store in memory.  At the named pause points, and
while a batch is on its way, the dice let something go wrong:

    the power is cut            only what is durable is left, with the batch in flight or without
    a batch is refused          as there is no room
    a batch has unknown fate    it was written or not; the engine stops, and the next life finds out
    the disk is slow
    the wall clock jumps        a little, hours or weeks, forward and back
    a caller gives up           what it called goes on or does not begin
    a connection is lost        its client comes back and sends again what was not answered

Beside that new versions of the application are pushed, the log is trimmed, silent sessions are
forgotten, and the engine is closed and opened again.

    tale = simulated(seed)
    assert [] == tale.problems
    assert None is tale.schedule.parts_from(simulated(seed).schedule)
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final
from unittest.mock import patch

import trio
import trio.testing
from trio._core import _run as trio_scheduler

from engine.app.registry import Application
from engine.committer.actor import RunAgain
from engine.errors import EngineError, OutcomeUnknown, PushRefused, StoreFailed, StoreFull
from engine.functions import document_check, index_upkeep
from engine.functions.session_sweep import SessionSweep
from engine.functions.watchdog import Watchdog
from engine.indexes import annexes
from engine.indexes.verify import verify
from engine.kernel.actor import running
from engine.kernel.runtime import EPOCH_2026_NS, VirtualRuntime
from engine.log import retention
from engine.log.records import decode_record, ts_key
from engine.model.limits import Limits
from engine.node import Node, running_node
from engine.server.server import Server, ServerConfig
from engine.store.interface import Tree
from engine.store.memory_store import MemoryStore
from engine.subscriptions import actor as subscriptions_actor
from engine.transaction import past
from tests.protocol.cells import Cells
from tests.protocol.wires import House
from tests.simulation import shop
from tests.simulation.crowd import (
    PLANNED,
    Client,
    Seen,
    call_by_http,
    call_here,
    is_planned,
    look_back,
)
from tests.simulation.meaning import INTERRUPTED, LOG_AGE_S_MIN, Meaning, State
from tests.simulation.schedule import Schedule

CLIENTS: Final = 4
CALLS: Final = 130
DATA_BYTES_MAX: Final = 2_500_000
"""Room for what everybody writes, and not for what they are stuffed with."""
DAY_S: Final = 86_400.0
SETTLED_S: Final = 20.0
ACT_FAILURES: Final = (INTERRUPTED, PLANNED, "the mutation lane")
PROBLEMS_MAX: Final = 20
"""Of one run, which ends with the last of them."""
LIFE_S_MAX: Final = 3_600.0
"""On the virtual clock; whoever waits that long waits for ever."""


@dataclass(kw_only=True)
class Tale:
    """What was seen from outside, and how often what went wrong."""

    schedule: Schedule = field(default_factory=Schedule)
    problems: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    points: set[str] = field(default_factory=set)
    """The pause points that somebody came to."""


def simulated(seed: int, *, has_faults: bool = True) -> Tale:
    """The run that a seed gives; always the same one."""
    # Which of several tasks comes first is trio's choice, by dice of its own.
    setattr(trio_scheduler, "_ALLOW_DETERMINISTIC_SCHEDULING", True)  # noqa: B010
    trio_scheduler._r.seed(seed)
    world = World(seed, has_faults=has_faults)
    clock = trio.testing.MockClock(autojump_threshold=0)
    with _small_slices(), patch.object(shop, "outside", world):
        trio.run(world.run, clock=clock, instruments=[world.tale.schedule])
    return world.tale


@contextmanager
def _small_slices() -> Iterator[None]:
    """Whatever goes in slices has several, on a few rows."""
    with ExitStack() as patches:
        for module, name, count in (
            (index_upkeep, "SLICE_ROWS", 4),
            (document_check, "SLICE_ROWS", 4),
            (retention, "SLICE_RECORDS", 8),
            (past, "SLICE_RECORDS", 4),
            (past, "HIDDEN_AT_ONCE", 3),
            (past, "LOOK_EVERY", 2),
            (annexes, "SLICE_ROWS", 4),
            (subscriptions_actor, "STEP_COMMITS_MAX", 3),
        ):
            patches.enter_context(patch.object(module, name, count))
        yield


class _Runtime(VirtualRuntime):
    """Leads whoever comes to a pause point to the world."""

    def __init__(self, world: World, seed: int, *, start_ns: int, interleaves: bool) -> None:
        super().__init__(seed, start_ns=start_ns, interleaves=interleaves)
        self._world = world

    async def pause(self, point: str) -> None:
        await self._world.reached(point)


class World:
    """Everything outside the engine, and what was seen there."""

    def __init__(self, seed: int, *, has_faults: bool) -> None:
        self.tale = Tale()
        self.dice = dice = random.Random(seed)
        self.left = CALLS
        self._has_faults = has_faults
        self._badness = dice.choice([0.3, 1.0, 1.0, 2.5])
        """How much goes wrong."""
        self._interleaves = dice.random() < 0.4
        self._limits = _limits(dice)
        self._store = MemoryStore(flush=self._flush, data_bytes_max=DATA_BYTES_MAX)
        self._meaning = Meaning()
        self._seen: list[Seen] = []
        self._done: list[tuple[float, int | None, Any]] = []
        self._refused: list[tuple[float, str]] = []
        self._tokens = 0
        self._begun: set[str] = set()
        self._running: set[str] = set()
        self._is_cut = False
        self._has_unknown = False
        self._life = trio.CancelScope()
        self._close = trio.Event()
        self._runtime: _Runtime | None = None
        self._node: Node | None = None
        self._highest_ns = 0
        self._start_ns = EPOCH_2026_NS
        self._version: Application = shop.RANKED
        self._callers: list[trio.CancelScope] = []
        self._watchdog = Watchdog(self._limits)
        self._clients = [Client(number=number, world=self) for number in range(CLIENTS)]

    async def run(self) -> None:
        self._watchdog.start()
        try:
            with self.tale.schedule.limit as limit:
                await self._live_on()
            if limit.cancelled_caught and not self.tale.problems:
                self._wrong("it never comes to an end")
        finally:
            self._watchdog.close()

    async def _live_on(self) -> None:
        while self.left or not all(client.is_done for client in self._clients):
            await self._live(self._go_on)
        self._has_faults = False
        await self._live(self._come_to_rest)
        self._check_ends()

    # A life.

    async def _live(self, story: Any) -> None:
        """Have an engine on what there is, until the end or until something ends it."""
        self.tale.counts["lives"] += 1
        self._is_cut = self._has_unknown = False
        self._life, self._close = trio.CancelScope(), trio.Event()
        self._running.clear()
        self._runtime = _Runtime(
            self,
            self.dice.getrandbits(32),
            start_ns=self._start_ns,
            interleaves=self._interleaves,
        )
        self._life_began = trio.current_time()
        self._bound_ns = self._start_ns
        store = self._store
        try:
            with self._life, trio.fail_after(LIFE_S_MAX):
                await self._have_engine(store, story)
        except trio.TooSlowError:
            self.problem(f"something waits for ever in life {self.tale.counts['lives']}")
        except Exception as error:
            self._check_end(error)
        else:
            if self._has_unknown and store.obstacle() and not self._is_cut:
                self.problem("the engine went on after a batch of unknown fate")
        self._node = None
        self._note_clock()
        # The machine that takes over has another clock, and no clock is wrong by weeks twice.
        passed_ns = int(trio.current_time() * 1e9)
        self._start_ns = EPOCH_2026_NS + passed_ns + int(self._jump_s(1.0, 20_000.0) * 1e9)
        if not self._is_cut:
            self._store = store.durable_copy()
        self._check_life()

    async def _have_engine(self, store: MemoryStore, story: Any) -> None:
        assert self._runtime is not None
        limits, runtime = self._limits, self._runtime
        async with running_node(
            store, runtime=runtime, limits=limits, watchdog=self._watchdog
        ) as node:
            self._node = node
            self._catch_up()
            await self._open(node)
            server = Server(node.functions, runtime=runtime, limits=limits, config=ServerConfig())
            async with trio.open_nursery() as crowd:
                async with running(server, grace_s=5):
                    house = House(server, Cells(), crowd)
                    for client in self._clients:
                        crowd.start_soon(client.live, house)
                    await story(node, house, crowd)
                crowd.cancel_scope.cancel()

    def _check_end(self, error: Exception) -> None:
        """Only what was planned ends an engine."""
        for one in _leaves(error):
            is_unknown = isinstance(one, StoreFailed | OutcomeUnknown) and self._has_unknown
            is_full = isinstance(one, StoreFull) and PLANNED in str(one)
            if not (is_unknown or is_full or self._is_cut):
                self.problem(f"the engine ended: {one!r}")

    async def _go_on(self, node: Node, house: House, crowd: trio.Nursery) -> None:
        """Have everybody do what they do until all is done, or the engine is to be closed."""
        crowd.start_soon(self._call, node, house, crowd)
        crowd.start_soon(self._operate, node)
        while not self._close.is_set():
            if not self.left and all(client.is_done for client in self._clients):
                return
            with trio.move_on_after(0.5):
                await self._close.wait()

    async def _call(self, node: Node, house: House, crowd: trio.Nursery) -> None:
        """Those who are not clients."""
        while self.left:
            await trio.sleep(self.dice.random() * 0.3)
            kind = self.dice.random()
            if kind < 0.3 and (times := self._meaning.times()):
                for ts in self._moments(times):
                    then = partial(self._is_kept, ts), partial(self._was_ranked, ts)
                    crowd.start_soon(look_back, self, node, ts, *then)
                continue
            for _ in range(min(self.left, self.dice.choice([1, 1, 6]))):
                self.left -= 1
                scope = trio.CancelScope()
                if self.dice.random() < 0.2:
                    scope.deadline = trio.current_time() + self.dice.random() * 0.02
                self._callers = [*self._callers[-5:], scope]
                if kind < 0.8:
                    crowd.start_soon(call_here, self, node, scope)
                else:
                    crowd.start_soon(call_by_http, self, house, scope)

    def _moments(self, times: list[int]) -> list[int]:
        """Some timestamps, and some of those at which there was an index that may have gone."""
        ranked = list(filter(self._was_ranked, times))
        return self.dice.choices(times[-60:], k=3) + self.dice.choices(ranked or times, k=3)

    async def _operate(self, node: Node) -> None:
        """Push, trim, sweep, close."""
        while True:
            await trio.sleep(self.dice.random())
            kind = self.dice.random()
            if kind < 0.5:
                await self._push(node, self.dice.choice(shop.VERSIONS))
            elif kind < 0.75:
                await self._try(node.retention.trim)
            elif kind < 0.9:
                sweep = SessionSweep(node.functions.turns, runtime=node.runtime, limits=node.limits)
                await self._try(sweep.sweep)
            elif self._has_faults:
                self.tale.counts["closed"] += 1
                self._close.set()

    async def _try(self, work: Any) -> None:
        try:
            await work()
        except (RunAgain, EngineError) as error:
            self.note(f"came to nothing: {type(error).__name__}")

    async def _open(self, node: Node) -> None:
        """Push what the operator has; or what is deployed, if that was not the operator's news."""
        version = self._version
        while (end := await self._push(node, version)) in ("full", "refused"):
            if end == "refused":
                deployed = self._meaning.state.digest
                version = next(one for one in shop.VERSIONS if one.digest == deployed)

    async def _push(self, node: Node, version: Application) -> str:
        """Push a version, once; what came of it."""
        before = self._meaning.state.digest
        try:
            await node.push(version)
        except PushRefused as error:
            self.tale.counts["refused pushes"] += 1
            self._catch_up()
            if version is not shop.STRICT or self._meaning.state.digest != before:
                self.problem(f"the push was refused: {error}")
            return "refused"
        except EngineError as error:
            if isinstance(error, StoreFull) and not is_planned("", str(error)):
                self.problem(f"the push was refused: {error}")
            self.note(f"the push came to nothing: {type(error).__name__}")
            return "full" if isinstance(error, StoreFull) else "stopped"
        self.tale.counts["pushes"] += 1
        if not self._is_cut:
            self._version = version
            self._catch_up()
            if self._meaning.state.digest != version.digest:
                self.problem("what was pushed is not what is deployed")
        return "pushed"

    async def _come_to_rest(self, node: Node, _house: House, _crowd: trio.Nursery) -> None:
        """Wait until nothing is due any more, and look whether everybody was told."""
        runtime = self._runtime
        assert runtime is not None
        await trio.sleep(1)
        self._catch_up()
        late_s = self._meaning.latest_due_ms() / 1000 - runtime.now_ns() / 1e9
        if late_s > 0:
            runtime.jump(late_s + 1)
            node.scheduler.wake()
        await trio.sleep(SETTLED_S)
        node.scheduler.pause()
        await trio.sleep(SETTLED_S)
        self._catch_up()
        newest = self._meaning.state
        for client in self._clients:
            for shown in client.screen.values():
                seen = Seen(
                    client.name, self._meaning.last_ts, shown.name, shown.args, shown.value, False
                )
                if not shown.has_value or _contradiction(newest, seen):
                    self.problem(f"{client.name} was not told the end: {shown}")

    # What goes wrong.

    async def reached(self, point: str) -> None:
        """Somebody came to a pause point."""
        self.note(f"reached {point}")
        self.tale.points.add(point)
        if point == "committer.published":
            self._catch_up()
        if not self._has_faults or self._is_cut:
            return
        odds = self._badness * (1 if point.startswith(("committer", "session")) else 4)
        fault = self.dice.random() / odds
        if fault < 0.004:
            self._cut_power()
        elif fault < 0.006 and self._node is not None:
            self._have_unknown(self._node.store)
        elif fault < 0.04 and self._node is not None:
            self._refuse(self._node.store)
        elif fault < 0.05:
            self._jump()
        elif fault < 0.09:
            self._lose()
        elif fault < 0.2:
            self.tale.counts["delays"] += 1
            await trio.sleep(self.dice.random() * 0.1)

    async def _flush(self) -> None:
        # Mutations take no time, only turns: a disk that takes none either ends among them.
        for _ in range(self.dice.randrange(6)):
            await trio.lowlevel.checkpoint()
        if self.dice.random() < 0.5:
            await trio.sleep(self.dice.random() * 0.01)
        if self._has_faults and self.dice.random() < 0.006 * self._badness:
            self._cut_power(in_flight=self.dice.random() < 0.5)

    def _cut_power(self, *, in_flight: bool = False) -> None:
        """From this instant on there is nothing but what is on the disk."""
        if self._is_cut or self._node is None:
            return
        self.tale.counts["power cuts"] += 1
        self.note("the power is cut")
        self._is_cut = True
        try:
            self._store = self._store.durable_copy(in_flight=in_flight)
        except StoreFull:  # what was in flight would have been refused
            self._store = self._store.durable_copy()
        self._life.cancel()

    def _have_unknown(self, store: Any) -> None:
        self.tale.counts["unknown outcomes"] += 1
        self._has_unknown = True
        store.fail_next(
            StoreFailed("the disk failed, as planned"), written=self.dice.random() < 0.5
        )

    def _refuse(self, store: Any) -> None:
        if not self._has_unknown:
            self.tale.counts["refused batches"] += 1
            store.fail_next(StoreFull("there is no room, as planned"))

    def _jump(self) -> None:
        assert self._runtime is not None
        self.tale.counts["clock jumps"] += 1
        self._note_clock()
        self._runtime.jump(self._jump_s(1.0, 1.0, 5.0, 3_000.0, 20_000.0, 40 * DAY_S))

    def _jump_s(self, *reaches_s: float) -> float:
        """Mostly a little, sometimes hours or weeks; in either direction."""
        if not self._has_faults:
            return 0.0
        reach_s = self.dice.choice(reaches_s)
        return self.dice.uniform(-1, 1) * reach_s

    def _lose(self) -> None:
        if self._callers and self.dice.random() < 0.3:
            self.tale.counts["callers gone"] += 1
            self.dice.choice(self._callers).cancel()
        else:
            self.tale.counts["connections lost"] += 1
            self.dice.choice(self._clients).hang_up()

    # What is told and seen, as `crowd.Watched`.

    def token(self) -> float:
        self._tokens += 1
        return self._tokens

    def known_token(self) -> float:
        return self.dice.randint(max(1, self._tokens - 20), max(1, self._tokens))

    def done(self, token: float, ts: int | None, value: Any) -> None:
        if not self._is_cut:
            self.tale.counts["answers"] += 1
            self.note(f"{token:g} is done at {ts}: {value}")
            self._done.append((token, ts, value))

    def refused(self, token: float, why: str) -> None:
        if not self._is_cut:
            self.note(f"{token:g} is refused")
            self._refused.append((token, why))

    def saw(self, seen: Seen) -> None:
        if not self._is_cut:
            self.tale.counts["values shown"] += 1
            self._seen.append(seen)

    def looked_back(self, name: str) -> None:
        self.tale.counts[f"looks back: {name}"] += 1

    def problem(self, text: str) -> None:
        if not self._is_cut:
            self._wrong(text)

    def _wrong(self, text: str) -> None:
        self.note(f"wrong: {text}")
        self.tale.problems.append(text)
        if len(self.tale.problems) == PROBLEMS_MAX:
            self.tale.schedule.limit.cancel()

    def note(self, event: str) -> None:
        self.tale.schedule.note(event)

    # As `shop.Outside`.

    def begin(self, name: str) -> None:
        if self._is_cut:
            return
        self.note(f"{name} begins")
        if name in self._running:
            self.problem(f"{name} runs twice at a time")
        self._running.add(name)
        if name == "beat":
            return
        if name in self._begun:
            self.problem(f"{name} begins again")
        self._begun.add(name)
        self._catch_up()
        job = self._meaning.job(float(name.split()[1]))
        if job is None or job["state"]["kind"] not in ("inProgress", "canceled"):
            self.problem(f"{name} begins, and its job is {job and job['state']}")

    def end(self, name: str) -> None:
        self._running.discard(name)

    # Checks.

    def _note_clock(self) -> None:
        assert self._runtime is not None
        self._highest_ns = max(self._highest_ns, self._runtime.now_ns())

    def _catch_up(self) -> None:
        """Read what of the log is new; whatever is trimmed was read before."""
        self._note_clock()
        meaning = self._meaning
        with self._store.snapshot() as snapshot:
            for _, data in snapshot.range(Tree.LOG, ts_key(meaning.last_ts + 1), None):
                record = decode_record(data)
                self.note(f"record {record.ts} of {record.source.path}, {record.state_hash:x}")
                meaning.take(record, latest_ms=self._highest_ns / 1e6, bound_ts=self._highest_ns)
        for text in meaning.problems:
            self._wrong(text)
        meaning.problems.clear()

    def _is_kept(self, ts: int) -> bool:
        """Whether so little time has passed since then that it has to be there."""
        return self._meaning.last_ts - ts < LOG_AGE_S_MIN * 1e9

    def _was_ranked(self, ts: int) -> bool:
        return self._meaning.at(ts).digest == shop.RANKED.digest

    def _check_life(self) -> None:
        """Compare what was seen with what is there, now that nobody runs."""
        self._is_cut = False
        self._catch_up()
        meaning = self._meaning
        self.tale.counts["records"] = meaning.records
        *_, findings = verify(self._store.snapshot)
        for text in findings.problems:
            self.problem(f"verify: {text}")
        for seen in self._seen:
            if seen.ts > meaning.last_ts:
                self.problem(
                    f"{seen.who} was shown {seen.ts}, and the log ends at {meaning.last_ts}"
                )
            elif why := _contradiction(meaning.at(seen.ts), seen):
                self.problem(why)
        for token, ts, value in self._done:
            self._check_done(token, ts, value)
        self._seen.clear()
        self._done.clear()

    def _check_done(self, token: float, ts: int | None, value: Any) -> None:
        outcome = self._meaning.outcomes.get(token)
        if outcome is None:
            self.problem(f"{token:g} was acknowledged at {ts} and is not there")
        elif outcome.value != value or ts not in (None, outcome.ts):
            self.problem(f"{token:g} was answered {value} at {ts}, and that is {outcome}")

    def _check_ends(self) -> None:
        """What may only be said when nothing is due any more."""
        meaning = self._meaning
        for token, why in self._refused:
            if token in meaning.outcomes:
                self.problem(f"{token:g} was refused ({why}) and is there")
        for token in sorted(meaning.state.plans):
            self._check_plan(token)

    def _check_plan(self, token: float) -> None:
        job, has_landed = self._meaning.job(token), token in self._meaning.state.landed
        if job is None:
            self.problem(f"the plan {token:g} has no job")
            return
        kind, what = job["state"]["kind"], job["name"].rpartition(":")[2]
        has_begun = f"act {token:g}" in self._begun
        match what, kind:
            case _, "pending" | "inProgress":
                self.problem(f"{what} {token:g} is {kind} in the end")
            case "land", _ if has_landed != (kind == "success"):
                self.problem(f"land {token:g} is {kind}, and has landed: {has_landed}")
            case "miss", _ if has_landed or kind == "success":
                self.problem(f"miss {token:g} is {kind}, and has landed: {has_landed}")
            case "act", "success" if not (has_begun and has_landed):
                self.problem(f"act {token:g} has ended well, begun: {has_begun}, {has_landed}")
            case "act", "failed" if not any(why in job["state"]["error"] for why in ACT_FAILURES):
                self.problem(f"act {token:g} failed: {job['state']['error']}")


def _contradiction(state: State, seen: Seen) -> str | None:
    """What is wrong with a value that was shown of `state`."""
    there: Any
    if seen.name == "page_of":
        there = [item.token for item in state.of_group(seen.args["group"])]
        page = seen.value
        is_right = page is not None and page["tokens"] == there[: len(page["tokens"])]
        if is_right and page["isDone"]:
            is_right = page["tokens"] == there
        if is_right and seen.is_first:
            is_right = len(page["tokens"]) == min(shop.PAGE_ITEMS, len(there))
    else:
        there = state.answer(seen.name, seen.args)
        shown = sorted(seen.value) if seen.name == "jobs" and seen.value else seen.value
        is_right = shown == there
    if is_right:
        return None
    return f"{seen.who} was shown {seen.name} {seen.args} at {seen.ts}: {seen.value}, not {there}"


def _limits(dice: random.Random) -> Limits:
    return Limits(
        # What the machine is busy with must not decide a run.
        user_time_s_max=60.0,
        system_time_s_max=600.0,
        slice_s_max=60.0,
        # Soon again, and often: in the lane nobody conflicts with anybody.
        conflict_retries_max=12,
        retry_backoff_s=0.002,
        retry_backoff_s_max=0.05,
        # What is only reached by many is reached by a few.
        log_bytes_max=dice.choice([2_000, 20_000, 1 << 30]),
        log_age_s_min=LOG_AGE_S_MIN,
        history_count_max=dice.choice([4, 40, 8_192]),
        batch_count_max=dice.choice([2, 1_000]),
        staged_count_max=dice.choice([4, 4_096]),
        mutation_patience_s=dice.choice([0.05, 5.0]),
        parallel_queries_max=dice.choice([1, 20]),
        query_cache_bytes_max=dice.choice([3_000, 100 << 20]),
        action_jobs_running_max=dice.choice([2, 32]),
        mutation_jobs_running_max=dice.choice([2, 32]),
        past_bytes_max=dice.choice([1, 16_000, 128 << 20]),
        past_count_max=dice.choice([2, 8]),
    )


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for one in error.exceptions:
            yield from _leaves(one)
    else:
        yield error
