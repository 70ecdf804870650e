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
from hypothesis import given
from hypothesis import strategies as st
from wsproto.connection import Connection as Peer
from wsproto.connection import ConnectionType
from wsproto.events import TextMessage
from wsproto.utilities import RemoteProtocolError

from engine.model.limits import Limits
from engine.server.connection import Connection, frame_head, text_at


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


FIRST_BYTES = st.sampled_from([0x81, 0x81, 0x81, 0x01, 0x80, 0x82, 0x89, 0xC1, 0x00]) | st.integers(
    0, 255
)
LENGTHS = st.sampled_from([0, 1, 5, 125, 126, 127, 300, 65_535, 65_536])


@given(
    first=FIRST_BYTES,
    length=LENGTHS,
    spelled=st.sampled_from([0, 2, 8]),
    is_masked=st.booleans() | st.just(value=True),
    mask=st.binary(min_size=4, max_size=4),
    text=st.text(min_size=1) | st.binary(min_size=1),
    cut=st.integers(0, 6),
    before=st.binary(max_size=3),
)
def test_a_text_is_found_as_the_library_finds_it_or_left_to_it(
    first: int,
    length: int,
    spelled: int,
    is_masked: bool,
    mask: bytes,
    text: str | bytes,
    cut: int,
    before: bytes,
) -> None:
    unit = text.encode("utf-8", "replace") if isinstance(text, str) else text
    payload = (unit * (length // len(unit) + 1))[:length]
    frame = _frame(first, payload, spelled, mask if is_masked else None)
    frame = frame[: len(frame) - cut]

    found = text_at(before + frame, len(before), 1 << 20)

    if found is not None:
        text_found, end = found
        assert text_found == _heard_by_the_library(frame[: end - len(before)])
    if first == 0x81 and not cut and is_masked and spelled == (0 if length < 126 else 2):
        assert (found is None) == (_heard_by_the_library(frame) is None)


def _frame(first: int, payload: bytes, spelled: int, mask: bytes | None) -> bytes:
    """A frame whose length stands in so many bytes of its own."""
    length, flag = len(payload), 0 if mask is None else 0x80
    if spelled == 0:
        head = bytes((first, flag | min(length, 125)))
    else:
        head = bytes((first, flag | (126 if spelled == 2 else 127)))
        head += min(length, 256**spelled - 1).to_bytes(spelled, "big")
    if mask is None:
        return head + payload
    return head + mask + bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))


def _heard_by_the_library(frame: bytes) -> str | None:
    """The one text that is all of `frame`, if it is."""
    server = Peer(ConnectionType.SERVER)
    server.receive_data(frame)
    try:
        events = list(server.events())
    except RemoteProtocolError:
        return None
    texts = [event for event in events if isinstance(event, TextMessage)]
    is_whole = len(texts) == len(events) and [each.message_finished for each in texts] == [True]
    return texts[0].data if is_whole and not server._proto._frame_decoder.buffer else None
