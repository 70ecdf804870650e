"""
Counts, sums, ranks and the item at any place, without looking at all of them.

    scores = TableAggregate(
        app.use(component, name="scores"),
        sort_key=lambda doc: doc["points"],
        namespace=lambda doc: doc["game"],
    )

    await scores.count(ctx, namespace="chess", bounds=between(excl(1000)))

It is a part of the caller's transaction, and an answer that is shown is told
again when what it counted has changed.  README.md says more.
"""

from components.aggregate.bounds import Bound, Bounds, between, eq, excl, incl, prefix
from components.aggregate.client import (
    Aggregate,
    DeadLetter,
    DirectAggregate,
    Entry,
    Item,
    ItemsPage,
    NamespacesPage,
    Pending,
    Query,
    TableAggregate,
    Where,
)
from components.aggregate.errors import (
    AggregateError,
    ItemTooLarge,
    KeyExists,
    KeyMissing,
    OffsetOutOfBounds,
    PendingOperations,
    QueueFull,
    SumTooLarge,
)
from components.batch_worker import component as batch_worker
from engine import Component

component = Component("aggregate")
loop = component.use(batch_worker, name="loop")

__all__ = [
    "Aggregate",
    "AggregateError",
    "Bound",
    "Bounds",
    "DeadLetter",
    "DirectAggregate",
    "Entry",
    "Item",
    "ItemTooLarge",
    "ItemsPage",
    "KeyExists",
    "KeyMissing",
    "NamespacesPage",
    "OffsetOutOfBounds",
    "Pending",
    "PendingOperations",
    "Query",
    "QueueFull",
    "SumTooLarge",
    "TableAggregate",
    "Where",
    "between",
    "component",
    "eq",
    "excl",
    "incl",
    "loop",
    "prefix",
]
