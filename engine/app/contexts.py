"""
What handlers are given: the contexts, and the database behind `ctx.db`.

These classes promise; the engine has implementations of them.  Whatever reads
or writes is awaited, also where a transaction answers at once.  A context is
good for one run of one function: kept beyond that, it refuses to work.
"""

# ruff: noqa: A002 - an id is called `id`, a range `range`, a filter `filter`

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from inspect import isawaitable
from random import Random
from typing import (
    Any,
    ClassVar,
    Generic,
    Literal,
    ParamSpec,
    TypeAlias,
    TypeVar,
    Unpack,
    overload,
)
from uuid import UUID

from engine.app.annotations import Recipient
from engine.app.crons import Retry
from engine.app.references import (
    ActionReference,
    MutationReference,
    QueryReference,
    Reference,
)
from engine.app.registered import Kind, RegisteredFunction
from engine.app.types import (
    Cron,
    FunctionMetadata,
    Page,
    PaginationOptions,
    TransactionLimits,
    TransactionMetrics,
    UserIdentity,
    VectorHit,
)
from engine.model.ids import Id
from engine.model.limits import VECTOR_RESULTS
from engine.model.values import Int64, Value

P = ParamSpec("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)
D = TypeVar("D")
S = TypeVar("S")

Result: TypeAlias = Any
"""What a function returns that is named by a reference or a string."""
Expression: TypeAlias = Any
"""A filter expression: built with a `Filter`, or with Python's operators from other ones."""
Delay: TypeAlias = float | timedelta
"""Milliseconds, or a `timedelta`."""


# Registered functions, as type checkers see them.


class QueryFunction(RegisteredFunction, QueryReference[P, R_co]):
    """A registered query: reads, sees one moment of the database, and can be subscribed to."""

    kind = Kind.QUERY

    def __call__(
        self, ctx: QueryCtx, *args: P.args, **kwargs: P.kwargs
    ) -> Coroutine[Any, Any, R_co]:
        """Run the plain handler within the transaction of `ctx`, without validation."""
        return called(self, ctx, args, kwargs)


class MutationFunction(RegisteredFunction, MutationReference[P, R_co]):
    """A registered mutation: reads and writes, and all of it happens, or nothing."""

    kind = Kind.MUTATION

    def __call__(
        self, ctx: MutationCtx, *args: P.args, **kwargs: P.kwargs
    ) -> Coroutine[Any, Any, R_co]:
        """Run the plain handler within the transaction of `ctx`, without validation."""
        return called(self, ctx, args, kwargs)


class ActionFunction(RegisteredFunction, ActionReference[P, R_co]):
    """A registered action: may do anything, and reaches the database by calling the others."""

    kind = Kind.ACTION

    def __call__(
        self, ctx: ActionCtx, *args: P.args, **kwargs: P.kwargs
    ) -> Coroutine[Any, Any, R_co]:
        """Run the plain handler with `ctx`, without validation."""
        return called(self, ctx, args, kwargs)


def called(
    function: RegisteredFunction, ctx: object, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Coroutine[Any, Any, Any]:
    """A coroutine that gives the handler's result, whether it is an `async def` or not."""
    if function.is_async:
        running: Coroutine[Any, Any, Any] = function.handler(ctx, *args, **kwargs)
        return running
    return _settled(function, ctx, args, kwargs)


async def _settled(
    function: RegisteredFunction, ctx: object, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    result = function.handler(ctx, *args, **kwargs)
    return await result if isawaitable(result) else result


@dataclass(frozen=True, slots=True, kw_only=True)
class Committed(Generic[R_co]):
    """What a mutation returned, and the timestamp (nanoseconds) at which it was committed."""

    value: R_co
    ts: int


# The database.


class Range(ABC):
    """
    Bounds of an index, in the order of its fields: any number of `eq`, then bounds of one field.

    Each method gives the range with one more bound.
    """

    __slots__ = ()

    @abstractmethod
    def eq(self, field: str, value: Value, /) -> Range:
        """Only documents whose `field` is `value`; `UNDEFINED` is those without the field."""

    @abstractmethod
    def gt(self, field: str, value: Value, /) -> Range:
        """Only documents whose `field` comes after `value`."""

    @abstractmethod
    def gte(self, field: str, value: Value, /) -> Range:
        """Only documents whose `field` is `value` or comes after it."""

    @abstractmethod
    def lt(self, field: str, value: Value, /) -> Range:
        """Only documents whose `field` comes before `value`."""

    @abstractmethod
    def lte(self, field: str, value: Value, /) -> Range:
        """Only documents whose `field` is `value` or comes before it."""


class Search(ABC):
    """What a search index is asked: one text, and filter fields that must be equal."""

    __slots__ = ()

    @abstractmethod
    def search(self, field: str, text: str, /) -> Search:
        """Documents whose search field has these words; the last one may be cut short."""

    @abstractmethod
    def eq(self, field: str, value: Value, /) -> Search:
        """Only documents whose filter field is `value`."""


class VectorFilter(ABC):
    """
    Builds the filter of a vector search: `lambda q: q.eq("cuisine", "French")`.

    Operators do the same as `and_` and `or_`: `q.eq("cuisine", "French") & q.eq("isNew", True)`.
    """

    __slots__ = ()

    @abstractmethod
    def eq(self, field: str, value: Value, /) -> Expression:
        """Whether a filter field is `value`; `UNDEFINED` for one that is missing."""

    @abstractmethod
    def or_(self, *conditions: Expression) -> Expression:
        """Whether one of them holds; they may be of several fields."""

    @abstractmethod
    def and_(self, *conditions: Expression) -> Expression:
        """Whether all of them hold."""


class Filter(ABC):
    """
    Builds the expression of `.filter`: `lambda q: q.eq(q.field("author"), "ada")`.

    Operators do the same: `lambda q: (q.field("likes") > 3) & (q.field("author") == "ada")`.
    """

    __slots__ = ()

    @abstractmethod
    def field(self, path: str, /) -> Expression:
        """A field of the document, as in `"author.name"`."""

    @abstractmethod
    def eq(self, a: Expression, b: Expression, /) -> Expression:
        """Whether `a` and `b` are the same value of the same type."""

    @abstractmethod
    def neq(self, a: Expression, b: Expression, /) -> Expression:
        """Whether they differ."""

    @abstractmethod
    def lt(self, a: Expression, b: Expression, /) -> Expression:
        """Whether `a` comes before `b` in the order of values."""

    @abstractmethod
    def lte(self, a: Expression, b: Expression, /) -> Expression:
        """Whether `a` comes before `b`, or is the same."""

    @abstractmethod
    def gt(self, a: Expression, b: Expression, /) -> Expression:
        """Whether `a` comes after `b`."""

    @abstractmethod
    def gte(self, a: Expression, b: Expression, /) -> Expression:
        """Whether `a` comes after `b`, or is the same."""

    @abstractmethod
    def add(self, a: Expression, b: Expression, /) -> Expression:
        """The sum of two numbers of one type."""

    @abstractmethod
    def sub(self, a: Expression, b: Expression, /) -> Expression:
        """The difference."""

    @abstractmethod
    def mul(self, a: Expression, b: Expression, /) -> Expression:
        """The product."""

    @abstractmethod
    def div(self, a: Expression, b: Expression, /) -> Expression:
        """The quotient."""

    @abstractmethod
    def mod(self, a: Expression, b: Expression, /) -> Expression:
        """The remainder."""

    @abstractmethod
    def neg(self, a: Expression, /) -> Expression:
        """The number with the other sign."""

    @abstractmethod
    def and_(self, *expressions: Expression) -> Expression:
        """Whether all hold."""

    @abstractmethod
    def or_(self, *expressions: Expression) -> Expression:
        """Whether any holds."""

    @abstractmethod
    def not_(self, a: Expression, /) -> Expression:
        """Whether it does not hold."""


class OrderedQuery(ABC, Generic[D]):
    """
    Documents in an order, not read yet.

    A query is used once: each method that reads also ends it.  What a scan
    looks at counts as read, whatever a filter makes of it.
    """

    __slots__ = ()

    @abstractmethod
    def filter(self, expression: Callable[[Filter], Expression], /) -> OrderedQuery[D]:
        """Only documents for which a filter expression holds; the others are read all the same."""

    @abstractmethod
    def where(self, predicate: Callable[[D], bool], /) -> OrderedQuery[D]:
        """Only documents for which `predicate` holds; the others are read all the same."""

    @abstractmethod
    async def collect(self) -> list[D]:
        """
        All documents.

        Raises:
            LimitExceeded: more than a function may read; take() or paginate().
        """

    @abstractmethod
    async def take(self, n: int, /) -> list[D]:
        """The first `n` documents, or all if there are fewer."""

    @abstractmethod
    async def first(self) -> D | None:
        """The first document, or None."""

    @abstractmethod
    async def unique(self) -> D | None:
        """
        The only document, or None.

        Raises:
            UsageError: there are several.
        """

    @abstractmethod
    async def paginate(self, opts: PaginationOptions, /) -> Page[D]:
        """
        One page, and the cursor where the next one begins; once in a function.

        Raises:
            InvalidCursor: the cursor is of another query.
        """

    @abstractmethod
    def __aiter__(self) -> AsyncIterator[D]:
        """
        One document after another, read as the loop goes on, some hundred at a time.

        What the body of the loop writes it meets from the next of these on; until then documents
        are as they were read.
        """


class Query(OrderedQuery[D]):
    """Documents of one table or index range, whose order may still be chosen."""

    __slots__ = ()

    @abstractmethod
    def order(self, order: Literal["asc", "desc"], /) -> OrderedQuery[D]:
        """In the order of the index, or against it; "asc" unless said."""


class TableQuery(Query[D]):
    """All documents of a table, by creation time, unless an index is chosen."""

    __slots__ = ()

    @overload
    def with_index(self, name: str, range: Callable[[Range], Range], /) -> Query[D]: ...
    @overload
    def with_index(self, name: str, /, **equal: Value) -> Query[D]: ...
    @abstractmethod
    def with_index(
        self, name: str, range: Callable[[Range], Range] | None = None, /, **equal: Value
    ) -> Query[D]:
        """
        Documents in the order of an index, within bounds.

        Args:
            name: an index of the table, `by_creation_time` or `by_id`.
            range: takes a `Range` and gives it back with bounds.
            equal: fields that must be equal, instead of `range`.

        Raises:
            IndexNotFound: the table has no such index, or it is still being built.
            InvalidRange: the bounds are no prefix of the index.
        """

    def full_table_scan(self) -> Query[D]:
        """All documents, by creation time: what a table without an index does anyway."""
        return self

    @abstractmethod
    def with_search_index(
        self, name: str, search: Callable[[Search], Search], /
    ) -> OrderedQuery[D]:
        """Documents that a search index finds, best first; at most 1,024."""


class DatabaseReader(ABC):
    """The database as of one moment, with the writes of this transaction."""

    __slots__ = ()

    @overload
    def query(self, table: type[D], /) -> TableQuery[D]: ...
    @overload
    def query(self, table: str, /) -> TableQuery[dict[str, Any]]: ...
    @abstractmethod
    def query(self, table: type[Any] | str, /) -> TableQuery[Any]:
        """The documents of a table, given by its class or its name; reads nothing yet."""

    @overload
    async def get(self, id: Id[D], /) -> D | None: ...
    @overload
    async def get(self, table: type[D], id: Id[D], /) -> D | None: ...
    @overload
    async def get(self, table: str, id: Id[S], /) -> S | None: ...
    @abstractmethod
    async def get(self, *args: Any) -> Any:
        """
        The document with an id, or None.

        Raises:
            InvalidId: no id at all, or one of another table than the one given.
        """

    @overload
    async def normalize_id(self, table: type[D], id: str, /) -> Id[D] | None: ...
    @overload
    async def normalize_id(self, table: str, id: str, /) -> Id[Any] | None: ...
    @abstractmethod
    async def normalize_id(self, table: type[Any] | str, id: str, /) -> Id[Any] | None:
        """`id` if it is one of this table, else None; the document is not looked at."""

    @abstractmethod
    async def count(self, table: type[Any] | str, /) -> int:
        """How many documents the table has; any insert or delete there changes the answer."""

    @overload
    async def vector_search(
        self,
        table: type[D],
        index: str,
        /,
        *,
        vector: Sequence[float],
        limit: int = ...,
        filter: Callable[[VectorFilter], Expression] | None = ...,
    ) -> list[VectorHit[D]]: ...
    @overload
    async def vector_search(
        self,
        table: str,
        index: str,
        /,
        *,
        vector: Sequence[float],
        limit: int = ...,
        filter: Callable[[VectorFilter], Expression] | None = ...,
    ) -> list[VectorHit[Any]]: ...
    @abstractmethod
    async def vector_search(
        self,
        table: type[Any] | str,
        index: str,
        /,
        *,
        vector: Sequence[float],
        limit: int = VECTOR_RESULTS,
        filter: Callable[[VectorFilter], Expression] | None = None,
    ) -> list[VectorHit[Any]]:
        """
        The documents whose vectors lie in about the same direction as `vector`, best first.

        Every document is looked at, own writes included.  A live query is asked again when a
        document would come among them, leave them or change its place.

        Args:
            index: of vectors, with as many dimensions as `vector` has numbers.
            limit: how many, 1 to 256.
            filter: what the filter fields have to be.

        Returns:
            Ids and cosines; of equal ones the later id comes first.  Documents whose field is no
            list of that many numbers are not found.

        Raises:
            IndexNotFound: the table has no such vector index, or it is still being built.
            InvalidValue: the vector or the limit cannot be.
            InvalidRange: the filter does not fit the index.
        """

    @overload
    async def hybrid_search(
        self,
        table: type[D],
        /,
        *,
        search_index: str,
        search: Callable[[Search], Search],
        vector_index: str,
        vector: Sequence[float],
        filter: Callable[[VectorFilter], Expression] | None = ...,
        limit: int = ...,
    ) -> list[VectorHit[D]]: ...
    @overload
    async def hybrid_search(
        self,
        table: str,
        /,
        *,
        search_index: str,
        search: Callable[[Search], Search],
        vector_index: str,
        vector: Sequence[float],
        filter: Callable[[VectorFilter], Expression] | None = ...,
        limit: int = ...,
    ) -> list[VectorHit[Any]]: ...
    @abstractmethod
    async def hybrid_search(
        self,
        table: type[Any] | str,
        /,
        *,
        search_index: str,
        search: Callable[[Search], Search],
        vector_index: str,
        vector: Sequence[float],
        filter: Callable[[VectorFilter], Expression] | None = None,
        limit: int = VECTOR_RESULTS,
    ) -> list[VectorHit[Any]]:
        """
        What a text search and a vector search find, put in one order by reciprocal rank fusion.

        Of each the best 100, or `limit`, count; those that the text search finds are read.

        Args:
            search_index, search: as `with_search_index` takes them.
            vector_index, vector, filter, limit: as `vector_search` takes them; what the text search
                finds is narrowed by its own `s.eq`, and not by `filter`.

        Returns:
            Ids, and scores that say something only beside each other: the sum of 1 / (60 + rank)
            over both orders.

        Raises:
            IndexNotFound, InvalidValue, InvalidRange: as the two searches do.
        """

    @property
    @abstractmethod
    def system(self) -> DatabaseReader:
        """The engine's own tables, such as `_scheduled_functions`, to be read."""


class Vars(ABC):
    """What a transaction may write of its own commit."""

    __slots__ = ()

    @property
    @abstractmethod
    def commit_ts(self) -> Int64:
        """
        The timestamp of the commit, in nanoseconds: what `engine.commit` returns as `ts`.

        It is one in the whole transaction, functions that it calls as parts of it included, and
        later than that of every commit before: who reads an index of it on from the last that
        was seen misses nothing.  Whoever asks for it commits, also without a write, and has
        another when it runs again.
        """


class DatabaseWriter(DatabaseReader):
    """
    The database, to be changed.

    Values are copied in the call.  Nothing is durable, or seen by others,
    before the function has returned and its transaction is committed.
    """

    __slots__ = ()

    @property
    @abstractmethod
    def vars(self) -> Vars:
        """What this transaction may write of its own commit."""

    @overload
    async def insert(self, table: type[D], doc: Mapping[str, Value], /) -> Id[D]: ...
    @overload
    async def insert(self, table: str, doc: Mapping[str, Value], /) -> Id[Any]: ...
    @abstractmethod
    async def insert(self, table: type[Any] | str, doc: Mapping[str, Value], /) -> Id[Any]:
        """
        Add a document; `_id` and `_creationTime` are given to it.

        Returns:
            Its id.

        Raises:
            SchemaViolation: the table's schema forbids it.
            InvalidValue: no document can hold it.
        """

    @overload
    async def patch(self, id: Id[Any], fields: Mapping[str, Value], /) -> None: ...
    @overload
    async def patch(
        self, table: type[Any] | str, id: Id[Any], fields: Mapping[str, Value], /
    ) -> None: ...
    @abstractmethod
    async def patch(self, *args: Any) -> None:
        """
        Set some fields of a document; those given as `UNDEFINED` are removed.

        Raises:
            DocumentNotFound: there is no such document.
            SchemaViolation: the table's schema forbids the result.
        """

    @overload
    async def replace(self, id: Id[Any], doc: Mapping[str, Value], /) -> None: ...
    @overload
    async def replace(
        self, table: type[Any] | str, id: Id[Any], doc: Mapping[str, Value], /
    ) -> None: ...
    @abstractmethod
    async def replace(self, *args: Any) -> None:
        """
        Put `doc` in the place of a document, which keeps `_id` and `_creationTime`.

        Raises:
            DocumentNotFound: there is no such document.
            SchemaViolation: the table's schema forbids `doc`.
        """

    @overload
    async def delete(self, id: Id[Any], /) -> None: ...
    @overload
    async def delete(self, table: type[Any] | str, id: Id[Any], /) -> None: ...
    @abstractmethod
    async def delete(self, *args: Any) -> None:
        """
        Remove a document.

        Raises:
            DocumentNotFound: there is no such document.
        """


# The rest of a context.


class Auth(ABC):
    """Who is calling."""

    __slots__ = ()

    @abstractmethod
    async def get_user_identity(self) -> UserIdentity | None:
        """The caller's verified identity, or None without one, and in components."""


class Scheduler(ABC):
    """
    Functions to be run later.

    In a mutation, they are scheduled when it commits, and not at all if it
    fails.  A mutation is then run exactly once, an action at most once.
    """

    __slots__ = ()

    @abstractmethod
    def with_retry(
        self,
        retry: Retry,
        /,
        *,
        on_complete: MutationReference[..., Any] | Reference | str | None = None,
        context: Value = None,
    ) -> Scheduler:
        """
        A scheduler whose actions are tried again when they fail, also by a crash.

        Each attempt is at most once, and what it did stays done.  The job's row says how it stands
        (`attempts`, `lastError`) and, in the end, what came of it (`state`, `returned`).

        Args:
            on_complete: a mutation that is told exactly once how it ended, with the arguments `job`
                (its id), `result` (`kind`, and a `value` or an `error`; of a value over 8 MiB
                `valueBytes`) and `context`.
            context: whatever that mutation needs to know.

        Raises:
            InvalidValue: `on_complete` is no mutation, or `context` no value.
            FunctionNotFound: there is no `on_complete`.
        """

    @overload
    async def run_after(
        self,
        delay: Delay,
        fn: MutationReference[P, Any] | ActionReference[P, Any],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> Id[Any]: ...
    @overload
    async def run_after(
        self, delay: Delay, fn: Reference | str, args: Mapping[str, Value] = ..., /
    ) -> Id[Any]: ...
    @abstractmethod
    async def run_after(self, delay: Delay, fn: Any, /, *args: Any, **kwargs: Any) -> Id[Any]:
        """
        Run a function `delay` milliseconds (or a `timedelta`) from now.

        Whether its arguments fit is looked at when it runs, by the code that is deployed then.

        Returns:
            The id of the job, a document of `_scheduled_functions`.

        Raises:
            InvalidValue: the delay is negative, or longer than five years.
            FunctionNotFound, WrongFunctionKind: there is no such mutation or action.
        """

    @overload
    async def run_at(
        self,
        when: float | datetime,
        fn: MutationReference[P, Any] | ActionReference[P, Any],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> Id[Any]: ...
    @overload
    async def run_at(
        self, when: float | datetime, fn: Reference | str, args: Mapping[str, Value] = ..., /
    ) -> Id[Any]: ...
    @abstractmethod
    async def run_at(
        self, when: float | datetime, fn: Any, /, *args: Any, **kwargs: Any
    ) -> Id[Any]:
        """
        As `run_after`, at a time: milliseconds since 1970, or an aware `datetime`; one in the past
        is now.
        """

    @abstractmethod
    async def cancel(self, id: Id[Any], /) -> None:
        """
        Do not run a job that has not begun; of an action that has, what it schedules from then on
        is canceled as well.

        A job that has ended stays as it is.
        """


class CronReader(ABC):
    """
    The crons of the application or component, declared and registered.

    They are read as documents are: whoever shows a query of them is told of each run.
    """

    __slots__ = ()

    @abstractmethod
    async def get(self, name: str, /) -> Cron | None:
        """A cron by its name, also one that the code declares."""

    @abstractmethod
    async def list(self) -> list[Cron]:
        """All of them, by name."""


class CronRegistry(CronReader):
    """
    Crons that functions register while they run, from data; they stay until they are removed.

    A part of the mutation, as everything that it writes.
    """

    __slots__ = ()

    @abstractmethod
    async def register(
        self,
        name: str,
        fn: MutationReference[..., Any] | ActionReference[..., Any] | Reference | str,
        args: Mapping[str, Value] | None = None,
        /,
        *,
        seconds: float | None = None,
        minutes: float | None = None,
        hours: float | None = None,
        cron: str | None = None,
        tz: str = "UTC",
    ) -> None:
        """
        Run a mutation or action again and again: at an interval, the first time at once, or
        whenever a cron expression matches the clock of `tz`.

        To change one, remove it and register it anew in the same mutation.  While a run of that
        name goes on, that is its first, and the next comes at its time.

        Args:
            name: by which it is removed; printable ASCII, one that no cron has here.
            args: 1 MiB at most (`CRON_ARGS_BYTES_MAX`); they count as those of a scheduled
                function do.
            cron: minute, hour, day of month, month, day of week.

        Raises:
            InvalidValue: something that cannot be, or a cron of that name is there.
            LimitExceeded: there are `crons_max`, or this mutation has scheduled too much.
            FunctionNotFound, WrongFunctionKind: there is no such mutation or action.
        """

    @abstractmethod
    async def remove(self, name: str, /) -> bool:
        """
        Remove a cron that was registered; a run that has begun comes to its end.

        Returns:
            Whether it was there.

        Raises:
            InvalidValue: it is one that the code declares.
        """


class QueryCalls(ABC):
    """Queries, called from within a function."""

    __slots__ = ()

    @overload
    async def run_query(
        self, fn: QueryReference[P, R], /, *args: P.args, **kwargs: P.kwargs
    ) -> R: ...
    @overload
    async def run_query(
        self, fn: Reference | str, args: Mapping[str, Value] = ..., /
    ) -> Result: ...
    @abstractmethod
    async def run_query(self, fn: Any, /, *args: Any, **kwargs: Any) -> Any:
        """
        Run a query with validated arguments, and return its result.

        In a query or mutation it sees what this transaction sees; in an action
        it sees the newest state of the database.
        """


class MutationCalls(QueryCalls):
    """Queries and mutations, called from within a mutation as parts of it."""

    __slots__ = ()

    @overload
    async def run_mutation(
        self, fn: MutationReference[P, R], /, *args: P.args, **kwargs: P.kwargs
    ) -> R: ...
    @overload
    async def run_mutation(
        self, fn: Reference | str, args: Mapping[str, Value] = ..., /
    ) -> Result: ...
    @abstractmethod
    async def run_mutation(self, fn: Any, /, *args: Any, **kwargs: Any) -> Any:
        """
        Run a mutation as a part of this one.

        If it raises, only its own writes are undone, and the error may be
        caught here.
        """

    @overload
    async def run_snapshot_query(
        self, fn: QueryReference[P, R], /, *args: P.args, **kwargs: P.kwargs
    ) -> R: ...
    @overload
    async def run_snapshot_query(
        self, fn: Reference | str, args: Mapping[str, Value] = ..., /
    ) -> Result: ...
    @abstractmethod
    async def run_snapshot_query(self, fn: Any, /, *args: Any, **kwargs: Any) -> Any:
        """
        Run a query on the state from which the outermost mutation began, before all its writes.

        What it reads is no reason for this mutation to run again, so others may have changed it by
        the time of the commit. It counts against the same limits.
        """


class FunctionMeta(ABC):
    """What a function may know of itself, and of those that it may call."""

    __slots__ = ()

    @abstractmethod
    async def get_function_metadata(
        self,
        fn: QueryReference[..., Any]
        | MutationReference[..., Any]
        | ActionReference[..., Any]
        | Reference
        | str
        | None = None,
        /,
    ) -> FunctionMetadata:
        """
        Which function this is; or, if one is given, which that is.

        Args:
            fn: one that may be called from here, also by its handle.

        Raises:
            FunctionNotFound: it is not there, or out of reach.
        """


class Meta(FunctionMeta):
    """What a query or mutation may know of its own run."""

    __slots__ = ()

    @abstractmethod
    async def get_transaction_metrics(self) -> TransactionMetrics:
        """How much of each limit this transaction has used, and how much is left here."""


class _Ctx(QueryCalls):
    """What all contexts have."""

    __slots__ = ()

    @property
    @abstractmethod
    def auth(self) -> Auth:
        """Who is calling."""

    @property
    @abstractmethod
    def now(self) -> datetime:
        """The time, aware and in UTC; it stands still in a query or mutation."""

    @property
    @abstractmethod
    def now_ms(self) -> float:
        """The same in milliseconds since 1970."""

    @property
    @abstractmethod
    def random(self) -> Random:
        """Dice; in a query or mutation their seed is recorded."""

    @abstractmethod
    def uuid4(self) -> UUID:
        """A random UUID, by the same dice."""

    @property
    @abstractmethod
    def meta(self) -> FunctionMeta:
        """What this run may know of itself."""

    @abstractmethod
    async def create_function_handle(
        self,
        fn: QueryReference[..., Any]
        | MutationReference[..., Any]
        | ActionReference[..., Any]
        | Reference
        | str,
        /,
    ) -> str:
        """
        A function that may be called from here, as a string that others may keep and call.

        Whoever has it, also a component, gives it to `run_query`, `run_mutation`, `run_action`, the
        scheduler or `crons` in place of a path. It calls that one function, with whatever
        arguments, as often as its holder likes, and also if it is internal. It is the same for the
        same function, over pushes and restarts; without the function it is of no use.

        Raises:
            FunctionNotFound: it is not there, or out of reach.
        """


class QueryCtx(_Ctx):
    """What a query is given."""

    __slots__ = ()
    _recipient: ClassVar[Recipient] = "a query"

    @property
    @abstractmethod
    def db(self) -> DatabaseReader:
        """The database, to be read."""

    @property
    @abstractmethod
    def meta(self) -> Meta:
        """What this run may know of itself, and of its transaction."""

    @property
    @abstractmethod
    def crons(self) -> CronReader:
        """Functions that run again and again, to be read."""

    @abstractmethod
    def transaction_limits(self, **limits: Unpack[TransactionLimits]) -> QueryCalls:
        """
        Calls that may use no more than this of the transaction that they are a part of.

        What goes over it is a `LimitExceeded` that may be caught here. It never allows more than
        the caller may still use.
        """


class MutationCtx(QueryCtx, MutationCalls):
    """What a mutation is given."""

    __slots__ = ()
    _recipient: ClassVar[Recipient] = "a mutation"

    @property
    @abstractmethod
    def db(self) -> DatabaseWriter:
        """The database, to be read and written."""

    @property
    @abstractmethod
    def scheduler(self) -> Scheduler:
        """Functions to be run once this mutation is committed."""

    @property
    @abstractmethod
    def crons(self) -> CronRegistry:
        """Functions to be run again and again once this mutation is committed."""

    @abstractmethod
    def transaction_limits(self, **limits: Unpack[TransactionLimits]) -> MutationCalls:
        """As in a query, for mutations too."""


class TriggerCtx(MutationCtx):
    """What a trigger is given."""

    __slots__ = ()
    _recipient: ClassVar[Recipient] = "a trigger"

    @property
    @abstractmethod
    def raw_db(self) -> DatabaseWriter:
        """The database, without triggers."""


class ActionCtx(_Ctx):
    """What an action is given: no database, but the functions that have one."""

    __slots__ = ()
    _recipient: ClassVar[Recipient] = "an action"

    @property
    @abstractmethod
    def scheduler(self) -> Scheduler:
        """Functions to be run later; scheduled at once, whatever becomes of this action."""

    @overload
    async def vector_search(
        self,
        table: type[D],
        index: str,
        /,
        *,
        vector: Sequence[float],
        limit: int = ...,
        filter: Callable[[VectorFilter], Expression] | None = ...,
    ) -> list[VectorHit[D]]: ...
    @overload
    async def vector_search(
        self,
        table: str,
        index: str,
        /,
        *,
        vector: Sequence[float],
        limit: int = ...,
        filter: Callable[[VectorFilter], Expression] | None = ...,
    ) -> list[VectorHit[Any]]: ...
    @abstractmethod
    async def vector_search(
        self,
        table: type[Any] | str,
        index: str,
        /,
        *,
        vector: Sequence[float],
        limit: int = VECTOR_RESULTS,
        filter: Callable[[VectorFilter], Expression] | None = None,
    ) -> list[VectorHit[Any]]:
        """
        As `ctx.db.vector_search`, on the newest state, which is no transaction: a document that
        was found may be gone when a query looks for it.
        """

    @overload
    async def run_mutation(
        self, fn: MutationReference[P, R], /, *args: P.args, **kwargs: P.kwargs
    ) -> R: ...
    @overload
    async def run_mutation(
        self, fn: Reference | str, args: Mapping[str, Value] = ..., /
    ) -> Result: ...
    @abstractmethod
    async def run_mutation(self, fn: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Run a mutation as a transaction of its own; it is durable when this returns."""

    @overload
    async def commit(
        self, fn: MutationReference[P, R], /, *args: P.args, **kwargs: P.kwargs
    ) -> Committed[R]: ...
    @overload
    async def commit(
        self, fn: Reference | str, args: Mapping[str, Value] = ..., /
    ) -> Committed[Result]: ...
    @abstractmethod
    async def commit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Committed[Any]:
        """`run_mutation`, returning also the timestamp of the commit."""

    @overload
    async def run_action(
        self, fn: ActionReference[P, R], /, *args: P.args, **kwargs: P.kwargs
    ) -> R: ...
    @overload
    async def run_action(
        self, fn: Reference | str, args: Mapping[str, Value] = ..., /
    ) -> Result: ...
    @abstractmethod
    async def run_action(self, fn: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Run an action with validated arguments, and return its result."""
