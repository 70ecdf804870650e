"""
Document ids: a table number and 16 bytes, as a short string.

`Id[Message]` is the type of an id of one table; at run time an id is any `str`.
The string is base32 of the table number (in bytes of 7 bits), the 16 internal
bytes and a checksum, so a mistyped or truncated id is refused before anything
is read.  In the store a document is found by its row key: the table number in
4 bytes and the internal bytes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from typing import Final, Generic, Literal, TypeVar
from zlib import adler32

from engine.errors import InvalidId

T = TypeVar("T")

INTERNAL_BYTES: Final = 16
ROW_KEY_BYTES: Final = 4 + INTERNAL_BYTES
TABLE_NUMBER_MAX: Final = 2**32 - 1
DAY_MS: Final = 86_400_000

_FOOTER_BYTES: Final = 2
_CACHED_IDS_MAX: Final = 65_536
_SLICES_MAX: Final = 64


class Id(str, Generic[T]):
    """
    The id of a document of table `T`; a `str` at run time.

    `T` is the `TypedDict` of the table's documents, or `Literal["messages"]`
    where there is none; `Id["messages"]` means the latter.
    """

    __slots__ = ()

    def __class_getitem__(cls, table: object) -> object:
        if isinstance(table, str):
            # typing would take the name for a class yet to be defined.
            table = Literal[table]
        return super().__class_getitem__(table)  # type: ignore[misc]


def encode_id(table_number: int, internal: bytes) -> str:
    """The id of the document with these 16 internal bytes in table `table_number`."""
    body = _varint(table_number) + internal
    assert len(internal) == INTERNAL_BYTES, "an internal id has 16 bytes"
    return _base32(body + _footer(body))


def encode_ids(table_number: int, internals: Sequence[bytes]) -> list[str]:
    """The ids of several documents of a table, in half of the time that `encode_id` takes."""
    head = _varint(table_number)
    if len(head) != 2:
        return [encode_id(table_number, internal) for internal in internals]
    found: list[str] = []
    for start in range(0, len(internals), _AT_ONCE):
        bodies = [head + internal for internal in internals[start : start + _AT_ONCE]]
        found += _base32_each([body + _footer(body) for body in bodies])
    return found


def decode_id(doc_id: object) -> tuple[int, bytes]:
    """
    Table number and internal id.

    Raises:
        InvalidId: `doc_id` is no string that `encode_id` returns.
    """
    if not isinstance(doc_id, str) or len(doc_id) not in _SPARE_BITS:
        raise _invalid(doc_id, "ids are strings of 31 to 37 letters and digits")
    spare_bits = _SPARE_BITS[len(doc_id)]
    try:
        number = int(doc_id.encode("ascii").translate(_DIGITS), 32)
    except ValueError:
        raise _invalid(doc_id, "it has characters that no id has") from None
    binary = (number >> spare_bits).to_bytes(len(doc_id) * 5 // 8, "big")
    body = binary[:-_FOOTER_BYTES]
    if _footer(body) != binary[-_FOOTER_BYTES:] or number & ((1 << spare_bits) - 1):
        raise _invalid(doc_id, "its checksum is wrong, so it was mistyped or cut")
    table_number = _read_varint(body[:-INTERNAL_BYTES])
    if table_number is None:
        raise _invalid(doc_id, "its table number is spelled as none is")
    return table_number, body[-INTERNAL_BYTES:]


def row_key(table_number: int, internal: bytes) -> bytes:
    """Where the document is in the tree of rows: sorted by table, then by internal id."""
    return table_number.to_bytes(4, "big") + internal


def row_key_of(doc_id: str) -> bytes:
    """
    The row key of the document with this id.

    Raises:
        InvalidId: `doc_id` is no string that `encode_id` returns.
    """
    try:
        return _row_keys[doc_id]
    except (KeyError, TypeError):
        pass
    if _just_read:
        with suppress(IndexError):  # for another thread may take the last
            while True:
                _keep(*_just_read.popleft())
    key = _row_keys.get(doc_id) if isinstance(doc_id, str) else None
    if key is None:
        key = row_key(*decode_id(doc_id))
        _keep((doc_id,), (key,))
    return key


def remember(doc_ids: Sequence[str], row_keys: Sequence[bytes]) -> None:
    """
    Spare `row_key_of` the ids of documents that were just read, in case it is asked for them next.

    Args:
        doc_ids: as `encode_id` returns them.
        row_keys: theirs, in the same order.
    """
    _just_read.append((doc_ids, row_keys))


def _keep(doc_ids: Sequence[str], row_keys: Sequence[bytes]) -> None:
    if len(_row_keys) >= _CACHED_IDS_MAX:
        _row_keys.clear()
    _row_keys.update(zip(doc_ids, row_keys, strict=True))


def id_of(row_key: bytes) -> str:
    """The id of the document at `row_key`."""
    assert len(row_key) == ROW_KEY_BYTES, "a row key has 20 bytes"
    return encode_id(int.from_bytes(row_key[:4], "big"), row_key[4:])


def make_internal(unix_ms: int, random8: bytes) -> bytes:
    """
    The internal bytes of a new document.

    They begin with the time, so that documents inserted together lie together
    in every tree; the dice make them unguessable, the day ends them as it ends
    the ids of other implementations.

    Args:
        unix_ms: milliseconds since 1970, until the year 2149.
        random8: 8 random bytes.
    """
    assert len(random8) == 8, "8 random bytes"
    day = unix_ms // DAY_MS
    return unix_ms.to_bytes(6, "big") + random8 + day.to_bytes(2, "big")


_row_keys: Final[dict[str, bytes]] = {}
_just_read: Final[deque[tuple[Sequence[str], Sequence[bytes]]]] = deque(maxlen=_SLICES_MAX)
"""Not in `_row_keys` before one of them is missed there: most scans ask for no id."""


def _invalid(doc_id: object, why: str) -> InvalidId:
    shown = repr(doc_id) if isinstance(doc_id, str) else f"a {type(doc_id).__name__}"
    return InvalidId(f"{shown[:60]} is no document id: {why}")


def _footer(body: bytes) -> bytes:
    """
    Fletcher-16 with modulus 256.

    Adler-32 has the same two sums where it begins with 0; its modulus is not reached by 21 bytes.
    """
    sums = adler32(body, 0)
    return ((sums & 0xFF) << 8 | sums >> 16 & 0xFF).to_bytes(2, "big")


def _varint(number: int) -> bytes:
    """Groups of 7 bits, the lowest first; the high bit says that more follow."""
    assert 0 < number <= TABLE_NUMBER_MAX, "a table number has 1 to 32 bits"
    if 0x80 <= number < 0x4000:
        return bytes([number & 0x7F | 0x80, number >> 7])
    groups = bytearray()
    while number >= 0x80:
        groups.append(number & 0x7F | 0x80)
        number >>= 7
    groups.append(number)
    return bytes(groups)


def _read_varint(groups: bytes) -> int | None:
    """The number, or None if `_varint` writes no such groups."""
    if len(groups) == 2 and groups[0] >= 0x80 > groups[1] > 0:
        return groups[0] & 0x7F | groups[1] << 7
    number = 0
    for place, group in enumerate(groups):
        number |= (group & 0x7F) << (7 * place)
    if not 0 < number <= TABLE_NUMBER_MAX or _varint(number) != groups:
        return None
    return number


# Base32, with integers instead of loops: int() reads it once the letters are Python's own, and
# it is written by spreading groups of 5 bits over bytes, halving the groups five times.

_ALPHABET: Final = b"0123456789abcdefghjkmnpqrstvwxyz"
_LETTERS: Final = _ALPHABET.ljust(256, b"\0")
_DIGITS: Final = bytes(
    b"0123456789abcdefghijklmnopqrstuv"[_ALPHABET.index(c)] if c in _ALPHABET else ord("!")
    for c in range(256)
)
_SPARE_BITS: Final = {
    (8 * size + 4) // 5: -8 * size % 5
    for size in range(1 + INTERNAL_BYTES + _FOOTER_BYTES, 6 + INTERNAL_BYTES + _FOOTER_BYTES)
}
"""Length of an id -> zero bits that fill up its last character."""


def _halves(ones: int, every: int) -> tuple[int, int]:
    """Masks for 64 characters of the lower and the upper half of runs of `ones` bits."""
    lower = sum(((1 << ones // 2) - 1) << at for at in range(0, 8 * 64, every))
    return lower, lower << ones // 2


_LOW_160, _HIGH_160 = _halves(320, 512)
_LOW_80, _HIGH_80 = _halves(160, 256)
_LOW_40, _HIGH_40 = _halves(80, 128)
_LOW_20, _HIGH_20 = _halves(40, 64)
_LOW_10, _HIGH_10 = _halves(20, 32)
_LOW_5, _HIGH_5 = _halves(10, 16)


_AT_ONCE: Final = 16
_LANE: Final = bytes(32 - 20)
"""What is put before 20 bytes, so that their 32 letters take the place of both."""
_LANES: Final = [
    tuple(sum((mask & ((1 << 256) - 1)) << 256 * lane for lane in range(_AT_ONCE)) for mask in pair)
    for pair in (
        _halves(160, 256),
        _halves(80, 128),
        _halves(40, 64),
        _halves(20, 32),
        _halves(10, 16),
    )
]


def _base32_each(binaries: Sequence[bytes]) -> list[str]:
    """The same of several with 20 bytes each, side by side in one number."""
    number = int.from_bytes(_LANE + _LANE.join(binaries), "big")
    for shift, (lower, upper) in zip((48, 24, 12, 6, 3), _LANES, strict=True):
        number = number & lower | (number & upper) << shift
    letters = number.to_bytes(32 * len(binaries), "big").translate(_LETTERS).decode()
    return [letters[at : at + 32] for at in range(0, len(letters), 32)]


def _base32(binary: bytes) -> str:
    length = (8 * len(binary) + 4) // 5
    number = int.from_bytes(binary, "big") << (-8 * len(binary) % 5)
    if length > 32:
        number = number & _LOW_160 | (number & _HIGH_160) << 96
    number = number & _LOW_80 | (number & _HIGH_80) << 48
    number = number & _LOW_40 | (number & _HIGH_40) << 24
    number = number & _LOW_20 | (number & _HIGH_20) << 12
    number = number & _LOW_10 | (number & _HIGH_10) << 6
    number = number & _LOW_5 | (number & _HIGH_5) << 3
    return number.to_bytes(length, "big").translate(_LETTERS).decode()
