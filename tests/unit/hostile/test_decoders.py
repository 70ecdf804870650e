"""
Whatever bytes, texts and objects come in: what raises is what is documented, and nothing hangs.

Each entry point is handed neighbours of what it accepts, a few dozen to an example.
"""

from __future__ import annotations

import json
import tracemalloc
import zlib
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import (
    InvalidCursor,
    InvalidId,
    InvalidValue,
    ProtocolViolation,
    RequestRefused,
    StoreDamaged,
    Unauthenticated,
    UsageError,
)
from engine.log.records import decode_record, encode_record
from engine.model.codec import decode, encode
from engine.model.commits import Kind, RowWrite, Source
from engine.model.ids import decode_id, encode_id
from engine.model.json_values import decode_ts, encode_ts, from_wire, to_wire
from engine.model.keys import decode_key, encode_key, end_of_values
from engine.model.values import INT64_MAX, Value, normalize
from engine.server import messages
from engine.server.arguments import read_arguments
from engine.server.function_api import call_of
from engine.server.identity import acted_identity, identity_of
from engine.server.json_text import parse
from engine.serving.imports import read
from engine.store.format import check_header, new_header
from engine.store.interface import Batch, Tree, decode_batch
from engine.transaction.pagination import Position, decode_cursor, encode_cursor
from tests.unit.hostile.mutants import CBOR_PIECES, JSON_PIECES, mutants
from tests.unit.model.canonical import VALUE, same

SEED = st.integers(0, 2**32)
ANYTHING = st.binary(max_size=60)
MINE = b"mine----"
"""The fingerprint of a query."""


def refused(read: Callable[[Any], Any], data: Any, error: type[Exception]) -> bool:
    """Whether `data` is refused, by that error and no other."""
    try:
        read(data)
    except error:
        return True
    return False


# Bytes in the store.


@given(VALUE, ANYTHING, SEED)
def test_a_row(value: Value, other: bytes, seed: int) -> None:
    for data in (other, *mutants(encode(value), seed, CBOR_PIECES)):
        refused(decode, data, StoreDamaged)


@given(st.lists(VALUE, max_size=3), ANYTHING, SEED)
def test_an_index_key_is_one_that_would_be_written_or_none(
    values: list[Value], other: bytes, seed: int
) -> None:
    for key in (
        other,
        *mutants(encode_key(values), seed, [b"\0", b"\xff", b"\0\xff", b"\x12" * 99]),
    ):
        end_of_values(key, 2)
        if not refused(decode_key, key, InvalidValue):
            assert key == encode_key(decode_key(key))


def record_of(value: Value) -> bytes:
    image = encode({"a": value})
    record, _ = encode_record(
        ts=5,
        epoch=1,
        kind=Kind.BACKFILL,
        writes=[RowWrite(b"k" * 20, None, image), RowWrite(b"l" * 20, image, None)],
        covered=[1001, b"", None],
        source=Source(path="notes:add", request_id="r", args={"a": value}, seed=7, now_ns=9),
        state_hash=3,
        previous=b"p" * 16,
    )
    return record


@given(VALUE, ANYTHING, SEED)
def test_a_log_record_that_is_not_as_it_was_written_is_damaged(
    value: Value, other: bytes, seed: int
) -> None:
    record = record_of(value)

    for data in (other, *mutants(record, seed, CBOR_PIECES)):
        assert refused(decode_record, data, StoreDamaged) is (data != record)


@given(VALUE, ANYTHING, SEED)
def test_a_log_record_with_a_checksum_that_was_made_up(
    value: Value, other: bytes, seed: int
) -> None:
    for body in (other, *mutants(record_of(value)[4:], seed, CBOR_PIECES)):
        data = zlib.crc32(body).to_bytes(4, "big") + body
        if not refused(decode_record, data, StoreDamaged):
            record = decode_record(data)
            assert all(isinstance(n, int) for n in (record.ts, record.epoch, record.state_hash))
            for write in record.writes:
                images = [i for i in (write.before, write.after) if i is not None]
                assert all(isinstance(part, bytes) for part in (write.key, *images))


@given(VALUE, ANYTHING, SEED)
def test_a_batch(value: Value, other: bytes, seed: int) -> None:
    batch = Batch()
    batch.put(Tree.ROWS, b"a", encode(value))
    batch.delete(Tree.ENTRIES, b"x")

    for data in (other, *mutants(batch.encode(), seed, CBOR_PIECES)):
        if not refused(decode_batch, data, StoreDamaged):
            assert all(len(keys) == len(values) for keys, values in decode_batch(data))


@given(ANYTHING, SEED)
def test_the_header_of_a_store(other: bytes, seed: int) -> None:
    for data in (other, *mutants(new_header("headrace 1"), seed, CBOR_PIECES)):
        refused(lambda d: check_header(d, where="there", reader="here"), data, StoreDamaged)


@pytest.mark.parametrize("kind", [0x40, 0x60, 0x80, 0xA0], ids=hex)
@pytest.mark.parametrize("claim", [2**24, 2**31, 2**40, 2**64 - 1])
def test_a_length_that_is_only_claimed_takes_no_memory(kind: int, claim: int) -> None:
    head = bytes([kind | 27]) + claim.to_bytes(8, "big")

    tracemalloc.start()
    try:
        for data in (head, head * 30, head + bytes(500)):
            assert refused(decode, data, StoreDamaged)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


# Texts of clients.


@given(st.integers(1, 2**32 - 1), st.binary(min_size=16, max_size=16), st.text(), SEED)
def test_an_id_has_one_spelling(number: int, internal: bytes, other: str, seed: int) -> None:
    origin = encode_id(number, internal).encode()
    near = (
        data.decode("utf-8", "surrogateescape")
        for data in mutants(origin, seed, [b"0", b"i", b"l"])
    )

    for text in (other, *near):
        if not refused(decode_id, text, InvalidId):
            assert text == encode_id(*decode_id(text))


@given(st.binary(max_size=40), st.text(), SEED)
def test_a_cursor_or_a_journal(key: bytes, other: str, seed: int) -> None:
    origin = encode_cursor(Position(key), MINE).encode()
    near = (
        data.decode("utf-8", "surrogateescape")
        for data in mutants(origin, seed, [b"=", b"+", b"\n"])
    )

    for text in (other, *near):
        refused(lambda cursor: decode_cursor(cursor, MINE), text, InvalidCursor)


@given(st.integers(0, INT64_MAX), SEED)
def test_a_timestamp_has_one_spelling(ts: int, seed: int) -> None:
    for data in mutants(encode_ts(ts).encode(), seed, [b"=", b"/", b"\n"]):
        text = data.decode("utf-8", "surrogateescape")
        if not refused(decode_ts, text, InvalidValue):
            assert text == encode_ts(decode_ts(text))


def texts(document: Any, seed: int) -> list[str | bytes]:
    """Texts near the JSON of a document, as a WebSocket and as a request's body bring them."""
    near = mutants(json.dumps(document).encode(), seed, JSON_PIECES)
    return [spelled for data in near for spelled in (data, data.decode("utf-8", "replace"))]


@given(VALUE, SEED)
def test_a_value_of_a_client_is_canonical_or_refused(value: Value, seed: int) -> None:
    for text in texts(to_wire(value), seed):
        if not refused(parse, text, ValueError):
            spelled = parse(text)
            if not refused(from_wire, spelled, InvalidValue):
                found = from_wire(spelled)
                assert same(found, normalize(found))
                assert same(found, from_wire(to_wire(found)))


MESSAGES = [
    {"type": "Connect", "sessionId": "x", "maxObservedTimestamp": "AAAAAAAAAAA="},
    {"type": "ModifyQuerySet", "baseVersion": 0, "newVersion": 1, "modifications": [
        {"type": "Add", "queryId": 1, "udfPath": "a:b", "args": [{}], "journal": None},
        {"type": "Remove", "queryId": 2},
    ]},
    {"type": "Authenticate", "baseVersion": 0, "tokenType": "User", "value": "t"},
    {"type": "Event", "eventType": "e", "event": {}},
]  # fmt: skip


@given(VALUE, st.sampled_from(MESSAGES), SEED)
def test_a_message(value: Value, other: Any, seed: int) -> None:
    call = {"type": "Mutation", "requestId": 1, "udfPath": "a:b", "args": [{"a": to_wire(value)}]}

    for text in (*texts(call, seed), *texts(other, seed)):
        refused(messages.decode, text, ProtocolViolation)


@given(VALUE, SEED)
def test_a_request_and_its_arguments(value: Value, seed: int) -> None:
    body = {"path": "a:b", "args": {"a": to_wire(value)}, "format": "json", "componentPath": None}

    for text in texts(body, seed):
        if not refused(parse, text, ValueError):
            document = parse(text)
            if not refused(call_of, document, RequestRefused):
                args = call_of(document).args
                refused(lambda given: read_arguments("a:b", given), args, InvalidValue)


@given(VALUE, SEED)
def test_a_document_of_an_imported_file(value: Value, seed: int) -> None:
    brought = {"_id": encode_id(10_001, b"i" * 16), "_creationTime": 1.5, "a": to_wire(value)}

    for text in texts(brought, seed):
        if not refused(parse, text, ValueError):
            refused(read, parse(text), UsageError)


CLAIMS = {"iss": "https://a", "sub": "b", "exp": 9, "updated_at": 7, "address": {"formatted": "x"}}


@given(VALUE, st.booleans(), SEED)
def test_the_claims_of_a_token(value: Value, is_openid: bool, seed: int) -> None:
    for text in texts({**CLAIMS, "issuer": "a", "subject": "b", "x": to_wire(value)}, seed):
        with suppress(ValueError, RecursionError):
            claims = json.loads(text)
            refused(acted_identity, claims, Unauthenticated)
            if isinstance(claims, dict):
                refused(lambda c: identity_of(c, is_openid=is_openid), claims, Unauthenticated)


@pytest.mark.parametrize(
    "number",
    [10**400, -(10**400), 1e300, -1e300, float("inf"), float("nan")],
    ids=["10**400", "-10**400", "1e300", "-1e300", "inf", "nan"],
)
@pytest.mark.parametrize("name", ["exp", "updated_at", "x"])
@pytest.mark.parametrize("is_openid", [True, False])
def test_a_number_that_is_no_time(name: str, number: float, is_openid: bool) -> None:
    claims = {**CLAIMS, name: number}

    refused(lambda given: identity_of(given, is_openid=is_openid), claims, Unauthenticated)
