"""What becomes of bytes on their way to us: bits flip, ends are missing, pieces come twice."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Final

MUTANTS: Final = 40
"""Of one seed. Hypothesis makes the seed, and the bytes they come from."""

_CLAIMS: Final = [0, 1, 23, 255, 2**16 - 1, 2**31, 2**32 - 1, 2**40, 2**63, 2**64 - 1]
CBOR_PIECES: Final = [
    *(
        bytes([kind | 27]) + claim.to_bytes(8, "big")
        for kind in range(0, 256, 32)
        for claim in _CLAIMS
    ),
    *(bytes([kind | 26]) + (2**31 - 1).to_bytes(4, "big") for kind in range(0, 256, 32)),
    *(bytes([kind | 31]) for kind in range(0, 256, 32)),  # of a length to be seen, and its end
    b"\x1c\x3d\x5e\x7f",
    b"\x81" * 100,
    b"\xa1\x60" * 100,
    b"\x9f" * 100,
    b"\xd9\x9c\x80" * 3,
    b"\xa2\x61a\x01\x61a\x02",  # a name twice
    b"\xa1\x01\x02",  # a name that is a number
    b"\x18\x01",  # a small number in two bytes
    b"\x63\xed\xa0\x80",  # half a surrogate pair
    b"\x62\xc3\x28",
    b"\xf8\x05\xf8\xff\xf7\xe0\xf9\x7e\x01\xfa\x7f\xc0\x00\x01",
    b"\xc2\x49" + b"\xff" * 9,
    b"\xd8\x1c\x81\xd8\x1d\x00",  # an array that holds itself
]
JSON_PIECES: Final = [
    *(
        b"[" * 2_000,
        b'{"a":' * 2_000,
        b"9" * 5_000,
        b"1e999",
        b"-1e-999",
        b"-0",
        b"NaN",
        b"1e",
        b"0x1",
    ),
    *(b'"\\ud800"', b'"\\u0000"', b'"\\x"', b"\xff", b"\xed\xa0\x80", b"\xef\xbb\xbf", b"\x00"),
    *(b'{"$integer":"AAAAAAAAAAA="}', b'{"$integer":"AA=="}', b'{"$float":"AAAAAAAA+H8="}'),
    *(b'{"$float":"AAAAAAAA8D8="}', b'{"$bytes":"A==="}', b'{"$bytes":5}', b'{"$set":[]}'),
    *(b'{"$commitTs":null}', b'{"$undefined":null}', b'{"$":1}', b'{"$integer":1,"a":1}'),
    *(
        b'{"a":1,"a":2}',
        b'{"\\n":1}',
        b'{"":1}',
        b'"type":',
        b'"type":"Connect"',
        b"null",
        b",",
        b"]",
    ),
]


def mutants(origin: bytes, seed: int, pieces: list[bytes]) -> Iterator[bytes]:
    """
    Neighbours of `origin`, which is among them.

    Args:
        pieces: what is sure to be looked at closely.
    """
    dice = random.Random(seed)
    yield origin
    for _ in range(MUTANTS):
        yield tampered(origin, dice, pieces)


def tampered(origin: bytes, dice: random.Random, pieces: list[bytes]) -> bytes:
    """One neighbour of `origin`."""
    data = bytearray(origin)
    for _ in range(dice.randint(1, 3)):
        dice.choice(_CHANGES)(data, dice, pieces)
    return bytes(data)


def _flip(data: bytearray, dice: random.Random, _: list[bytes]) -> None:
    if data:
        data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)


def _overwrite(data: bytearray, dice: random.Random, _: list[bytes]) -> None:
    if data:
        data[dice.randrange(len(data))] = dice.choice([0, 1, 0x7F, 0x80, 0xFF, dice.randrange(256)])


def _cut(data: bytearray, dice: random.Random, _: list[bytes]) -> None:
    at = dice.randint(0, len(data))
    del data[at : dice.choice([len(data), at + dice.randint(0, 9)])]


def _insert(data: bytearray, dice: random.Random, pieces: list[bytes]) -> None:
    at = dice.randint(0, len(data))
    data[at:at] = dice.choice([dice.choice(pieces), dice.randbytes(dice.randint(0, 9))])


def _splice(data: bytearray, dice: random.Random, _: list[bytes]) -> None:
    start, end = sorted(dice.randint(0, len(data)) for _ in range(2))
    at = dice.randint(0, len(data))
    data[at:at] = data[start:end] * dice.choice([1, 1, 2, 50])


_CHANGES: Final[list[Callable[[bytearray, random.Random, list[bytes]], None]]] = [
    _flip,
    _overwrite,
    _cut,
    _insert,
    _splice,
]
