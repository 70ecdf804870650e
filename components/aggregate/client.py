"""What applications use: an aggregate that is written by hand, or from the documents of a table."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from typing import Any, Generic, Literal, Self, TypeAlias, TypedDict, TypeVar, Unpack

from components.aggregate.bounds import Bounds
from components.aggregate.errors import told_by
from engine import (
    UNDEFINED,
    ActionCtx,
    Change,
    ConvexError,
    Mount,
    MutationCtx,
    QueryCtx,
    Reference,
    TriggerCtx,
    Value,
)

D = TypeVar("D", bound=Mapping[str, Any])

Order: TypeAlias = Literal["asc", "desc"]
Handler: TypeAlias = Callable[[TriggerCtx, Change[D]], Coroutine[Any, Any, None]]
ReadCtx: TypeAlias = QueryCtx | ActionCtx
WriteCtx: TypeAlias = MutationCtx | ActionCtx

PAGE_SIZE = 100
BATCH_ITEMS = 1_000
"""Of one call: results and arguments hold arrays of some thousand."""


class Item(TypedDict):
    """What is counted, in the order of its key and then of its id."""

    key: Any
    id: str
    sumValue: Any


class Entry(TypedDict, total=False):
    """An item to be written, by its wire names: `key` and `id`, `sumValue` and `namespace`."""

    key: Any
    id: str
    sumValue: Any
    namespace: Any


class Query(TypedDict, total=False):
    """One of a batch: `namespace`, `bounds` or both, and `offset` where an item is asked for."""

    namespace: Any
    bounds: Bounds
    offset: int


class Where(TypedDict, total=False):
    """Which items are meant, and as of when."""

    namespace: Any
    """Without, those that have none."""
    bounds: Bounds
    """All of them, unless said."""
    stale: bool
    """
    What is applied, though operations are queued.  In a mutation: as of its beginning, so that it
    does not run again because of what others write meanwhile, nor sees its own writes.
    """


class ItemsPage(TypedDict):
    """Some items, and the cursor that the next page begins at; empty after the last one."""

    page: list[Item]
    cursor: str
    isDone: bool


class NamespacesPage(TypedDict):
    """
    Some namespaces, `UNDEFINED` among them for the tree without one: no value that a function may
    return, so whoever hands on a page says something else for it.
    """

    page: list[Any]
    cursor: str
    isDone: bool


class Pending(TypedDict):
    """
    How far an aggregate is behind: how many operations are queued, and since when, in milliseconds
    since 1970; and how many of those that were queued were applied, were refused, and are there as
    dead letters.
    """

    queued: float
    oldestAt: float | None
    applied: float
    refused: float
    deadLetters: float


class DeadLetter(TypedDict):
    """A queued operation that could not be applied, as it was queued: of `old`, `new` or both."""

    id: str
    operation: Any
    kind: str
    error: str
    queuedAt: float


class Aggregate:
    """
    Counts, sums and ranks of the items of a mounted aggregate.

    Most methods take a `Where`: `namespace=`, `bounds=`, which `eq`, `prefix` and `between` write,
    and `stale=`.  While operations are queued, what is asked without `stale=True`, and whatever
    else writes, raises `PendingOperations`.

    Args:
        mount: an aggregate that the application uses.
    """

    def __init__(self, mount: Mount, /) -> None:
        self._mount = mount

    async def count(self, ctx: ReadCtx, /, **where: Unpack[Where]) -> int:
        """How many items there are."""
        return (await self.count_batch(ctx, [_query(where)], stale=_is_stale(where)))[0]

    async def sum(self, ctx: ReadCtx, /, **where: Unpack[Where]) -> int | float:
        """What they add up to: exact if all are integers, an `Int64` where `int` ends at 2**53."""
        return (await self.sum_batch(ctx, [_query(where)], stale=_is_stale(where)))[0]

    async def at(self, ctx: ReadCtx, offset: int, /, **where: Unpack[Where]) -> Item:
        """
        The item at an offset; -1 is the last one.

        Raises:
            OffsetOutOfBounds: there are not so many.
        """
        query: Query = {"offset": offset, **_query(where)}
        return (await self.at_batch(ctx, [query], stale=_is_stale(where)))[0]

    async def index_of(
        self,
        ctx: ReadCtx,
        key: Value,
        /,
        *,
        id: str | None = None,  # noqa: A002 - an id is called `id`
        order: Order = "asc",
        **where: Unpack[Where],
    ) -> int:
        """
        How many items come before the first one whose key is `key` or after it.

        Args:
            key: need not be there.
            id: before the item of that key with this id.
            order: "desc" counts from the end: how many come after the last one that is not after
                `key`.
        """
        args = {"which": _query(where), "key": key, "order": order, **_given(id=id)}
        return int(await self._ask(ctx, self._mount.index_of, args, _is_stale(where)))

    async def min(self, ctx: ReadCtx, /, **where: Unpack[Where]) -> Item | None:
        """The first item, if there is one."""
        found = await self.paginate(ctx, page_size=1, **where)
        return found["page"][0] if found["page"] else None

    async def max(self, ctx: ReadCtx, /, **where: Unpack[Where]) -> Item | None:
        """The last item, if there is one."""
        found = await self.paginate(ctx, page_size=1, order="desc", **where)
        return found["page"][0] if found["page"] else None

    async def random(self, ctx: ReadCtx, /, **where: Unpack[Where]) -> Item | None:
        """Any item, by the dice of this call, if there is one."""
        args = {"which": _query(where)}
        found: Item | None = await self._ask(ctx, self._mount.random, args, _is_stale(where))
        return found

    async def paginate(
        self,
        ctx: ReadCtx,
        /,
        *,
        cursor: str | None = None,
        order: Order = "asc",
        page_size: int = PAGE_SIZE,
        **where: Unpack[Where],
    ) -> ItemsPage:
        """
        Some items in order; the page's `cursor` is where the next one begins.

        Raises:
            ValueError: `cursor` is none, or `page_size` not positive.
        """
        args = {"which": _query(where), "order": order, "page_size": page_size}
        args |= _given(cursor=cursor)
        found: ItemsPage = await self._ask(ctx, self._mount.page, args, _is_stale(where))
        return found

    def iter(
        self,
        ctx: ReadCtx,
        /,
        *,
        order: Order = "asc",
        page_size: int = PAGE_SIZE,
        **where: Unpack[Where],
    ) -> Pages[Item]:
        """All items in order, for `async for`, a page at a time."""

        async def page(cursor: str | None) -> tuple[list[Item], str]:
            found = await self.paginate(
                ctx, cursor=cursor, order=order, page_size=page_size, **where
            )
            return found["page"], found["cursor"]

        return Pages(page)

    async def count_batch(
        self, ctx: ReadCtx, queries: Sequence[Query], /, *, stale: bool = False
    ) -> list[int]:
        """`count` for each query, in one call."""
        return list(map(int, await self._totals(ctx, queries, "count", stale)))

    async def sum_batch(
        self, ctx: ReadCtx, queries: Sequence[Query], /, *, stale: bool = False
    ) -> list[int | float]:
        """`sum` for each query, in one call."""
        return await self._totals(ctx, queries, "sum", stale)

    async def at_batch(
        self, ctx: ReadCtx, queries: Sequence[Query], /, *, stale: bool = False
    ) -> list[Item]:
        """
        `at` for each query, in one call.

        Raises:
            OffsetOutOfBounds: for one of them there is no item.
        """
        args = {"queries": list(queries)}
        found: list[Item] = await self._ask(ctx, self._mount.at, args, stale)
        return found

    async def paginate_namespaces(
        self, ctx: ReadCtx, /, *, cursor: str | None = None, page_size: int = PAGE_SIZE
    ) -> NamespacesPage:
        """The namespaces that were written to, in the order of values."""
        args: dict[str, Value] = {"page_size": page_size}
        found = await self._ask(ctx, self._mount.namespaces, args | _given(cursor=cursor))
        names = [one.get("namespace", UNDEFINED) for one in found["page"]]
        return {"page": names, "cursor": found["cursor"], "isDone": found["isDone"]}

    def iter_namespaces(self, ctx: ReadCtx, /, *, page_size: int = PAGE_SIZE) -> Pages[Any]:
        """All namespaces, for `async for`."""

        async def page(cursor: str | None) -> tuple[list[Any], str]:
            found = await self.paginate_namespaces(ctx, cursor=cursor, page_size=page_size)
            return found["page"], found["cursor"]

        return Pages(page)

    async def clear(
        self,
        ctx: WriteCtx,
        /,
        *,
        namespace: Value = UNDEFINED,
        max_node_size: int | None = None,
        root_lazy: bool | None = None,
    ) -> None:
        """
        Take away all items of a namespace; what they took is freed in the background.

        Args:
            max_node_size: of its nodes from now on; as before unless said, at first 16.
            root_lazy: likewise; at first true.

        Raises:
            ValueError: `max_node_size` is not even, under 4 or over 512.
        """
        args: dict[str, Value] = {"settings": _settings(max_node_size, root_lazy)}
        await self._tell(ctx, self._mount.clear, args | {"namespace": namespace})

    async def clear_all(
        self,
        ctx: WriteCtx,
        /,
        *,
        max_node_size: int | None = None,
        root_lazy: bool | None = None,
    ) -> None:
        """
        Take away all items of all namespaces; what is said of nodes holds for new ones, too.

        In an action each hundred namespaces are a transaction.
        """
        args: dict[str, Value] = {"settings": _settings(max_node_size, root_lazy)}
        cursor: str | None = None
        while cursor != "":
            cursor = await self._tell(ctx, self._mount.clear_page, args | _given(cursor=cursor))

    async def make_root_lazy(self, ctx: WriteCtx, /, *, namespace: Value = UNDEFINED) -> None:
        """Have writes of this namespace no longer touch its root."""
        await self._tell(ctx, self._mount.make_root_lazy, {"namespace": namespace})

    async def make_all_roots_lazy(self, ctx: WriteCtx, /) -> None:
        """The same for every namespace that there is."""
        async for namespace in self.iter_namespaces(ctx):
            await self.make_root_lazy(ctx, namespace=namespace)

    async def pending(self, ctx: ReadCtx, /) -> Pending:
        """What is queued; a query that shows it follows the queue."""
        found: Pending = await ctx.run_query(self._mount.queue.pending, {})
        return found

    async def drain(self, ctx: WriteCtx, /) -> int:
        """
        Apply what is queued, without waiting for the loop that does it anyhow.

        In an action a batch is a transaction, and it goes on until nothing is left, what is queued
        meanwhile included. In a mutation all of it is a part of that.

        Returns:
            How many operations were taken from the queue, dead letters included.
        """
        drained = 0
        while taken := await self._tell(ctx, self._mount.queue.drain, {}):
            drained += taken
        return drained

    async def dead_letters(self, ctx: ReadCtx, /, *, limit: int = PAGE_SIZE) -> list[DeadLetter]:
        """Queued operations that could not be applied, the newest first; a thousand are kept."""
        args = {"limit": limit}
        found: list[DeadLetter] = await ctx.run_query(self._mount.queue.letters, args)
        return found

    async def retry_dead_letter(self, ctx: WriteCtx, letter_id: str, /) -> bool:
        """Queue a dead letter again, behind what is queued; false if it is not there."""
        return bool(await self._tell(ctx, self._mount.queue.retry, {"letter_id": letter_id}))

    async def discard_dead_letter(self, ctx: WriteCtx, letter_id: str, /) -> bool:
        """Forget a dead letter; false if it is not there."""
        return bool(await self._tell(ctx, self._mount.queue.discard, {"letter_id": letter_id}))

    async def _totals(
        self, ctx: ReadCtx, queries: Sequence[Query], what: str, stale: bool
    ) -> list[Any]:
        args = {"queries": list(queries), "what": what}
        found: list[Any] = await self._ask(ctx, self._mount.totals, args, stale)
        return found

    async def _write(
        self, ctx: WriteCtx, *operations: Mapping[str, Value], queued: bool = False
    ) -> None:
        fn = self._mount.queue.add if queued else self._mount.write
        await self._tell(ctx, fn, {"operations": list(operations)})

    async def _ask(
        self, ctx: ReadCtx, fn: Reference, args: Mapping[str, Value], stale: bool = False
    ) -> Any:
        args = {**args, "stale": True} if stale else args
        try:
            if stale and isinstance(ctx, MutationCtx):
                return await ctx.run_snapshot_query(fn, args)
            return await ctx.run_query(fn, args)
        except ConvexError as error:
            raise told_by(error) from None

    async def _tell(self, ctx: WriteCtx, fn: Reference, args: Mapping[str, Value]) -> Any:
        if not isinstance(ctx, MutationCtx | ActionCtx):
            raise TypeError("to write takes the ctx of a mutation or an `async def` action")
        try:
            return await ctx.run_mutation(fn, args)
        except ConvexError as error:
            raise told_by(error) from None


class DirectAggregate(Aggregate):
    """
    An aggregate whose items the application writes itself.

    With `queued=True` a write is put in a queue and applied soon after, in order; what it would
    raise it does not raise then, but is among the `dead_letters`.
    """

    async def insert(
        self,
        ctx: WriteCtx,
        /,
        *,
        key: Value,
        id: str,  # noqa: A002 - an id is called `id`
        sum_value: float = 0,
        namespace: Value = UNDEFINED,
        queued: bool = False,
    ) -> None:
        """
        Add an item.

        Raises:
            ItemTooLarge: key and id have more bytes than a node has for each item.
            KeyExists: the namespace has one with this key and id.
            ValueError: `sum_value` is not finite.
        """
        await self._write(ctx, {"new": _entry(key, id, namespace, sum_value)}, queued=queued)

    async def delete(
        self,
        ctx: WriteCtx,
        /,
        *,
        key: Value,
        id: str,  # noqa: A002
        namespace: Value = UNDEFINED,
        queued: bool = False,
    ) -> None:
        """
        Take away an item.

        Raises:
            KeyMissing: the namespace has none with this key and id.
        """
        await self._write(ctx, {"old": _entry(key, id, namespace)}, queued=queued)

    async def replace(
        self, ctx: WriteCtx, old: Entry, new: Entry, /, *, queued: bool = False
    ) -> None:
        """
        Put `new` in the place of `old`, whose id it has unless it says another.

        Raises:
            KeyMissing: `old` is not there.
            KeyExists: `new` is there.
        """
        await self._write(ctx, {"old": old, "new": {"id": old["id"], **new}}, queued=queued)

    async def insert_if_does_not_exist(
        self,
        ctx: WriteCtx,
        /,
        *,
        key: Value,
        id: str,  # noqa: A002
        sum_value: float = 0,
        namespace: Value = UNDEFINED,
        queued: bool = False,
    ) -> None:
        """Add an item, or give the one with this key and id this summand."""
        await self._write(ctx, _tolerant(new=_entry(key, id, namespace, sum_value)), queued=queued)

    async def delete_if_exists(
        self,
        ctx: WriteCtx,
        /,
        *,
        key: Value,
        id: str,  # noqa: A002
        namespace: Value = UNDEFINED,
        queued: bool = False,
    ) -> None:
        """Take away an item, if it is there."""
        await self._write(ctx, _tolerant(old=_entry(key, id, namespace)), queued=queued)

    async def replace_or_insert(
        self, ctx: WriteCtx, old: Entry, new: Entry, /, *, queued: bool = False
    ) -> None:
        """Put `new` in the place of `old`, whether either is there or not."""
        await self._write(ctx, _tolerant(old=old, new={"id": old["id"], **new}), queued=queued)

    async def insert_batch(
        self, ctx: WriteCtx, entries: Iterable[Entry], /, *, queued: bool = False
    ) -> None:
        """
        Add many items, best in the order of their keys: a node that several go to is written once.

        In an action each thousand is a transaction.

        Raises:
            KeyExists: one of them is there already.
        """
        await _in_batches(self._write, ctx, [{"new": entry} for entry in entries], queued=queued)


class TableAggregate(Aggregate, Generic[D]):
    """
    An aggregate with an item for each document of a table; `queued=True` as in `DirectAggregate`.

    Args:
        mount: an aggregate that the application uses.
        sort_key: what documents are ordered by; a list is compared part by part.
        sum_value: what they count in sums; 0 unless said.
        namespace: whose they are.
    """

    def __init__(
        self,
        mount: Mount,
        /,
        *,
        sort_key: Callable[[D], Value],
        sum_value: Callable[[D], float] | None = None,
        namespace: Callable[[D], Value] | None = None,
    ) -> None:
        super().__init__(mount)
        self._sort_key = sort_key
        self._sum_value = sum_value
        self._namespace = namespace

    async def insert(self, ctx: WriteCtx, doc: D, /, *, queued: bool = False) -> None:
        """
        Add the item of a document.

        Raises:
            KeyExists: it is there.
        """
        await self._write(ctx, {"new": self._entry(doc)}, queued=queued)

    async def delete(self, ctx: WriteCtx, doc: D, /, *, queued: bool = False) -> None:
        """
        Take away the item of a document.

        Raises:
            KeyMissing: it is not there.
        """
        await self._write(ctx, {"old": self._entry(doc)}, queued=queued)

    async def replace(self, ctx: WriteCtx, old: D, new: D, /, *, queued: bool = False) -> None:
        """
        Follow a document that has changed.

        Raises:
            KeyMissing: the item of `old` is not there.
        """
        await self._write(ctx, {"old": self._entry(old), "new": self._entry(new)}, queued=queued)

    async def insert_if_does_not_exist(
        self, ctx: WriteCtx, doc: D, /, *, queued: bool = False
    ) -> None:
        """Add the item of a document, or give the one that is there its summand."""
        await self._write(ctx, _tolerant(new=self._entry(doc)), queued=queued)

    async def delete_if_exists(self, ctx: WriteCtx, doc: D, /, *, queued: bool = False) -> None:
        """Take away the item of a document, if it is there."""
        await self._write(ctx, _tolerant(old=self._entry(doc)), queued=queued)

    async def replace_or_insert(
        self, ctx: WriteCtx, old: D, new: D, /, *, queued: bool = False
    ) -> None:
        """Follow a document that has changed, whether its item is there or not."""
        await self._write(ctx, _tolerant(old=self._entry(old), new=self._entry(new)), queued=queued)

    async def insert_batch(
        self, ctx: WriteCtx, docs: Iterable[D], /, *, queued: bool = False
    ) -> None:
        """
        Add the items of many documents; see `DirectAggregate.insert_batch`.

        Raises:
            KeyExists: one of them is there already.
        """
        await _in_batches(
            self._write, ctx, [{"new": self._entry(doc)} for doc in docs], queued=queued
        )

    async def index_of_doc(
        self,
        ctx: ReadCtx,
        doc: D,
        /,
        *,
        order: Order = "asc",
        bounds: Bounds | None = None,
        stale: bool = False,
    ) -> int:
        """The rank of a document in its namespace: how many come before it."""
        entry = self._entry(doc)
        where: Where = {"namespace": entry.get("namespace", UNDEFINED), "stale": stale}
        if bounds is not None:
            where["bounds"] = bounds
        return await self.index_of(ctx, entry["key"], id=entry["id"], order=order, **where)

    def trigger(self, *, queued: bool = False) -> Handler[D]:
        """
        A handler for `@trigger`, which keeps the aggregate in step with each write of the table.

        A write fails where its item is not as it should be; `idempotent_trigger` puts that right.

        Args:
            queued: it follows later, and what fails is a dead letter.
        """

        async def follow(ctx: TriggerCtx, change: Change[D]) -> None:
            await self._follow(ctx, change, is_tolerant=False, queued=queued)

        return follow

    def idempotent_trigger(self, *, queued: bool = False) -> Handler[D]:
        """As `trigger`, for a table of which the aggregate has only some of the documents yet."""

        async def follow_what_there_is(ctx: TriggerCtx, change: Change[D]) -> None:
            await self._follow(ctx, change, is_tolerant=True, queued=queued)

        return follow_what_there_is

    async def _follow(
        self, ctx: TriggerCtx, change: Change[D], *, is_tolerant: bool, queued: bool
    ) -> None:
        old = None if change.old is None else self._entry(change.old)
        new = None if change.new is None else self._entry(change.new)
        if old == new and not is_tolerant and repr(old) == repr(new):
            return  # nothing that is counted has changed; `repr` tells 1 from True
        operation: dict[str, Value] = {}
        if old is not None:
            operation["old"] = old
        if new is not None:
            operation["new"] = new
        await self._write(ctx, {**operation, "isTolerant": is_tolerant}, queued=queued)

    def _entry(self, doc: D) -> Entry:
        if not isinstance(doc, Mapping):
            raise TypeError(
                f"the aggregate has items of documents, and {doc!r} is none: there may be no "
                "document with that id"
            )
        namespace = UNDEFINED if self._namespace is None else self._namespace(doc)
        summand = 0 if self._sum_value is None else self._sum_value(doc)
        return _entry(self._sort_key(doc), doc["_id"], namespace, summand)


T = TypeVar("T")


class Pages(Generic[T]):
    """Goes through pages one by one, for `async for`."""

    def __init__(
        self, page: Callable[[str | None], Coroutine[Any, Any, tuple[list[T], str]]]
    ) -> None:
        self._page = page
        self._cursor: str | None = None
        self._left: list[T] = []

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        while not self._left:
            if self._cursor == "":
                raise StopAsyncIteration
            found, self._cursor = await self._page(self._cursor)
            self._left = found[::-1]
        return self._left.pop()


async def _in_batches(
    write: Callable[..., Coroutine[Any, Any, None]],
    ctx: WriteCtx,
    operations: list[Mapping[str, Value]],
    *,
    queued: bool,
) -> None:
    for start in range(0, len(operations), BATCH_ITEMS):
        await write(ctx, *operations[start : start + BATCH_ITEMS], queued=queued)


def _query(where: Where) -> Query:
    query: Query = {}
    if where.get("namespace", UNDEFINED) is not UNDEFINED:
        query["namespace"] = where["namespace"]
    if where.get("bounds"):
        query["bounds"] = where["bounds"]
    return query


def _is_stale(where: Where) -> bool:
    return where.get("stale", False)


def _entry(key: Value, id: str, namespace: Value, sum_value: Value = UNDEFINED) -> Entry:  # noqa: A002
    entry: Entry = {"key": key, "id": id}
    if sum_value is not UNDEFINED:
        entry["sumValue"] = sum_value
    if namespace is not UNDEFINED:
        entry["namespace"] = namespace
    return entry


def _tolerant(**sides: Value) -> dict[str, Value]:
    return {**sides, "isTolerant": True}


def _settings(max_node_size: int | None, root_lazy: bool | None) -> dict[str, Value]:
    return _given(size=max_node_size, lazy=root_lazy)


def _given(**options: Value) -> dict[str, Value]:
    """Those that were said."""
    return {name: value for name, value in options.items() if value is not None}
