"""Document ids: their spelling, their types, and where their documents are stored."""

from __future__ import annotations

import base64
import sys
import typing
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal, NotRequired, TypedDict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import InvalidId
from engine.model import ids
from engine.model.ids import (
    Id,
    decode_id,
    encode_id,
    encode_ids,
    id_of,
    make_internal,
    remember,
    row_key,
    row_key_of,
)

ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
TABLE_NUMBER = (
    st.integers(1, 2**32 - 1)
    | st.integers(10_001, 10_100)
    | st.sampled_from(
        [edge + by for bit in (7, 14, 21, 28) for edge in [1 << bit] for by in (-1, 0)]
    )
)
INTERNAL = st.binary(min_size=16, max_size=16)
WORKED_EXAMPLES = [
    (1, "00000000000000000000000000000000", "0400000000000000000000000000248"),
    (10_001, "000102030405060708090a0b0c0d0e0f", "j57000820c20a1g7104gm2rc1m70ynr8"),
    (10_005, "00112233445566778899aabbccddeeff", "jn7004926d25askqh2ctneycvqqfzpyg"),
    (300_000, "ffffffffffffffffffffffffffffffff", "w2kh5zzzzzzzzzzzzzzzzzzzzzzzzzw910"),
    (2**32 - 1, "deadbeefcafef00d0123456789abcdef", "zzzzzzrfvtpvxvyazvr0t0938nkrkaydxz4bw"),
]


def spelled_plainly(binary: bytes) -> str:
    """Base32 by the library, with the letters of ids."""
    theirs = base64.b32encode(binary).decode().rstrip("=")
    return theirs.translate(str.maketrans("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567", ALPHABET))


def checksum(body: bytes) -> bytes:
    """Fletcher-16 as the textbook has it."""
    c0 = c1 = 0
    for byte in body:
        c0 = (c0 + byte) % 256
        c1 = (c1 + c0) % 256
    return bytes([c0, c1])


def spelled(body: bytes) -> str:
    return spelled_plainly(body + checksum(body))


@pytest.mark.parametrize(("table_number", "internal", "doc_id"), WORKED_EXAMPLES)
def test_the_worked_examples_of_the_specification(
    table_number: int, internal: str, doc_id: str
) -> None:
    assert doc_id == encode_id(table_number, bytes.fromhex(internal))
    assert (table_number, bytes.fromhex(internal)) == decode_id(doc_id)


@given(TABLE_NUMBER, INTERNAL)
def test_an_id_gives_table_and_internal_id_back(table_number: int, internal: bytes) -> None:
    doc_id = encode_id(table_number, internal)

    assert (table_number, internal) == decode_id(doc_id)
    assert 31 <= len(doc_id) <= 37
    assert set(doc_id) <= set(ALPHABET)


@given(st.integers(1, 2**32 - 1), INTERNAL)
def test_ids_are_spelled_as_the_plain_rule_says(table_number: int, internal: bytes) -> None:
    groups = bytearray()
    rest = table_number
    while rest:
        groups.append(rest & 0x7F | 0x80)
        rest >>= 7
    groups[-1] &= 0x7F

    assert spelled(bytes(groups) + internal) == encode_id(table_number, internal)


@given(TABLE_NUMBER, st.lists(INTERNAL, max_size=40))
def test_several_ids_are_spelled_as_each_of_them(table_number: int, internals: list[bytes]) -> None:
    expected = [encode_id(table_number, internal) for internal in internals]

    assert expected == encode_ids(table_number, internals)


@given(TABLE_NUMBER, INTERNAL, st.data())
def test_one_mistyped_character_is_refused(
    table_number: int, internal: bytes, data: st.DataObject
) -> None:
    doc_id = encode_id(table_number, internal)
    at = data.draw(st.integers(0, len(doc_id) - 1))
    other = data.draw(st.sampled_from(ALPHABET).filter(lambda letter: letter != doc_id[at]))

    with pytest.raises(InvalidId):
        decode_id(doc_id[:at] + other + doc_id[at + 1 :])


@given(TABLE_NUMBER, INTERNAL, st.data())
def test_a_character_that_no_id_has_is_refused(
    table_number: int, internal: bytes, data: st.DataObject
) -> None:
    doc_id = encode_id(table_number, internal)
    at = data.draw(st.integers(0, len(doc_id) - 1))
    other = data.draw(st.characters().filter(lambda letter: letter not in ALPHABET))

    with pytest.raises(InvalidId):
        decode_id(doc_id[:at] + other + doc_id[at + 1 :])


@pytest.mark.parametrize("letter", [*"ilou_+- \n\t\0!=ABCZ", "\u0660", "\xb2", "\ud800"])
def test_no_character_slips_through_the_reading_of_integers(letter: str) -> None:
    doc_id = encode_id(10_001, bytes(16))

    for at in (0, 1, 16, 31):
        with pytest.raises(InvalidId):
            decode_id(doc_id[:at] + letter + doc_id[at + 1 :])


@pytest.mark.parametrize("doc_id", [example[2] for example in WORKED_EXAMPLES])
def test_a_shortened_or_lengthened_id_is_refused(doc_id: str) -> None:
    for other in (doc_id[:-1], doc_id[1:], doc_id[:-2], doc_id + "0", "0" + doc_id, doc_id + "00"):
        with pytest.raises(InvalidId):
            decode_id(other)
    with pytest.raises(InvalidId):
        decode_id("0" * 40)
    with pytest.raises(InvalidId):
        decode_id("")


def test_ids_are_lowercase() -> None:
    doc_id = encode_id(10_001, bytes(range(16)))

    with pytest.raises(InvalidId, match="characters that no id has"):
        decode_id(doc_id.upper())


@pytest.mark.parametrize("doc_id", [None, 5, b"0400000000000000000000000000248", [], {}, 1.5])
def test_what_is_no_string_is_no_id(doc_id: Any) -> None:
    with pytest.raises(InvalidId):
        decode_id(doc_id)
    with pytest.raises(InvalidId):
        row_key_of(doc_id)


@pytest.mark.parametrize(
    "groups",
    [
        "00",  # zero
        "8000",  # zero again
        "8100",  # 1 in two bytes
        "91ce00",  # 10001 in three
        "ffffffff10",  # 2**32 and more
        "ffffffff1f",
        "ffffffffff",  # goes on
        "9191",
        "4e91",  # ends early
    ],
)
def test_a_table_number_has_one_spelling_and_32_bits(groups: str) -> None:
    forged = spelled(bytes.fromhex(groups) + bytes(16))

    with pytest.raises(InvalidId, match="its table number"):
        decode_id(forged)


@pytest.mark.parametrize("table_number", [1, 300_000, 2**28, 2**32 - 1])
def test_bits_that_fill_up_the_last_character_are_zero(table_number: int) -> None:
    doc_id = encode_id(table_number, bytes(16))
    last = ALPHABET.index(doc_id[-1])

    with pytest.raises(InvalidId):
        decode_id(doc_id[:-1] + ALPHABET[last + 1])


@given(st.text(max_size=40) | st.text(ALPHABET, min_size=31, max_size=37))
def test_any_text_is_an_id_in_its_one_spelling_or_refused(text: str) -> None:
    try:
        table_number, internal = decode_id(text)
    except InvalidId:
        return
    assert text == encode_id(table_number, internal)


@given(st.binary(min_size=19, max_size=24))
def test_any_bytes_with_the_right_checksum_are_an_id_in_its_one_spelling_or_refused(
    body: bytes,
) -> None:
    text = spelled(body)

    try:
        table_number, internal = decode_id(text)
    except InvalidId:
        return
    assert text == encode_id(table_number, internal)


def test_the_error_shows_what_it_was_given_but_not_all_of_it() -> None:
    with pytest.raises(InvalidId, match=r"^'hello' is no document id: ids are strings of 31 to 37"):
        decode_id("hello")
    with pytest.raises(InvalidId) as caught:
        decode_id("x" * 10_000)
    assert len(str(caught.value)) < 200


# Row keys


@given(TABLE_NUMBER, INTERNAL)
def test_row_keys_and_ids_give_each_other(table_number: int, internal: bytes) -> None:
    key = row_key(table_number, internal)

    assert table_number.to_bytes(4, "big") + internal == key
    assert key == row_key_of(id_of(key))
    assert key == row_key_of(Id[Any](id_of(key)))


def test_the_memory_of_row_keys_is_bounded() -> None:
    for n in range(70_000):
        row_key_of(encode_id(10_001, n.to_bytes(16, "big")))

    assert len(ids._row_keys) <= 65_536
    assert row_key(10_001, bytes(16)) == row_key_of(encode_id(10_001, bytes(16)))


def test_internal_ids_begin_with_their_time_and_end_with_their_day() -> None:
    internal = make_internal(1_763_665_912_345, bytes(range(8)))

    assert (1_763_665_912_345).to_bytes(6, "big") + bytes(range(8)) + (20_412).to_bytes(
        2, "big"
    ) == internal


@given(st.lists(st.tuples(st.integers(0, 2**42), st.binary(min_size=8, max_size=8)), max_size=5))
def test_documents_lie_in_the_order_of_their_creation(made: list[tuple[int, bytes]]) -> None:
    keys = [row_key(10_001, make_internal(*one)) for one in made]

    assert [row_key(10_001, make_internal(*one)) for one in sorted(made)] == sorted(keys)


# Types


class Message(TypedDict):
    """Its annotations are strings, as the first import of this module makes them."""

    channel: Id[Literal["channels"]]
    parent: NotRequired[Id[Message]]


def test_an_id_is_annotated_with_the_class_or_the_name_of_its_table() -> None:
    hints = typing.get_type_hints(Message)

    assert (Literal["channels"],) == typing.get_args(hints["channel"])
    assert (Message,) == typing.get_args(hints["parent"])
    assert [Id, Id] == [typing.get_origin(hint) for hint in hints.values()]


def test_annotations_that_are_no_strings_resolve_too() -> None:
    def send(channel: object, parent: object, named: object) -> None: ...

    by_name: str = "channels"
    send.__annotations__ = {
        "channel": Id.__class_getitem__(by_name),
        "parent": Id[Message] | None,
        "named": "Id['channels']",
    }

    hints = typing.get_type_hints(send)

    assert (Literal["channels"],) == typing.get_args(hints["channel"])
    assert (Id[Message], type(None)) == typing.get_args(hints["parent"])
    assert (Literal["channels"],) == typing.get_args(hints["named"])


def test_at_run_time_an_id_is_a_string() -> None:
    doc_id = Id[Message]("j57000820c20a1g7104gm2rc1m70ynr8")

    assert isinstance(doc_id, str)
    assert "j57000820c20a1g7104gm2rc1m70ynr8" == doc_id
    assert (10_001, bytes(range(16))) == decode_id(doc_id)


def test_threads_look_up_what_others_have_just_read() -> None:
    doc_ids = [encode_id(10_001, n.to_bytes(16, "big")) for n in range(120_000)]
    keys = [row_key(10_001, n.to_bytes(16, "big")) for n in range(120_000)]

    def look(first: int) -> None:
        for n in range(first, len(doc_ids), 4):
            remember(doc_ids[n : n + 1], keys[n : n + 1])
            assert keys[n - 1] == row_key_of(doc_ids[n - 1])

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(4) as threads:
            for each in [threads.submit(look, first) for first in range(4)]:
                each.result()
    finally:
        sys.setswitchinterval(interval)
