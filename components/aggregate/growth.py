"""
What changes a tree: insertion, deletion, and what keeps it in shape.

The algorithms are those of Bayer and McCreight (1972), as in Cormen et al.,
"Introduction to Algorithms", chapter 18, with the repair on the way back, so
that a write that is refused has changed nothing.
"""

from __future__ import annotations

from typing import Final, Protocol

from components.aggregate.node import Item, Node, Total, index, is_at, position_of, size_of
from components.aggregate.order import Cut, at_item
from components.aggregate.tree import Nodes, Tree
from engine import Value

SIZE_MIN: Final = 4
SIZE_MAX: Final = 512
"""Items of a node at most: a write copies the whole node, and one document holds it."""

NODE_BYTES_MAX: Final = (1 << 20) - 1_000
"""What the database takes as a document, but for the names of a node's fields."""
SUBTREE_BYTES: Final = 64
"""Of an item's node for the subtree beside it: an id, a count and a sum."""


class KeptNodes(Nodes, Protocol):
    """Where the nodes are, and are changed."""

    async def add(self, items: list[Item], subtrees: list[str], totals: list[Total] | None) -> Node:
        """A new node."""

    def changed(self, node: Node) -> None:
        """Keep what `node` is like now."""

    async def remove(self, node: Node) -> None:
        """Forget a node."""


class Exists(Exception):
    """An item with this key and this id is there."""


class Missing(Exception):
    """No item with this key and this id is there."""


class TooLarge(Exception):
    """The item has more bytes than a full node has for each."""


def check_size(size_max: int) -> None:
    """
    Raises:
        ValueError: no node can be of that size.
    """
    if size_max % 2 or not SIZE_MIN <= size_max <= SIZE_MAX:
        raise ValueError(
            f"max_node_size is {size_max}; it must be even and at least {SIZE_MIN}, "
            f"at most {SIZE_MAX}"
        )


def item_bytes_max(size_max: int) -> int:
    """
    Of an item in a tree whose nodes have `size_max` of them, so that all of a full one fit.

    Otherwise long keys of one user would fill the node in which the short ones of another belong.
    """
    return NODE_BYTES_MAX // size_max - SUBTREE_BYTES


class GrowingTree(Tree):
    """One tree, to be read and written; writes may change its `root`."""

    def __init__(self, nodes: KeptNodes, root: str, *, size_max: int, is_lazy: bool) -> None:
        super().__init__(nodes, root, size_max=size_max, is_lazy=is_lazy)
        self._kept = nodes

    async def insert(self, item: Item) -> None:
        """
        Raises:
            Exists: an item with its key and id is there; nothing was changed.
            TooLarge: its key or its id is too long, likewise.
        """
        self._check(item)
        await self.put_back(item)

    async def put_back(self, item: Item) -> None:
        """Insert an item that was there before, however large it is."""
        root = await self._nodes.get(self.root)
        split = await self._insert(root, item, position_of(item))
        if split is not None:
            middle, right = split
            totals = None if self._is_lazy else [root.total(), right.total()]
            grown = await self._kept.add([middle], [root.id, right.id], totals)
            self.root = grown.id

    def _check(self, item: Item) -> None:
        size, most = size_of(item), item_bytes_max(self._size_max)
        if size > most:
            raise TooLarge(
                f"an item of {size:,} bytes, key and id; {most:,} is the most with nodes of "
                f"{self._size_max}: take a shorter key, such as the beginning of a text or a hash "
                "of it, or smaller nodes by clear(max_node_size=...)"
            )

    async def delete(self, key: Value, id: str) -> Item:  # noqa: A002
        """
        Returns:
            The item that was there.

        Raises:
            Missing: there is none; nothing was changed.
        """
        root = await self._nodes.get(self.root)
        item = await self._delete(root, at_item(key, id))
        if not root.items and root.subtrees:
            await self._shrink(root)
        return item

    async def _insert(self, node: Node, item: Item, at: Cut) -> tuple[Item, Node] | None:
        """Returns what goes up into the parent, if the node was split: an item, and a sibling."""
        i = index(node, at)
        if is_at(node, i, at):
            raise Exists
        if not node.subtrees:
            node.items.insert(i, item)
            self._kept.changed(node)
        else:
            child = await self._nodes.get(node.subtrees[i])
            split = await self._insert(child, item, at)
            if split is not None:
                middle, right = split
                node.items.insert(i, middle)
                node.subtrees.insert(i + 1, right.id)
                if node.totals is not None:
                    node.totals.insert(i + 1, right.total())
            self._below_changed(node, i, child, is_touched=split is not None)
        return await self._split(node) if len(node.items) > self._size_max else None

    async def _split(self, node: Node) -> tuple[Item, Node]:
        """Of an odd number of items: half stays, the one in the middle goes up."""
        await self._know_totals(node)
        assert node.totals is not None
        at = self._size_min
        middle = node.items[at]
        right = await self._kept.add(
            node.items[at + 1 :], node.subtrees[at + 1 :], node.totals[at + 1 :]
        )
        del node.items[at:], node.subtrees[at + 1 :], node.totals[at + 1 :]
        self._kept.changed(node)
        return middle, right

    async def _delete(self, node: Node, at: Cut) -> Item:
        i = index(node, at)
        is_here = is_at(node, i, at)
        if not node.subtrees:
            if not is_here:
                raise Missing
            self._kept.changed(node)
            return node.items.pop(i)
        child = await self._nodes.get(node.subtrees[i])
        if is_here:
            item, node.items[i] = node.items[i], await self._pop_last(child)
        else:
            item = await self._delete(child, at)
        await self._repair(node, i, child, is_touched=is_here)
        return item

    async def _pop_last(self, node: Node) -> Item:
        """Take away the last item below."""
        if not node.subtrees:
            self._kept.changed(node)
            return node.items.pop()
        last = len(node.subtrees) - 1
        child = await self._nodes.get(node.subtrees[last])
        item = await self._pop_last(child)
        await self._repair(node, last, child, is_touched=False)
        return item

    async def _repair(self, node: Node, i: int, child: Node, *, is_touched: bool) -> None:
        """After an item less in the subtree at `i`: if that has too few, a sibling helps out."""
        is_short = len(child.items) < self._size_min
        if is_short:
            await self._fill(node, i, child)
        else:
            self._below_changed(node, i, child, is_touched=is_touched)

    async def _fill(self, node: Node, i: int, child: Node) -> None:
        left = await self._nodes.get(node.subtrees[i - 1]) if i > 0 else None
        if left is not None and len(left.items) > self._size_min:
            _rotate_right(node, i - 1, left, child)
            self._pair_changed(node, i - 1, left, child)
            return
        is_last = i == len(node.subtrees) - 1
        right = None if is_last else await self._nodes.get(node.subtrees[i + 1])
        if right is not None and len(right.items) > self._size_min:
            _rotate_left(node, i, child, right)
            self._pair_changed(node, i, child, right)
        elif left is not None:
            await self._merge(node, i - 1, left, child)
        else:
            assert right is not None, "an inner node has two subtrees at least"
            await self._merge(node, i, child, right)

    async def _merge(self, node: Node, i: int, left: Node, right: Node) -> None:
        """Both, and the item between them, become the left one."""
        left.items += [node.items.pop(i), *right.items]
        left.subtrees += right.subtrees
        assert left.totals is not None
        assert right.totals is not None
        left.totals += right.totals
        del node.subtrees[i + 1]
        if node.totals is not None:
            del node.totals[i + 1]
        await self._kept.remove(right)
        self._kept.changed(left)
        self._below_changed(node, i, left, is_touched=True)

    async def _shrink(self, root: Node) -> None:
        """A root without items has one subtree, which becomes the root."""
        child = await self._nodes.get(root.subtrees[0])
        if self._is_lazy and child.subtrees:
            child.totals = None
            self._kept.changed(child)
        self.root = child.id
        await self._kept.remove(root)

    def _pair_changed(self, node: Node, i: int, left: Node, right: Node) -> None:
        self._kept.changed(left)
        self._kept.changed(right)
        self._below_changed(node, i, left, is_touched=True)
        self._below_changed(node, i + 1, right, is_touched=True)

    def _below_changed(self, node: Node, i: int, child: Node, *, is_touched: bool) -> None:
        """Keep the new total of a subtree; a lazy root that was not touched itself stays as is."""
        if node.totals is not None:
            node.totals[i] = child.total()
        if node.totals is not None or is_touched:
            self._kept.changed(node)

    async def _know_totals(self, node: Node) -> None:
        if node.totals is None:
            node.totals = [await self._total_at(node, i) for i in range(len(node.subtrees))]

    async def make_lazy(self) -> None:
        """From here on the root keeps no totals."""
        self._is_lazy = True
        root = await self._nodes.get(self.root)
        if root.subtrees and root.totals is not None:
            root.totals = None
            self._kept.changed(root)


def _rotate_right(node: Node, i: int, left: Node, right: Node) -> None:
    """The last item of the left child goes up, and the one between goes down."""
    right.items.insert(0, node.items[i])
    node.items[i] = left.items.pop()
    if left.subtrees:
        assert left.totals is not None
        assert right.totals is not None
        right.subtrees.insert(0, left.subtrees.pop())
        right.totals.insert(0, left.totals.pop())


def _rotate_left(node: Node, i: int, left: Node, right: Node) -> None:
    """The first item of the right child goes up, and the one between goes down."""
    left.items.append(node.items[i])
    node.items[i] = right.items.pop(0)
    if right.subtrees:
        assert left.totals is not None
        assert right.totals is not None
        left.subtrees.append(right.subtrees.pop(0))
        left.totals.append(right.totals.pop(0))
