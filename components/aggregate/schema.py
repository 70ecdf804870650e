"""The tables: a row for each tree, and the nodes of all of them."""

from __future__ import annotations

from typing import Any, NotRequired

from engine import Document, Id, Schema, Table


class Node(Document):
    """
    Items in order, `[key, id, summand]`, and the subtrees before, between and after them.

    `counts` and `sums` are the totals of the subtrees; a lazy root that has some lacks both.
    """

    items: list[list[Any]]
    subtrees: list[str]
    counts: NotRequired[list[float]]
    sums: NotRequired[list[Any]]


class Tree(Document):
    """
    The tree of a namespace; without `namespace`, of those who use none.

    Its nodes have `size` items at most; a `lazy` root keeps no totals.
    """

    root: Id[Node]
    namespace: NotRequired[Any]
    size: float
    lazy: bool


schema = Schema(
    trees=Table(Tree).index("by_namespace", ["namespace"], unique=True),
    nodes=Table(Node),
)
