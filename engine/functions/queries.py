"""
`ctx.db.query(...)`: built step by step, read when it is awaited.

    query(table) ─ with_index ─ order ─ filter, where ─ collect | take | first
                 └ with_search_index ──────┘            unique | paginate | async for
"""

from __future__ import annotations

import difflib
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from hashlib import blake2b
from inspect import iscoroutine
from math import inf
from typing import Any, Final, NoReturn, Self

from engine.app.contexts import Query, Range, TableQuery
from engine.errors import IndexNotFound, InvalidRange, InvalidValue, LimitExceeded, NotAllowed
from engine.functions.calls import Call, Calls, Steps
from engine.indexes.catalog import OF_EVERY_TABLE, IndexInfo, IndexKind, IndexState, TableInfo
from engine.indexes.entries import refuse_unreadable
from engine.model.codec import encode
from engine.model.identifiers import is_identifier, why_no_identifier
from engine.model.keys import encode_key, past
from engine.model.limits import DOCUMENT_BYTES_MAX, QUERY_FILTERS_MAX
from engine.model.text import brief
from engine.transaction.filters import Expression, FilterBuilder, predicate_of
from engine.transaction.pagination import (
    SPLIT_ITEMS,
    PageRequest,
    Position,
    encode_cursor,
    given_before,
    narrowed,
    read_options,
)
from engine.transaction.ranges import EVERYTHING, Bounds, interval_of
from engine.transaction.scan import Plan, Predicate, Scan
from engine.transaction.search import Match, SearchBuilder, growing, search
from engine.transaction.transaction import Reading, Transaction
from engine.transaction.usage import Usage

Doc = dict[str, Any]
Present = Callable[[Doc], Doc | None]

NO_ORDER: Final = "a search finds the best first, and has no other order"
NEAR: Final = 0.75
"""A page that used this part of a limit had better be split."""


class PaginationState:
    """The one pagination of a function: the journal it came with, and the one it leaves."""

    __slots__ = ("given", "used", "written")

    def __init__(self, journal: str | None) -> None:
        self.given = journal
        self.written: str | None = None
        self.used = False

    def begin(self) -> str | None:
        """
        The journal of a function that paginates now.

        Raises:
            NotAllowed: it has done so before.
        """
        if self.used:
            raise NotAllowed(
                "a function may paginate only one query; use two functions, or paginator(ctx.db)"
            )
        self.used = True
        return self.given


class RangeBuilder(Range):
    """The `r` of `with_index(name, lambda r: ...)`."""

    __slots__ = ("bounds",)

    def __init__(self) -> None:
        self.bounds = Bounds()

    def eq(self, field: str, value: Any, /) -> RangeBuilder:
        self.bounds.add_equal(field, value)
        return self

    def gt(self, field: str, value: Any, /) -> RangeBuilder:
        self.bounds.add_lower(field, value, inclusive=False)
        return self

    def gte(self, field: str, value: Any, /) -> RangeBuilder:
        self.bounds.add_lower(field, value, inclusive=True)
        return self

    def lt(self, field: str, value: Any, /) -> RangeBuilder:
        self.bounds.add_upper(field, value, inclusive=False)
        return self

    def lte(self, field: str, value: Any, /) -> RangeBuilder:
        self.bounds.add_upper(field, value, inclusive=True)
        return self


class QueryBuilder(Query[Any]):
    """
    A query that has been given what it needs; every step returns a new one.

    Args:
        component: whose table it is.
        owner: of a table that all components share, whose rows are read.
        present: what is shown of a row; nothing at all if it is `None`.
    """

    # What it is before any step; a step sets its own in the query that it returns.
    _index_name = "by_creation_time"
    _has_index = False
    _bounds: Bounds = EVERYTHING
    _reverse = False
    _has_order = False
    _predicates: tuple[Predicate, ...] = ()
    _texts: tuple[str, ...] = ()
    _search: SearchBuilder | None = None

    def __init__(
        self,
        transaction: Transaction,
        calls: Calls,
        *,
        component: str,
        table: str,
        pagination: PaginationState | None,
        slice_rows_max: int,
        owner: str | None = None,
        present: Present | None = None,
    ) -> None:
        self._transaction = transaction
        self._calls = calls
        self._component = component
        self._owner = owner
        self._table = table
        self._pagination = pagination
        self._slice_rows_max = slice_rows_max
        self._present = present

    # Steps

    def order(self, order: str, /) -> QueryBuilder:
        if order not in ("asc", "desc"):
            raise InvalidValue(f"order is 'asc' or 'desc', not {order!r}")
        if self._search is not None:
            raise InvalidRange(NO_ORDER)
        if self._has_order:
            raise InvalidRange("the order of this query is already set")
        changed = self._copy()
        changed._reverse = order == "desc"
        changed._has_order = True
        return changed

    def filter(self, expression: Callable[[Any], Any], /) -> QueryBuilder:
        built = expression(FilterBuilder())
        text = built.text if isinstance(built, Expression) else repr(built)
        return self._narrowed(predicate_of(built), text)

    def where(self, predicate: Callable[[Any], bool], /) -> QueryBuilder:
        marks = self._calls.marks

        def tested(doc: Doc) -> bool:
            marks.enter()
            try:
                answer: object = predicate(doc)
                if answer is True or answer is False:
                    return answer
                if iscoroutine(answer):
                    answer.close()
                    raise InvalidValue(
                        "the predicate of where() awaits; it has to answer at once: go through the "
                        "documents with `async for` to look at others for each"
                    )
                return bool(answer)
            finally:
                marks.leave()

        return self._narrowed(tested, "where")

    # Ends

    def collect(self) -> Call[list[Any]]:
        return self._calls.defer(lambda: self.read(None))

    def take(self, n: float, /) -> Call[list[Any]]:
        if isinstance(n, float) and n.is_integer():
            n = int(n)  # an argument annotated `float`
        if not isinstance(n, int) or isinstance(n, bool) or n < 0:
            raise InvalidValue(f"take needs a whole number that is not negative, not {n!r}")
        return self._calls.defer(lambda: self.read(n))

    def first(self) -> Call[Any]:
        return self._calls.defer(self._first)

    def unique(self) -> Call[Any]:
        return self._calls.defer(self._unique)

    def paginate(self, opts: Mapping[str, Any], /) -> Call[Any]:
        return self._calls.defer(lambda: self._paginate(opts))

    def __aiter__(self) -> AsyncIterator[Any]:
        return _Stream(self) if self._search is None else _SearchStream(self)

    def __await__(self) -> NoReturn:
        raise NotAllowed("a query is not awaited itself; end it: .collect(), .take(n), .first()")

    def __iter__(self) -> NoReturn:
        raise NotAllowed("write `async for`, or await .collect(): a query is read step by step")

    # Within

    def _copy(self) -> Self:
        changed = object.__new__(type(self))
        changed.__dict__.update(self.__dict__)  # as copy.copy, which takes five times as long
        return changed

    def _narrowed(self, predicate: Predicate, text: str) -> QueryBuilder:
        if len(self._predicates) == QUERY_FILTERS_MAX:
            raise InvalidRange(
                f"a query has at most {QUERY_FILTERS_MAX} filters (QUERY_FILTERS_MAX); "
                "put them into one function, for .where"
            )
        changed = self._copy()
        changed._predicates = (*self._predicates, predicate)
        changed._texts = (*self._texts, text)
        return changed

    def _plan(self) -> Plan:
        table = self._transaction.table(self._component, self._table)
        if table is None:
            _check_absent(self._table, self._index_name)
            return Plan(index=None)
        if table.is_system and self._index_name not in OF_EVERY_TABLE:
            raise IndexNotFound(
                f"{self._table!r} is a system table; it has by_id, by_creation_time"
            )
        is_as_of = self._transaction.view.is_as_of
        index = find_index(table, self._index_name, self._bounds, is_as_of=is_as_of)
        lower, upper = self._interval(index)
        return Plan(
            index=index,
            lower=lower,
            upper=upper,
            reverse=self._reverse,
            predicates=self._tests(),
            reading=self._reading(self._bounds, "desc" if self._reverse else "asc"),
        )

    def _interval(self, index: IndexInfo) -> tuple[bytes, bytes | None]:
        """What was asked for, of the rows of the owner where those lie together."""
        if self._owner is None or index.name != "by_creation_time":
            return interval_of(index, self._bounds)
        _component, *fields = index.fields
        lower, upper = interval_of(replace(index, fields=tuple(fields)), self._bounds)
        own = encode_key([self._owner])
        return own + lower, past(own) if upper is None else own + upper

    def _tests(self) -> tuple[Predicate, ...]:
        """What must hold of a row: that it is shown at all, and what was asked of what is shown."""
        present, asked = self._present, self._predicates
        if present is None:
            return asked

        def tested(doc: Doc) -> bool:
            shown = present(doc)
            return shown is not None and all(accepts(shown) for accepts in asked)

        return (tested,)

    def _reading(self, asked: Bounds | SearchBuilder, order: str) -> Reading | None:
        readings = self._transaction.readings
        if readings is None:
            return None
        reading = Reading(
            table=self._table,
            index=self._index_name,
            range=asked.text,
            order=order,
            filters=len(self._predicates),
        )
        readings.append(reading)
        return reading

    def _fingerprint(self, plan: Plan) -> bytes:
        """What a cursor is bound to: the query, and the fields of an index, which pushes change."""
        is_declared = plan.index is not None and plan.index.name not in OF_EVERY_TABLE
        query = [
            self._whose,
            self._table,
            self._index_name,
            plan.index.field_names if plan.index is not None and is_declared else [],
            self._bounds.spelled,
            self._reverse,
            list(self._texts),
        ]
        return blake2b(encode(query), digest_size=8).digest()

    def _search_fingerprint(self, asked: SearchBuilder) -> bytes:
        """What a cursor of a search is bound to; one that was a score is of none."""
        query = [
            self._component,
            self._table,
            self._index_name,
            asked.spelled,
            list(self._texts),
            "given",
        ]
        return blake2b(encode(query), digest_size=8).digest()

    @property
    def _whose(self) -> str:
        return self._component if self._owner is None else self._owner

    def _place(self, plan: Plan) -> bytes:
        """What a cursor of a `paginator` is bound to: an index, and the order of reading it."""
        fields = [] if plan.index is None else plan.index.field_names
        place = [self._whose, self._table, self._index_name, fields, self._reverse]
        return blake2b(encode(place), digest_size=8).digest()

    def read(self, count: int | None) -> Steps[list[Any]]:
        """The documents that it finds: `count` of them, or all."""
        if self._search is not None:
            return self._shown((yield from self._searched(count)))
        found: list[Doc] = []
        scan = Scan(self._transaction, self._plan(), self._slice_rows_max)
        while not scan.is_exhausted and (count is None or len(found) < count):
            found += scan.read(None if count is None else count - len(found))
            yield from self._calls.breathe()
        return self._shown(found if count is None else found[:count])

    def _searched(self, count: int | None) -> Steps[list[Doc]]:
        matches: list[Match] = []
        yield from self._find(matches, count)
        return [match.doc for match in matches]

    def _find(self, found: list[Match], count: int | None, **how: Any) -> Steps[None]:
        """
        Add the best that the filters accept: `count` of them, or all.

        Args:
            how: as `search`.
        """
        if count == 0:
            return
        reading = self._reading_of_search()
        wanted = None if self._predicates else count
        for some in self._searching(reading, wanted=wanted, **how):
            yield from self._calls.breathe()
            for match in some:
                if not self._predicates or self._accepts(match.doc):
                    found.append(match)
                    if reading is not None:
                        reading.returned += 1
                    if len(found) == count:
                        return

    def _accepts(self, doc: Doc) -> bool:
        return all(accepts(doc) for accepts in self._predicates)

    def _searching(self, reading: Reading | None, **how: Any) -> Iterator[Sequence[Match]]:
        """As `search`."""
        assert self._search is not None, "it is a search"
        table = self._transaction.table(self._component, self._table)
        return search(self._transaction, table, self._index_name, self._search, reading, **how)

    def _reading_of_search(self) -> Reading | None:
        assert self._search is not None, "it is a search"
        return self._reading(self._search, "score")

    def _first(self) -> Steps[Any]:
        found = yield from self.read(1)
        return found[0] if found else None

    def _unique(self) -> Steps[Any]:
        found = yield from self.read(2)
        if len(found) > 1:
            raise InvalidValue(
                f"unique() query returned more than one result from table {self._table!r}: "
                f"{found[0]['_id']}, {found[1]['_id']}, ...; first() takes one of several"
            )
        return found[0] if found else None

    def _shown(self, docs: list[Doc]) -> list[Any]:
        if self._present is None:
            return docs
        return [shown for doc in docs if (shown := self._present(doc)) is not None]

    def _paginate(self, opts: Mapping[str, Any]) -> Steps[Any]:
        if self._search is not None:
            return (yield from self._paginate_search(self._search, opts))
        plan, state = self._plan(), self._pagination
        if state is None:
            fingerprint, journal = self._place(plan), None
        else:
            fingerprint, journal = self._fingerprint(plan), state.begin()
        request = read_options(opts, journal, fingerprint)
        page, position, status, split = yield from self._page(plan, request)
        cursor = encode_cursor(position, fingerprint)
        if state is not None:
            state.written = cursor
        return {
            "page": self._shown(page),
            "isDone": position.key is None,
            "continueCursor": cursor,
            "splitCursor": None if split is None else encode_cursor(split, fingerprint),
            "pageStatus": status,
        }

    def _paginate_search(self, asked: SearchBuilder, opts: Mapping[str, Any]) -> Steps[Any]:
        """A page of what is found: the best that no page before it has given."""
        state = self._pagination
        fingerprint = self._search_fingerprint(asked)
        request = read_options(opts, None if state is None else state.begin(), fingerprint)
        matches: list[Match] = []
        position = yield from self._fill(matches, request)
        cursor = encode_cursor(position, fingerprint)
        if state is not None:
            state.written = cursor
        return {
            "page": self._shown([match.doc for match in matches]),
            "isDone": position.key is None,
            "continueCursor": cursor,
            "splitCursor": None,
            "pageStatus": None,
        }

    def _fill(self, matches: list[Match], request: PageRequest) -> Steps[Position]:
        """
        Fill a page of a search.

        A page that has an end has what the pages up to there have given, and those before it have
        not, and that is still found.  What is found since is on a page that has none yet.

        Returns:
            where the page ends.
        """
        start, end = request.start, request.end
        if start is not None and start.key is None:
            return end or start
        before = given_before(start)
        if end is not None and end.key is not None:
            own = list(set(given_before(end)).difference(before))
            yield from self._find(matches, None, among=own)
            return end
        count = request.items if end is None else None
        is_over = False
        try:
            yield from self._find(matches, count, given=before)
        except LimitExceeded:
            if not matches:
                raise
            is_over = True
        if not is_over and len(matches) != count:
            return Position(None)
        return Position(b"".join([*before, *(match.internal for match in matches)]))

    def _page(
        self, plan: Plan, request: PageRequest
    ) -> Steps[tuple[list[Doc], Position, str | None, Position | None]]:
        usage = self._transaction.usage
        before_bytes = usage.bytes_read
        scan = Scan(
            self._transaction, narrowed(plan, request.start, request.end), self._slice_rows_max
        )
        found: list[Doc] = []
        status: str | None = None
        is_cut = False
        while not scan.is_exhausted and (request.end is not None or len(found) < request.items):
            size = usage.bytes_read - before_bytes
            if is_cut := _is_over(request, len(scan.keys), size):
                status = "SplitRequired"
                break
            wanted = None if request.end is not None else request.items - len(found)
            try:
                found += scan.read(wanted, _rows_left(request, len(scan.keys), size))
            except LimitExceeded:
                if not scan.keys:
                    raise
                is_cut, status = True, "SplitRequired"
                break
            yield from self._calls.breathe()
        position = self._position(scan, request, is_cut, len(found))
        size = usage.bytes_read - before_bytes
        if status is None and (_is_large(len(found), usage) or _is_near(request, scan, size)):
            status = "SplitRecommended"
        split = _split(scan)
        if is_cut and split is None and request.end is not None:
            split = Position(scan.keys[-1])
        return found, position, status, split

    def _position(self, scan: Scan, request: PageRequest, is_cut: bool, count: int) -> Position:
        if request.end is not None:
            return request.end  # also of a page that was cut: others begin where it ends
        if is_cut:
            return Position(scan.keys[-1])
        if scan.is_exhausted and count < request.items:
            return Position(None)
        if scan.keys:
            return Position(scan.keys[-1])
        return Position(None)


class TableQueryBuilder(QueryBuilder, TableQuery[Any]):
    """A query of a whole table, which may be given an index."""

    def with_index(
        self, name: str, bounds: Callable[[RangeBuilder], Any] | None = None, /, **equal: Any
    ) -> QueryBuilder:
        changed = self._chosen(name)
        builder = RangeBuilder()
        if bounds is not None:
            bounds(builder)
        for field, value in equal.items():
            builder.eq(field, value)
        changed._bounds = builder.bounds
        return changed

    def with_search_index(self, name: str, search: Callable[[Any], Any], /) -> QueryBuilder:
        if self._has_order:
            raise InvalidRange(NO_ORDER)
        if not callable(search):
            raise InvalidRange(
                "what is searched for is said by a function, as in "
                f"lambda s: s.search('body', text), not by {brief(repr(search))}"
            )
        changed = self._chosen(name)
        builder = SearchBuilder()
        search(builder)
        changed._search = builder
        return changed

    def full_table_scan(self) -> QueryBuilder:
        return self._chosen("by_creation_time")

    def _chosen(self, index_name: str) -> QueryBuilder:
        if self._has_index:
            raise InvalidRange(
                f"this query reads the index {self._index_name!r} already; it can have one only"
            )
        changed = self._copy()
        changed._index_name = index_name
        changed._has_index = True
        return changed


class _Stream(AsyncIterator[Any]):
    """
    A scan that is read a slice at a time, for `async for`.

    The first slice is one document, and each is as long as all before it and one more: a loop that
    is left early has read, and depends on, less than twice what it has seen.

    No generator: before Python 3.13 one that stands in a call is not closed with who awaits it.
    """

    def __init__(self, query: QueryBuilder) -> None:
        self._query = query
        self._scan: Scan | None = None
        self._wanted = 1
        self._docs: Iterator[Any] = iter(())

    async def __anext__(self) -> Any:
        for doc in self._docs:
            return doc
        self._docs = iter(await self._query._calls.defer(self._next_slice))
        for doc in self._docs:
            return doc
        raise StopAsyncIteration

    def _next_slice(self) -> Steps[list[Any]]:
        query = self._query
        if self._scan is None:
            self._scan = Scan(query._transaction, query._plan(), query._slice_rows_max)
        while not self._scan.is_exhausted:
            found = query._shown(self._scan.read(self._wanted))
            self._wanted = min(self._wanted * 2, query._slice_rows_max)
            yield from query._calls.breathe()
            if found:
                return found
        return []


class _SearchStream(_Stream):
    """
    As `_Stream`, of a search: it is ranked once, when the first document is asked for.

    What the loop writes meanwhile changes no order; what it deletes it does not meet.
    """

    _matches: Iterator[Sequence[Match]] | None = None

    def _next_slice(self) -> Steps[list[Any]]:
        query = self._query
        if self._matches is None:
            self._reading = query._reading_of_search()
            self._matches = query._searching(self._reading, sizes=growing())
        for some in self._matches:
            yield from query._calls.breathe()
            docs = [match.doc for match in some]
            found = [doc for doc in docs if query._accepts(doc)]
            if self._reading is not None:
                self._reading.returned += len(found)
            if found:
                return query._shown(found)
        return []


def _check_absent(table: str, index_name: str) -> None:
    """
    Make sure that a query of a table that is not there may find nothing.

    Raises:
        InvalidValue: no table is ever called like that.
        IndexNotFound: the schema that declares the index would have made the table.
    """
    if not is_identifier(table):
        raise InvalidValue(why_no_identifier(table, "a table"))
    if index_name not in OF_EVERY_TABLE:
        raise IndexNotFound(
            f"there is no table {table!r}, so it has no index {index_name!r}; "
            "add both to the schema, or correct the name"
        )


def find_index(table: TableInfo, name: str, bounds: Bounds, *, is_as_of: bool = False) -> IndexInfo:
    """
    The index of that name, ready for queries.

    Args:
        bounds: what is asked of it, for the index to declare where there is none.
        is_as_of: it is asked for in the past, where there is also what was dropped since.

    Raises:
        IndexNotFound: with the table's indexes, the closest name and the line to add.
    """
    index = table.indexes.get(name)
    if index is None:
        there = sorted(
            each for each, one in table.indexes.items() if one.state is not IndexState.DROPPING
        )
        close = difflib.get_close_matches(name, there, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise IndexNotFound(
            f"the table {table.name!r} has no index {name!r}; it has "
            f"{', '.join(there)}.{hint} "
            f"To add it: Table(...).index({name!r}, {bounds.fields or ['...']}) in the schema."
            f"{_NOR_THEN if is_as_of else ''}"
        )
    if index.kind not in (IndexKind.BY_ID, IndexKind.RANGE):
        use = "ctx.db.vector_search" if index.kind is IndexKind.VECTOR else "with_search_index"
        raise IndexNotFound(f"{name!r} is a {index.kind.value} index; use {use}")
    refuse_unreadable(table, index)
    return index


_NOR_THEN: Final = (
    " The past is read by the indexes that there are now and those that there were then; one that "
    "is added now serves all of the past."
)


def _is_over(request: PageRequest, rows: int, size: int) -> bool:
    if rows == 0:
        return False
    return (request.rows_max is not None and rows >= request.rows_max) or (
        request.bytes_max is not None and size >= request.bytes_max
    )


def _rows_left(request: PageRequest, rows: int, size: int) -> int | None:
    """How many rows may surely be read before it has to be asked again whether a page is over."""
    left = []
    if request.rows_max is not None:
        left.append(request.rows_max - rows)
    if request.bytes_max is not None:
        left.append((request.bytes_max - size) // DOCUMENT_BYTES_MAX)
    return max(1, min(left)) if left else None


def _is_near(request: PageRequest, scan: Scan, size: int) -> bool:
    """Whether a page came near the maxima that it was given."""
    return len(scan.keys) > NEAR * (request.rows_max or inf) or (
        size > NEAR * (request.bytes_max or inf)
    )


def _is_large(count: int, usage: Usage) -> bool:
    return (
        count > SPLIT_ITEMS
        or usage.documents_read > NEAR * usage.limits.documents_read_max
        or usage.bytes_read > NEAR * usage.limits.bytes_read_max
    )


def _split(scan: Scan) -> Position | None:
    """A place strictly inside the page, where two pages could meet."""
    return Position(scan.keys[len(scan.keys) // 2]) if len(scan.keys) > 2 else None
