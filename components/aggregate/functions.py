"""What the client calls: functions that run within the component, next to its tables."""

from __future__ import annotations

from itertools import count
from typing import Any, Literal, NotRequired, TypedDict

from components.aggregate.bounds import Bounds, cuts
from components.aggregate.cursor import read_cursor, write_cursor
from components.aggregate.errors import OffsetOutOfBounds
from components.aggregate.growth import GrowingTree, check_size
from components.aggregate.node import NOTHING, Item
from components.aggregate.order import after, before
from components.aggregate.queue import check_drained
from components.aggregate.schema import Node, Operation
from components.aggregate.schema import Tree as TreeRow
from components.aggregate.store import ReadNodes, Slice, WrittenNodes, stored_sum
from components.aggregate.trees import (
    EMPTY,
    Settings,
    Trees,
    WrittenTrees,
    built_as,
    carry_out,
    new_tree,
    row_of,
)
from components.aggregate.walk import Walk, from_root, look
from engine import (
    UNDEFINED,
    Id,
    MutationCtx,
    QueryCtx,
    Value,
    internal_mutation,
    mutation,
    query,
)

NODES_REAPED = 200
"""A mutation deletes so many nodes of trees that were cleared, some 30 ms."""
NODES_VERIFIED = 250
"""A query looks at so many, some 20 ms."""
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


class Shown(TypedDict):
    """An item, as it is told."""

    key: Any
    id: str
    sumValue: Any


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


# Reads.


@query
async def totals(
    ctx: QueryCtx, queries: list[Which], what: Literal["count", "sum"], stale: bool = False
) -> list[Any]:
    """
    How many items there are, or their sum, for each query.

    Raises:
        PendingOperations: as all that follow, of what is not `stale`.
        SumTooLarge: a sum has more than 64 bits.
    """
    trees = await _trees(ctx, stale=stale)
    found: list[Any] = []
    for asked in queries:
        lower, upper = cuts(asked.get("bounds"))
        tree = await trees.of(asked.get("namespace", UNDEFINED))
        total = NOTHING if tree is None else await tree.total(lower, upper)
        found.append(total.size if what == "count" else stored_sum(total.sum))
    return found


@query
async def at(ctx: QueryCtx, queries: list[Place], stale: bool = False) -> list[Shown]:
    """
    The item at an offset, for each query.

    Raises:
        OffsetOutOfBounds: there is none.
    """
    trees = await _trees(ctx, stale=stale)
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
    stale: bool = False,
) -> float:
    """How many items come before a key, from the lower bound, or after it, to the upper one."""
    lower, upper = cuts(which.get("bounds"))
    tree = await (await _trees(ctx, stale=stale)).of(which.get("namespace", UNDEFINED))
    if tree is None:
        return 0
    if order == "asc":
        return (await tree.total(lower, before(key, id))).size
    return (await tree.total(after(key, id), upper)).size


@query
async def random(ctx: QueryCtx, which: Which, stale: bool = False) -> Shown | None:
    """Any item, each as likely as the others; None if there is none."""
    lower, upper = cuts(which.get("bounds"))
    tree = await (await _trees(ctx, stale=stale)).of(which.get("namespace", UNDEFINED))
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
    stale: bool = False,
) -> ItemsPage:
    """
    Some items in order, from where the cursor says.

    Raises:
        ValueError: no such page, or not a cursor.
    """
    if page_size < 1:
        raise ValueError(f"page_size is {page_size}; it must be positive")
    lower, upper = cuts(which.get("bounds"))
    tree = await (await _trees(ctx, stale=stale)).of(which.get("namespace", UNDEFINED))
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
async def verify(ctx: QueryCtx, which: Which, walk: Walk | None = None) -> Walk:
    """
    Look at some nodes of a tree.

    Args:
        walk: how far one came that began at the same timestamp; at first None.

    Returns:
        How far it is now: the tree is whole when nothing is left.

    Raises:
        AssertionError: it is damaged.
    """
    row = await row_of(ctx, which.get("namespace", UNDEFINED))
    if row is None:
        return {"left": [], "count": 0, "height": 0}
    share, numbers = await Slice.of(ctx), count(1)

    async def is_enough() -> bool:
        return next(numbers) >= NODES_VERIFIED or await share.is_over()

    walk = walk or from_root(row["root"])
    return await look(ReadNodes(ctx.db), walk, is_enough=is_enough, **built_as(row))


# Writes.


@mutation
async def write(ctx: MutationCtx, operations: list[Operation]) -> None:
    """
    Do all operations, one after the other, or none.

    Raises:
        ItemTooLarge: a key or an id is too long for a node of its tree.
        KeyExists: something to be inserted is there.
        KeyMissing: something to be taken away is not.
        PendingOperations: others are queued, and come first.
    """
    await check_drained(ctx)
    trees = WrittenTrees(ctx)
    for operation in operations:
        await carry_out(trees, operation)
    await trees.flush()


@mutation
async def clear(ctx: MutationCtx, settings: Settings, namespace: Any = UNDEFINED) -> None:
    """
    Take away all items of a namespace; its nodes go later, some at a time.

    What `settings` do not say stays as it was.

    Raises:
        PendingOperations: some are queued that may be of this namespace.
    """
    await check_drained(ctx)
    await reap(ctx, await _clear(ctx, settings, namespace))


@mutation
async def clear_page(ctx: MutationCtx, settings: Settings, cursor: str | None = None) -> str:
    """
    Clear some namespaces; the first time also the tree without one, which is made if it is missing.

    Returns:
        The cursor of the next call; empty after the last one.

    Raises:
        PendingOperations: some are queued.
    """
    await check_drained(ctx)
    roots = await _clear(ctx, settings, UNDEFINED) if cursor is None else []
    listed = await namespaces(ctx, NAMESPACES_CLEARED, cursor)
    for one in listed["page"]:
        if "namespace" in one:
            roots += await _clear(ctx, settings, one["namespace"])
    await reap(ctx, roots)
    return listed["cursor"]


@mutation
async def make_root_lazy(ctx: MutationCtx, namespace: Any = UNDEFINED) -> None:
    """From here on the root of this tree keeps no totals; see README.md."""
    row = await row_of(ctx, namespace)
    if row is None or row["lazy"]:
        return
    nodes = WrittenNodes(ctx.db)
    await GrowingTree(nodes, row["root"], **built_as(row)).make_lazy()
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


async def _clear(ctx: MutationCtx, settings: Settings, namespace: Value) -> list[Id[Node]]:
    """Returns the root of the tree that was there, which is to be freed."""
    if "size" in settings:
        check_size(settings["size"])
    row = await row_of(ctx, namespace)
    if row is None:
        await new_tree(ctx, namespace, settings)
        return []
    root = await ctx.db.insert(Node, EMPTY)
    await ctx.db.patch(row["_id"], {"root": root, **settings})
    return [row["root"]]


async def _trees(ctx: QueryCtx, *, stale: bool) -> Trees:
    """
    Args:
        stale: as they are, though something is queued.

    Raises:
        PendingOperations: something is.
    """
    if not stale:
        await check_drained(ctx)
    return Trees(ctx)


def _namespace_of(row: TreeRow) -> Namespace:
    return {"namespace": row["namespace"]} if "namespace" in row else {}


def _shown(item: Item) -> Shown:
    return {"key": item[0], "id": item[1], "sumValue": item[2]}
