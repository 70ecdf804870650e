"""The trees of namespaces, for the length of one call, and what operations do to them."""

from __future__ import annotations

from math import isfinite
from typing import Final, TypedDict

from components.aggregate.errors import ItemTooLarge, KeyExists, KeyMissing
from components.aggregate.growth import Exists, GrowingTree, Missing, TooLarge
from components.aggregate.node import Item
from components.aggregate.order import Order, order_of
from components.aggregate.schema import Entry, Node, Operation
from components.aggregate.schema import Tree as TreeRow
from components.aggregate.store import ReadNodes, WrittenNodes
from components.aggregate.tree import Tree
from engine import UNDEFINED, Int64, MutationCtx, QueryCtx, Value

NODE_SIZE: Final = 16
"""Unless said: small nodes are copied fast, and few writers share one."""


class Settings(TypedDict, total=False):
    """How a tree is built."""

    size: int
    lazy: bool


class Trees:
    """The trees that a query asks, each found once, with nodes that are read once."""

    def __init__(self, ctx: QueryCtx) -> None:
        self._ctx = ctx
        self._nodes = ReadNodes(ctx.db)
        self._found: dict[Order, Tree | None] = {}

    async def of(self, namespace: Value) -> Tree | None:
        """The tree of a namespace, if it has one."""
        key = _order_of_namespace(namespace)
        if key not in self._found:
            row = await row_of(self._ctx, namespace)
            tree = None if row is None else Tree(self._nodes, row["root"], **built_as(row))
            self._found[key] = tree
        return self._found[key]


class WrittenTrees:
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
        row = await row_of(self._ctx, namespace)
        return None if row is None else self._keep(namespace, row)

    async def made(self, namespace: Value) -> GrowingTree:
        """The tree of a namespace, which is given one if it has none."""
        tree = await self.of(namespace)
        return tree or self._keep(namespace, await new_tree(self._ctx, namespace, {}))

    def _keep(self, namespace: Value, row: TreeRow) -> GrowingTree:
        tree = GrowingTree(self._nodes, row["root"], **built_as(row))
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


def built_as(row: TreeRow) -> _Built:
    return {"size_max": int(row["size"]), "is_lazy": row["lazy"]}


async def row_of(ctx: QueryCtx, namespace: Value) -> TreeRow | None:
    rows = ctx.db.query(TreeRow)
    return await rows.with_index("by_namespace", lambda r: r.eq("namespace", namespace)).first()


EMPTY: dict[str, Value] = {"items": [], "subtrees": [], "counts": [], "sums": []}


async def new_tree(ctx: MutationCtx, namespace: Value, settings: Settings) -> TreeRow:
    """A tree that is built as the one without a namespace is, where `settings` say nothing."""
    model = None if namespace is UNDEFINED else await row_of(ctx, UNDEFINED)
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


async def carry_out(trees: WrittenTrees, operation: Operation) -> None:
    """
    Do an operation; one that is refused has changed nothing.

    Raises:
        ItemTooLarge: a key or an id is too long for a node of its tree.
        KeyExists: something to be inserted is there.
        KeyMissing: something to be taken away is not.
        ValueError: a summand cannot be added up.
    """
    is_tolerant = operation.get("isTolerant", False)
    item = _item_of(operation["new"]) if "new" in operation else None
    old, taken = operation.get("old"), None
    if old is not None:
        taken = await _take_away(trees, old, is_tolerant=is_tolerant)
    if item is None:
        return
    try:
        await _put(trees, operation["new"], item, is_tolerant=is_tolerant)
    except (ItemTooLarge, KeyExists):
        if old is not None and taken is not None:
            await (await trees.made(old.get("namespace", UNDEFINED))).put_back(taken)
        raise


async def _take_away(trees: WrittenTrees, old: Entry, *, is_tolerant: bool) -> Item | None:
    """Returns what was there."""
    tree = await trees.of(old.get("namespace", UNDEFINED))
    try:
        if tree is not None:
            return await tree.delete(old["key"], old["id"])
    except Missing:
        pass
    if is_tolerant:
        return None
    raise KeyMissing(f"there is no item {old['key']!r} of {old['id']!r} to be taken away")


async def _put(trees: WrittenTrees, new: Entry, item: Item, *, is_tolerant: bool) -> None:
    tree = await trees.made(new.get("namespace", UNDEFINED))
    try:
        await tree.insert(item)
    except Exists:
        if not is_tolerant:
            raise KeyExists(f"there is an item {item[0]!r} of {item[1]!r} already") from None
        await tree.delete(item[0], item[1])
        await tree.insert(item)
    except TooLarge as error:
        raise ItemTooLarge(str(error)) from None


def check_summands(operations: list[Operation]) -> None:
    """
    Raises:
        ValueError: one of them cannot be added up.
    """
    for operation in operations:
        if "new" in operation:
            _item_of(operation["new"])


def _item_of(new: Entry) -> Item:
    return [new["key"], new["id"], _summand(new.get("sumValue", 0))]


def _order_of_namespace(namespace: Value) -> Order:
    """A namespace as a key of dictionaries; one that is `None` is not none at all."""
    return () if namespace is UNDEFINED else order_of(namespace)


def _summand(value: Value) -> Value:
    """
    Raises:
        ValueError: it cannot be added up.
    """
    if type(value) not in (int, float, Int64) or not isfinite(value):
        raise ValueError(f"sumValue is {value!r}; it has to be a finite number")
    return value
