"""A connection of the listener: two ways to one socket, and one order."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from typing import Any

import pytest
import trio
from hypercorn.config import Config
from hypercorn.events import RawData
from hypercorn.trio.worker_context import WorkerContext
from wsproto.connection import Connection as Peer
from wsproto.connection import ConnectionType
from wsproto.events import TextMessage

from engine.model.limits import Limits
from engine.server.connection import Connection, frame_head


@pytest.fixture
async def pair() -> AsyncIterator[tuple[Connection, trio.SocketStream]]:
    ours, theirs = trio.socket.socketpair()
    app: Any = None
    stream: Any = trio.SocketStream(ours)
    async with stream, trio.SocketStream(theirs) as client:
        yield Connection(app, Config(), WorkerContext(None), stream, Limits()), client


async def test_the_rest_of_a_message_comes_before_what_hypercorn_sends(
    pair: tuple[Connection, trio.SocketStream],
) -> None:
    connection, client = pair
    connection._rest = b"the rest, "

    await connection.protocol_send(RawData(b"a pong, "))
    await connection.protocol_send(RawData(b"a close"))

    assert b"the rest, a pong, a close" == await client.receive_some()


async def test_there_is_no_shortcut_before_there_is_a_websocket(
    pair: tuple[Connection, trio.SocketStream],
) -> None:
    connection, _ = pair

    assert not connection.begin(b"too early")


@pytest.mark.parametrize("length", [0, 1, 125, 126, 65_535, 65_536, 200_000])
def test_a_head_makes_a_frame_of_a_text(length: int) -> None:
    text = os.urandom(length // 2).hex() + "x" * (length % 2)
    peer = Peer(ConnectionType.CLIENT)

    peer.receive_data(frame_head(length) + text.encode())

    parts = [event for event in peer.events() if isinstance(event, TextMessage)]
    assert text == "".join(part.data for part in parts)
    assert parts[-1].message_finished
