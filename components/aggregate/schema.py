"""The tables: a row for each tree, the nodes of all of them, and operations that wait."""

from __future__ import annotations

from typing import Any, NotRequired, TypedDict

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


class Entry(TypedDict):
    """An item, and the namespace that it is in."""

    key: Any
    id: str
    sumValue: NotRequired[Any]
    namespace: NotRequired[Any]


class Operation(TypedDict):
    """
    One write: of `new`, of `old`, or of one in place of the other.

    `isTolerant` is for those who do not know whether it was there: what is to go may be missing,
    and what is to come is put in the place of what it would meet.
    """

    old: NotRequired[Entry]
    new: NotRequired[Entry]
    isTolerant: NotRequired[bool]


class PendingOperation(Document):
    """An operation that is to be applied after those that were queued before it."""

    operation: Operation


class DeadLetter(Document):
    """An operation that could not be applied; `queued_at` in milliseconds since 1970."""

    operation: Operation
    kind: str
    error: str
    queued_at: float


class Tally(Document):
    """The one row of what has become of operations that were queued, since the first."""

    applied: float
    refused: float


schema = Schema(
    trees=Table(Tree).index("by_namespace", ["namespace"], unique=True),
    nodes=Table(Node),
    pending_operations=Table(PendingOperation),
    dead_letters=Table(DeadLetter),
    tallies=Table(Tally),
)
