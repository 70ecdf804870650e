"""The server on a real engine, behind real sockets."""

from __future__ import annotations

import contextlib
import json
import shutil
import ssl
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any, NoReturn

import pytest
import trio
from hypercorn.protocol.events import Data
from hypercorn.protocol.ws_stream import WSStream
from structlog.testing import capture_logs

from engine.app.contexts import ActionCtx, MutationCtx, QueryCtx
from engine.app.decorators import action, mutation, query
from engine.host import Engine
from engine.model.json_values import decode_ts
from engine.model.limits import Limits
from engine.server.connection import TAKEN_AT_ONCE, Connection
from engine.server.listener import ListenConfig, Listener
from engine.server.session import Session
from tests.node.certificates import certificate
from tests.node.sockets import (
    CLOSE,
    PING,
    PONG,
    SESSION,
    TEXT,
    WebSocket,
    dialled,
    exchange,
    frame,
    handshake,
    opened,
    post,
)

# The HTTP server below leaves the channels between its tasks open when a request is over.
pytestmark = pytest.mark.filterwarnings("ignore:Unclosed <.*MemoryReceiveChannel:ResourceWarning")


@query
async def bodies(ctx: QueryCtx) -> list[str]:
    return [note["body"] async for note in ctx.db.query("notes")]


@query
async def echo(ctx: QueryCtx, value: Any) -> Any:
    return value


@query
async def stuffed(ctx: QueryCtx, number: int, size: int) -> str:
    return f"{number} " + "x" * size


@mutation
async def write(ctx: MutationCtx, body: str) -> str:
    return await ctx.db.insert("notes", {"body": body})


@action
async def write_late(ctx: ActionCtx, body: str) -> None:
    await trio.sleep(0.3)
    await ctx.run_mutation(write, body=body)


UPGRADE = "GET /api/sync HTTP/1.1\r\nHost: test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
KEY = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
APP = [bodies, echo, stuffed, write, write_late]


class Served:
    """A served engine: where it listens, and the parts of it that tests ask."""

    def __init__(self, engine: Engine, listener: Listener) -> None:
        self.engine = engine
        self.listener = listener
        self.url = listener.urls[0]

    def path(self, function: str) -> str:
        """As clients call a function of this file."""
        [found] = [
            path
            for path in self.engine.node.functions.deployment.application.functions
            if path.endswith(f":{function}")
        ]
        return found

    async def post(self, endpoint: str, function: str, **args: Any) -> Any:
        async with await dialled(self.url) as stream:
            request = post(f"/api/{endpoint}", {"path": self.path(function), "args": args})
            status, body = await exchange(stream, request)
        assert status == 200, body
        return json.loads(body)["value"]

    async def until_connections(self, count: int) -> None:
        await until(lambda: self.listener.statistics().connections == count)


async def until(condition: Callable[[], bool]) -> None:
    with trio.fail_after(20):
        while not condition():  # noqa: ASYNC110 - what it asks about tells nobody
            await trio.sleep(0.005)


@asynccontextmanager
async def served(
    data: str | Path = ":memory:", *, limits: Limits | None = None, **listen: Any
) -> AsyncIterator[Served]:
    limits = limits or Limits()
    async with Engine.open(data, app=APP, limits=limits) as engine:
        config = ListenConfig(bind=("127.0.0.1:0",), **listen)
        listener = Listener(engine.server, config, limits)
        async with trio.open_nursery() as nursery:
            await nursery.start(listener.run)
            yield Served(engine, listener)
            listener.close()


async def test_functions_are_called_over_http() -> None:
    async with served() as house:
        await house.post("mutation", "write", body="hello")
        found = await house.post("query", "bodies")

    assert found == ["hello"]


async def test_a_subscription_follows_commits() -> None:
    async with served() as house, opened(house.url) as socket:
        await socket.say(type="Connect", sessionId=SESSION, connectionCount=0)
        add = {"type": "Add", "queryId": 0, "udfPath": house.path("bodies"), "args": [{}]}
        await socket.say(type="ModifyQuerySet", baseVersion=0, newVersion=1, modifications=[add])
        first = await socket.hear_until("Transition")
        await house.post("mutation", "write", body="news")
        second = await socket.hear_until("Transition")

    assert [first["modifications"][0]["value"], second["modifications"][0]["value"]] == [
        [],
        ["news"],
    ]
    assert second["startVersion"] == first["endVersion"]


async def test_a_mutation_sent_again_after_a_restart_is_not_run_again(tmp_path: Path) -> None:
    responses = []
    for _ in range(2):
        async with served(tmp_path) as house, opened(house.url) as socket:
            await socket.say(type="Connect", sessionId=SESSION, connectionCount=0)
            await socket.say(
                type="Mutation", requestId=7, udfPath=house.path("write"), args=[{"body": "x"}]
            )
            responses.append(await socket.hear_until("MutationResponse"))
            await socket.hear_until("Transition")
            found = await house.post("query", "bodies")

    assert responses[0] == responses[1]
    assert found == ["x"]


async def test_a_client_may_bring_what_it_saw_before_a_restart(tmp_path: Path) -> None:
    seen: str | None = None
    for _ in range(2):
        async with served(tmp_path) as house, opened(house.url) as socket:
            await socket.say(
                type="Connect", sessionId=SESSION, connectionCount=0, maxObservedTimestamp=seen
            )
            await socket.say(type="ModifyQuerySet", baseVersion=0, newVersion=1, modifications=[])
            transition = await socket.hear_until("Transition")
            seen = transition["endVersion"]["ts"]

    assert seen is not None


async def test_a_server_on_a_restored_backup_lets_old_clients_in_with_its_next_commit(
    tmp_path: Path,
) -> None:
    data, backup = tmp_path / "data", tmp_path / "backup"
    async with served(data) as house:
        await house.post("mutation", "write", body="kept")
    shutil.copytree(data, backup)
    async with served(data) as house, opened(house.url) as socket:
        await house.post("mutation", "write", body="lost")
        shown, ts = await shows(house, socket, None)
        assert shown == ["kept", "lost"]

    async with served(backup) as house:
        async with opened(house.url) as socket:
            await connect(socket, ts)
            with trio.fail_after(20):
                refused = await socket.hear()
        await house.post("mutation", "write", body="new")
        async with opened(house.url) as again:
            shown, _ = await shows(house, again, ts)

    assert (refused, socket.close_code) == (None, 1011)
    assert socket.close_reason.startswith("InternalServerError")
    assert shown == ["kept", "new"]


async def connect(socket: WebSocket, seen: str | None) -> None:
    await socket.say(
        type="Connect", sessionId=SESSION, connectionCount=0, maxObservedTimestamp=seen
    )


async def shows(house: Served, socket: WebSocket, seen: str | None) -> tuple[list[str], str]:
    """What a client is shown that has seen a timestamp, and as of which."""
    await connect(socket, seen)
    add = {"type": "Add", "queryId": 0, "udfPath": house.path("bodies"), "args": [{}]}
    await socket.say(type="ModifyQuerySet", baseVersion=0, newVersion=1, modifications=[add])
    transition = await socket.hear_until("Transition")
    return transition["modifications"][0]["value"], transition["endVersion"]["ts"]


async def test_an_action_runs_on_when_its_client_hangs_up() -> None:
    async with served() as house:
        async with opened(house.url) as socket:
            await socket.say(type="Connect", sessionId=SESSION, connectionCount=0)
            await socket.say(
                type="Action", requestId=0, udfPath=house.path("write_late"), args=[{"body": "x"}]
            )
            await trio.sleep(0.1)
        await house.until_connections(0)
        await trio.sleep(0.5)
        found = await house.post("query", "bodies")

    assert found == ["x"]


# Connections.


async def test_nothing_is_compressed_though_the_client_offers_it() -> None:
    offer = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n"
    async with served() as house, opened(house.url, headers=offer) as socket:
        await socket.say(type="Connect", sessionId=SESSION, connectionCount=0)
        await socket.say(type="ModifyQuerySet", baseVersion=0, newVersion=1, modifications=[])

        assert (await socket.hear_until("Transition"))["modifications"] == []

    assert b"permessage-deflate" not in socket.head.lower()


async def test_pings_are_answered_and_large_messages_taken() -> None:
    text = "x" * 20_000_000
    async with served() as house, opened(house.url) as socket:
        await socket.send(PING, b"there?")
        await socket.say(type="Connect", sessionId=SESSION, connectionCount=0)
        add = {"type": "Add", "queryId": 0, "udfPath": house.path("echo"), "args": [{"value": 1}]}
        await socket.say(
            type="ModifyQuerySet", baseVersion=0, newVersion=1, modifications=[add], padding=text
        )

        assert (await socket.hear_until("Transition"))["endVersion"]["querySet"] == 1


async def test_what_the_kernel_has_room_for_takes_no_long_way(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    long_way: list[object] = []
    app_send = WSStream.app_send

    async def noted(stream: WSStream, message: Any) -> None:
        if message is not None and message["type"] == "websocket.send":
            long_way.append(message["text"])
        await app_send(stream, message)

    monkeypatch.setattr(WSStream, "app_send", noted)
    async with served() as house, opened(house.url) as socket:
        await socket.say(type="Connect", sessionId=SESSION, connectionCount=0)
        for number, size in enumerate((1, 100, 1_000, 70_000)):  # a head of each length
            await show(socket, house, number, size)
            transition = await socket.hear_until("Transition")

            assert f"{number} " + "x" * size == transition["modifications"][0]["value"]

    assert [] == long_way


async def test_a_client_costs_no_more_tasks_than_the_library_has_for_it() -> None:
    async with served() as house, AsyncExitStack() as clients:
        before = trio.lowlevel.current_statistics().tasks_living
        for _ in range(10):
            socket = await clients.enter_async_context(opened(house.url))
            await socket.say(type="Connect", sessionId=SESSION, connectionCount=0)
            await show(socket, house, 0, 100)
            await socket.hear_until("Transition")
        after = trio.lowlevel.current_statistics().tasks_living

    assert 10 * 2 == after - before  # one that reads, and one that is the application


async def test_a_client_that_reads_late_is_sent_whole_messages_in_order() -> None:
    """The kernel takes parts of some, and pings are answered between them."""
    async with (
        served(limits=Limits(unsent_transitions_max=100)) as house,
        opened(house.url, receive_buffer_bytes=4096) as socket,
    ):
        await socket.say(type="Connect", sessionId=SESSION, connectionCount=0)
        for number in range(60):
            await show(socket, house, number, 150_001)
            await trio.sleep(0.01)
            await socket.send(PING, b"there?")
        version, shown = None, list[str]()
        while len(shown) < 60:
            transition = await socket.hear_until("Transition")
            assert version in (None, transition["startVersion"])
            version = transition["endVersion"]
            shown += [change["value"].split()[0] for change in transition["modifications"]]

    assert [str(number) for number in range(60)] == shown


async def show(socket: WebSocket, house: Served, number: int, size: int) -> None:
    """Have a client show one query more, with a large result."""
    args = [{"number": number, "size": size}]
    add = {"type": "Add", "queryId": number, "udfPath": house.path("stuffed"), "args": args}
    edit = {"baseVersion": number, "newVersion": number + 1, "modifications": [add]}
    await socket.say(type="ModifyQuerySet", **edit)


async def test_a_client_that_says_goodbye_is_no_failure() -> None:
    with capture_logs() as said:
        async with served() as house:
            for farewell in (b"\x03\xe8", b"", b"\x00\x00"):  # the last is no code
                async with opened(house.url) as socket:
                    await socket.say(type="Connect", sessionId=SESSION, connectionCount=0)
                    await show(socket, house, 0, 1)
                    await socket.hear_until("Transition")
                    await socket.send(CLOSE, farewell)
                    assert await socket.hear() is None
                await house.until_connections(0)

    assert [] == [each for each in said if each["log_level"] in ("warning", "error")]


async def test_what_a_client_sends_too_early_or_wrongly_is_no_failure_of_ours() -> None:
    head = b"GET /api/sync HTTP/1.1\r\nHost: t\r\n"
    websocket = b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    early = b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nContent-Length: 2\r\n\r\n{}"
    http2 = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: x\r\n\r\n"
    with capture_logs() as said:
        async with served() as house:
            for said_at_once in (head + websocket + early, head + http2):
                async with await dialled(house.url) as stream:
                    await stream.send_all(said_at_once)
                    with trio.move_on_after(1):
                        while await stream.receive_some(65536):
                            pass
                await house.until_connections(0)

    assert [] == [each for each in said if each["log_level"] == "error"]


async def test_what_is_said_at_once_is_taken_in_order() -> None:
    """Some of it is there before the session has its shortcut."""
    async with served() as house, opened(house.url) as socket:
        greeting = {"type": "Connect", "sessionId": SESSION, "connectionCount": 0}
        calls = [written(house, number) for number in range(100)]
        said = b"".join(frame(TEXT, json.dumps(each).encode()) for each in (greeting, *calls))
        await socket.stream.send_all(said)
        answered = [(await socket.hear_until("MutationResponse"))["requestId"] for _ in calls]
        [*bodies] = await house.post("query", "bodies")

    assert list(range(100)) == answered
    assert [str(number) for number in range(100)] == bodies


@pytest.mark.parametrize("cut", [1, 3, 8], ids=["first byte", "length", "whole head"])
async def test_what_looks_like_a_frame_within_a_frame_is_a_part_of_it(cut: int) -> None:
    async with served() as house, opened(house.url) as socket:
        await socket.say(type="Connect", sessionId=SESSION, connectionCount=0)
        call = json.dumps(written(house, 0)) + " " * 100
        around = frame(TEXT, frame(TEXT, call.encode()))
        await socket.stream.send_all(around[:cut])
        await trio.sleep(0.05)
        await socket.stream.send_all(around[cut:])
        assert await socket.hear() is None
        assert socket.close_code == 1007, "it is no UTF-8"
        assert [] == await house.post("query", "bodies")


async def test_the_length_of_a_frame_is_not_taken_for_the_beginning_of_one() -> None:
    async with served() as house, opened(house.url) as socket:
        await socket.say(type="Connect", sessionId=SESSION, connectionCount=0)
        around = frame(TEXT, json.dumps(written(house, 7)).encode().ljust(0x8180))
        assert around[2:4] == frame(TEXT, b"")[:2]
        await socket.stream.send_all(around[:2])
        await trio.sleep(0.05)
        await socket.stream.send_all(around[2:])
        await socket.hear_until("MutationResponse")
        assert ["7"] == await house.post("query", "bodies")


async def test_a_message_within_a_message_is_refused_and_not_taken() -> None:
    async with served() as house, opened(house.url) as socket:
        await socket.say(type="Connect", sessionId=SESSION, connectionCount=0)
        await socket.stream.send_all(masked(TEXT, b'{"type":', Random(1), is_last=False))
        await trio.sleep(0.05)
        await socket.stream.send_all(frame(TEXT, json.dumps(written(house, 0)).encode()))
        assert await socket.hear() is None
        assert [] == await house.post("query", "bodies")


@pytest.mark.parametrize("seed", range(4))
async def test_what_is_said_is_heard_alike_however_it_is_cut(seed: int) -> None:
    """Into frames by the client, and into pieces by the network; pings come between."""
    dice = Random(seed)
    async with served() as house, opened(house.url) as socket:
        await socket.say(type="Connect", sessionId=SESSION, connectionCount=0)
        said = b""
        for number in range(60):
            call = json.dumps(written(house, number), ensure_ascii=False).encode()
            cut = sorted(dice.choices(range(len(call)), k=dice.choice([0, 0, 0, 1, 3])))
            pieces = [call[at:end] for at, end in pairwise([0, *cut, len(call)])]
            for at, piece in enumerate(pieces):
                is_last = at == len(pieces) - 1
                said += masked(TEXT if at == 0 else CONTINUATION, piece, dice, is_last=is_last)
                if dice.random() < 0.2:
                    said += masked(PING, b"there?", dice)
        while said:
            size = dice.choice([1, 2, 7, 60, 400])
            await socket.stream.send_all(said[:size])
            said = said[size:]
            await trio.testing.wait_all_tasks_blocked(0.0005)
        for _ in range(60):
            await socket.hear_until("MutationResponse")
        bodies = await house.post("query", "bodies")

    assert [str(number) for number in range(60)] == bodies


async def test_a_whole_text_takes_no_long_way_in(monkeypatch: pytest.MonkeyPatch) -> None:
    long_way: list[object] = []
    handle = WSStream.handle

    async def noted(stream: WSStream, event: Any) -> None:
        if isinstance(event, Data):
            long_way.append(event)
        await handle(stream, event)

    async with served() as house, opened(house.url) as socket:
        await socket.say(type="Connect", sessionId=SESSION, connectionCount=0)
        await socket.say(**written(house, 0))
        await socket.hear_until("Transition")
        monkeypatch.setattr(WSStream, "handle", noted)
        for number in range(1, 10):
            await socket.say(**written(house, number))
            await socket.hear_until("Transition")

    assert [] == long_way


async def test_an_answer_and_what_is_owed_to_it_are_sent_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Unless what the client shows has changed."""
    sent: list[int] = []
    begin = Connection.begin

    def noted(connection: Connection, *messages: bytes) -> bool:
        sent.append(len(messages))
        return begin(connection, *messages)

    async with served() as house, opened(house.url) as socket:
        await socket.say(type="Connect", sessionId=SESSION, connectionCount=0)
        await show(socket, house, 0, 1)
        await socket.hear_until("Transition")
        monkeypatch.setattr(Connection, "begin", noted)
        for number in range(10):
            await socket.say(**written(house, number))
            answer = await socket.hear_until("MutationResponse")
            transition = await socket.hear_until("Transition")

            assert [] == transition["modifications"]
            assert decode_ts(answer["ts"]) <= decode_ts(transition["endVersion"]["ts"])

        add = {"type": "Add", "queryId": 1, "udfPath": house.path("bodies"), "args": [{}]}
        await socket.say(type="ModifyQuerySet", baseVersion=1, newVersion=2, modifications=[add])
        await socket.hear_until("Transition")
        for number in range(10, 20):
            await socket.say(**written(house, number))
            await socket.hear_until("MutationResponse")
            [shown] = (await socket.hear_until("Transition"))["modifications"]

            assert [str(each) for each in range(number + 1)] == shown["value"]

    assert [2] * 10 + [1] * 21 == sent


async def test_who_says_much_at_once_leaves_others_their_turn() -> None:
    async with served() as house, opened(house.url) as socket:
        await socket.say(type="Connect", sessionId=SESSION, connectionCount=0)
        await show(socket, house, 0, 1)
        await socket.hear_until("Transition")
        small = frame(TEXT, json.dumps({"type": "Event", "eventType": "", "event": None}).encode())
        await socket.stream.send_all(small * 900)  # which is read as one
        await show(socket, house, 1, 1)
        turns = 0
        with trio.CancelScope() as watching:
            async with trio.open_nursery() as nursery:

                async def heard() -> None:
                    await socket.hear_until("Transition")
                    watching.cancel()

                nursery.start_soon(heard)
                while True:
                    await trio.lowlevel.checkpoint()
                    turns += 1

    assert turns > 900 / TAKEN_AT_ONCE


async def test_a_session_that_ends_while_it_is_not_read_lets_its_connection_go(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sessions = list[Session]()

    async def stuck(session: Session, _call: object) -> NoReturn:
        sessions.append(session)
        await trio.sleep_forever()

    monkeypatch.setattr(Session, "_mutation", stuck)
    async with (
        served(limits=Limits(mutations_queued_max=1)) as house,
        opened(house.url) as socket,
    ):
        await socket.say(type="Connect", sessionId=SESSION, connectionCount=0)
        for number in range(5):
            await socket.say(**written(house, number))
        await until(lambda: bool(sessions))
        await trio.sleep(0.1)
        sessions[0].abandon()
        await house.until_connections(0)


CONTINUATION = 0


def masked(opcode: int, payload: bytes, dice: Random, *, is_last: bool = True) -> bytes:
    """A frame of at most 125 bytes, or some more, as browsers mask it."""
    mask, length = dice.randbytes(4), len(payload)
    head = bytes((opcode | (0x80 if is_last else 0), 0x80 | min(length, 126)))
    if length > 125:
        head += length.to_bytes(2, "big")
    return head + mask + bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))


def written(house: Served, number: int) -> dict[str, Any]:
    """The message of a client that has its number written."""
    call = {"requestId": number, "udfPath": house.path("write"), "args": [{"body": str(number)}]}
    return {"type": "Mutation", **call}


async def greet(socket: WebSocket, house: Served) -> None:
    """Have a client be somewhere in its conversation, where the session reads by the shortcut."""
    await socket.say(type="Connect", sessionId=SESSION, connectionCount=0)
    await show(socket, house, 0, 1)
    await socket.hear_until("Transition")


ACCENTED = "é".encode()


@pytest.mark.parametrize("is_greeted", [False, True])
@pytest.mark.parametrize(
    "said",
    [
        frame(TEXT, b" " * 50_000),
        frame(TEXT, ACCENTED * 5_001),
        frame(TEXT, ACCENTED * 3_000, is_last=False)
        + frame(PING, b"")
        + frame(0, ACCENTED * 2_001),
        frame(2, b"\xff" * 10_001),
    ],
    ids=["in characters", "in bytes", "in pieces", "no text"],
)
async def test_a_message_over_the_limit_ends_its_connection_alone(
    said: bytes, *, is_greeted: bool
) -> None:
    async with served(limits=Limits(message_bytes_max=10_000)) as house:
        async with opened(house.url) as socket:
            if is_greeted:
                await greet(socket, house)
            await socket.stream.send_all(said)
            closed = await socket.hear()
        await house.until_connections(0)
        still = await house.post("query", "echo", value=1)

    assert (closed, socket.close_code, still) == (None, 1009, 1)


@pytest.mark.parametrize("is_greeted", [False, True])
async def test_messages_up_to_the_limit_are_taken_whole_and_in_pieces(*, is_greeted: bool) -> None:
    event = '{"type":"Event","eventType":"","event":"%s"}'
    text = (event % ("é" * ((10_000 - len(event) + 2) // 2))).encode().ljust(10_000)
    async with (
        served(limits=Limits(message_bytes_max=10_000)) as house,
        opened(house.url) as socket,
    ):
        if is_greeted:
            await greet(socket, house)
        else:
            await socket.say(type="Connect", sessionId=SESSION, connectionCount=0)
        for cut in (0, 5_000, 5_001, 10_000):
            await socket.send(TEXT, text)
            await socket.stream.send_all(frame(TEXT, text[:cut], is_last=False))
            await socket.stream.send_all(frame(0, text[cut:]))
        await socket.say(**written(house, 3))
        answer = await socket.hear_until("MutationResponse")

    assert answer["success"]


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x00\xff\x00\xff\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /" + b"x" * 100_000 + b" HTTP/1.1\r\n\r\n",
        b"POST /api/query HTTP/1.1\r\nHost: t\r\nContent-Length: x\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 100,
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ],
)
async def test_garbage_on_one_connection_disturbs_no_other(garbage: bytes) -> None:
    async with served() as house:
        async with await dialled(house.url) as stream:
            await stream.send_all(garbage)
            with trio.move_on_after(1):
                while await stream.receive_some(65536):
                    pass
        await house.until_connections(0)
        still = await house.post("query", "echo", value=1)

    assert still == 1


@pytest.mark.parametrize(
    ("broken", "code"),
    [
        (frame(TEXT, b"\xff\xfe"), 1007),
        (frame(TEXT, ACCENTED[:1]), 1007),
        (frame(TEXT, ACCENTED[:1], is_last=False) + frame(0, b"x"), 1007),
        (frame(3, b"reserved opcode"), 1002),
        (b"\x81\x05hello", 1002),  # not masked
        (frame(CLOSE, b"x"), 1002),  # a code has two bytes
        (frame(CLOSE, b"") + frame(TEXT, b"after the end"), None),
        (frame(PING, b"", is_last=False), 1002),
        (frame(0, b"of nothing"), 1002),
    ],
)
@pytest.mark.parametrize("is_greeted", [False, True])
async def test_a_broken_frame_ends_its_connection_alone(
    broken: bytes, code: int | None, *, is_greeted: bool
) -> None:
    async with served() as house:
        async with opened(house.url) as socket:
            if is_greeted:
                await greet(socket, house)
            await socket.stream.send_all(broken)
            with trio.fail_after(5):
                closed = await socket.hear()
        await house.until_connections(0)
        still = await house.post("query", "echo", value=1)

    assert (closed, socket.close_code, still) == (None, code, 1)


async def test_a_text_amid_another_ends_its_connection() -> None:
    event = json.dumps({"type": "Event", "eventType": "", "event": None}).encode()
    async with served() as house, opened(house.url) as socket:
        await greet(socket, house)
        await socket.stream.send_all(b"\x01\x80" + b"\x00" * 4)
        await trio.sleep(0.05)  # they are read apart
        await socket.send(TEXT, event)
        with trio.fail_after(5):
            over = await socket.is_over()

    assert over


async def test_a_refused_request_leaves_nothing_behind_however_large_it_was() -> None:
    body = {"path": "m:f", "args": {"value": "x" * 1_000_000}}
    bad = post("/api/query", body, "Authorization: Bearer no.to.ken\r\n")
    async with served() as house:
        async with await dialled(house.url) as stream:
            with trio.fail_after(5):
                status, _ = await exchange(stream, bad)
        await house.until_connections(0)

    assert status == 401


@pytest.mark.parametrize("is_draining", [False, True], ids=["holding", "draining"])
async def test_a_request_at_a_bad_time_leaves_nothing_behind(is_draining: bool) -> None:
    async with served() as house:
        if is_draining:
            house.engine.server.drain()
        else:
            house.engine.server.is_holding = True
        async with await dialled(house.url) as stream:
            request = post("/api/query", {"path": house.path("echo"), "args": {"value": 1}})
            with trio.fail_after(5):
                status, _ = await exchange(stream, request)
        await house.until_connections(0)
        is_idle = house.engine.server.is_idle

    assert (503, True) == (status, is_idle)


async def test_a_connection_is_kept_for_the_next_request() -> None:
    async with served() as house, await dialled(house.url) as stream:
        statuses = []
        for value in range(5):
            request = post("/api/query", {"path": house.path("echo"), "args": {"value": value}})
            statuses.append((await exchange(stream, request))[0])

        assert statuses == [200] * 5
        assert house.listener.statistics().connections == 1


async def test_headers_over_the_limit_end_their_connection_alone() -> None:
    async with (
        served(limits=Limits(headers_bytes_max=4096)) as house,
        await dialled(house.url) as other,
    ):
        async with await dialled(house.url) as stream:
            endless = f"GET / HTTP/1.1\r\nHost: test\r\nX-Padding: {'x' * 5_000}"
            with trio.fail_after(20):
                assert 431 == (await exchange(stream, endless.encode()))[0]
        request = post("/api/query", {"path": house.path("echo"), "args": {"value": 1}})
        assert 200 == (await exchange(other, request))[0]


async def test_a_client_that_reads_nothing_is_dropped() -> None:
    """The kernel does it: nobody above can take back what is being sent."""
    limits = Limits(inactivity_s_max=1.0, ping_s=0.5, send_s_max=60)
    async with (
        served(limits=limits) as house,
        opened(house.url, receive_buffer_bytes=4096) as socket,
    ):
        await socket.say(type="Connect", sessionId=SESSION, connectionCount=0)
        args = [{"value": "x" * 10_000_000}]
        add = {"type": "Add", "queryId": 0, "udfPath": house.path("echo"), "args": args}
        await socket.say(type="ModifyQuerySet", baseVersion=0, newVersion=1, modifications=[add])

        await until(lambda: house.engine.server.statistics().sessions == 0)
        await house.until_connections(0)


# Silence and sloth.

IMPATIENT = Limits(inactivity_s_max=0.8, ping_s=0.2)


async def test_a_client_that_is_silent_is_asked_and_then_cut_off() -> None:
    """Its kernel acknowledges what it is sent, so nobody else would notice."""
    async with served(limits=IMPATIENT) as house, opened(house.url) as socket:
        began = trio.current_time()
        await socket.say(type="Connect", sessionId=SESSION, connectionCount=0)
        with trio.fail_after(20):
            heard = await socket.opcodes()
        lasted_s = trio.current_time() - began
        await house.until_connections(0)

    assert heard.count(PING) == 1
    assert heard.count(TEXT) >= 3, "it was told all the while that the server is there"
    assert lasted_s >= 0.8


async def test_a_client_that_answers_when_it_is_asked_stays() -> None:
    async with served(limits=IMPATIENT) as house, opened(house.url) as socket:
        socket.answers_pings = True
        await socket.say(type="Connect", sessionId=SESSION, connectionCount=0)
        with trio.move_on_after(3):
            await socket.hear()
        await socket.say(type="ModifyQuerySet", baseVersion=0, newVersion=1, modifications=[])

        assert (await socket.hear_until("Transition"))["endVersion"]["querySet"] == 1


async def test_who_waits_for_a_response_is_not_silent() -> None:
    async with served(limits=Limits(inactivity_s_max=0.1, ping_s=0.05)) as house:
        await house.post("action", "write_late", body="x")

        assert await house.post("query", "bodies") == ["x"]


async def test_a_client_that_reads_a_message_for_ever_is_cut_off() -> None:
    """What it reads at a time is enough for the kernel, and its pongs for the listener."""
    limits = Limits(send_s_max=1.0)
    async with (
        served(limits=limits) as house,
        opened(house.url, receive_buffer_bytes=4096) as socket,
    ):
        await socket.say(type="Connect", sessionId=SESSION, connectionCount=0)
        args = [{"value": "x" * 10_000_000}]
        add = {"type": "Add", "queryId": 0, "udfPath": house.path("echo"), "args": args}
        await socket.say(type="ModifyQuerySet", baseVersion=0, newVersion=1, modifications=[add])

        with trio.fail_after(10):
            while house.listener.statistics().connections:
                with contextlib.suppress(trio.BrokenResourceError):
                    await socket.stream.receive_some(1000)
                    await socket.send(PONG, b"")
                await trio.sleep(0.05)


async def test_who_goes_on_after_a_message_too_large_is_cut_off() -> None:
    endless = struct.pack(">BBQ", 0x80 | TEXT, 0x80 | 127, 1 << 40) + bytes(4)
    async with (
        served(limits=Limits(message_bytes_max=10_000)) as house,
        opened(house.url) as socket,
    ):
        await socket.stream.send_all(endless)
        with trio.fail_after(20), contextlib.suppress(trio.BrokenResourceError):
            while True:
                await socket.stream.send_all(b" " * 100_000)
        await house.until_connections(0)


async def test_half_a_handshake_does_not_last(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.server.listener.IDLE_S_MAX", 0.5)
    async with served() as house, await dialled(house.url) as stream:
        await stream.send_all(b"GET /api/1.48.0/sync HTTP/1.1\r\nHost: test\r\nUpgrade: ")
        with trio.fail_after(20), contextlib.suppress(trio.BrokenResourceError):
            while house.listener.statistics().connections:
                await stream.send_all(b"x")
                await trio.sleep(0.05)


@pytest.mark.parametrize(
    "rest",
    [
        f"{KEY}Sec-WebSocket-Version: 12\r\n\r\n",
        f"{KEY}\r\n",
        "Sec-WebSocket-Version: 13\r\n\r\n",
        f"{KEY}Sec-WebSocket-Version: 12\r\n\r\n" + "x" * 1_000_000,
    ],
    ids=["old", "no version", "no key", "talks on"],
)
async def test_a_handshake_that_is_refused_ends_its_connection(rest: str) -> None:
    async with served() as house, await dialled(house.url) as stream:
        await stream.send_all(f"{UPGRADE}{rest}".encode())
        answer = b""
        with trio.fail_after(10):
            while part := await stream.receive_some(65536):
                answer += part
        await house.until_connections(0)

        assert answer.startswith(b"HTTP/1.1 400")
        assert b"connection: close" in answer
        assert house.engine.server.is_idle


async def test_who_floods_us_after_a_handshake_that_was_refused_is_cut_off() -> None:
    async with served() as house, await dialled(house.url) as stream:
        await stream.send_all(f"{UPGRADE}\r\n".encode())
        with trio.fail_after(20), contextlib.suppress(trio.BrokenResourceError):
            while True:
                await stream.send_all(b" " * 100_000)
        await house.until_connections(0)


async def test_more_connections_than_fit_are_refused_and_the_others_go_on() -> None:
    async with served(limits=Limits(connections_max=2)) as house:
        async with await dialled(house.url) as first, await dialled(house.url) as second:
            await house.until_connections(2)
            third = await dialled(house.url)
            with contextlib.suppress(trio.BrokenResourceError):
                assert await third.receive_some(1) == b""
            await third.aclose()
            statuses = [
                (await exchange(one, post("/api/query_ts", {})))[0] for one in (first, second)
            ]
        await house.until_connections(0)

        assert [200, 200] == statuses
        assert await house.post("query", "echo", value=1) == 1


# Stopping.


async def test_closing_sends_clients_away_and_frees_the_port() -> None:
    async with served() as house:
        async with await dialled(house.url) as idle, opened(house.url) as socket:
            await socket.say(type="Connect", sessionId=SESSION, connectionCount=0)
            await exchange(idle, post("/api/query_ts", {}))
            began = trio.current_time()
            house.listener.close()
            closed = await socket.hear()
            await socket.send(CLOSE, b"\x03\xe9")
            rest = await idle.receive_some(1)
        await house.until_connections(0)
        took_s = trio.current_time() - began
        with pytest.raises(OSError, match="refused"):
            await dialled(house.url)

    assert (closed, socket.close_code, rest) == (None, 1001, b"")
    assert took_s < 2


async def test_a_connection_that_is_stuck_is_cut_off() -> None:
    limits = Limits(drain_s=0.5)
    async with (
        served(limits=limits) as house,
        opened(house.url, receive_buffer_bytes=4096) as socket,
    ):
        await socket.say(type="Connect", sessionId=SESSION, connectionCount=0)
        args = [{"value": "x" * 10_000_000}]
        add = {"type": "Add", "queryId": 0, "udfPath": house.path("echo"), "args": args}
        await socket.say(type="ModifyQuerySet", baseVersion=0, newVersion=1, modifications=[add])
        await trio.sleep(1)
        began = trio.current_time()
        house.listener.close()
        await house.until_connections(0)

        assert trio.current_time() - began < 3


# TLS.


async def test_clients_are_served_over_tls(tmp_path: Path) -> None:
    cert_file, key_file = certificate(tmp_path)
    trusting = ssl.create_default_context(cafile=str(cert_file))
    async with served(certfile=str(cert_file), keyfile=str(key_file)) as house:
        plain = await dialled(house.url)
        async with trio.SSLStream(
            plain, trusting, server_hostname="localhost", https_compatible=True
        ) as stream:
            socket = await handshake(stream, "/api/sync")
            await socket.say(type="Connect", sessionId=SESSION, connectionCount=0)
            await socket.say(type="ModifyQuerySet", baseVersion=0, newVersion=1, modifications=[])
            transition = await socket.hear_until("Transition")

    assert house.url.startswith("https://")
    assert transition["endVersion"]["querySet"] == 1


async def test_plain_text_on_a_tls_port_disturbs_nobody(tmp_path: Path) -> None:
    cert_file, key_file = certificate(tmp_path)
    async with served(certfile=str(cert_file), keyfile=str(key_file)) as house:
        async with await dialled(house.url) as stream:
            await stream.send_all(b"GET / HTTP/1.1\r\nHost: t\r\n\r\n")
            with trio.move_on_after(2):
                while await stream.receive_some(65536):
                    pass

        await house.until_connections(0)
