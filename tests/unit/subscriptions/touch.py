"""Read sets and commits in miniature: two indexes, a few rows, keys of a byte or two."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from hypothesis import strategies as st

from engine.model.reads import Content, Interval, ReadSet

INDEXES = (b"\x00\x00\x00\x01", b"\x00\x00\x00\x02")


@dataclass(frozen=True, slots=True, kw_only=True)
class Touch:
    """A commit, as far as a read set is concerned."""

    ts: int
    rows: frozenset[bytes] = frozenset()
    entries: Mapping[bytes, Collection[bytes]] = field(default_factory=dict)
    """Old and new keys by index."""

    @property
    def indexes(self) -> Collection[bytes]:
        return self.entries.keys()

    def keys(self, index_prefix: bytes) -> Collection[bytes]:
        return self.entries[index_prefix]

    def contents(self, index_prefix: bytes) -> Collection[tuple[bytes, Content]]:
        assert index_prefix in self.entries
        return ()

    def slices(self, index_prefix: bytes) -> Iterator[None]:
        yield from (None for _ in self.entries[index_prefix])


def reads_of(
    points: Iterable[bytes] = (), ranges: Iterable[tuple[bytes, Interval]] = ()
) -> ReadSet:
    reads = ReadSet()
    for row in points:
        reads.add_point(row)
    for prefix, (lower, upper) in ranges:
        reads.add_range(prefix, lower, upper)
    return reads


def moved(ts: int, old: bytes, new: bytes, *, index: bytes = INDEXES[0]) -> Touch:
    """A commit that moved one row from one key of an index to another."""
    return Touch(ts=ts, rows=frozenset({b"row"}), entries={index: [old, new]})


def overlaps(reads: ReadSet, commit: Touch) -> bool:
    """Whether `commit` touches `reads`: every key against every interval, and nothing clever."""
    return any(row in commit.rows for row in reads.points) or any(
        lower <= key and (upper is None or key < upper)
        for prefix, intervals in reads.ranges.items()
        for lower, upper in intervals
        for key in commit.entries.get(prefix, ())
    )


KEYS = st.binary(max_size=2).map(lambda key: bytes(byte % 4 for byte in key))
INTERVALS: st.SearchStrategy[Interval] = st.tuples(KEYS, st.none() | KEYS)
READS = st.builds(
    reads_of,
    points=st.sets(KEYS, max_size=3),
    ranges=st.lists(st.tuples(st.sampled_from(INDEXES), INTERVALS), max_size=3),
)
ENTRIES = st.dictionaries(st.sampled_from(INDEXES), st.lists(KEYS, max_size=3))


def touches(ts: int) -> st.SearchStrategy[Touch]:
    return st.builds(Touch, ts=st.just(ts), rows=st.frozensets(KEYS, max_size=2), entries=ENTRIES)
