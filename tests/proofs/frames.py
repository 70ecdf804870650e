"""
Say hostile things to a server on which others work, and see that nobody notices.

A round is a frame that no official client sends.  Most conversations go over real sockets, the rest
through the same sessions without them, as a host would hand them over; in every one it is known
what each frame is worth and how it may end.  Meanwhile two users and somebody who is nobody read
and write.  After each tenth everybody pauses, and tasks and memory are what they were.  What was
traced, and in the end the data, are looked at too.  It looks into /proc, and so needs Linux.
"""

from __future__ import annotations

import ctypes
import gc
import json
import re
import sys
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, Final
from uuid import UUID

import structlog
import trio

from engine.host import Engine
from engine.model.limits import Limits
from engine.server.listener import ListenConfig
from engine.server.server import ServerConfig
from tests.node.sockets import CLOSE, TEXT, WebSocket, frame, opened
from tests.proofs.frames_planted import PLANTED
from tests.proofs.hostile_frames import PROBE, TOKEN, Conversation, End, Loot, conversation
from tests.proofs.proof import Plan, Verdict, too_few
from tests.protocol import tokens

PROMISE = (
    "Whatever frames a client sends, the server goes on, holds no more than before, and tells "
    "nobody what is another's."
)
ROUNDS = 1_000_000

APP: Final = Path(__file__).parent / "frames_app"
RECORDINGS: Final = Path(__file__).parent / "recorded_conversations.json"
ADMIN_KEY: Final = "proof|0123456789abcdef0123456789abcdef"
LIMITS: Final = Limits(
    # Small, so that what may be kept is full before memory is measured for the first time.
    query_cache_bytes_max=1 << 13,
    executions_kept_max=4,
    history_count_max=4,
    client_past_s_max=1.0,
    message_bytes_max=1 << 20,
    drain_s=1.0,
)
USERS: Final = ("ada", "bob", None)
HOSTILE_AT_A_TIME: Final = 16
PARTS: Final = 10
WARM_PARTS: Final = 3
"""Memory is compared with what it was after so many of them."""
IN_MEMORY: Final = 0.5
"""Of the conversations that need no socket."""
FIRST_NOTES: Final = 20
CONNECTION_NOTES: Final = 50
"""What a user writes before there are others, and on each connection."""
PACE_S: Final = 0.005
"""Between two writes of a user."""
APART_S: Final = 0.002
"""For what was sent to have been read."""
ANSWER_S_MAX: Final = 20.0
QUIET_S_MAX: Final = 10.0
SETTLING_S: Final = 0.5
"""For whoever was here first to have gone, or there would seem to be room for one who stays."""
BLOCKS_GROWTH_MAX: Final = 1_000
"""Objects that are there after the last part and were not before: what just ended may be a few."""
BYTES_GROWTH_MAX: Final = 64 << 20
PLANTED_ROUNDS: Final = 80_000
"""At most: most bugs are noticed soon, one object of each refused frame when they add up."""

CANARY: Final = re.compile(r"canary of [\w ]+")
OUR_CODE: Final = re.compile(r"/engine/|Traceback|File \\?\"")
EXPECTED_ERRORS: Final = frozenset({"session.from_the_future"})
"""What operators are to read of a client that says it has seen a later state."""


@dataclass(kw_only=True)
class Story:
    """What was said and what came of it."""

    seed: int
    frames: int = 0
    """Hostile ones, and the others between them: `usual`."""
    usual: int = 0
    in_memory: int = 0
    conversations: int = 0
    ends: Counter[str] = field(default_factory=Counter)
    written: Counter[str] = field(default_factory=Counter)
    slowest_s: float = 0.0
    """Of what the users asked."""
    seconds: float = 0.0
    blocks_growth: int = 0
    bytes_growth: int = 0
    problems: list[str] = field(default_factory=list)

    def note(self, problem: str) -> None:
        self.problems.append(problem[:600])

    @property
    def figure(self) -> str:
        ends = ", ".join(f"{count:,} {end}" for end, count in sorted(self.ends.items()))
        return (
            f"{self.frames:,} hostile frames ({self.in_memory:,} without a socket) and "
            f"{self.usual:,} usual ones in {self.conversations:,} conversations ({ends}), "
            f"{self.frames / max(self.seconds, 1e-9):,.0f} a second; beside them "
            f"{self.written.total():,} writes, the slowest seen after "
            f"{self.slowest_s * 1e3:.0f} ms; "
            f"{self.blocks_growth:+,} objects, {self.bytes_growth / 1e6:+.1f} MB; "
            f"{len(self.problems)} problems {self.problems[:2] or ''}".strip()
        )


def prove(plan: Plan) -> Verdict:
    """Say as many frames as there are rounds, or look whether each bug is caught."""
    if not plan.planted:
        story = tell(plan.directory / "data", plan.seed, plan.rounds)
        story.problems += too_few_of(story, plan.rounds // 200)
        for problem in story.problems[:20]:
            print(f"  {problem}")
        return Verdict(held=not story.problems, figure=story.figure)
    caught = []
    for bug, plant in PLANTED.items():
        with plant():
            story = tell(plan.directory / bug, plan.seed, PLANTED_ROUNDS)
        print(f"  {bug}: {story.problems[0] if story.problems else 'NOT CAUGHT'}", flush=True)
        caught.append(bool(story.problems))
    return Verdict(held=all(caught), figure=f"{sum(caught)} of {len(caught)} planted bugs caught")


def too_few_of(story: Story, least: int) -> list[str]:
    """What happened so seldom that nothing was shown."""
    ends = (End.OPEN, End.FATAL, End.AUTH, End.ANY)
    done = {**story.ends, "writes": story.written.total()}
    return too_few(done, {**{end.name: least for end in ends}, "writes": least})


def tell(directory: Path, seed: int, rounds: int) -> Story:
    """Serve, and have hostile clients say so many frames."""
    story = Story(seed=seed)
    with _traced(story):
        trio.run(_tell, directory, rounds, story)
    return story


async def _tell(directory: Path, rounds: int, story: Story) -> None:
    config = ServerConfig(admin_key=ADMIN_KEY)
    async with (
        Engine.open(directory, app=APP, server=config, limits=LIMITS) as engine,
        engine.listen(ListenConfig(bind=("127.0.0.1:0",))) as urls,
        trio.open_nursery() as nursery,
    ):
        users = [User(name, urls[0], story) for name in USERS]
        for user in users:
            await nursery.start(user.run)
        if story.problems:
            nursery.cancel_scope.cancel()
            return
        crowd = Crowd(engine, urls[0], story, await _loot(urls[0]))
        await crowd.rest(users)
        await trio.sleep(SETTLING_S)
        before = Memory.now()
        tasks = _tasks()
        for part in range(PARTS):
            for user in users:
                user.go()
            await crowd.say(rounds * (part + 1) // PARTS)
            if story.problems:
                break
            await crowd.rest(users)
            if await _tasks_left(tasks):
                story.note(f"{_tasks() - tasks} tasks more than before, after {story.frames:,}")
                break
            if part + 1 == WARM_PARTS:
                before = Memory.now()
        if not story.problems:
            Memory.now().compare(before, story)
        nursery.cancel_scope.cancel()
    if not story.problems:
        await _look_at_data(directory, story)


async def _look_at_data(directory: Path, story: Story) -> None:
    """There is what the users were told that they wrote, and nothing else."""
    async with Engine.open(directory, app=APP) as engine:
        notes: Counter[str] = Counter()
        opts: dict[str, Any] = {"numItems": 5_000, "cursor": None}
        while True:
            page = await engine.query("notes:every", {"paginationOpts": opts})
            notes.update(note["owner"] for note in page["page"])
            opts["cursor"] = page["continueCursor"]
            if page["isDone"]:
                break
    if notes != story.written:
        story.note(f"the data has {dict(notes)} notes, and {dict(story.written)} were written")


# What hostile clients know.


async def _loot(url: str) -> Loot:
    """Cursors and journals of a user are there to be stolen; tokens are not."""
    cursors, journals = await _pages(url)
    return Loot(
        tokens=_bad_tokens(),
        admin_keys=_bad_admin_keys(),
        mallory=good_token("mallory"),
        cursors=cursors,
        journals=journals,
        recordings=json.loads(RECORDINGS.read_text()),
        message_bytes_max=LIMITS.message_bytes_max,
    )


async def _pages(url: str) -> tuple[list[str], list[str]]:
    """Of ada's first pages."""
    cursors: list[str] = []
    journals: list[str] = []
    async with opened(url) as socket:
        await socket.say(type="Connect", sessionId=str(UUID(int=99)))
        await _sign_in(socket, "ada")
        for number in range(3):
            opts = {"numItems": 1, "cursor": cursors[-1] if cursors else None}
            add = {"queryId": number, "udfPath": "notes:page", "args": [{"paginationOpts": opts}]}
            await socket.say(
                type="ModifyQuerySet",
                baseVersion=number,
                newVersion=number + 1,
                modifications=[{"type": "Add", **add}],
            )
            while True:
                transition = await socket.hear_until("Transition")
                found = {each["queryId"]: each for each in transition["modifications"]}
                if number in found:
                    break
            cursors.append(found[number]["value"]["continueCursor"])
            journals.append(found[number]["journal"])
    return cursors, journals


def good_token(subject: str) -> str:
    now_s = time.time()
    return tokens.token(sub=subject, iat=now_s, exp=now_s + 86_400)


def _bad_tokens() -> list[str]:
    now_s = time.time()
    times: dict[str, Any] = {"iat": now_s, "exp": now_s + 86_400}
    good = good_token("ada")
    header, claims, signature = good.split(".")
    return [
        tokens.token(sub="ada", iat=now_s - 9, exp=now_s - 1),
        tokens.token(sub="ada", key=tokens.OTHER_RSA, **times),
        tokens.token(sub="ada", aud="another", **times),
        tokens.token(sub="ada", iss="https://another.test", **times),
        f"{header}.{claims}.",
        f"{header}.{claims}",
        f"{header}.{claims}.{signature[:-8]}AAAAAAAA",
        f"eyJhbGciOiJub25lIn0.{claims}.",
        f"{good}.{signature}",
        f"\x00{good}",
        TOKEN,
        "",
        "a.b.c",
        "\ud800.\ud800.\ud800",
        "x" * 100_000,
        ADMIN_KEY,
    ]


def _bad_admin_keys() -> list[str]:
    name, _, secret = ADMIN_KEY.partition("|")
    acting = "eyJzdWJqZWN0IjoiYWRhIiwiaXNzdWVyIjoiaSJ9"
    return [
        secret,
        f"{name}|",
        f"{name}|{secret[:-1]}",
        f"{name}|{secret}0",
        f"{name}|{secret}\x00",
        f"{name}|{secret.upper()}",
        f"{name}||{secret}",
        f"other|{secret}",
        f"{name}|{secret[::-1]}:{acting}",
        f"|:{acting}",
        f":{acting}",
        "",
        "\ud800|\ud800",
        "x" * 100_000,
        good_token("ada"),
    ]


# Hostile clients.


class Crowd:
    """Conversations, so many at a time, each with a number."""

    def __init__(self, engine: Engine, url: str, story: Story, loot: Loot) -> None:
        self._engine = engine
        self._url = url
        self._story = story
        self._loot = loot

    async def say(self, upto: int) -> None:
        """Go on until so many hostile frames were said."""
        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            for _ in range(HOSTILE_AT_A_TIME):
                nursery.start_soon(self._say, upto, nursery.cancel_scope)
        self._story.seconds += trio.current_time() - began

    async def _say(self, upto: int, all_of_them: trio.CancelScope) -> None:
        story = self._story
        while story.frames < upto:
            number = story.conversations
            story.conversations += 1
            said = conversation(story.seed, number, self._loot)
            story.frames += said.hostile
            story.usual += len(said.frames) - said.hostile
            is_direct = not said.needs_socket and Random(number).random() < IN_MEMORY
            if is_direct:
                story.in_memory += said.hostile
            heard = Heard(said)
            try:
                with trio.move_on_after(ANSWER_S_MAX) as patience:
                    await (self._without_socket(heard) if is_direct else self._by_socket(heard))
            except Exception as error:
                heard.problems.append(f"{type(error).__name__}: {error}")
            if patience.cancelled_caught:
                heard.problems.append(f"not over after {ANSWER_S_MAX:g} s: {heard.missing}")
            for problem in heard.problems:
                story.note(f"conversation {number} ({said.end.name}): {problem}")
            story.ends[said.end.name] += 1
            if story.problems:
                all_of_them.cancel()

    async def _by_socket(self, heard: Heard) -> None:
        said = heard.conversation
        async with opened(self._url) as socket:
            try:
                for part in _sent_apart(said):
                    await socket.stream.send_all(part)
                    await trio.sleep(APART_S)
                if said.end is End.LEFT:
                    return
                while not heard.is_over:
                    message = await socket.hear_text()
                    if message is None:
                        heard.closed(socket.close_code, socket.close_reason)
                    else:
                        heard.take(message)
                heard.take_pongs(socket.pongs)
                if heard.is_open:
                    await socket.send(CLOSE, b"")
                    await socket.is_over()
            except trio.BrokenResourceError:
                heard.closed(None, "")

    async def _without_socket(self, heard: Heard) -> None:
        events: deque[dict[str, Any]] = deque([{"type": "websocket.connect"}])
        events += [
            {"type": "websocket.receive", "text": text} for text in heard.conversation.frames
        ]
        told = trio.lowlevel.ParkingLot()

        async def receive() -> dict[str, Any]:
            await trio.lowlevel.checkpoint()
            while not events:
                if heard.is_over:
                    return {"type": "websocket.disconnect", "code": 1006}
                await told.park()
            return events.popleft()

        async def send(event: Mapping[str, Any]) -> None:
            await trio.lowlevel.checkpoint()
            if event["type"] == "websocket.send":
                heard.take(event["text"])
            elif event["type"] == "websocket.close":
                heard.closed(event["code"], event.get("reason", ""))
            if heard.is_over:
                told.unpark_all()

        scope = {"type": "websocket", "path": "/api/1.48.0/sync", "headers": []}
        await self._engine.asgi(scope, receive, send)

    async def rest(self, users: list[User]) -> None:
        """Wait until the users pause and nobody else is connected."""
        with trio.move_on_after(QUIET_S_MAX):
            for user in users:
                await user.pause()
            while self._engine.asgi.statistics().sessions > len(users):  # noqa: ASYNC110 - who leaves tells nobody
                await trio.sleep(0.01)
        left = self._engine.asgi.statistics().sessions - len(users)
        if left:
            self._story.note(f"{left} sessions go on without a client")


def _sent_apart(said: Conversation) -> Iterator[bytes]:
    """
    What is sent at a time: the first frame, and the rest cut somewhere, or before the last text.

    A session reads texts where they arrive once it has read one and nothing more waits.
    """
    dice = Random(said.number)
    first, *others = (
        each if isinstance(each, bytes) else frame(TEXT, each.encode(), mask=dice.randbytes(4))
        for each in said.frames
    )
    rest = b"".join(others)
    cut = dice.choice([dice.randint(0, len(rest)), max(rest.rfind(b"\x81"), 0)])
    yield from filter(None, (first, rest[:cut], rest[cut:]))


class Heard:
    """What came in answer to a conversation, and whether it may."""

    def __init__(self, said: Conversation) -> None:
        self.conversation = said
        self.problems: list[str] = []
        self.is_open = True
        self._mutations = deque(said.mutations)
        self._actions = Counter(said.actions)
        self._version = (0, 0)
        self._farewell: str | None = None
        self._why = ""
        self._is_probed = False

    @property
    def missing(self) -> str:
        return (
            f"{len(self._mutations)} mutations and {self._actions.total()} actions are not "
            f"answered, at version {self._version}"
        )

    @property
    def is_over(self) -> bool:
        """Whether there is nothing more to wait for."""
        said = self.conversation
        if self.problems or not self.is_open:
            return True
        if said.end is End.ANY:
            return self._is_probed
        is_answered = not self._mutations and not self._actions
        return (
            said.end is End.OPEN
            and is_answered
            and self._version == (said.query_set, said.identity)
        )

    def take(self, text: str) -> None:
        self._look(text)
        message = json.loads(text)
        match message["type"]:
            case "Transition":
                self._transition(message)
            case "MutationResponse":
                self._is_probed |= message["requestId"] == PROBE["requestId"]
                self._answered(message, message["requestId"] in list(self._mutations)[:1])
                if self._mutations:
                    self._mutations.popleft()
            case "ActionResponse":
                self._answered(message, self._actions[message["requestId"]] > 0)
                self._actions -= Counter([message["requestId"]])
            case "FatalError" | "AuthError" as kind:
                self._farewell = kind
                self._why = message["error"][:200]
            case "Ping":
                pass
            case kind:
                self.problems.append(f"a message of type {kind}")

    def take_pongs(self, pongs: list[bytes]) -> None:
        """Of the whole conversation; what follows them is said in the same order."""
        pings = self.conversation.pings
        if self.conversation.end in (End.OPEN, End.FATAL, End.AUTH) and pongs != pings:
            self.problems.append(f"{len(pings)} pings, and the pongs were {pongs}")

    def _look(self, text: str) -> None:
        for canary in CANARY.findall(text):
            if not (self.conversation.is_mallory and canary == "canary of mallory"):
                self.problems.append(f"it was told the {canary}: {text[:300]}")
        if OUR_CODE.search(text):
            self.problems.append(f"it was shown code of ours: {text[:300]}")

    def _transition(self, message: dict[str, Any]) -> None:
        end = message["endVersion"]
        self._version = (end["querySet"], end["identity"])
        if self.conversation.end is End.AUTH and end["identity"] > self.conversation.identity:
            self.problems.append("it is somebody, by what proves nothing")
        for change in message["modifications"]:
            is_hidden = change["queryId"] in self.conversation.hidden
            if is_hidden and change["type"] == "QueryUpdated":
                self.problems.append(f"it saw what is hidden: {change}")

    def _answered(self, message: dict[str, Any], is_asked: bool) -> None:
        if not is_asked and self.conversation.end is not End.ANY:
            self.problems.append(f"an answer to nothing, or not in order: {message}")

    def closed(self, code: int | None, reason: str) -> None:
        self.is_open = False
        end = self.conversation.end
        way = (self._farewell, code)
        may_be = {
            End.OPEN: False,
            End.FATAL: way == ("FatalError", 1000),
            End.AUTH: way == ("AuthError", 1000),
            End.AHEAD: way == (None, 1011) and "a later state" in reason,
            End.SHUT: code != 1011 and self.conversation.code in (None, code),
            End.ANY: code != 1011 or "a later state" in reason,
            End.LEFT: True,
        }
        if not may_be[end]:
            said = f"{self._farewell} {self._why!r}"
            self.problems.append(f"closed with {code} {reason!r} after {said}")


# Users.


class User:
    """
    Somebody who reads and writes what is his own, and is nobody else.

    Args:
        name: `None` is nobody, who may not write.
    """

    def __init__(self, name: str | None, url: str, story: Story) -> None:
        self._name = name
        self._url = url
        self._story = story
        self._going = trio.Event()
        self._paused = trio.Event()
        self._connections = 0
        self._shown: dict[str, Any] = {}
        self._written = 0

    def go(self) -> None:
        self._going.set()
        self._paused = trio.Event()

    async def pause(self) -> None:
        """Wait until this user is connected and asks nothing."""
        if self._going.is_set():
            self._going = trio.Event()
        await self._paused.wait()

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        """Write and read, from time to time on another connection; pause when told to."""
        is_well = await self._visit(FIRST_NOTES)
        task_status.started()
        while is_well:
            is_well = await self._visit(CONNECTION_NOTES, rests=True)

    async def _visit(self, notes: int, *, rests: bool = False) -> bool:
        """Write so many notes on one connection; whether all went well."""
        try:
            async with self._connected() as socket:
                self._connections += 1
                for _ in range(notes):
                    await self._step(socket)
                    # After a write, so that whoever pauses costs the server the same each time.
                    if rests:
                        await self._rest()
        except Exception as error:
            self._story.note(f"{self._name or 'nobody'}: {type(error).__name__}: {error}")
            return False
        return True

    async def _rest(self) -> None:
        if self._going.is_set():
            await trio.sleep(PACE_S)
        else:
            self._paused.set()
            await self._going.wait()

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[WebSocket]:
        async with opened(self._url) as socket:
            session = str(UUID(int=USERS.index(self._name)))
            await socket.say(type="Connect", sessionId=session, connectionCount=self._connections)
            if self._name is not None:
                await _sign_in(socket, self._name)
            add = {"type": "Add", "queryId": 0, "udfPath": "notes:mine", "args": [{}]}
            await socket.say(
                type="ModifyQuerySet", baseVersion=0, newVersion=1, modifications=[add]
            )
            yield socket

    async def _step(self, socket: WebSocket) -> None:
        """Write a note, and see it; nobody is told that he may not."""
        began = trio.current_time()
        number = self._written
        self._written += 1
        call = {"requestId": number, "udfPath": "notes:write", "args": [{"n": number}]}
        await socket.say(type="Mutation", **call)
        answer = await self._hear(socket, "MutationResponse")
        if answer["success"] != (self._name is not None) or answer["requestId"] != number:
            self._story.note(f"{self._name or 'nobody'} wrote, and was told {answer}")
        if self._name is not None:
            self._story.written[self._name] += 1
            while self._shown.get("newest") != number:
                await self._hear(socket, "Transition")
        self._story.slowest_s = max(self._story.slowest_s, trio.current_time() - began)

    async def _hear(self, socket: WebSocket, kind: str) -> dict[str, Any]:
        with trio.fail_after(ANSWER_S_MAX):
            while (text := await socket.hear_text()) is not None:
                message: dict[str, Any] = json.loads(text)
                self._look(text)
                for change in message.get("modifications", ()):
                    self._shown = change["value"]
                if message["type"] == kind:
                    return message
        raise AssertionError(f"{self._name} was sent away: {socket.close_reason}")

    def _look(self, text: str) -> None:
        for canary in CANARY.findall(text):
            if canary != f"canary of {self._name}":
                self._story.note(f"{self._name or 'nobody'} was told the {canary}")


async def _sign_in(socket: WebSocket, name: str) -> None:
    await socket.say(type="Authenticate", baseVersion=0, tokenType="User", value=good_token(name))


# What is left behind.


@dataclass(frozen=True, kw_only=True)
class Memory:
    """What there is in this process."""

    blocks: int
    bytes: int
    types: Counter[str]

    @classmethod
    def now(cls) -> Memory:
        # What is over stays in trio's heap of deadlines until there are a thousand.
        trio._core._run.GLOBAL_RUN_CONTEXT.runner.deadlines._prune()
        gc.collect()
        # What is free between what is not is nobody's; musl and macOS know no such call.
        if (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)) is not None:
            trim(0)
        found = re.search(r"RssAnon:\s+(\d+) kB", Path("/proc/self/status").read_text())
        assert found, "no RssAnon of this process"
        blocks = sys.getallocatedblocks()
        types = Counter(type(each).__qualname__ for each in gc.get_objects())
        return cls(blocks=blocks, bytes=int(found[1]) * 1024, types=types)

    def compare(self, before: Memory, story: Story) -> None:
        """Note what is more than it was."""
        story.blocks_growth = self.blocks - before.blocks
        story.bytes_growth = self.bytes - before.bytes
        if story.blocks_growth > BLOCKS_GROWTH_MAX or story.bytes_growth > BYTES_GROWTH_MAX:
            more = (self.types - before.types).most_common(5)
            story.note(
                f"{story.blocks_growth:+,} objects and {story.bytes_growth / 1e6:+.1f} MB "
                f"since three tenths were said; of these there are more: {more}"
            )


def _tasks() -> int:
    return trio.lowlevel.current_statistics().tasks_living


async def _tasks_left(tasks: int) -> bool:
    """Whether more tasks than there were go on."""
    with trio.move_on_after(QUIET_S_MAX):
        while _tasks() > tasks:  # noqa: ASYNC110 - who ends tells nobody
            await trio.sleep(0.01)
    return _tasks() > tasks


@contextmanager
def _traced(story: Story) -> Iterator[None]:
    """Take what is traced as an error for a problem; nothing else is traced."""

    def take(_logger: object, _method: str, event: Any) -> Any:
        if event["event"] not in EXPECTED_ERRORS or "exception" in event:
            story.note(f"traced: {event}")
        raise structlog.DropEvent

    structlog.configure(
        processors=[take],
        wrapper_class=structlog.make_filtering_bound_logger("error"),
        cache_logger_on_first_use=False,
    )
    try:
        yield
    finally:
        structlog.reset_defaults()
