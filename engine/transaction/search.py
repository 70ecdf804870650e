"""
Text search: documents that hold at least one of the terms, best first.

The first sixteen words of the query are terms; a document matches when it holds one of them,
or a word that begins with the last, and every filter field has its value.
Documents are scored with BM25 over the whole table (`indexes/text/scoring.py`), exactly as of the
view, own writes included; of equal ones the newer is first.

An index that is kept in memory answers.  Where there is none yet, or its files are damaged, or no
numpy is installed, the table is read in full: the answer is the same, and takes as long as that.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Collection, Generator, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple, NoReturn, TypeVar, cast

from engine.errors import IndexNotFound, InvalidRange, InvalidValue, LimitExceeded, NotAllowed
from engine.indexes.catalog import IndexInfo, IndexKind, TableInfo
from engine.indexes.entries import refuse_unreadable
from engine.indexes.text.asked import TextSought, sought
from engine.indexes.text.scoring import idf, score
from engine.indexes.text.words import counted_in_steps, value_hash, words_of
from engine.model.ids import row_key_of
from engine.model.keys import encode_key
from engine.model.limits import (
    SEARCH_CANDIDATES_MAX,
    SEARCH_FILTERS_MAX,
    SEARCH_TERMS_MAX,
)
from engine.model.values import UNDEFINED, get_path, normalize, strictly_equal
from engine.transaction.ranges import shown
from engine.transaction.scan import Plan, Scan
from engine.transaction.transaction import Reading, Transaction

if TYPE_CHECKING:  # they have numpy
    from engine.indexes.text.index import OwnTexts, TextIndex
    from engine.indexes.text.ranking import Found

Doc = dict[str, Any]
T = TypeVar("T")

SLICE_DOCS: Final = 64
"""Found documents that are read at a time, where it is not known how many are wanted."""
SLICE_BYTES: Final = 1 << 16
"""Of documents that are read at a time while no index answers: with their words, some two
milliseconds."""


def growing() -> Iterator[int]:
    """
    How many documents to read at a time for somebody who may stop at any of them.

    As many as before and one more: whoever stops has read less than twice what it has seen.
    """
    return (min(2**n, SLICE_DOCS) for n in itertools.count())


@dataclass(slots=True)
class SearchBuilder:
    """The `s` of `with_search_index(name, lambda s: ...)`."""

    searched: tuple[str, str] | None = None
    equal: list[tuple[str, Any]] = field(default_factory=list)
    """All of them hold, also two of one field."""

    def search(self, field: str, text: str, /) -> SearchBuilder:
        if self.searched is not None:
            raise InvalidRange("a search has one search(field, text)")
        if not isinstance(text, str):
            raise InvalidValue(f"a search looks for the words of a text, not {shown(text)}")
        self.searched = (field, text)
        return self

    def eq(self, field: str, value: Any, /) -> SearchBuilder:
        if len(self.equal) == SEARCH_FILTERS_MAX:
            raise InvalidRange(
                f"a search has at most {SEARCH_FILTERS_MAX} filters (SEARCH_FILTERS_MAX); "
                "look through what it finds with .where"
            )
        self.equal.append((field, UNDEFINED if value is UNDEFINED else normalize(value)))
        return self

    def _refuse(self, *_args: Any) -> NoReturn:
        raise InvalidRange(
            "a search has search(field, text) and eq(field, value); whatever else has to hold is "
            "looked at behind it, as in .filter(lambda q: q.gt(q.field('stars'), 3))"
        )

    gt = gte = lt = lte = neq = _refuse

    @property
    def spelled(self) -> list[Any]:
        """All of it as values, for fingerprints."""
        equal = sorted((name, encode_key([value])) for name, value in self.equal)
        return [self.searched, equal]

    @property
    def text(self) -> str:
        """As people write it: `search body for "hello", author = "ada"`."""
        named = [f"{name} = {shown(value)}" for name, value in self.equal]
        if self.searched is not None:
            named.insert(0, f"search {self.searched[0]} for {shown(self.searched[1])}")
        return ", ".join(named)


NOT_READY: Final = (
    "The search index {name!r} does not answer yet, so this search reads the whole table: "
    "`headrace index list` tells how far it is, or that what it needs is not installed"
)


class Match(NamedTuple):
    """A document that was found."""

    rank: tuple[float, float, bytes]
    """As `ranking.Found`: the greatest is the best."""
    doc: Doc

    @property
    def internal(self) -> bytes:
        return self.rank[2]


def search(
    transaction: Transaction,
    table: TableInfo | None,
    index_name: str,
    asked: SearchBuilder,
    reading: Reading | None = None,
    *,
    wanted: int | None = None,
    given: Collection[bytes] = (),
    among: Sequence[bytes] | None = None,
    sizes: Iterator[int] | None = None,
) -> Iterator[Sequence[Match]]:
    """
    Matching documents, best first, some at a time, and none now and then while they are looked for.

    Which they are, and in which order, is as when the first are asked for.  Each is as it is when
    it is given, and left out if this transaction has deleted it meanwhile.

    Words after the first `SEARCH_TERMS_MAX` are not looked for, of which a log line warns.

    Args:
        reading: where it is noted what was read; what is returned of it is the caller's to say.
        wanted: how many the caller takes, if it takes all that it is given.
        given: internal ids of what the caller has; these are left out, and count as looked at.
        among: internal ids of documents; no others are given, and all of these that match.
        sizes: how many to read at a time.

    Raises:
        NotAllowed: in the past.
        IndexNotFound: the table has no such search index.
        InvalidRange: the expression does not fit the index.
        LimitExceeded: the caller goes on after `SEARCH_CANDIDATES_MAX`, and there is more.
    """
    if transaction.view.is_as_of:
        raise NotAllowed(
            f"the search index {index_name!r} cannot be used as of a ts: text is searched in the "
            "newest state only; read a range with with_index, and look through it with .where"
        )
    if table is None:
        return
    index = _search_index(table, index_name)
    words = _check(index, asked)
    if not words:
        return
    transaction.usage.note("SEARCH_TERMS_MAX", len(words), SEARCH_TERMS_MAX)
    looked_for = sought(words[:SEARCH_TERMS_MAX], _filters(index, asked))
    transaction.reads.add_search(index.prefix, looked_for)
    live = transaction.view.live(index)
    sizes = sizes or itertools.repeat(wanted or SLICE_DOCS)
    if live is None:
        matches = yield from _by_reading(transaction, table, index, looked_for, asked, reading)
        if among is not None:
            own = set(among)
            matches = [one for one in matches if one.internal in own]
        yield from _as_of_now(transaction, matches, asked, given, sizes)
        return
    transaction.usage.count_range()
    transaction.reads.rankings[index.prefix] = live
    one = _Search(transaction, table, cast("TextIndex", live), looked_for, asked, reading)
    if among is None:
        yield from one.matches(wanted, given, sizes)
    else:
        yield from one.matches_among(among, sizes)


def _search_index(table: TableInfo, name: str) -> IndexInfo:
    index = table.indexes.get(name)
    if index is None or index.kind is not IndexKind.SEARCH:
        declared = table.names(IndexKind.SEARCH)
        raise IndexNotFound(
            f"the table {table.name!r} has no search index {name!r}; it has {declared or 'none'}. "
            f"One is declared with .search_index({name!r}, search_field=...) in the schema."
        )
    refuse_unreadable(table, index)
    return index


def _check(index: IndexInfo, asked: SearchBuilder) -> list[str]:
    if asked.searched is None:
        raise InvalidRange("a search needs search(field, text)")
    searched, text = asked.searched
    if searched != index.options["search_field"]:
        raise InvalidRange(
            f"the index {index.name!r} searches {index.options['search_field']!r}, not {searched!r}"
        )
    for name, _ in asked.equal:
        if name not in index.options["filter_fields"]:
            raise InvalidRange(
                f"{name!r} is no filter field of {index.name!r}; "
                f"it has {list(index.options['filter_fields'])}"
            )
    return words_of(text)


def _filters(index: IndexInfo, asked: SearchBuilder) -> tuple[tuple[int, int], ...]:
    fields = list(index.options["filter_fields"])
    return tuple(sorted((fields.index(name), value_hash(value)) for name, value in asked.equal))


def _passes(doc: Doc, asked: SearchBuilder) -> bool:
    return all(strictly_equal(get_path(doc, n), value) for n, value in asked.equal)


def _over() -> LimitExceeded:
    return LimitExceeded(
        "SEARCH_CANDIDATES_MAX",
        SEARCH_CANDIDATES_MAX + 1,
        SEARCH_CANDIDATES_MAX,
        "documents found by a search",
        "Take fewer, look for rarer words, or narrow it with filter fields.",
    )


class _Search:
    """A search of an index that answers."""

    def __init__(
        self,
        transaction: Transaction,
        table: TableInfo,
        index: TextIndex,
        looked_for: TextSought,
        asked: SearchBuilder,
        reading: Reading | None,
    ) -> None:
        self._transaction = transaction
        self._table = table
        self._index = index
        self._looked_for = looked_for
        self._asked = asked
        self._reading = reading

    def matches(
        self, wanted: int | None, given: Collection[bytes], sizes: Iterator[int]
    ) -> Iterator[Sequence[Match]]:
        """As `search`."""
        seen = set(given)
        count = SEARCH_CANDIDATES_MAX + 1
        if wanted is not None:
            count = min(count, len(seen) + max(1, wanted))
        while True:
            found = yield from self._ranked(count)
            others = [one for one in found if one.internal not in seen]
            allowed = others[: SEARCH_CANDIDATES_MAX - len(seen)]
            yield from self._read(allowed, sizes)
            if len(allowed) < len(others):
                raise _over()
            if len(found) < count:
                return
            seen.update(one.internal for one in allowed)
            count = SEARCH_CANDIDATES_MAX + 1

    def matches_among(
        self, internals: Sequence[bytes], sizes: Iterator[int]
    ) -> Iterator[Sequence[Match]]:
        """As `search`, of some documents."""
        found = yield from self._ranked(SEARCH_CANDIDATES_MAX, internals)
        yield from self._read(found, sizes)

    def _ranked(
        self, count: int, among: Sequence[bytes] | None = None
    ) -> Generator[Sequence[Match], None, list[Found]]:
        """The best `count`, of all documents or of some."""
        transaction = self._transaction
        began = transaction.view.clock()
        steps = self._index.search(
            transaction.view.begin_ts,
            self._looked_for,
            documents=transaction.size(self._table),
            wanted=count,
            own=cast("list[OwnTexts]", transaction.own(self._index)),
            among=among,
        )
        for found in steps:
            if found is not None:
                transaction.view.count_search(IndexKind.SEARCH.value, began)
                return found
            yield ()
        raise AssertionError("the last step has what was found")

    def _read(self, found: Sequence[Found], sizes: Iterator[int]) -> Iterator[Sequence[Match]]:
        """The documents of what was found, so many at a time."""
        rows = self._table.row_prefix
        for some in _slices(found, sizes):
            docs = self._transaction.found(self._index.info, [rows + one.internal for one in some])
            there = [Match(one, doc) for one, doc in zip(some, docs, strict=True) if doc]
            if self._reading is not None:
                self._reading.read += len(there)
            if self._asked.equal:  # by the values, and not by their hashes
                there = [match for match in there if _passes(match.doc, self._asked)]
            yield there


def _slices(items: Sequence[T], sizes: Iterator[int]) -> Iterator[Sequence[T]]:
    start = 0
    while start < len(items):
        some = items[start : start + next(sizes)]
        yield some
        start += len(some)


def _by_reading(
    transaction: Transaction,
    table: TableInfo,
    index: IndexInfo,
    looked_for: TextSought,
    asked: SearchBuilder,
    reading: Reading | None,
) -> Generator[Sequence[Match], None, list[Match]]:
    """All that match, by every document of the table, while no index answers."""
    scan = Scan(transaction, Plan(index=table.indexes["by_id"]), SLICE_DOCS, SLICE_BYTES)
    candidates = _Candidates(looked_for)
    while not scan.is_exhausted:
        try:
            docs = scan.read(None)
        except LimitExceeded as error:
            error.args = (f"{error} {NOT_READY.format(name=index.name)}",)
            raise
        if reading is not None:
            reading.read += len(docs)
        for doc in docs:
            words = yield from _counted(get_path(doc, index.options["search_field"]))
            candidates.add(doc, words, _passes(doc, asked))
        yield ()
    return candidates.ranked()


def _as_of_now(
    transaction: Transaction,
    matches: Sequence[Match],
    asked: SearchBuilder,
    given: Collection[bytes],
    sizes: Iterator[int],
) -> Iterator[Sequence[Match]]:
    """As `search`, of all that match."""
    seen = set(given)
    others = [one for one in matches if one.internal not in seen]
    allowed = others[: SEARCH_CANDIDATES_MAX - len(seen)]
    for some in _slices(allowed, sizes):
        now = [transaction.own_row(row_key_of(one.doc["_id"])) for one in some]
        there = [Match(one.rank, doc) for one, doc in zip(some, now, strict=True) if doc]
        yield [match for match in there if _passes(match.doc, asked)]
    if len(allowed) < len(others):
        raise _over()


def _counted(text: Any) -> Generator[Sequence[Match], None, Counter[str]]:
    steps = counted_in_steps(text)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return cast("Counter[str]", end.value)
        yield ()


class _Candidates:
    """Documents that match, and the statistics of the whole table that score them."""

    def __init__(self, looked_for: TextSought) -> None:
        self._looked_for = looked_for
        self._found: list[tuple[Doc, dict[str, int], int]] = []
        self._frequency: Counter[str] = Counter()
        self._documents = 0
        self._length = 0

    def add(self, doc: Doc, words: Counter[str], passes: bool) -> None:
        length = words.total()
        self._documents += 1
        self._length += length
        looked_for = self._looked_for
        found = {
            word: count
            for word, count in words.items()
            if word in looked_for.words or looked_for.is_alike(word)
        }
        self._frequency.update(found.keys())
        if passes and found:
            self._found.append((doc, found, length))

    def ranked(self) -> list[Match]:
        average = self._length / max(1, self._documents)
        idfs = {word: idf(self._documents, n) for word, n in self._frequency.items()}
        matches = []
        for doc, found, length in self._found:
            weights = self._looked_for.weights(found)
            counted = [(weight * idfs[word], found[word]) for word, weight in weights]
            internal = row_key_of(doc["_id"])[4:]
            rank = (score(counted, length, average), float(doc["_creationTime"]), internal)
            matches.append(Match(rank, doc))
        return sorted(matches, key=lambda match: match.rank, reverse=True)
