"""
A look at every node of a tree, some at a time.

A node is right by itself if its items are in order and between those beside it in its parent, and
if it comes to what its parent says of it.  So what is left to be looked at is a few subtrees, with
what is said of each, and travels from one query to the next.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from itertools import pairwise
from typing import Any, NotRequired, TypedDict

from components.aggregate.node import Item, Node, Total, position_of, storable
from components.aggregate.tree import Nodes


class Part(TypedDict):
    """
    A subtree, which is `depth` nodes below the root, and what its parent says of it.

    `lower` and `upper` are key and id of the items around it; a side without one is open.  A lazy
    root does not say how many items it has, nor their sum.
    """

    node: str
    depth: int
    lower: NotRequired[list[Any]]
    upper: NotRequired[list[Any]]
    size: NotRequired[int]
    sum: NotRequired[Any]


class Walk(TypedDict):
    """
    What is `left`, the last part first; the `count` of items seen, and the `height` of the tree in
    nodes, 0 until a leaf was seen.
    """

    left: list[Part]
    count: int
    height: int


async def look(
    nodes: Nodes,
    walk: Walk,
    *,
    size_max: int,
    is_lazy: bool,
    is_enough: Callable[[], Awaitable[bool]],
) -> Walk:
    """
    Look at some nodes, one at least.

    Args:
        size_max: as the tree is built.
        is_lazy: likewise.
        is_enough: asked after each node.

    Raises:
        AssertionError: the tree is not as it has to be.
    """
    left, count, height = [*walk["left"]], int(walk["count"]), int(walk["height"])
    while left:
        part = left.pop()
        node = await nodes.get(part["node"])
        _check_node(node, part, size_max=size_max, is_lazy=is_lazy)
        count += len(node.items)
        left += _parts_of(node, part)
        if not node.subtrees:
            height = height or int(part["depth"]) + 1
            assert height == part["depth"] + 1, f"leaves of different depth: {node.id}"
        if await is_enough():
            break
    return {"left": left, "count": count, "height": height}


def from_root(root: str) -> Walk:
    """Nothing was looked at yet."""
    return {"left": [{"node": root, "depth": 0}], "count": 0, "height": 0}


def _check_node(node: Node, part: Part, *, size_max: int, is_lazy: bool) -> None:
    is_root = part["depth"] == 0
    least = size_max // 2 if not is_root else 1 if node.subtrees else 0
    assert least <= len(node.items) <= size_max, f"{len(node.items)} items in {node.id}"
    edges = [part.get("lower"), *node.items, part.get("upper")]
    places = [position_of(edge) for edge in edges if edge is not None]
    assert all(a < b for a, b in pairwise(places)), f"order in {node.id}"
    assert len(node.subtrees) in (0, len(node.items) + 1), f"subtrees of {node.id}"
    if is_root and is_lazy and node.subtrees:
        assert node.totals is None, "a lazy root keeps totals"
        return
    assert node.totals is not None, f"no totals in {node.id}"
    assert len(node.totals) == len(node.subtrees), f"totals of {node.id}"
    if "size" in part:
        assert node.total() == Total(int(part["size"]), part["sum"]), f"totals above {node.id}"


def _parts_of(node: Node, part: Part) -> list[Part]:
    """The subtrees of a node, the last one first."""
    edges = [part.get("lower"), *map(_edge_of, node.items), part.get("upper")]
    found: list[Part] = []
    for i, child in enumerate(node.subtrees):
        below: Part = {"node": child, "depth": int(part["depth"]) + 1}
        lower, upper = edges[i], edges[i + 1]
        if lower is not None:
            below["lower"] = lower
        if upper is not None:
            below["upper"] = upper
        if node.totals is not None:
            below["size"], below["sum"] = node.totals[i].size, storable(node.totals[i].sum)
        found.append(below)
    return found[::-1]


def _edge_of(item: Item) -> list[Any]:
    return item[:2]
