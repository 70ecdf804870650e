"""
Buckets: the entries whose fields are too long for the store's keys, put in order.

The store has the entries of a bucket in the order of digests, so that whoever
reads a part of one, and be it the first entry, walks all of it.  A transaction
walks each bucket once, and keeps it for its next slice.  What was walked counts
as read; what is handed out is counted by whoever gets it, and no longer here.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from typing import Final, Protocol

from engine.errors import LimitExceeded
from engine.indexes.entries import bucket_of, entry_key_of
from engine.model.keys import increment
from engine.model.limits import ENTRY_HEAD_BYTES
from engine.store.interface import Snapshot, Tree

ADVICE: Final = (
    f"Values of an index that begin alike for {ENTRY_HEAD_BYTES} bytes are all read to put them in"
    " order, unless every field is compared with eq. Use eq, or an index that begins with a"
    " shorter field."
)


class Meter(Protocol):
    """Counts what is read against the limits of a function."""

    def count_read(self, size: int, /, advice: str = ...) -> None:
        """
        Raises:
            LimitExceeded: it is too much.
        """

    def uncount_read(self, size: int, /) -> None:
        """Take back what `count_read` has counted, or has refused."""


class Buckets:
    """
    The buckets that one transaction has walked, in one snapshot.

    Args:
        meter: counts the walks; None where nothing is bounded.
    """

    def __init__(self, meter: Meter | None) -> None:
        self._meter = meter
        self._walked: dict[bytes, _Bucket] = {}

    def entries(
        self,
        store: Snapshot,
        stored_key: bytes,
        lower: bytes,
        upper: bytes | None,
        *,
        reverse: bool,
    ) -> Iterator[bytes]:
        """
        Entry keys from `lower` to `upper`, exclusive, in order, of the bucket of a stored key.

        Raises:
            LimitExceeded: there is more to walk than may be read.
        """
        head = bucket_of(stored_key)
        bucket = self._walked.get(head)
        if bucket is None:
            bucket = self._walked[head] = _Bucket(self._walk(store, head))
        for key in bucket.between(lower, upper, reverse=reverse):
            if bucket.counted and self._meter is not None:
                bucket.counted -= 1
                self._meter.uncount_read(len(key))
            yield key

    def _walk(self, store: Snapshot, head: bytes) -> list[bytes]:
        keys = []
        for stored_key, rest in store.range(Tree.ENTRIES, head, increment(head)):
            key = entry_key_of(stored_key, rest)
            if self._meter is not None:
                _count(self._meter, len(key))
            keys.append(key)
        return keys


class _Bucket:
    def __init__(self, keys: list[bytes]) -> None:
        self._keys = sorted(keys)
        self.counted = len(keys)
        """Entries that the walk has counted and that nobody was handed since."""

    def between(self, lower: bytes, upper: bytes | None, *, reverse: bool) -> Iterator[bytes]:
        keys = self._keys
        first = bisect_left(keys, lower)
        end = len(keys) if upper is None else bisect_left(keys, upper)
        places = range(first, end)
        return (keys[at] for at in (reversed(places) if reverse else places))


def _count(meter: Meter, size: int) -> None:
    try:
        meter.count_read(size, ADVICE)
    except LimitExceeded:
        meter.uncount_read(size)
        raise
