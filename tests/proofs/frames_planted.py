"""Bugs that the proof of frames has to catch, each planted for the length of a block."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Final

import msgspec
import trio
from hypercorn.protocol.events import StreamClosed
from hypercorn.protocol.ws_stream import WSStream
from wsproto.events import Event, Message, Ping, Pong

from engine.errors import ProtocolViolation
from engine.functions.results import QueryResult
from engine.server import connection, listener, messages, query_set, session
from engine.server.fanout import _Question, _Round
from engine.server.identity import Verifier
from engine.server.keys import KeyStore
from engine.server.peer import Peer
from engine.server.protocol import Protocol
from engine.server.session import Session
from engine.server.watched import WatchedConnection
from engine.server.who import NOBODY, Who
from tests.node.sockets import masked

Plant = Callable[[], AbstractContextManager[None]]


@contextmanager
def _instead(owner: Any, name: str, planted: Any) -> Iterator[None]:
    original = getattr(owner, name)
    setattr(owner, name, planted)
    try:
        yield
    finally:
        setattr(owner, name, original)


def _undecoded() -> AbstractContextManager[None]:
    """What a lenient parser says of a frame is nobody's to handle."""

    def decode(text: str) -> messages.ClientMessage:
        try:
            message: messages.ClientMessage = messages._decoder.decode(text)
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            message = msgspec.convert(json.loads(text), messages.ClientMessage)
        return message

    return _instead(session, "decode", decode)


def _kept() -> AbstractContextManager[None]:
    """What was refused is remembered."""
    kept: list[object] = []
    fatal = Protocol.fatal

    def keeping(protocol: Protocol, violation: ProtocolViolation) -> bytes:
        kept.append(object())
        return fatal(protocol, violation)

    return _instead(Protocol, "fatal", keeping)


def _inherited() -> AbstractContextManager[None]:
    """A connection begins with the identity of the one before."""
    last = [NOBODY]
    begin, authenticated = Protocol.__init__, Protocol.authenticated

    def inherit(protocol: Protocol, *args: Any) -> None:
        begin(protocol, *args)
        protocol.who = last[0]

    def remember(protocol: Protocol, who: Who) -> None:
        last[0] = who
        authenticated(protocol, who)

    @contextmanager
    def both() -> Iterator[None]:
        with _instead(Protocol, "__init__", inherit), _instead(Protocol, "authenticated", remember):
            yield

    return both()


def _unsigned() -> AbstractContextManager[None]:
    """What a token says is believed, whoever signed it."""

    async def check_signature(*_: Any, **__: Any) -> None:
        pass

    return _instead(KeyStore, "check_signature", check_signature)


def _any_key() -> AbstractContextManager[None]:
    """Whoever shows something like a key is the administrator."""

    def check(_verifier: Verifier, text: str) -> Who:
        return Who(admin="|" in text)

    return _instead(Verifier, "check_admin_key", check)


def _left_task() -> AbstractContextManager[None]:
    """For each client that broke the protocol a task goes on."""
    end_for = Session._end_for

    def leave(self: Session, error: Exception) -> None:
        self._home.start_soon(trio.sleep_forever)
        end_for(self, error)

    return _instead(Session, "_end_for", leave)


def _one_for_all() -> AbstractContextManager[None]:
    """The answer to one is given to all who ask the same at that time."""

    async def answer(self: _Round, question: _Question, result: QueryResult) -> None:
        for part, query in question.askers:
            result.live.retain()
            part.results[query] = result
            if len(part.results) == len(part.plan.asked):
                part.is_over = True
                part.subscriber.tell(part.plan, self._ts, part.results, self._request_id)

    return _instead(_Round, "_answer", answer)


def _same_for_all() -> AbstractContextManager[None]:
    """Users look the same to the cache."""
    return _instead(Who, "__post_init__", lambda _who: None)


def _open_component() -> AbstractContextManager[None]:
    """Functions of a component are anybody's."""
    return _instead(query_set.Query, "refusal_for", lambda query, _who: query.refusal)


def _unread_queue() -> AbstractContextManager[None]:
    """What a client still says when its session is over waits for room."""
    return _instead(listener, "_take_no_more", lambda _receive, _send: None)


def _shifted_mask() -> AbstractContextManager[None]:
    """A text that is read where it arrives is unmasked from the second byte of the mask on."""
    text_at = connection.text_at

    def shifted(data: bytes, at: int, bytes_max: int) -> tuple[str, int] | None:
        if (found := text_at(data, at, bytes_max)) is None:
            return None
        text, end = found
        begin = end - len(text.encode())
        mask = data[begin - 4 : begin]
        wrong = masked(data[begin:end], mask[1:] + mask[:1])
        return wrong.decode(errors="replace"), end

    return _instead(connection, "text_at", shifted)


def _text_amid_pieces() -> AbstractContextManager[None]:
    """A text is read where it arrives also when there is more to come of another."""

    def is_between(self: connection.Connection) -> bool:
        websocket = self._websocket
        return (
            self._put is not None
            and websocket is not None
            and websocket.app_put is self._put
            and websocket.connection._proto._frame_decoder.header is None
        )

    return _instead(connection.Connection, "_is_between_messages", is_between)


def _lost_piece() -> AbstractContextManager[None]:
    """What comes after a control frame amid a message, and is not the last of it, is lost."""
    return _heard_without(
        lambda event, before: (
            isinstance(event, Message)
            and not event.message_finished
            and isinstance(before, Ping | Pong)
        )
    )


def _unanswered_ping() -> AbstractContextManager[None]:
    """A ping amid the pieces of a message is not answered."""
    return _heard_without(
        lambda event, before: isinstance(event, Ping) and isinstance(before, Message)
    )


def _heard_without(
    is_lost: Callable[[Event, Event | None], bool],
) -> AbstractContextManager[None]:
    """Some of what a client says is not heard, by that and what it has said before it."""
    events = Peer.events

    def losing(peer: Peer) -> Iterator[Event]:
        before = None
        for event in events(peer):
            if not is_lost(event, before):
                yield event
            before = event

    return _instead(Peer, "events", losing)


def _unbounded_pieces() -> AbstractContextManager[None]:
    """What is bounded is each piece of a message."""

    def is_too_large(peer: Peer, part: Message[Any]) -> bool:
        return len(part.data) > peer._message_bytes_max

    return _instead(Peer, "_is_too_large_with", is_too_large)


def _silent_end() -> AbstractContextManager[None]:
    """Who did something wrong is hung up on without a word."""

    async def refuse(self: WatchedConnection, websocket: WSStream, _fault: object) -> None:
        await websocket.send(StreamClosed(stream_id=websocket.stream_id))

    return _instead(WatchedConnection, "_refuse", refuse)


PLANTED: Final[Mapping[str, Plant]] = {
    "an error of decoding that nobody handles": _undecoded,
    "an object kept of each refused frame": _kept,
    "a task left behind by each": _left_task,
    "a connection whose reader waits for ever": _unread_queue,
    "a mask that is applied from its second byte": _shifted_mask,
    "a text that is taken amid the pieces of another": _text_amid_pieces,
    "a piece of a message that is lost": _lost_piece,
    "a ping amid pieces that is not answered": _unanswered_ping,
    "pieces that are bounded one by one": _unbounded_pieces,
    "a fault that nobody is told of": _silent_end,
    "an identity kept from the connection before": _inherited,
    "tokens that are not verified": _unsigned,
    "an admin key that is not compared": _any_key,
    "one client's answer told to others": _one_for_all,
    "a component that clients reach": _open_component,
}
