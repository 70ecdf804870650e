"""
The messages of the sync protocol, as tagged structs, and their JSON.

    client ──▶  Connect  ModifyQuerySet  Mutation  Action  Authenticate  Event
    server ──▶  Transition  MutationResponse  ActionResponse  AuthError  FatalError  Ping

Fields have snake_case names here and camelCase on the wire.  Unknown fields are
ignored.  Integers are spelled without a fraction and values with one: clients
insist on both.  A value travels as `msgspec.Raw`: what is sent is the text of
`value_json`, so that what many clients show is spelled once; what a client sends
stays as it came, since parsed it takes up to forty times the memory.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Final, TypeAlias

import msgspec
from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from engine.errors import ProtocolViolation
from engine.model.json_values import Json, to_wire
from engine.model.values import Value
from engine.server.json_text import parse_leniently

U32: TypeAlias = Annotated[int, Meta(ge=0, lt=2**32)]
RequestNumber: TypeAlias = Annotated[int, Meta(ge=0, lt=2**32 - 1)]
"""The last one of 32 bits is taken, beside the records of answers."""

NO_ARGS: Final = Raw(b"null")


class Incoming(Struct, frozen=True, kw_only=True, tag_field="type", rename="camel"):
    """Base of what a client sends, and of its parts."""


class Outgoing(Struct, frozen=True, kw_only=True, tag_field="type", rename="camel"):
    """Base of what the server sends, and of its parts."""


# From the client.


class Connect(Incoming, frozen=True, kw_only=True, tag="Connect"):
    """The first message of every connection."""

    session_id: str
    connection_count: int = 0
    last_close_reason: str | None = None
    max_observed_timestamp: str | None = None
    client_ts: float | None = None


class Add(Incoming, frozen=True, kw_only=True, tag="Add"):
    query_id: U32
    udf_path: str
    args: Raw = NO_ARGS
    journal: str | None = None
    component_path: str | None = None


class Remove(Incoming, frozen=True, kw_only=True, tag="Remove"):
    query_id: U32


class ModifyQuerySet(Incoming, frozen=True, kw_only=True, tag="ModifyQuerySet"):
    base_version: U32
    new_version: U32
    modifications: list[Add | Remove]


class Mutation(Incoming, frozen=True, kw_only=True, tag="Mutation"):
    request_id: RequestNumber
    udf_path: str
    args: Raw = NO_ARGS
    component_path: str | None = None


class Action(Incoming, frozen=True, kw_only=True, tag="Action"):
    request_id: RequestNumber
    udf_path: str
    args: Raw = NO_ARGS
    component_path: str | None = None


class Authenticate(Incoming, frozen=True, kw_only=True, tag="Authenticate"):
    """`token_type` is ``"User"``, ``"Admin"`` or ``"None"``."""

    base_version: U32
    token_type: str
    value: str | None = None
    impersonating: dict[str, Any] | None = None
    acting_as: dict[str, Any] | None = None

    def __repr__(self) -> str:
        """Without the token: who shows a message shows it to others."""
        return f"<Authenticate after {self.base_version}>"


class Event(Incoming, frozen=True, kw_only=True, tag="Event"):
    """Telemetry, which nobody reads."""


ClientMessage: TypeAlias = Connect | ModifyQuerySet | Mutation | Action | Authenticate | Event

_decoder: Final = msgspec.json.Decoder(ClientMessage)


def decode(text: str | bytes) -> ClientMessage:
    """
    Parse one message of a client.

    Raises:
        ProtocolViolation: it is no JSON, or no message of the protocol.
    """
    try:
        message: ClientMessage = _decoder.decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return _decode_lenient(text)
    return message


def _decode_lenient(text: str | bytes) -> ClientMessage:
    """A message with half a character in it, which in arguments is for the call to refuse."""
    try:
        message: ClientMessage = msgspec.convert(
            _with_raw_args(parse_leniently(text)), ClientMessage
        )
    except (ValueError, RecursionError) as error:
        # What stands in the place of a type is not said back: it may be a secret.
        why = str(error) if "Invalid value" not in str(error) else "no such type"
        raise ProtocolViolation(f"Received an invalid message: {why}") from None
    return message


def _with_raw_args(message: Json) -> Json:
    """`message`, which was parsed, with arguments that are text again."""
    if isinstance(message, dict):
        if "args" in message:
            message["args"] = Raw(json.dumps(message["args"]).encode())
        if isinstance(changes := message.get("modifications"), list):
            message["modifications"] = [_with_raw_args(change) for change in changes]
    return message


# From the server.


class StateVersion(Struct, frozen=True, kw_only=True, gc=False, rename="camel"):
    """Where a connection is: two counters of the client's, one timestamp of ours."""

    query_set: int
    identity: int
    ts: str


class QueryFailed(Outgoing, frozen=True, kw_only=True, tag="QueryFailed"):
    query_id: int
    error_message: str
    log_lines: tuple[str, ...]
    journal: str | None
    error_data: Raw | UnsetType = UNSET


class QueryRemoved(Outgoing, frozen=True, kw_only=True, tag="QueryRemoved"):
    query_id: int


class Transition(Outgoing, frozen=True, kw_only=True, gc=False, tag="Transition"):
    """`modifications` are the JSON of QueryUpdated, QueryFailed and QueryRemoved."""

    start_version: StateVersion
    end_version: StateVersion
    modifications: list[Raw]
    client_clock_skew: int | None = None
    server_ts: int | None = None


class TransitionChunk(Outgoing, frozen=True, kw_only=True, tag="TransitionChunk"):
    """A piece of the JSON of a Transition."""

    chunk: str
    part_number: int
    total_parts: int
    transition_id: str


class MutationResponse(Outgoing, frozen=True, kw_only=True, tag="MutationResponse"):
    request_id: int
    success: bool
    result: Raw | str
    ts: str | None
    log_lines: tuple[str, ...]
    error_data: Raw | UnsetType = UNSET


class ActionResponse(Outgoing, frozen=True, kw_only=True, tag="ActionResponse"):
    request_id: int
    success: bool
    result: Raw | str
    log_lines: tuple[str, ...]
    error_data: Raw | UnsetType = UNSET


class AuthError(Outgoing, frozen=True, kw_only=True, tag="AuthError"):
    error: str
    base_version: int
    auth_update_attempted: bool


class FatalError(Outgoing, frozen=True, kw_only=True, tag="FatalError"):
    error: str


class Ping(Outgoing, frozen=True, kw_only=True, tag="Ping"):
    pass


_encoder: Final = msgspec.json.Encoder()
encode: Final = _encoder.encode
"""The JSON of a server message or a part of one."""


def value_json(value: Value) -> Raw:
    """The JSON of a canonical value in the lossless encoding."""
    return Raw(_encoder.encode(to_wire(value)))


# A QueryUpdated is spelled in two halves: the second is the same for every client.


class _Updated(Struct, frozen=True, kw_only=True, rename="camel"):
    value: Raw
    log_lines: tuple[str, ...]
    journal: str | None


def updated_tail(value: Value, log_lines: tuple[str, ...], journal: str | None) -> bytes:
    """What a QueryUpdated says after its query id."""
    tail = _Updated(value=value_json(value), log_lines=log_lines, journal=journal)
    return _encoder.encode(tail)[1:]


def query_updated(query_id: int, tail: bytes) -> Raw:
    """The JSON of a QueryUpdated, given what `updated_tail` made of the result."""
    return Raw(b'{"type":"QueryUpdated","queryId":%d,%b' % (query_id, tail))
