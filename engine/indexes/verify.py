"""
Verify: is what is on disk what was written?

    chain     every record's checksum, that it continues the record before it, from the first
              on, and that its state hash follows from its writes
    sum       the rows, hashed again, against the state hash of the last record
    indexes   the entries that the documents should have, against those that are there

It reads one snapshot in slices, so that whoever runs it can let others run
between them; nothing is changed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Final

from engine.errors import EngineError, StoreDamaged
from engine.indexes.catalog import Catalog, IndexInfo, IndexKind, IndexState, TableInfo
from engine.indexes.entries import entry_key, stored
from engine.indexes.recovery import recover
from engine.log.records import GENESIS, decode_record, next_state_hash, row_hash
from engine.model.codec import decode
from engine.store.interface import Snapshot, Tree

SLICE_ROWS: Final = 2_000
_MASK: Final = (1 << 128) - 1


@dataclass(slots=True)
class Findings:
    """What was looked at, and everything that is wrong with it."""

    ts: int = 0
    records: int = 0
    rows: int = 0
    entries: int = 0
    problems: list[str] = field(default_factory=list)

    @property
    def is_sound(self) -> bool:
        return not self.problems


def verify(snapshot: Snapshot) -> Iterator[Findings]:
    """Check a snapshot; yields what was found so far after every slice, and at the end."""
    found = Findings()
    try:
        head = recover(snapshot)
    except EngineError as error:
        found.problems.append(str(error))
        yield found
        return
    found.ts = head.ts
    yield from _check_chain(snapshot, found)
    yield from _check_rows(snapshot, head.state_hash, found)
    yield from _check_entries(snapshot, head.catalog, found)
    yield found


def _check_chain(snapshot: Snapshot, found: Findings) -> Iterator[Findings]:
    previous: bytes | None = GENESIS
    state_hash: int | None = 0
    for key, data in snapshot.range(Tree.LOG, b"", None):
        try:
            record = decode_record(data)
        except StoreDamaged as error:
            found.problems.append(f"record {int.from_bytes(key, 'big')}: {error}")
            previous = state_hash = None
            continue
        if previous is not None and record.previous != previous:
            found.problems.append(f"record {record.ts} does not continue the record before it")
        if state_hash is not None and record.state_hash != next_state_hash(
            state_hash, record.writes
        ):
            found.problems.append(
                f"record {record.ts} has a state hash that its writes do not give"
            )
        if record.ts != int.from_bytes(key, "big"):
            found.problems.append(f"record {record.ts} is filed under another timestamp")
        previous, state_hash = record.hash, record.state_hash
        found.records += 1
        if found.records % SLICE_ROWS == 0:
            yield found


def _check_rows(snapshot: Snapshot, state_hash: int, found: Findings) -> Iterator[Findings]:
    total = 0
    for key, image in snapshot.range(Tree.ROWS, b"", None):
        total += row_hash(key, image)
        found.rows += 1
        if found.rows % SLICE_ROWS == 0:
            yield found
    if total & _MASK != state_hash:
        found.problems.append("the rows are not those that the log's state hash stands for")


def _check_entries(snapshot: Snapshot, catalog: Catalog, found: Findings) -> Iterator[Findings]:
    """Compare sums of entry hashes, index by index: equal sets have equal sums."""
    for table in catalog.by_number.values():
        complete = [i for i, _, _ in table.maintained if i.state is not IndexState.BACKFILLING]
        expected = dict.fromkeys((index.prefix for index in complete), 0)
        counts = dict.fromkeys(expected, 0)
        documents = snapshot.range(Tree.ROWS, *_span(table.row_prefix))
        for rows, (key, image) in enumerate(documents, 1):
            doc = decode(image)
            for index in complete:
                expected[index.prefix] += _entry_hash(index, doc, key)
                counts[index.prefix] += 1
            if rows % SLICE_ROWS == 0:
                yield found
        for index in complete:
            yield from _compare(snapshot, table, index, expected, counts, found)
    known = {i.prefix for t in catalog.by_number.values() for i in t.indexes.values()}
    yield from _check_strays(snapshot, known, found)


def _compare(
    snapshot: Snapshot,
    table: TableInfo,
    index: IndexInfo,
    expected: dict[bytes, int],
    counts: dict[bytes, int],
    found: Findings,
) -> Iterator[Findings]:
    total, count = 0, 0
    for key, value in snapshot.range(Tree.ENTRIES, *_span(index.prefix)):
        total += _hash(key, value)
        count += 1
        if count % SLICE_ROWS == 0:
            yield found
    found.entries += count
    if (total, count) != (expected[index.prefix], counts[index.prefix]):
        found.problems.append(
            f"the index {table.name}.{index.name} has {count} entries "
            f"for {counts[index.prefix]} documents, or other ones than they should have"
        )


def _check_strays(snapshot: Snapshot, known: set[bytes], found: Findings) -> Iterator[Findings]:
    lower = b""
    while True:
        first = next(snapshot.range(Tree.ENTRIES, lower, None), None)
        if first is None:
            return
        prefix = first[0][:4]
        if prefix not in known:
            found.problems.append(f"there are entries of an index {prefix.hex()} that is unknown")
        lower = _span(prefix)[1]
        yield found


def _span(prefix: bytes) -> tuple[bytes, bytes]:
    return prefix, (int.from_bytes(prefix, "big") + 1).to_bytes(4, "big")


def _entry_hash(index: IndexInfo, doc: dict[str, object], row: bytes) -> int:
    assert index.kind is IndexKind.RANGE, "only these have entries"
    return _hash(*stored(index.prefix, entry_key(index, doc, row[4:])))


def _hash(key: bytes, value: bytes) -> int:
    digest = blake2b(key + value, digest_size=16).digest()
    return int.from_bytes(digest, "big")
