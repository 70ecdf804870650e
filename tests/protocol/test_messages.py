"""The sync protocol's messages as text: what is understood, and how ours are spelled."""

from __future__ import annotations

import contextlib
import gc
import json
import re
import sys
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from engine.errors import InvalidValue, ProtocolViolation
from engine.model.json_values import from_wire
from engine.model.limits import VALUE_NESTING_MAX
from engine.model.values import Int64, size_of, strictly_equal
from engine.server.arguments import read_arguments
from engine.server.json_text import LENIENT_BYTES_MAX, UNCOLLECTED_BYTES_MIN, parse
from engine.server.large_text import STEP_COST_MAX, read_in_steps
from engine.server.messages import (
    Action,
    Add,
    Authenticate,
    Connect,
    Event,
    ModifyQuerySet,
    Mutation,
    Remove,
    decode,
    query_updated,
    updated_tail,
    value_json,
)

SESSION = "9c621b88-c88c-4d93-be5f-3236005019b1"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            '{"type":"Connect","sessionId":"s","connectionCount":0,'
            '"lastCloseReason":"InitialConnect","clientTs":1795197733591}',
            Connect(session_id="s", last_close_reason="InitialConnect", client_ts=1795197733591.0),
        ),
        (
            '{"type":"ModifyQuerySet","baseVersion":0,"newVersion":1,"modifications":['
            '{"type":"Add","queryId":0,"udfPath":"m:l","args":[{"c":"a"}],"journal":"j"},'
            '{"type":"Remove","queryId":7}]}',
            ModifyQuerySet(
                base_version=0,
                new_version=1,
                modifications=[
                    Add(query_id=0, udf_path="m:l", args=Raw(b'[{"c":"a"}]'), journal="j"),
                    Remove(query_id=7),
                ],
            ),
        ),
        (
            '{"type":"Mutation","requestId":3,"udfPath":"m:s","args":[{"b":"x"}]}',
            Mutation(request_id=3, udf_path="m:s", args=Raw(b'[{"b":"x"}]')),
        ),
        (
            '{"type":"Action","requestId":4,"udfPath":"m:a","componentPath":"c"}',
            Action(request_id=4, udf_path="m:a", component_path="c"),
        ),
        (
            '{"type":"Authenticate","baseVersion":0,"tokenType":"Admin","value":"k",'
            '"impersonating":{"subject":"s"}}',
            Authenticate(
                base_version=0, token_type="Admin", value="k", impersonating={"subject": "s"}
            ),
        ),
        (
            '{"type":"Authenticate","baseVersion":0,"tokenType":"Admin","value":"k",'
            '"actingAs":{"subject":"s"}}',
            Authenticate(base_version=0, token_type="Admin", value="k", acting_as={"subject": "s"}),
        ),
        ('{"type":"Event","eventType":"X","event":[1]}', Event()),
    ],
)
def test_a_message_is_understood(text: str, message: object) -> None:
    assert decode(text) == message


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{not json",
        "[]",
        "null",
        "{}",
        '{"type":"Dance"}',
        '{"type":"Connect"}',
        '{"type":"Mutation","requestId":-1,"udfPath":"m:f"}',
        '{"type":"Mutation","requestId":4294967295,"udfPath":"m:f"}',
        '{"type":"Action","requestId":4294967295,"udfPath":"m:f"}',
        '{"type":"Mutation","requestId":4294967296,"udfPath":"m:f"}',
        '{"type":"Mutation","requestId":"1","udfPath":"m:f"}',
        '{"type":"Mutation","requestId":1,"udfPath":5}',
        '{"type":"ModifyQuerySet","baseVersion":0,"newVersion":1,"modifications":[{}]}',
        '{"type":"Mutation","requestId":1,"udfPath":"m:f","args":' + "[" * 9000,
        '{"type":"Mutation","requestId":1,"udfPath":"m:f","args":[NaN]}',
    ],
)
def test_what_is_no_message_is_a_violation(text: str) -> None:
    with pytest.raises(ProtocolViolation):
        decode(text)


@pytest.mark.parametrize(
    "text",
    [
        '{"type":"eyJ.a.secret"}',
        '{"type":"ModifyQuerySet","baseVersion":0,"newVersion":1,"modifications":'
        '[{"type":"eyJ.a.secret"}]}',
    ],
)
def test_what_stands_in_the_place_of_a_type_is_not_said_back(text: str) -> None:
    with pytest.raises(ProtocolViolation, match="no such type") as refused:
        decode(text)

    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("value", ['"\\ud800"', "1e400", '"\\ud800",1e400', '{"a":"\\ud800"}'])
def test_an_argument_that_is_no_value_leaves_the_message_readable(value: str) -> None:
    head = '{"type":"Mutation","requestId":1,"udfPath":"m:f","args":'

    message = decode(f"{head}[{value}]}}")

    assert isinstance(message, Mutation)
    with pytest.raises(InvalidValue, match="Invalid arguments for m:f"):
        read_arguments("m:f", message.args)


def test_half_a_character_is_looked_for_in_no_large_text() -> None:
    call = '{"type":"Mutation","requestId":1,"udfPath":"m:f","args":["\\ud800%s"]}'

    decode(call % ("x" * (LENIENT_BYTES_MAX - len(call))))
    with pytest.raises(ProtocolViolation):
        decode(call % ("x" * LENIENT_BYTES_MAX))


def test_half_a_character_leaves_the_arguments_beside_it_as_they_are() -> None:
    args = '[{"a":"é","b":[1,null]}]'
    add = f'{{"type":"Add","queryId":0,"udfPath":"\\ud800","args":{args}}}'
    head = '{"type":"ModifyQuerySet","baseVersion":0,"newVersion":1'

    message = decode(f'{head},"modifications":[{add}]}}')

    assert isinstance(message, ModifyQuerySet)
    [added] = message.modifications
    assert isinstance(added, Add)
    assert read_arguments("m:f", added.args) == {"a": "é", "b": [1, None]}


@given(st.text())
def test_no_text_does_more_than_violate(text: str) -> None:
    with contextlib.suppress(ProtocolViolation):
        decode(text)


JSON_TEXTS = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
).map(json.dumps)


@given(JSON_TEXTS)
def test_strict_and_lenient_parsing_agree_on_json(text: str) -> None:
    assert parse(text) == json.loads(text)


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats().filter(lambda x: not x.is_integer() or abs(x) > 2**53)
    | st.integers(-(2**63), 2**63 - 1).map(Int64)
    | st.text()
    | st.binary(),
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.dictionaries(st.text(st.characters(codec="ascii", categories=["L"])), inner)
    ),
    max_leaves=20,
)


@given(VALUES)
def test_a_value_comes_back_from_its_text(value: Any) -> None:
    there = from_wire(parse(bytes(value_json(value))))

    assert strictly_equal(there, value)


def read_slowly(text: bytes, bytes_max: int = 1 << 20) -> tuple[Any, int]:
    """What the text spells, and in how many steps that was read."""
    reading, steps = read_in_steps(text, path="args", bytes_max=bytes_max), 1
    while True:
        try:
            next(reading)
        except StopIteration as end:
            return end.value, steps
        steps += 1


@given(
    JSON_TEXTS.map(str.encode) | VALUES.map(lambda value: bytes(value_json(value))),
    st.sampled_from([b"%b", b"[%b]", b' {"a" :\n%b , "b": [%b,%b]}', b'[{"$bytes": %b}]']),
)
def test_a_large_text_is_read_as_a_small_one_is(inner: bytes, around: bytes) -> None:
    text = around.replace(b"%b", inner)
    try:
        expected = from_wire(parse(text), path="args")
    except InvalidValue:
        with pytest.raises(InvalidValue):  # of several faults they may name another
            read_slowly(text)
    else:
        assert strictly_equal(read_slowly(text)[0], expected)


@pytest.mark.parametrize("scalar", ["0", "-1.5e3", "null", "true", '"x"', "[]", '{"a":[1]}'])
def test_a_large_text_is_read_a_little_at_a_time(scalar: str) -> None:
    row = f"[{','.join([scalar] * 5_000)}]"
    text = f"[{','.join([row] * 20)}]"

    value, steps = read_slowly(text.encode(), 16 << 20)

    assert value == from_wire(parse(text))
    assert steps >= 100_000 // (2 * STEP_COST_MAX), "one run of scalars may be too much"


LONG_NUMBER = b"0." + b"1" * 40_000


def test_numbers_longer_than_what_is_parsed_together_are_whole() -> None:
    text = b"[%b, 2,%b]" % (LONG_NUMBER, LONG_NUMBER)

    assert [float(LONG_NUMBER), 2, float(LONG_NUMBER)] == read_slowly(text)[0]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (b'[{"a":[' + b"0," * 5_000_000, "args[0].a: an array of over 8192 items"),
        (b'[{"a":["x",' + b'"abc",' * 5_000, "args[0].a[1998]: over 10,000 bytes"),
        (b"[{" + b'"a":null,' * 3 + b",".join(b'"a%d":1' % n for n in range(1_100)), "over 1024"),
        (b'[{"a":"' + rb"\"" * 100_000, "args[0].a: over 10,000 bytes"),
        (b'["' + b'\\"\xff' * 10_000 + b'"', "args[0]: over 10,000 bytes"),
        (b"[" * 100, "args[0]"),
    ],
)
def test_what_is_too_large_is_refused_where_it_becomes_that(text: bytes, why: str) -> None:
    """The rest is not looked at: here it is not even well-formed."""
    bytes_max = 10_000 if "bytes" in why else 1 << 30

    with pytest.raises(InvalidValue) as refused:
        read_slowly(text, bytes_max)

    assert why in str(refused.value)


@given(VALUES)
def test_a_large_text_is_as_large_as_what_it_spells(value: Any) -> None:
    text = b"[%b]" % bytes(value_json(value))

    assert strictly_equal(read_slowly(text, size_of([value]))[0], [value])


@pytest.mark.parametrize(
    "value", [[Int64(1)] * 8_000, b"x" * 8_000, [b""] * 3_000, [{"a": float("inf")}] * 3_000]
)
def test_a_number_and_bytes_are_counted_as_themselves(value: Any) -> None:
    text, size = bytes(value_json(value)), size_of(value)

    assert strictly_equal(read_slowly(text, size)[0], value)
    with pytest.raises(InvalidValue, match=f"over {size - 1:,} bytes"):
        read_slowly(text, size - 1)


@pytest.mark.parametrize(("around", "size"), [('"%s"', 2 + 4_000), ('{"$bytes":"%s"}', 2 + 3_000)])
def test_however_a_letter_is_spelled_it_is_one(around: str, size: int) -> None:
    whole, escaped = around % ("A" * 4_000), around % (r"\u0041" * 4_000)

    assert strictly_equal(read_slowly(escaped.encode(), size)[0], from_wire(parse(whole)))


@pytest.mark.parametrize("room", [0, 1, 2])
@pytest.mark.parametrize(
    "inner",
    ["0", "[]", "{}", '{"a":0}', *(bytes(value_json(x)).decode() for x in (Int64(1), b"", -0.0))],
)
def test_a_large_text_nests_as_deep_as_a_small_one(inner: str, room: int) -> None:
    depth = VALUE_NESTING_MAX - room
    text = "[" * depth + inner + "]" * depth
    try:
        expected = from_wire(parse(text), path="args")
    except InvalidValue as refused:
        with pytest.raises(InvalidValue, match="^" + re.escape(str(refused))):
            read_slowly(text.encode())
    else:
        assert strictly_equal(read_slowly(text.encode())[0], expected)


@pytest.mark.parametrize("escaped", [r"\"", r"\\", r"\\\""])
def test_a_string_is_taken_at_once_however_many_quotes_are_in_it(escaped: str) -> None:
    text, calls = f'["{escaped * 10_000}"]', 0

    def count(*_: object) -> None:
        nonlocal calls
        calls += 1

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        value, _steps = read_slowly(text.encode())
    finally:
        sys.setprofile(before)

    assert value == parse(text)
    assert calls < 1_000


@given(VALUES, st.integers(0, 2**32 - 1))
def test_the_halves_of_an_update_make_one_message(value: Any, query_id: int) -> None:
    update = json.loads(bytes(query_updated(query_id, updated_tail(value, ("[LOG] x",), None))))

    assert update.pop("value") == json.loads(bytes(value_json(value)))
    assert update == {
        "type": "QueryUpdated",
        "queryId": query_id,
        "logLines": ["[LOG] x"],
        "journal": None,
    }


def test_every_float_is_spelled_with_a_fraction_or_exponent() -> None:
    text = bytes(value_json([5, 0, -3, 10**15, 2**53, 1e21, 0.1])).decode()

    assert all(set(number) & set(".e") for number in text.strip("[]").split(","))
    assert msgspec.json.decode(text) == [5, 0, -3, 10**15, 2**53, 1e21, 0.1]


@pytest.mark.parametrize("end", ["]", "}"])
def test_nothing_is_collected_while_a_large_text_is_parsed(end: str) -> None:
    text = "[" + "[1],[2]," * (UNCOLLECTED_BYTES_MIN // 8) + "[3]" + end
    phases: list[str] = []

    def note(phase: str, _info: dict[str, int]) -> None:
        phases.append(phase)

    gc.callbacks.append(note)
    try:
        with contextlib.suppress(ValueError):
            parse(text)
    finally:
        gc.callbacks.remove(note)

    assert len(phases) <= 2, "once, when all is there"
    assert gc.isenabled()
