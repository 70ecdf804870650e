"""Read sets and commits in miniature: two indexes, a few rows, keys of a byte or two."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from hypothesis import strategies as st

from engine.model.reads import Content, Interval, ReadSet, Sought

INDEXES = (b"\x00\x00\x00\x01", b"\x00\x00\x00\x02")


SEARCHED = b"\x00\x00\x00\x03"
"""An index of texts, each of which is some words."""


@dataclass(frozen=True, slots=True)
class Text:
    hooks: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Word:
    """A search for one."""

    word: str

    @property
    def hooks(self) -> Collection[str]:
        return [self.word]

    def holds(self, content: Text, /) -> bool:
        return self.word in content.hooks


@dataclass(slots=True)
class Order:
    """Of what is found in the index of texts."""

    changed_ts: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Touch:
    """A commit, as far as a read set is concerned."""

    ts: int
    rows: frozenset[bytes] = frozenset()
    entries: Mapping[bytes, Collection[bytes]] = field(default_factory=dict)
    """Old and new keys by index."""
    texts: tuple[Text, ...] = ()
    """Old and new ones of the index of texts."""

    @property
    def indexes(self) -> Collection[bytes]:
        return [*self.entries, *([SEARCHED] if self.texts else [])]

    def keys(self, index_prefix: bytes) -> Collection[bytes]:
        return self.entries[index_prefix]

    def contents(self, index_prefix: bytes) -> Collection[tuple[bytes, Content]]:
        assert index_prefix in self.indexes
        return [(b"", text) for text in self.texts] if index_prefix == SEARCHED else []

    def slices(self, index_prefix: bytes) -> Iterator[None]:
        yield from (None for _ in self.entries.get(index_prefix, ()))


def reads_of(
    points: Iterable[bytes] = (),
    ranges: Iterable[tuple[bytes, Interval]] = (),
    searches: Iterable[Sought] = (),
) -> ReadSet:
    reads = ReadSet()
    for row in points:
        reads.add_point(row)
    for prefix, (lower, upper) in ranges:
        reads.add_range(prefix, lower, upper)
    for sought in searches:
        reads.add_search(SEARCHED, sought)
    return reads


def moved(ts: int, old: bytes, new: bytes, *, index: bytes = INDEXES[0]) -> Touch:
    """A commit that moved one row from one key of an index to another."""
    return Touch(ts=ts, rows=frozenset({b"row"}), entries={index: [old, new]})


def overlaps(reads: ReadSet, commit: Touch) -> bool:
    """Whether `commit` touches `reads`: every key against every interval, and nothing clever."""
    return (
        any(row in commit.rows for row in reads.points)
        or any(
            lower <= key and (upper is None or key < upper)
            for prefix, intervals in reads.ranges.items()
            for lower, upper in intervals
            for key in commit.entries.get(prefix, ())
        )
        or any(
            sought.holds(text)
            for sought in reads.searches.get(SEARCHED, ())
            for text in commit.texts
        )
    )


KEYS = st.binary(max_size=2).map(lambda key: bytes(byte % 4 for byte in key))
INTERVALS: st.SearchStrategy[Interval] = st.tuples(KEYS, st.none() | KEYS)
WORDS = st.sampled_from("xyz")
READS = st.builds(
    reads_of,
    points=st.sets(KEYS, max_size=3),
    ranges=st.lists(st.tuples(st.sampled_from(INDEXES), INTERVALS), max_size=3),
    searches=st.lists(st.builds(Word, WORDS), max_size=2),
)
TEXTS = st.lists(st.builds(Text, st.tuples(WORDS) | st.tuples(WORDS, WORDS)), max_size=2)
ENTRIES = st.dictionaries(st.sampled_from(INDEXES), st.lists(KEYS, max_size=3))


def touches(ts: int) -> st.SearchStrategy[Touch]:
    return st.builds(
        Touch,
        ts=st.just(ts),
        rows=st.frozensets(KEYS, max_size=2),
        entries=ENTRIES,
        texts=TEXTS.map(tuple),
    )
