"""
Which records of the log may go, and what must be kept of them: the anchor.

The anchor is where the chain begins that is left: timestamp and hash of the last record that
went, and the state hash after it.  `verify` begins there, and no read goes further back.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import Any, Final, NamedTuple

from engine.errors import StoreDamaged
from engine.log.records import GENESIS, HASH_BYTES, decode_record, ts_key
from engine.model.codec import decode, encode
from engine.store.interface import Snapshot, Tree

ANCHOR_NAME: Final = b"anchor"
SLICE_RECORDS: Final = 500
"""Of one trim: a few milliseconds of the writer."""
SLICE_BYTES: Final = 16 << 20
"""Of one trim: these are read, and everybody waits meanwhile."""


class Anchor(NamedTuple):
    """The end of what was trimmed: a record that is no more."""

    ts: int
    record_hash: bytes
    state_hash: int

    def fields(self) -> list[Any]:
        """As a record and the store have it."""
        return [self.ts, self.record_hash, self.state_hash.to_bytes(HASH_BYTES, "big")]


BEGINNING: Final = Anchor(0, GENESIS, 0)
"""Where nothing was trimmed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trim:
    """The oldest records, to be removed in one batch, and what then comes before the others."""

    keys: list[bytes]
    anchor: Anchor


def read_anchor(snapshot: Snapshot) -> Anchor:
    """
    Where the log of a store begins.

    Raises:
        StoreDamaged: what is noted of it is not what was written.
    """
    data = snapshot.get(Tree.META, ANCHOR_NAME)
    if data is None:
        return BEGINNING
    match decode(data):
        case [int(ts), bytes(record_hash), bytes(state_hash)]:
            return Anchor(ts, record_hash, int.from_bytes(state_hash, "big"))
    raise StoreDamaged("where the log begins cannot be read; restore a backup")


def encode_anchor(anchor: Anchor) -> bytes:
    return encode(anchor.fields())


def next_trim(
    snapshot: Snapshot, *, before_ts: int, excess_bytes: int, floor_ts: int
) -> Trim | None:
    """
    The next slice of records that are to go, oldest first; `None` if there are none.

    Args:
        before_ts: records earlier than this are too old.
        excess_bytes: records of so many bytes are too many.
        floor_ts: records from here on stay, whatever their age and number.
    """
    keys: list[bytes] = []
    last = b""
    size = 0
    for key, data in islice(snapshot.range(Tree.LOG, b"", ts_key(floor_ts)), SLICE_RECORDS):
        if excess_bytes <= 0 and int.from_bytes(key, "big") >= before_ts:
            break
        keys.append(key)
        last = data
        excess_bytes -= len(key) + len(data)
        size += len(data)
        if size >= SLICE_BYTES:
            break
    if not keys:
        return None
    record = decode_record(last)
    return Trim(keys=keys, anchor=Anchor(record.ts, record.hash, record.state_hash))
