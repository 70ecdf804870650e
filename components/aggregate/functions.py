"""What the client calls: functions that run within the component, next to its tables."""

from __future__ import annotations

from math import isfinite
from typing import Any, Literal, NotRequired, TypedDict

from components.aggregate.bounds import Bounds, cuts
from components.aggregate.cursor import read_cursor, write_cursor
from components.aggregate.errors import KeyExists, KeyMissing, OffsetOutOfBounds
from components.aggregate.growth import Exists, GrowingTree, Missing, check_size
from components.aggregate.node import NOTHING, Item
from components.aggregate.order import Order, after, before, order_of
from components.aggregate.schema import Node
from components.aggregate.schema import Tree as TreeRow
from components.aggregate.store import ReadNodes, WrittenNodes, stored_sum
from components.aggregate.tree import Tree
from engine import (
    UNDEFINED,
    Id,
    Int64,
    MutationCtx,
    QueryCtx,
    Value,
    internal_mutation,
    mutation,
    query,
)

NODE_SIZE = 16
"""Unless said: small nodes are copied fast, and few writers share one."""
NODES_REAPED = 200
"""A mutation deletes so many nodes of trees that were cleared, some 30 ms."""
NAMESPACES_LISTED_MAX = 1_000
NAMESPACES_CLEARED = 100
"""By one call; each takes two writes and what its nodes take."""


class Which(TypedDict):
    """Items of one tree."""

    namespace: NotRequired[Any]
    bounds: NotRequired[Bounds]


class Place(Which):
    """One of them; a negative offset counts from the end."""

    offset: int


class Entry(TypedDict):
    """An item, and the namespace that it is in."""

    key: Any
    id: str
    sumValue: NotRequired[Any]
    namespace: NotRequired[Any]


class Shown(TypedDict):
    """An item, as it is told."""

    key: Any
    id: str
    sumValue: Any


class Operation(TypedDict):
    """
    One write: of `new`, of `old`, or of one in place of the other.

    `isTolerant` is for those who do not know whether it was there: what is to go may be missing,
    and what is to come is put in the place of what it would meet.
    """

    old: NotRequired[Entry]
    new: NotRequired[Entry]
    isTolerant: NotRequired[bool]


class ItemsPage(TypedDict):
    page: list[Shown]
    cursor: str
    isDone: bool


class Namespace(TypedDict):
    """That of a tree; without `namespace`, the tree of those who use none."""

    namespace: NotRequired[Any]


class NamespacesPage(TypedDict):
    page: list[Namespace]
    cursor: str
    isDone: bool


class Settings(TypedDict, total=False):
    """How a tree is built."""

    size: int
    lazy: bool


# Reads.


@query
async def totals(ctx: QueryCtx, queries: list[Which], what: Literal["count", "sum"]) -> list[Any]:
    """
    How many items there are, or their sum, for each query.

    Raises:
        SumTooLarge: a sum has more than 64 bits.
    """
    trees = _Trees(ctx)
    found: list[Any] = []
    for asked in queries:
        lower, upper = cuts(asked.get("bounds"))
        tree = await trees.of(asked.get("namespace", UNDEFINED))
        total = NOTHING if tree is None else await tree.total(lower, upper)
        found.append(total.size if what == "count" else stored_sum(total.sum))
    return found


@query
async def at(ctx: QueryCtx, queries: list[Place]) -> list[Shown]:
    """
    The item at an offset, for each query.

    Raises:
        OffsetOutOfBounds: there is none.
    """
    trees = _Trees(ctx)
    found: list[Shown] = []
    for asked in queries:
        offset = asked["offset"]
        lower, upper = cuts(asked.get("bounds"))
        tree = await trees.of(asked.get("namespace", UNDEFINED))
        item = 0 if tree is None else await tree.at(offset, lower, upper)
        if isinstance(item, int):
            raise OffsetOutOfBounds(
                f"offset {offset}: there are {item} items" if item else f"offset {offset}: empty"
            )
        found.append(_shown(item))
    return found


@query
async def index_of(
    ctx: QueryCtx,
    which: Which,
    key: Any,
    order: Literal["asc", "desc"],
    id: str | None = None,  # noqa: A002 - an id is called `id`
) -> float:
    """How many items come before a key, from the lower bound, or after it, to the upper one."""
    lower, upper = cuts(which.get("bounds"))
    tree = await _Trees(ctx).of(which.get("namespace", UNDEFINED))
    if tree is None:
        return 0
    if order == "asc":
        return (await tree.total(lower, before(key, id))).size
    return (await tree.total(after(key, id), upper)).size


@query
async def random(ctx: QueryCtx, which: Which) -> Shown | None:
    """Any item, each as likely as the others; None if there is none."""
    lower, upper = cuts(which.get("bounds"))
    tree = await _Trees(ctx).of(which.get("namespace", UNDEFINED))
    count = 0 if tree is None else (await tree.total(lower, upper)).size
    if tree is None or count == 0:
        return None
    item = await tree.at(ctx.random.randrange(count), lower, upper)
    assert not isinstance(item, int), "as many were counted just now"
    return _shown(item)


@query
async def page(
    ctx: QueryCtx,
    which: Which,
    order: Literal["asc", "desc"],
    page_size: int,
    cursor: str | None = None,
) -> ItemsPage:
    """
    Some items in order, from where the cursor says.

    Raises:
        ValueError: no such page, or not a cursor.
    """
    if page_size < 1:
        raise ValueError(f"page_size is {page_size}; it must be positive")
    lower, upper = cuts(which.get("bounds"))
    tree = await _Trees(ctx).of(which.get("namespace", UNDEFINED))
    if tree is None or cursor == "":
        return {"page": [], "cursor": "", "isDone": True}
    is_reverse = order == "desc"
    if cursor is not None:
        last_key, last_id = read_cursor(cursor)
        if is_reverse:
            upper = before(last_key, last_id)
        else:
            lower = after(last_key, last_id)
    items = await tree.items(lower, upper, limit=page_size + 1, is_reverse=is_reverse)
    shown = items[:page_size]
    is_done = len(items) <= page_size
    return {
        "page": [_shown(item) for item in shown],
        "cursor": "" if is_done else write_cursor(shown[-1][0], shown[-1][1]),
        "isDone": is_done,
    }


@query
async def namespaces(ctx: QueryCtx, page_size: int, cursor: str | None = None) -> NamespacesPage:
    """
    Those that were ever written to, in the order of values; the tree without one comes first.

    Raises:
        ValueError: no such page, or not a cursor.
    """
    if not 1 <= page_size <= NAMESPACES_LISTED_MAX:
        raise ValueError(f"page_size is {page_size}; it is 1 to {NAMESPACES_LISTED_MAX:,}")
    if cursor == "":
        return {"page": [], "cursor": "", "isDone": True}
    rows = ctx.db.query(TreeRow)
    if cursor is None:
        found = await rows.with_index("by_namespace").take(page_size + 1)
    else:
        last, _ = read_cursor(cursor)
        after_last = UNDEFINED if not last else last[0]
        found = await rows.with_index("by_namespace", lambda r: r.gt("namespace", after_last)).take(
            page_size + 1
        )
    names = [_namespace_of(row) for row in found[:page_size]]
    is_done = len(found) <= page_size
    return {
        "page": names,
        "cursor": "" if is_done else write_cursor(list(names[-1].values()), ""),
        "isDone": is_done,
    }


@query
async def size(ctx: QueryCtx) -> dict[str, float]:
    """How many `trees` there are, and `nodes` of all of them, those to be freed too."""
    return {"trees": await ctx.db.count(TreeRow), "nodes": await ctx.db.count(Node)}


@query
async def verify(ctx: QueryCtx, which: Which) -> dict[str, float]:
    """
    Look at every node of a tree.

    Returns:
        `count`, and `height` in nodes.

    Raises:
        AssertionError: it is damaged.
    """
    tree = await _Trees(ctx).of(which.get("namespace", UNDEFINED))
    if tree is None:
        return {"count": 0, "height": 0}
    total, height = await tree.verify()
    return {"count": total.size, "height": height}


# Writes.


@mutation
async def write(ctx: MutationCtx, operations: list[Operation]) -> None:
    """
    Do all operations, one after the other, or none.

    Raises:
        KeyExists: something to be inserted is there.
        KeyMissing: something to be taken away is not.
    """
    await apply(ctx, operations)


async def apply(ctx: MutationCtx, operations: list[Operation]) -> None:
    """The same, within a function of the component."""
    trees = _WrittenTrees(ctx)
    for operation in operations:
        is_tolerant = operation.get("isTolerant", False)
        if "old" in operation:
            await _take_away(trees, operation["old"], is_tolerant=is_tolerant)
        if "new" in operation:
            await _put(trees, operation["new"], is_tolerant=is_tolerant)
    await trees.flush()


async def _take_away(trees: _WrittenTrees, old: Entry, *, is_tolerant: bool) -> None:
    tree = await trees.of(old.get("namespace", UNDEFINED))
    try:
        if tree is not None:
            await tree.delete(old["key"], old["id"])
            return
    except Missing:
        pass
    if not is_tolerant:
        raise KeyMissing(f"there is no item {old['key']!r} of {old['id']!r} to be taken away")


async def _put(trees: _WrittenTrees, new: Entry, *, is_tolerant: bool) -> None:
    tree = await trees.made(new.get("namespace", UNDEFINED))
    item = [new["key"], new["id"], _summand(new.get("sumValue", 0))]
    try:
        await tree.insert(item)
    except Exists:
        if not is_tolerant:
            raise KeyExists(f"there is an item {item[0]!r} of {item[1]!r} already") from None
        await tree.delete(item[0], item[1])
        await tree.insert(item)


@mutation
async def clear(ctx: MutationCtx, settings: Settings, namespace: Any = UNDEFINED) -> None:
    """
    Take away all items of a namespace; its nodes go later, some at a time.

    What `settings` do not say stays as it was.
    """
    await _clear(ctx, await _row(ctx, namespace), settings, namespace)


@mutation
async def clear_page(ctx: MutationCtx, settings: Settings, cursor: str | None = None) -> str:
    """
    Clear some namespaces; the first time also the tree without one, which is made if it is missing.

    Returns:
        The cursor of the next call; empty after the last one.
    """
    if cursor is None:
        await _clear(ctx, await _row(ctx, UNDEFINED), settings, UNDEFINED)
    listed = await namespaces(ctx, NAMESPACES_CLEARED, cursor)
    for one in listed["page"]:
        if "namespace" in one:
            await clear(ctx, settings, one["namespace"])
    return listed["cursor"]


@mutation
async def make_root_lazy(ctx: MutationCtx, namespace: Any = UNDEFINED) -> None:
    """From here on the root of this tree keeps no totals; see README.md."""
    row = await _row(ctx, namespace)
    if row is None or row["lazy"]:
        return
    nodes = WrittenNodes(ctx.db)
    await GrowingTree(nodes, row["root"], **_built(row)).make_lazy()
    await nodes.flush()
    await ctx.db.patch(row["_id"], {"lazy": True})


@internal_mutation
async def reap(ctx: MutationCtx, nodes: list[Id[Node]]) -> None:
    """Delete nodes and what is below them, some at a time."""
    rest = [*nodes]
    for _ in range(NODES_REAPED):
        if not rest:
            return
        node = await ctx.db.get(rest.pop())
        if node is not None:
            rest += map(Id[Node], node["subtrees"])
            await ctx.db.delete(node["_id"])
    if rest:
        await ctx.scheduler.run_after(0, reap, rest)


async def _clear(
    ctx: MutationCtx, row: TreeRow | None, settings: Settings, namespace: Value
) -> None:
    if "size" in settings:
        check_size(settings["size"])
    if row is None:
        await _new_tree(ctx, namespace, settings)
        return
    root = await ctx.db.insert(Node, EMPTY)
    await ctx.db.patch(row["_id"], {"root": root, **settings})
    await reap(ctx, [row["root"]])


EMPTY: dict[str, Value] = {"items": [], "subtrees": [], "counts": [], "sums": []}


async def _new_tree(ctx: MutationCtx, namespace: Value, settings: Settings) -> TreeRow:
    """A tree that is built as the one without a namespace is, where `settings` say nothing."""
    model = None if namespace is UNDEFINED else await _row(ctx, UNDEFINED)
    built = {
        "size": NODE_SIZE if model is None else model["size"],
        "lazy": True if model is None else model["lazy"],
        **settings,
    }
    root = await ctx.db.insert(Node, EMPTY)
    row = await ctx.db.insert(TreeRow, {"root": root, "namespace": namespace, **built})
    made = await ctx.db.get(row)
    assert made is not None, "inserted just now"
    return made


# Trees, in one call.


class _Trees:
    """The trees that a query asks, each found once, with nodes that are read once."""

    def __init__(self, ctx: QueryCtx) -> None:
        self._ctx = ctx
        self._nodes = ReadNodes(ctx.db)
        self._found: dict[Order, Tree | None] = {}

    async def of(self, namespace: Value) -> Tree | None:
        """The tree of a namespace, if it has one."""
        key = _order_of_namespace(namespace)
        if key not in self._found:
            row = await _row(self._ctx, namespace)
            tree = None if row is None else Tree(self._nodes, row["root"], **_built(row))
            self._found[key] = tree
        return self._found[key]


class _WrittenTrees:
    """The trees that a mutation changes; `flush` writes what has become of them."""

    def __init__(self, ctx: MutationCtx) -> None:
        self._ctx = ctx
        self._nodes = WrittenNodes(ctx.db)
        self._found: dict[Order, tuple[TreeRow, GrowingTree]] = {}

    async def of(self, namespace: Value) -> GrowingTree | None:
        """The tree of a namespace, if it has one."""
        found = self._found.get(_order_of_namespace(namespace))
        if found is not None:
            return found[1]
        row = await _row(self._ctx, namespace)
        return None if row is None else self._keep(namespace, row)

    async def made(self, namespace: Value) -> GrowingTree:
        """The tree of a namespace, which is given one if it has none."""
        tree = await self.of(namespace)
        return tree or self._keep(namespace, await _new_tree(self._ctx, namespace, {}))

    def _keep(self, namespace: Value, row: TreeRow) -> GrowingTree:
        tree = GrowingTree(self._nodes, row["root"], **_built(row))
        self._found[_order_of_namespace(namespace)] = row, tree
        return tree

    async def flush(self) -> None:
        """Write the nodes that have changed, and where the trees begin now."""
        await self._nodes.flush()
        for row, tree in self._found.values():
            if tree.root != row["root"]:
                await self._ctx.db.patch(row["_id"], {"root": tree.root})


class _Built(TypedDict):
    size_max: int
    is_lazy: bool


def _built(row: TreeRow) -> _Built:
    return {"size_max": int(row["size"]), "is_lazy": row["lazy"]}


async def _row(ctx: QueryCtx, namespace: Value) -> TreeRow | None:
    rows = ctx.db.query(TreeRow)
    return await rows.with_index("by_namespace", lambda r: r.eq("namespace", namespace)).first()


def _order_of_namespace(namespace: Value) -> Order:
    """A namespace as a key of dictionaries; one that is `None` is not none at all."""
    return () if namespace is UNDEFINED else order_of(namespace)


def _namespace_of(row: TreeRow) -> Namespace:
    return {"namespace": row["namespace"]} if "namespace" in row else {}


def _shown(item: Item) -> Shown:
    return {"key": item[0], "id": item[1], "sumValue": item[2]}


def _summand(value: Value) -> Value:
    """
    Raises:
        ValueError: it cannot be added up.
    """
    if type(value) not in (int, float, Int64) or not isfinite(value):
        raise ValueError(f"sumValue is {value!r}; it has to be a finite number")
    return value
