"""
What goes wrong with an aggregate.

They are `ConvexError`s, so what they say reaches clients, and they pass between
a component and its application as their `data`: `kind`, and what there is to say.
"""

from __future__ import annotations

from typing import Any, ClassVar

from engine import ConvexError


class AggregateError(ConvexError):
    """Whatever an aggregate refuses; `data` has its `kind` and a `message`."""

    kind: ClassVar[str] = "AGGREGATE"

    def __init__(self, message: str) -> None:
        super().__init__({"kind": self.kind, "message": message})
        self.args = (message,)


class KeyExists(AggregateError):
    """The namespace has an item with this key and this id."""

    kind = "KEY_EXISTS"


class KeyMissing(AggregateError):
    """The namespace has no item with this key and this id."""

    kind = "DELETE_MISSING_KEY"


class OffsetOutOfBounds(AggregateError):
    """There are not so many items within the bounds."""

    kind = "OFFSET_OUT_OF_BOUNDS"


class ItemTooLarge(AggregateError):
    """The key and the id are longer than this tree takes; see `growth.item_bytes_max`."""

    kind = "ITEM_TOO_LARGE"


class SumTooLarge(AggregateError):
    """Integers add up to more than 64 bits, or floats to more than there are."""

    kind = "SUM_TOO_LARGE"


class PendingOperations(AggregateError):
    """Something is queued, so what is applied is not all there is, and nothing may overtake it."""

    kind = "PENDING_OPERATIONS"


class QueueFull(AggregateError):
    """So much is queued that nothing more is taken."""

    kind = "QUEUE_FULL"


_KINDS = {
    one.kind: one
    for one in (
        ItemTooLarge,
        KeyExists,
        KeyMissing,
        OffsetOutOfBounds,
        PendingOperations,
        QueueFull,
        SumTooLarge,
    )
}


def told_by(error: ConvexError) -> Any:
    """What an application is told where the component was refused: the same error by its class."""
    data = error.data
    known = _KINDS.get(str(data.get("kind"))) if isinstance(data, dict) else None
    return error if known is None else known(data["message"])
