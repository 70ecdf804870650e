"""
A B-tree whose nodes know how many items are below them, and what those add up to.

Items are in inner nodes too.  A node holds the totals of its subtrees, so what
lies between two bounds is added up from the nodes on the two paths to them: of
`n` items, O(log n) nodes.  The totals of a lazy root are not kept but asked of
its children, so a write touches one child of the root and not the root, and a
count between bounds is not touched by what is written under other children.
"""

from __future__ import annotations

from typing import Protocol

from components.aggregate.node import (
    NOTHING,
    Item,
    Node,
    Total,
    combined,
    index,
    pieces,
)
from components.aggregate.order import Cut


class Nodes(Protocol):
    """Where the nodes are."""

    async def get(self, node_id: str) -> Node:
        """The node with this id; the same object each time."""


class Tree:
    """
    One tree, to be read.

    Args:
        nodes: where it is.
        root: the id of its root.
        size_max: items of a node at most; even.
        is_lazy: the root does not keep the totals of its subtrees.
    """

    def __init__(self, nodes: Nodes, root: str, *, size_max: int, is_lazy: bool) -> None:
        self.root = root
        self._nodes = nodes
        self._size_max = size_max
        self._size_min = size_max // 2
        self._is_lazy = is_lazy

    async def total(self, lower: Cut | None, upper: Cut | None) -> Total:
        """How many items are between two bounds, and their sum."""
        return await self._total(await self._nodes.get(self.root), lower, upper)

    async def at(self, offset: int, lower: Cut | None, upper: Cut | None) -> Item | int:
        """
        Returns:
            The item at an offset within the bounds, from the end if that is negative: -1 is the
            last one. How many there are, if there are too few.
        """
        root = await self._nodes.get(self.root)
        is_reverse = offset < 0
        return await self._at(root, -1 - offset if is_reverse else offset, lower, upper, is_reverse)

    async def items(
        self, lower: Cut | None, upper: Cut | None, *, limit: int, is_reverse: bool
    ) -> list[Item]:
        """The first items between two bounds, or the last ones backwards."""
        found: list[Item] = []
        root = await self._nodes.get(self.root)
        await self._collect(root, lower, upper, limit, is_reverse, found)
        return found

    async def _total(self, node: Node, lower: Cut | None, upper: Cut | None) -> Total:
        first = 0 if lower is None else index(node, lower)
        last = len(node.items) if upper is None else index(node, upper)
        if first > last:
            return NOTHING
        totals: list[Total] = []
        if node.subtrees:
            whole = range(first + (lower is not None), last + (upper is None))
            totals += [await self._total_at(node, i) for i in whole]
            if lower is not None:
                upper_here = upper if first == last else None
                totals.append(await self._total_below(node, first, lower, upper_here))
            if upper is not None and (lower is None or first < last):
                totals.append(await self._total_below(node, last, None, upper))
        return combined(totals, node.items[first:last])

    async def _total_below(self, node: Node, i: int, lower: Cut | None, upper: Cut | None) -> Total:
        """Of a part of a subtree."""
        return await self._total(await self._nodes.get(node.subtrees[i]), lower, upper)

    # These go through the pieces of a node between two bounds, in order: a subtree
    # that a bound may cut, or that lies within both and is taken whole; and single items.

    async def _at(
        self, node: Node, offset: int, lower: Cut | None, upper: Cut | None, is_reverse: bool
    ) -> Item | int:
        seen = 0
        for piece in pieces(node, lower, upper, is_reverse=is_reverse):
            if isinstance(piece, list):
                if seen == offset:
                    return piece
                seen += 1
                continue
            if piece.is_whole:
                count = (await self._total_at(node, piece.i)).size
                if offset >= seen + count:
                    seen += count
                    continue
            child = await self._nodes.get(node.subtrees[piece.i])
            found = await self._at(child, offset - seen, piece.lower, piece.upper, is_reverse)
            if isinstance(found, list):
                return found
            seen += found
        return seen

    async def _collect(
        self,
        node: Node,
        lower: Cut | None,
        upper: Cut | None,
        limit: int,
        is_reverse: bool,
        found: list[Item],
    ) -> None:
        for piece in pieces(node, lower, upper, is_reverse=is_reverse):
            if len(found) == limit:
                return
            if isinstance(piece, list):
                found.append(piece)
            else:
                child = await self._nodes.get(node.subtrees[piece.i])
                await self._collect(child, piece.lower, piece.upper, limit, is_reverse, found)

    async def _total_at(self, node: Node, i: int) -> Total:
        """Of a whole subtree."""
        if node.totals is not None:
            return node.totals[i]
        return (await self._nodes.get(node.subtrees[i])).total()
