"""
A crowd of clients and an engine that lives several times, all by a seed.

A life is an engine on what the one before it left on its disk.  At the pause points and while a
batch is on its way the dice let the disk be slow, refuse a batch, or cut the power: then all that
was not durable is gone, and nobody is answered any more.  A client whose answer was lost either
sends its transaction again, under the same number, or never learns what became of it.

    tale = simulated(seed, interleaves=True)
    assert [] == anomalies(tale.history.operations)
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

import trio
import trio.testing
from trio._core import _run as trio_scheduler

from engine.errors import OutcomeUnknown, Overloaded, Stopped, StoreFull
from engine.functions.results import Caller
from engine.kernel.runtime import EPOCH_2026_NS, VirtualRuntime
from engine.model.commits import SessionRequest
from engine.model.limits import Limits
from engine.node import Node
from engine.store.memory_store import MemoryStore
from tests.node.nodes import serving
from tests.proofs.histories import History, Operation, Read
from tests.simulation.lists import (
    ACT,
    APPLICATION,
    LOOK,
    Program,
    Programs,
    appends,
    is_meant_to_fail,
    steps_taken,
    undone,
)

CLIENTS = 8
TRANSACTIONS = 300
KEYS_AT_A_TIME = 5
APPENDS_MAX = 12
STUFFING_COUNT = 3
DATA_BYTES_MAX = 4_000_000
"""Room for what everybody writes, and not for what they are stuffed with."""

LIMITS: Final = Limits(
    # What the machine is busy with must not decide a run.
    user_time_s_max=60.0,
    slice_s_max=60.0,
    # Soon again, and often: in the lane nobody conflicts with anybody.
    conflict_retries_max=12,
    retry_backoff_s=0.002,
    retry_backoff_s_max=0.05,
)

PLANNED: Final = "there is no room, as planned"
CALLER: Final = Caller(admin=True)


@dataclass(kw_only=True)
class Tale:
    """What was seen from outside, and how often what went wrong."""

    history: History = field(default_factory=History)
    crashes: int = 0
    refused_batches: int = 0
    problems: list[str] = field(default_factory=list)
    """Failures that nobody had planned."""


@dataclass(kw_only=True)
class _Sent:
    """A transaction that is on its way."""

    operation: Operation
    program: Program
    request: SessionRequest
    is_query: bool


@dataclass(kw_only=True)
class _Client:
    number: int
    session: int = 0
    requests: int = 0
    sent: _Sent | None = None

    @property
    def name(self) -> str:
        return f"client {self.number}.{self.session}"

    def next_request(self) -> SessionRequest:
        self.requests += 1
        session_id = b"%8d%8d" % (self.number, self.session)
        return SessionRequest(session_id=session_id, request_id=self.requests)


def simulated(seed: int, *, interleaves: bool, has_faults: bool = True) -> Tale:
    """The run that a seed gives; always the same one."""
    # Which of several tasks comes first is trio's choice, by dice of its own.
    setattr(trio_scheduler, "_ALLOW_DETERMINISTIC_SCHEDULING", True)  # noqa: B010
    trio_scheduler._r.seed(seed)
    simulation = _Simulation(seed, interleaves=interleaves, has_faults=has_faults)
    trio.run(simulation.run, clock=trio.testing.MockClock(autojump_threshold=0))
    return simulation.tale


class _Simulation:
    def __init__(self, seed: int, *, interleaves: bool, has_faults: bool) -> None:
        self.tale = Tale()
        self._dice = random.Random(seed)
        self._interleaves = interleaves
        self._has_faults = has_faults
        self._programs = Programs(self._dice, keys_count=KEYS_AT_A_TIME, appends_max=APPENDS_MAX)
        self._clients = [_Client(number=number) for number in range(CLIENTS)]
        self._left = TRANSACTIONS
        self._store = MemoryStore(flush=self._flush, data_bytes_max=DATA_BYTES_MAX)
        self._life = trio.CancelScope()
        self._is_cut = False

    async def run(self) -> None:
        while self._left or any(client.sent for client in self._clients):
            await self._live(self._go_on)
        self._has_faults = False
        await self._live(self._read_all)

    async def _live(self, live: Callable[[Node], Awaitable[None]]) -> None:
        """Open an engine on what there is, and have it until the end or a power cut."""
        self._is_cut = False
        self._life = trio.CancelScope()
        runtime = VirtualRuntime(
            self._dice.getrandbits(32),
            # The clock of the machine that takes over is another one.
            start_ns=EPOCH_2026_NS + self._dice.randrange(10**9),
            interleaves=self._interleaves,
        )
        store = self._store
        with self._life:
            async with serving(APPLICATION, store=store, runtime=runtime, limits=LIMITS) as node:
                runtime.points["committer.persist"] = partial(self._before_batch, store)
                runtime.points["committer.published"] = self._after_batch
                await live(node)

    # The world

    async def _before_batch(self, store: MemoryStore) -> None:
        if not self._has_faults:
            return
        if (fault := self._dice.random()) < 0.02:
            self._cut_power()
        elif fault < 0.1:
            self.tale.refused_batches += 1
            store.fail_next(StoreFull(PLANNED))
        elif fault < 0.3:
            await trio.sleep(self._dice.random() * 0.02)

    async def _flush(self) -> None:
        # Mutations take no time, only turns: a disk that takes none either ends among them.
        for _ in range(self._dice.randrange(12)):
            await trio.lowlevel.checkpoint()
        if self._dice.random() < 0.5:
            await trio.sleep(self._dice.random() * 0.004)
        if self._has_faults and self._dice.random() < 0.02:
            self._cut_power(in_flight=self._dice.random() < 0.5)

    async def _after_batch(self) -> None:
        if self._has_faults and self._dice.random() < 0.01:
            self._cut_power()

    def _cut_power(self, *, in_flight: bool = False) -> None:
        """From this instant on there is nothing but what is on the disk."""
        if self._is_cut:
            return
        self._is_cut = True
        self.tale.crashes += 1
        try:
            self._store = self._store.durable_copy(in_flight=in_flight)
        except StoreFull:  # what was in flight would have been refused
            self._store = self._store.durable_copy()
        self._life.cancel()

    # The clients

    async def _go_on(self, node: Node) -> None:
        async with trio.open_nursery() as nursery:
            for client in self._clients:
                nursery.start_soon(self._work, node, client)

    async def _work(self, node: Node, client: _Client) -> None:
        if client.sent is not None and self._dice.random() < 0.5:
            # Nobody will ever know what became of it.
            client.sent, client.session, client.requests = None, client.session + 1, 0
        while client.sent or self._left:
            client.sent = client.sent or self._next(client)
            if await self._answered(node, client.sent):
                client.sent = None
            if self._dice.random() < 0.1:
                await trio.sleep(self._dice.random() * 0.004)

    def _next(self, client: _Client) -> _Sent:
        self._left -= 1
        is_query = self._dice.random() < 0.25
        program = self._programs.look() if is_query else self._change()
        return _Sent(
            operation=self.tale.history.begin(client.name, appends(program), undone(program)),
            program=program,
            request=client.next_request(),
            is_query=is_query,
        )

    def _change(self) -> Program:
        if self._has_faults and self._dice.random() < 0.01:
            return self._programs.stuffing(STUFFING_COUNT)
        return self._programs.change()

    async def _answered(self, node: Node, sent: _Sent) -> bool:
        """Have a transaction done; whether the answer got to the client."""
        history, operation = self.tale.history, sent.operation
        try:
            value, failure = await self._call(node, sent)
        except (Overloaded, StoreFull) as error:
            if not self._is_cut:
                self._refused(sent, error)
            return not self._is_cut
        except (Stopped, OutcomeUnknown):
            return False
        if self._is_cut:
            return False
        if failure is not None:
            history.aborted(operation)
            if not is_meant_to_fail(sent.program):
                self.tale.problems.append(f"{operation} failed: {failure.message}")
            return True
        history.done(operation, steps_taken(sent.program, value))
        self._programs.learn(sent.program, value)
        return True

    def _refused(self, sent: _Sent, error: Exception) -> None:
        self.tale.history.aborted(sent.operation)
        is_planned = PLANNED in str(error) or is_meant_to_fail(sent.program)
        if isinstance(error, StoreFull) and not is_planned:
            self.tale.problems.append(f"{sent.operation} was refused for others: {error}")

    async def _call(self, node: Node, sent: _Sent) -> tuple[Any, Any]:
        args = {"steps": sent.program}
        if sent.is_query:
            return await self._shown(node, args)
        done = await node.functions.mutation(ACT, args, caller=CALLER, request=sent.request)
        return done.value, done.failure

    async def _shown(self, node: Node, args: dict[str, Any]) -> tuple[Any, Any]:
        shown = await node.functions.query(LOOK, args, caller=CALLER)
        shown.live.release()
        return shown.value, shown.failure

    async def _read_all(self, node: Node) -> None:
        """Of every list, what is there in the end."""
        operation = self.tale.history.begin("the end", [])
        reads: list[Read] = []
        for key in self._programs.keys:
            program = [["read", key]]
            value, failure = await self._shown(node, {"steps": program})
            assert failure is None, failure.message
            reads += [one for one in steps_taken(program, value) if isinstance(one, Read)]
        self.tale.history.done(operation, reads)
