"""
Text search: documents that hold at least one of the terms, best first.

The first sixteen words of the query are terms; a document matches when it holds one of them,
or a word that begins with the last, and every filter field has its value.
Documents are scored with BM25 (Robertson and Zaragoza, "The Probabilistic
Relevance Framework", 2009; k1 = 1.2, b = 0.75) over the whole table.  The table
is read in full, so an answer is exact at its snapshot, own writes included.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from engine.errors import IndexNotFound, InvalidRange, NotAllowed
from engine.indexes.catalog import IndexInfo, IndexKind, TableInfo
from engine.indexes.entries import refuse_unreadable
from engine.model.limits import SEARCH_FILTERS_MAX, SEARCH_TERM_BYTES_MAX, SEARCH_TERMS_MAX
from engine.model.values import UNDEFINED, get_path, normalize, strictly_equal
from engine.transaction.ranges import shown
from engine.transaction.scan import Plan, Scan
from engine.transaction.transaction import Reading, Transaction

Doc = dict[str, Any]

_K1: Final = 1.2
_B: Final = 0.75
_PREFIX_WEIGHT: Final = 0.5


@dataclass(slots=True)
class SearchBuilder:
    """The `s` of `with_search_index(name, lambda s: ...)`."""

    searched: tuple[str, str] | None = None
    equal: dict[str, Any] = field(default_factory=dict)

    def search(self, field: str, text: str, /) -> SearchBuilder:
        if self.searched is not None:
            raise InvalidRange("a search has one search(field, text)")
        self.searched = (field, text)
        return self

    def eq(self, field: str, value: Any, /) -> SearchBuilder:
        if len(self.equal) == SEARCH_FILTERS_MAX:
            raise InvalidRange(
                f"a search has at most {SEARCH_FILTERS_MAX} filters (SEARCH_FILTERS_MAX); "
                "look through what it finds with .where"
            )
        self.equal[field] = UNDEFINED if value is UNDEFINED else normalize(value)
        return self

    @property
    def text(self) -> str:
        """As people write it: `search body for "hello", author = "ada"`."""
        named = [f"{name} = {shown(value)}" for name, value in self.equal.items()]
        if self.searched is not None:
            named.insert(0, f"search {self.searched[0]} for {shown(self.searched[1])}")
        return ", ".join(named)


def terms_of(text: str) -> list[str]:
    """The words of a text, in lower case; very long ones are left out."""
    words = "".join(c if c.isalnum() else " " for c in text).split()
    return [word.lower() for word in words if len(word.encode()) < SEARCH_TERM_BYTES_MAX]


def search(
    transaction: Transaction,
    table: TableInfo | None,
    index_name: str,
    asked: SearchBuilder,
    reading: Reading | None = None,
) -> Iterator[Doc | None]:
    """
    Matching documents, best first; `None` now and then while the table is read.

    Words after the first `SEARCH_TERMS_MAX` are not looked for, of which a log line warns.

    Args:
        reading: where it is noted what was read; what is returned of it is the caller's to say.

    Raises:
        NotAllowed: in the past.
        IndexNotFound: the table has no such search index.
        InvalidRange: the expression does not fit the index.
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
    words = words[:SEARCH_TERMS_MAX]
    scan = Scan(transaction, Plan(index=table.indexes["by_id"]), slice_rows_max=256)
    matches = _Matches(words)
    while not scan.is_exhausted:
        docs = scan.read(None)
        if reading is not None:
            reading.read += len(docs)
        for doc in docs:
            text = get_path(doc, index.options["search_field"])
            matches.add(doc, text if isinstance(text, str) else "", _passes(doc, asked))
        yield None
    yield from matches.ranked()


def _search_index(table: TableInfo, name: str) -> IndexInfo:
    index = table.indexes.get(name)
    if index is None or index.kind is not IndexKind.SEARCH:
        declared = [i.name for i in table.indexes.values() if i.kind is IndexKind.SEARCH]
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
    for name in asked.equal:
        if name not in index.options["filter_fields"]:
            raise InvalidRange(
                f"{name!r} is no filter field of {index.name!r}; "
                f"it has {list(index.options['filter_fields'])}"
            )
    return terms_of(text)


def _passes(doc: Doc, asked: SearchBuilder) -> bool:
    return all(strictly_equal(get_path(doc, n), value) for n, value in asked.equal.items())


class _Matches:
    """Candidates, and the statistics of the whole table that score them."""

    def __init__(self, words: list[str]) -> None:
        self._exact = list(dict.fromkeys(words))
        self._prefix = words[-1]
        self._candidates: list[tuple[Doc, Counter[str], int]] = []
        self._frequency: Counter[str] = Counter()
        self._documents = 0
        self._length = 0

    def add(self, doc: Doc, text: str, passes: bool) -> None:
        terms = terms_of(text)
        self._documents += 1
        self._length += len(terms)
        found = Counter(t for t in terms if t in self._exact or t.startswith(self._prefix))
        self._frequency.update(found.keys())
        if passes and found:
            self._candidates.append((doc, found, len(terms)))

    def ranked(self) -> Iterator[Doc]:
        average = self._length / max(1, self._documents)
        scored = [
            (self._score(found, length, average), doc["_creationTime"], doc["_id"], doc)
            for doc, found, length in self._candidates
        ]
        scored.sort(key=lambda item: item[:3], reverse=True)
        return (doc for *_, doc in scored)

    def _score(self, found: Counter[str], length: int, average: float) -> float:
        score = 0.0
        for term, count in found.items():
            n = self._frequency[term]
            idf = math.log(1 + (self._documents - n + 0.5) / (n + 0.5))
            weight = 1.0 if term in self._exact else _PREFIX_WEIGHT
            norm = _K1 * (1 - _B + _B * length / average)
            score += weight * idf * count * (_K1 + 1) / (count + norm)
        return score
