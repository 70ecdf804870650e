"""The nodes of trees as documents, for the length of one call of the component."""

from __future__ import annotations

from typing import Any, Final

from components.aggregate import schema
from components.aggregate.errors import SumTooLarge
from components.aggregate.node import Item, Node, Number, Total, storable
from engine import DatabaseReader, DatabaseWriter, Id, QueryCtx, Value

READ_SHARE: Final = 4
"""A slice of a task reads this part of what is left to its transaction; it writes about as much."""


class ReadNodes:
    """Nodes that are only looked at; each is read once."""

    def __init__(self, db: DatabaseReader) -> None:
        self._db = db
        self._seen: dict[str, Node] = {}

    async def get(self, node_id: str) -> Node:
        node = self._seen.get(node_id)
        if node is None:
            doc = await self._db.get(Id[schema.Node](node_id))
            assert doc is not None, f"the node {node_id} is missing"
            node = self._seen[node_id] = _node_of(doc)
        return node


class WrittenNodes(ReadNodes):
    """Nodes that may change; `flush` writes each that has, once."""

    def __init__(self, db: DatabaseWriter) -> None:
        super().__init__(db)
        self._writer = db
        self._changed: dict[str, Node] = {}

    async def add(self, items: list[Item], subtrees: list[str], totals: list[Total] | None) -> Node:
        node = Node("", items, subtrees, totals)
        node.id = await self._writer.insert(schema.Node, _fields_of(node))
        self._seen[node.id] = node
        return node

    def changed(self, node: Node) -> None:
        self._changed[node.id] = node

    async def remove(self, node: Node) -> None:
        self._changed.pop(node.id, None)
        del self._seen[node.id]
        await self._writer.delete(Id[schema.Node](node.id))

    async def flush(self) -> None:
        """Write what has changed."""
        for node in self._changed.values():
            await self._writer.replace(Id[schema.Node](node.id), _fields_of(node))
        self._changed.clear()


class Slice:
    """A part of a task, which ends before its transaction may read no more."""

    def __init__(self, ctx: QueryCtx, until: int) -> None:
        self._ctx = ctx
        self._until = until

    @classmethod
    async def of(cls, ctx: QueryCtx) -> Slice:
        """One that begins now."""
        left = await _bytes_left(ctx)
        return cls(ctx, left - left // READ_SHARE)

    async def is_over(self) -> bool:
        """Whether it has read its share."""
        return await _bytes_left(self._ctx) < self._until


async def _bytes_left(ctx: QueryCtx) -> int:
    return (await ctx.meta.get_transaction_metrics())["bytes_read"]["remaining"]


def _node_of(doc: schema.Node) -> Node:
    totals = None
    if "counts" in doc:
        totals = list(map(Total, map(int, doc["counts"]), doc["sums"]))
    return Node(doc["_id"], doc["items"], doc["subtrees"], totals)


def _fields_of(node: Node) -> dict[str, Value]:
    fields: dict[str, Any] = {"items": node.items, "subtrees": node.subtrees}
    if node.totals is None:
        return fields
    sums = [stored_sum(total.sum) for total in node.totals]
    return {**fields, "counts": [total.size for total in node.totals], "sums": sums}


def stored_sum(number: Number) -> Value:
    """
    A sum as documents and results hold it.

    Raises:
        SumTooLarge: it is an integer of more than 64 bits.
    """
    try:
        return storable(number)
    except OverflowError:
        raise SumTooLarge("the sum of these integers has more than 64 bits") from None
