"""What is staged of an index is in order and as of a timestamp, whatever came and went."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from itertools import product
from typing import NamedTuple, TypeAlias
from unittest.mock import patch

from hypothesis import given, settings
from hypothesis import strategies as st

from engine.committer.staged import Staged, StagedCommit
from engine.indexes.catalog import Catalog, IndexInfo

INDEX = IndexInfo(index_id=7, name="by_key", table_number=1, fields=())
KEYS = st.integers(0, 3).map(lambda number: b"%02d" % number)

Entries: TypeAlias = list[tuple[bytes, bytes | None]]


class Add(NamedTuple):
    entries: Entries


class Drop(NamedTuple):
    commits: int


class Read(NamedTuple):
    lower: bytes
    upper: bytes | None

    def holds(self, key: bytes) -> bool:
        return self.lower <= key and (self.upper is None or key < self.upper)


STEPS = st.lists(
    st.builds(
        Add, st.lists(st.tuples(KEYS, st.sampled_from([None, b"a", b"b"])), min_size=1, max_size=3)
    )
    | st.builds(Drop, st.integers(1, 3))
    | st.builds(Read, KEYS, st.none() | KEYS),
    max_size=100,
)


def commit(ts: int, entries: Entries) -> StagedCommit:
    return StagedCommit(
        ts,
        [],
        Catalog.of_system(),
        "m:f",
        changes=[(INDEX.prefix, key, row) for key, row in entries],
        record=b"",
        record_hash=b"",
        state_hash=0,
        counts={},
        size_bytes=0,
        trim=None,
        on_publish=None,
    )


@settings(max_examples=300)
@given(STEPS)
def test_a_range_holds_the_newest_version_of_each_key_that_is_kept(
    steps: list[Add | Drop | Read],
) -> None:
    staged = Staged()
    kept: deque[tuple[int, Entries]] = deque()
    ts = 0
    with patch("engine.committer.staged.DROPPED_MAX", -1):
        for step in steps:
            match step:
                case Add(entries):
                    ts += 1
                    staged.add(commit(ts, entries))
                    kept.append((ts, entries))
                case Drop(commits):
                    for _ in range(min(commits, len(kept))):
                        staged.drop_through(kept.popleft()[0])
                case Read(lower, upper):
                    for upto, reverse in product(range(ts + 1), (False, True)):
                        found = staged.entries(INDEX, lower, upper, reverse=reverse, upto=upto)
                        assert list(found) == expected(kept, step, upto, reverse)


def expected(kept: Iterable[tuple[int, Entries]], read: Read, upto: int, reverse: bool) -> Entries:
    newest = {
        key: row for ts, entries in kept for key, row in entries if ts <= upto and read.holds(key)
    }
    return sorted(newest.items(), reverse=reverse)
