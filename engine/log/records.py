"""
Log records: how a commit is spelled on disk, and how one is checked.

    record = CRC-32 of the body (4 bytes, big-endian) ‖ body
    body   = CBOR array [ts, epoch, kind, covered, state_hash, previous,
                         path, component, request_id, code, args, identity, seed, now_ns,
                         row key, image before, image after, row key, ...]

It is flat, because each array inside it would take as long to write as three of
its items.  The images are encoded documents or null.  `covered` says what a
backfill, drop or trim is about, and is null for the others; `path` to `now_ns`
are the source.
`state_hash` is the sum, modulo 2**128, of the hashes of all rows as they are
after this record, so two states are equal when their sums are.  `previous` is
the hash of the record before this one: BLAKE2b, 16 bytes, of its body.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Final

from engine.errors import StoreDamaged
from engine.model.cbor import NULL, add_items, bytes_head, encode_name
from engine.model.codec import decode, encode
from engine.model.commits import Kind, RowWrite, Source

HASH_BYTES: Final = 16
GENESIS: Final = bytes(HASH_BYTES)
_STATE_MASK: Final = (1 << 128) - 1
_SOURCE_AT: Final = 6
_WRITES_AT: Final = _SOURCE_AT + len(Source._fields)


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One transaction as the log keeps it."""

    ts: int
    epoch: int
    kind: Kind
    writes: Sequence[RowWrite]
    covered: Sequence[Any]
    source: Source
    state_hash: int
    previous: bytes
    hash: bytes


def ts_key(ts: int) -> bytes:
    """The key of a record in the log tree; keys rise with timestamps."""
    return ts.to_bytes(8, "big")


def row_hash(key: bytes, image: bytes) -> int:
    """One row's share of the state hash."""
    return int.from_bytes(blake2b(key + image, digest_size=HASH_BYTES).digest(), "big")


def next_state_hash(state_hash: int, writes: Iterable[RowWrite]) -> int:
    """The state hash after `writes`: old rows leave the sum, new ones join it."""
    for write in writes:
        key, before, after = write.key, write.before, write.after
        if before is not None:
            state_hash -= row_hash(key, before)
        if after is not None:
            state_hash += row_hash(key, after)
    return state_hash & _STATE_MASK


def encode_record(
    *,
    ts: int,
    epoch: int,
    kind: Kind,
    writes: Sequence[RowWrite],
    covered: Sequence[Any] = (),
    source: Source,
    state_hash: int,
    previous: bytes,
) -> tuple[bytes, bytes]:
    """Return the record's bytes and its hash."""
    # Put together here, because most of it is bytes already: the encoder takes twice as long.
    path, component, request_id, code, args, identity, seed, now_ns = source
    parts = [
        _FRONT.pack(_ARRAY, _WRITES_AT + 3 * len(writes), _UINT, ts, _UINT, epoch, kind),
        encode(list(covered)) if covered else NULL,
        _HASH_HEAD,
        state_hash.to_bytes(HASH_BYTES, "big"),
        _HASH_HEAD,
        previous,
        encode_name(path),
        encode_name(component),
        encode(request_id),
        encode_name(code),
        encode(args),
        NULL if identity is None else encode(identity),
        _BACK.pack(_UINT, seed, _UINT, now_ns),
    ]
    for write in writes:
        add_items(parts, (write.key, write.before, write.after))
    body = b"".join(parts)
    digest = blake2b(body, digest_size=HASH_BYTES).digest()
    return zlib.crc32(body).to_bytes(4, "big") + body, digest


# Heads of CBOR items: an array with its length in 4 bytes, and an unsigned integer of 8.
_ARRAY: Final = 0x9A
_UINT: Final = 0x1B
_FRONT: Final = struct.Struct(">BIBQBQB")
_BACK: Final = struct.Struct(">BQBQ")
_HASH_HEAD: Final = bytes_head(HASH_BYTES)


def decode_record(data: bytes) -> Record:
    """
    Read one record.

    Raises:
        StoreDamaged: the checksum or the shape is wrong.
    """
    body = data[4:]
    if zlib.crc32(body) != int.from_bytes(data[:4], "big"):
        raise StoreDamaged("a log record's checksum does not match its bytes; restore a backup")
    fields = decode(body)
    images = fields[_WRITES_AT:] if _is_record(fields) else None
    if images is None or not _are_writes(images):
        raise StoreDamaged("a log record has a shape that is not known here; restore a backup")
    ts, epoch, kind, covered, state_hash, previous = fields[:_SOURCE_AT]
    return Record(
        ts=ts,
        epoch=epoch,
        kind=Kind(kind),
        writes=list(map(RowWrite, images[::3], images[1::3], images[2::3])),
        covered=covered or (),
        source=Source(*fields[_SOURCE_AT:_WRITES_AT]),
        state_hash=int.from_bytes(state_hash, "big"),
        previous=previous,
        hash=blake2b(body, digest_size=HASH_BYTES).digest(),
    )


_NONE: Final = type(None)
_TYPES: Final[tuple[type | tuple[type, ...], ...]] = (
    *(int, int, int, (list, _NONE), bytes, bytes),
    *(str, str, str, str, (dict, _NONE), (dict, _NONE), int, int),
)
"""Of what comes before the writes."""
assert len(_TYPES) == _WRITES_AT
_KINDS: Final = frozenset(Kind)
_KEY: Final = frozenset((bytes,))
_IMAGE: Final = frozenset((bytes, _NONE))


def _is_record(fields: Any) -> bool:
    return (
        type(fields) is list
        and len(fields) >= _WRITES_AT
        and all(isinstance(field, kind) for field, kind in zip(fields, _TYPES, strict=False))
        and fields[2] in _KINDS
    )


def _are_writes(images: list[Any]) -> bool:
    return (
        len(images) % 3 == 0
        and _KEY.issuperset(map(type, images[::3]))
        and _IMAGE.issuperset(map(type, images))
    )
