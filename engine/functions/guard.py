"""
Guard: predicates of checks where no function runs, in pushes and imports, under the watchdog.

What is done is engine work; around each predicate it enters and leaves the guard, as calls on
`ctx` do with their execution.  So a predicate that does not end costs a second, and may do no more
than in a mutation.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from engine.app.registered import Kind
from engine.functions.driver import Execution, drive
from engine.functions.watchdog import Watchdog
from engine.model.ids import id_of
from engine.model.limits import Limits

T = TypeVar("T")


class Guard:
    """
    Args:
        what: as messages name what is done.
        now_ns: the clock that predicates see.
    """

    def __init__(
        self, what: str, *, now_ns: Callable[[], int], limits: Limits, watchdog: Watchdog
    ) -> None:
        self._what = what
        self._now_ns = now_ns
        self._limits = limits
        self._watchdog = watchdog
        self._execution: Execution
        self.document: tuple[str, bytes] | None = None
        """The table and the key of the row that is looked at, if there is one."""

    @property
    def what(self) -> str:
        if self.document is None:
            return self._what
        table, key = self.document
        return f"{self._what}, of the document {id_of(key)} of {table!r},"

    async def run(self, work: Callable[[], T]) -> T:
        """
        Do `work`, without letting others run.

        Raises:
            FunctionTimeout: its predicates took longer than a function may.
            FunctionAborted: a predicate raised SystemExit or the like.
        """
        self._execution = execution = _Guarded(self, self._now_ns(), self._limits)

        async def working() -> T:
            execution.leave()
            try:
                return work()
            finally:
                execution.enter()

        result: T = await drive(working(), execution, limits=self._limits, watchdog=self._watchdog)
        return result

    def enter(self) -> None:
        self._execution.enter()

    def leave(self) -> None:
        self._execution.leave()


class _Guarded(Execution):
    __slots__ = ("_guard",)

    def __init__(self, guard: Guard, now_ns: int, limits: Limits) -> None:
        super().__init__(kind=Kind.QUERY, path=guard.what, now_ns=now_ns, seed=0, limits=limits)
        self._guard = guard

    @property
    def name(self) -> str:
        return self._guard.what
