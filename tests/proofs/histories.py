"""
What clients did and were told: a history of transactions on lists that only grow.

    history = History()
    operation = history.begin("client 3", [Append(key=7, value=41)])
    history.done(operation, [Read(key=5, values=(12,)), Append(key=7, value=41)])
    history.aborted(operation)      # or: certainly nothing of it was done
    ...                             # or neither: nobody knows

No value is appended twice to one list, so a list that was read names, in their order, all
transactions that wrote it.  That is what makes a history easy to check: see `anomalies`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TypeAlias


@dataclass(frozen=True, slots=True, kw_only=True)
class Append:
    """A value was put at the end of a list."""

    key: int
    value: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Read:
    """A whole list was read; one that nobody has written is empty."""

    key: int
    values: tuple[int, ...]


Step: TypeAlias = Append | Read


class Fate(Enum):
    """What the client knows of its transaction."""

    DONE = "done"
    ABORTED = "aborted"
    UNKNOWN = "unknown"


@dataclass(slots=True, kw_only=True)
class Operation:
    """
    One transaction, as its client sees it.

    session: operations of one session stand in the order in which the client saw them end.
    begun: when it was asked for; `None` if it may show any state, as a live result may.
    ended: when its answer came, on the same count of events.
    steps: what it did, in order; before its end, and if its fate is unknown, what it may append.
    undone: what it appended and rolled back itself.
    """

    number: int
    session: str
    begun: int | None
    ended: int | None = None
    fate: Fate = Fate.UNKNOWN
    steps: Sequence[Step] = ()
    undone: Sequence[Append] = ()

    def __str__(self) -> str:
        told = " ".join(map(_told, self.steps))
        return f"T{self.number} of {self.session} ({self.fate.value}): {told}"


class History:
    """All operations, in the order in which they began."""

    def __init__(self) -> None:
        self.operations: list[Operation] = []
        self._events = 0

    def begin(
        self, session: str, appends: Sequence[Append], undone: Sequence[Append] = ()
    ) -> Operation:
        """A transaction is asked for, that will make these appends."""
        return self._add(session, self._event(), appends, undone)

    def done(self, operation: Operation, steps: Sequence[Step]) -> None:
        """It was answered: this is what it did."""
        self._end(operation, Fate.DONE)
        operation.steps = steps

    def aborted(self, operation: Operation) -> None:
        """It was answered: nothing of it was done."""
        self._end(operation, Fate.ABORTED)

    def shown(self, session: str, reads: Sequence[Read]) -> None:
        """A session was shown a state, of whatever time, but no older than the one before."""
        self.done(self._add(session, None, (), ()), reads)

    def _add(
        self,
        session: str,
        begun: int | None,
        steps: Sequence[Step],
        undone: Sequence[Append],
    ) -> Operation:
        operation = Operation(
            number=len(self.operations), session=session, begun=begun, steps=steps, undone=undone
        )
        self.operations.append(operation)
        return operation

    def _end(self, operation: Operation, fate: Fate) -> None:
        assert operation.fate is Fate.UNKNOWN, f"answered twice: {operation}"
        operation.fate = fate
        operation.ended = self._event()

    def _event(self) -> int:
        self._events += 1
        return self._events


def _told(step: Step) -> str:
    match step:
        case Append(key=key, value=value):
            return f"{key}+{value}"
        case Read(key=key, values=values):
            return f"{key}={list(values)}".replace(" ", "")
