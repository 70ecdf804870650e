"""
Clients of a simulated engine: over the sync protocol, over HTTP and in its process.

They keep what they were told and send again what they were not answered.  What they saw is compared
with what the log means by `tests.simulation.whole`.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final, NamedTuple, Protocol
from uuid import UUID

import trio

from engine.errors import EngineError, IndexNotFound, OutOfRetention, StoreFull
from engine.functions.results import Caller
from engine.model.json_values import decode_ts, encode_ts
from engine.node import Node
from tests.protocol.wires import House, Wire
from tests.simulation.shop import FUNCTIONS, ranked

CALLER: Final = Caller(admin=True)
PLANNED: Final = "as planned"
PATHS: Final = {one.handler.__name__: str(one.path) for one in (*FUNCTIONS, ranked)}
GROUPS: Final = 4
RANKS: Final = 12
COUNTERS: Final = 3
FAILURES: Final = {
    "add": ("one_of_a_rank",),
    "fail": (PLANNED,),
    "stuff": ("would be over the limit",),
}
"""What may be said of these, besides that there is no room."""

Args = dict[str, Any]


class Seen(NamedTuple):
    """A value that somebody was shown."""

    who: str
    ts: int
    name: str
    args: Args
    value: Any
    """`None` for a failure."""
    is_first: bool
    """Whether it was asked for anew."""


class Watched(Protocol):
    """What the crowd needs of the world it lives in."""

    dice: Random
    left: int
    """Calls that are still to be made."""

    def token(self) -> float: ...
    def known_token(self) -> float: ...
    def done(self, token: float, ts: int | None, value: Any) -> None: ...
    def refused(self, token: float, why: str) -> None: ...
    def saw(self, seen: Seen) -> None: ...
    def problem(self, text: str) -> None: ...
    def note(self, event: str) -> None: ...
    def looked_back(self, came_of: str) -> None: ...


@dataclass(slots=True)
class Sent:
    """A mutation that was not answered yet."""

    number: int
    name: str
    args: Args


@dataclass(slots=True)
class Shown:
    """A query on a screen."""

    name: str
    args: Args
    journal: str | None = None
    value: Any = None
    has_value: bool = False
    is_anew: bool = True


def any_call(world: Watched) -> tuple[str, Args]:
    """A call by the dice, and its arguments."""
    dice, token = world.dice, world.token()
    group = dice.randrange(GROUPS)
    kind = dice.random()
    if kind < 0.28:
        return "add", {"token": token, "group": group, "rank": dice.randrange(RANKS)}
    if kind < 0.46:
        return "bump", {"token": token, "key": dice.randrange(COUNTERS), "by": dice.randint(1, 9)}
    if kind < 0.58:
        return "move", {"token": token, "group": group, "to": dice.randrange(GROUPS)}
    if kind < 0.70:
        return "drop", {"token": token, "group": group}
    if kind < 0.74:
        return "fail", {"token": token, "group": group}
    if kind < 0.90:
        what = dice.choice(["land", "land", "act", "act", "miss"])
        return "plan", {"token": token, "delay_ms": dice.choice([0, 200, 1500, 4000]), "what": what}
    if kind < 0.99:
        return "cancel", {"token": token, "which": world.known_token()}
    return "stuff", {"token": token}


def any_query(dice: Random) -> tuple[str, Args]:
    kind = dice.random()
    if kind < 0.4:
        return "of_group", {"group": dice.randrange(GROUPS)}
    if kind < 0.55:
        return "page_of", {"group": dice.randrange(GROUPS)}
    if kind < 0.75:
        return "ranked", {"rank": dice.randrange(RANKS)}
    return dice.choice(["counted", "tallied", "sizes", "jobs"]), {}


def is_planned(name: str, message: str) -> bool:
    """Whether a call may be refused like this."""
    return PLANNED in message or any(part in message for part in FAILURES.get(name, ()))


@dataclass(kw_only=True)
class Client:
    """One screen, whose connections come and go."""

    number: int
    world: Watched
    session: str = ""
    requests: int = 0
    connections: int = 0
    query_ids: int = 0
    seen_ts: int = 0
    waiting: deque[Sent] = field(default_factory=deque)
    screen: dict[int, Shown] = field(default_factory=dict)
    version: dict[str, Any] = field(default_factory=dict)
    wire: Wire | None = None
    is_idle: bool = False

    def __post_init__(self) -> None:
        dice = self.world.dice
        self.session = str(UUID(bytes=dice.randbytes(16), version=4))
        for _ in range(dice.randint(1, 4)):
            self._look()

    @property
    def name(self) -> str:
        return f"client {self.number}"

    @property
    def is_done(self) -> bool:
        return not self.waiting and not self.world.left

    def hang_up(self) -> None:
        """Lose the connection now, whatever is on its way."""
        if self.wire is not None:
            if self.version:
                self.wire.broken = OSError("the line is dead")
            self.wire._to_server.send_nowait({"type": "websocket.disconnect", "code": 1006})
            self.wire = None

    async def live(self, house: House) -> None:
        """Be connected, again and again, until there is nothing more to do; then look on."""
        while True:
            await self._connected(house)
            await trio.sleep(self.world.dice.random() * 0.3)

    async def _connected(self, house: House) -> None:
        self.wire = wire = house.open()
        self.version = {}
        observed = {"maxObservedTimestamp": encode_ts(self.seen_ts)} if self.seen_ts else {}
        await wire.say(
            type="Connect",
            sessionId=self.session,
            connectionCount=self.connections,
            lastCloseReason=None,
            **observed,
        )
        self.connections += 1
        for query_id, shown in self.screen.items():
            shown.is_anew, shown.has_value = shown.journal is None, False
            await self._add(wire, query_id, shown)
        for sent in self.waiting:
            await self._say(wire, sent)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._work, wire)
            await self._hear(wire)
            nursery.cancel_scope.cancel()

    async def _work(self, wire: Wire) -> None:
        world, dice = self.world, self.world.dice
        while world.left:
            await trio.sleep(dice.random() * 0.2)
            if dice.random() < 0.03:
                wire.is_read = trio.Event()
                await trio.sleep(dice.random())
                wire.is_read.set()
            if dice.random() < 0.15:
                await self._change_screen(wire)
            elif len(self.waiting) < 4 and world.left:
                world.left -= 1
                self.requests += 1
                sent = Sent(self.requests, *any_call(world))
                self.waiting.append(sent)
                await self._say(wire, sent)

    async def _change_screen(self, wire: Wire) -> None:
        if len(self.screen) > 1 and self.world.dice.random() < 0.5:
            query_id = self.world.dice.choice(list(self.screen))
            del self.screen[query_id]
            await wire.modify({"type": "Remove", "queryId": query_id})
        else:
            query_id = self._look()
            await self._add(wire, query_id, self.screen[query_id])

    def _look(self) -> int:
        self.query_ids += 1
        self.screen[self.query_ids] = Shown(*any_query(self.world.dice))
        return self.query_ids

    async def _add(self, wire: Wire, query_id: int, shown: Shown) -> None:
        journal = {"journal": shown.journal} if shown.journal else {}
        await wire.add(query_id, PATHS[shown.name], shown.args, **journal)

    async def _say(self, wire: Wire, sent: Sent) -> None:
        await wire.mutate(sent.number, PATHS[sent.name], **sent.args)

    # What it is told.

    async def _hear(self, wire: Wire) -> None:
        while True:
            message = await wire.hear()
            if self.wire is not wire:
                return
            match message["type"]:
                case "closed":
                    self.wire = None
                    if "later state" in message["reason"] or message["code"] == 1011:
                        self.world.problem(f"{self.name} was sent away: {message['reason']}")
                    return
                case "Transition":
                    self._take_transition(message)
                case "MutationResponse":
                    self._take_answer(message)
                case "Ping":
                    pass
                case _:
                    self.world.problem(f"{self.name} was told {message}")

    def _take_answer(self, message: dict[str, Any]) -> None:
        sent = self.waiting[0] if self.waiting else None
        if sent is None or sent.number != message["requestId"]:
            self.world.problem(f"{self.name} was answered {message} out of turn")
            return
        self.waiting.popleft()
        token = sent.args["token"]
        if message["success"]:
            ts = decode_ts(message["ts"])
            self.world.done(token, ts, message["result"])
            return
        self.world.refused(token, message["result"])
        if not is_planned(sent.name, message["result"]):
            self.world.problem(f"{sent.name} of {self.name} failed: {message['result']}")

    def _take_transition(self, message: dict[str, Any]) -> None:
        start, end = message["startVersion"], message["endVersion"]
        if self.version and start != self.version:
            self.world.problem(f"{self.name} goes from {self.version} to {start}")
        self.version = end
        ts = decode_ts(end["ts"])
        if ts < decode_ts(start["ts"]):
            self.world.problem(f"{self.name} goes back to {ts}")
        self.seen_ts = max(ts, self.seen_ts)
        for change in message["modifications"]:
            if (shown := self.screen.get(change["queryId"])) is not None:
                self._take_change(shown, change)
        for shown in self.screen.values():
            if shown.has_value:
                seen = Seen(self.name, ts, shown.name, shown.args, shown.value, shown.is_anew)
                self.world.saw(seen)
                shown.is_anew = False

    def _take_change(self, shown: Shown, change: dict[str, Any]) -> None:
        match change["type"]:
            case "QueryUpdated":
                shown.value, shown.has_value = change["value"], True
                shown.journal = change.get("journal")
            case "QueryFailed":
                shown.value, shown.has_value = None, True
                if shown.name != "ranked":
                    self.world.problem(f"{shown.name} failed: {change['errorMessage']}")
            case "QueryRemoved":
                pass


# Who has no connection that stays.


async def call_here(world: Watched, node: Node, scope: trio.CancelScope) -> None:
    """Call a mutation in the engine's process, perhaps without waiting for its end."""
    name, args = any_call(world)
    with scope:
        try:
            result = await node.functions.mutation(PATHS[name], args, caller=CALLER)
        except StoreFull as error:
            world.refused(args["token"], str(error))
            if not is_planned(name, str(error)):
                world.problem(f"{name} was refused for others: {error}")
        except EngineError as error:
            world.note(f"{name} came to nothing: {type(error).__name__}")
        else:
            if result.failure is None:
                world.done(args["token"], result.ts, result.value)
            else:
                world.refused(args["token"], result.failure.message)
                if not is_planned(name, result.failure.message):
                    world.problem(f"{name} failed: {result.failure.message}")


async def call_by_http(world: Watched, house: House, scope: trio.CancelScope) -> None:
    """Likewise over HTTP."""
    name, args = any_call(world)
    body = {"path": PATHS[name], "args": args, "format": "json"}
    with scope:
        reply = await house.http("POST", "/api/mutation", json.dumps(body))
        if reply.status == 200 and reply.json["status"] == "success":
            world.done(args["token"], None, reply.json["value"])
        else:
            world.note(f"{name} was answered {reply.status}")


async def look_back(
    world: Watched,
    node: Node,
    ts: int,
    is_kept: Callable[[], bool],
    was_ranked: Callable[[], bool],
) -> None:
    """
    Ask for a state of the past, which is there for a time.

    Args:
        was_ranked: whether it had an index that some versions do not have.
    """
    name, args = world.dice.choice(
        [
            ("of_group", {"group": world.dice.randrange(GROUPS)}),
            ("ranked_then", {"rank": world.dice.randrange(RANKS)}),
            ("counted", {}),
            ("sizes", {}),
        ]
    )
    try:
        result = await node.functions.query_at(PATHS[name], args, caller=CALLER, ts=ts)
    except OutOfRetention as error:
        if is_kept():
            world.problem(f"{ts} cannot be read any more: {error}")
    except EngineError as error:
        world.looked_back(type(error).__name__)
        world.note(f"{name} of the past came to nothing: {type(error).__name__}")
    else:
        if name == "ranked_then" and result.failure is not None:
            assert isinstance(result.failure.error, IndexNotFound), result.failure
            world.looked_back("no index")
            if was_ranked():
                world.problem(f"{ts} had an index that is not found: {result.failure.error}")
            return
        assert result.failure is None, result.failure
        world.looked_back(name)
        world.saw(Seen("a look back", ts, name, args, result.value, is_first=False))
