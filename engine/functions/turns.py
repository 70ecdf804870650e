"""
Transactions of the engine's own: pushes, jobs, clean-up.

They take their turn in the lane like any mutation, but run no code of the
application and are bounded by their slices, not by a function's limits.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import Any, Final, TypeVar

import trio

from engine.committer.actor import Committer, RunAgain
from engine.errors import Overloaded, Stopped, StoreFull
from engine.indexes.entries import Change
from engine.kernel.runtime import Runtime
from engine.model.commits import SYSTEM, Kind, Source
from engine.model.limits import Limits
from engine.transaction.transaction import Transaction
from engine.transaction.usage import Usage
from engine.transaction.view import View

T = TypeVar("T")

PROBE_PATIENCE_S: Final = 1.0
"""For a commit that is to show whether the store takes any again."""


class Turns:
    """Where the engine's own transactions come from."""

    def __init__(self, committer: Committer, *, runtime: Runtime, limits: Limits) -> None:
        self._committer = committer
        self._runtime = runtime
        self._limits = limits

    def next_ts(self) -> int:
        """What time it is, as timestamps go."""
        return self._committer.next_ts()

    async def write(self, work: Callable[[Transaction], T], source: Source = SYSTEM) -> T:
        """
        Run `work` in a transaction; what it wrote is durable when this returns.

        `work` may run more than once: a batch below it may be refused.

        Raises:
            StoreFull: there is no room on the disk; nothing was done.
        """

        async def written(transaction: Transaction) -> T:
            result = work(transaction)
            self.stage(transaction, source)
            return result

        return await self.repeat(written)

    async def repeat(
        self, work: Callable[[Transaction], Awaitable[T]], *, durable: bool = False
    ) -> T:
        """
        As `write`, for work that stages what it wrote itself, and may let others run.

        Args:
            durable: keep the lane until what it staged is.
        """
        alone = False
        while True:
            try:
                async with self.turn(durable=durable or alone, alone=alone) as transaction:
                    result = await work(transaction)
            except RunAgain as again:
                if alone and isinstance(again.__cause__, StoreFull):
                    raise again.__cause__ from None
                alone = True
            else:
                return result

    async def obstacle(self) -> str | None:
        """
        Why nothing can be committed now, if so.

        After a batch that was refused it commits a record without writes, to see whether that is
        still so: who is told to stay away would never find out.
        """
        committer = self._committer
        if committer.is_refusing:
            with (
                trio.move_on_after(PROBE_PATIENCE_S),
                suppress(RunAgain, Overloaded, Stopped),
            ):
                async with self.turn():
                    committer.stage([], SYSTEM)
        return committer.obstacle

    @asynccontextmanager
    async def turn(
        self, *, durable: bool = False, alone: bool = False
    ) -> AsyncIterator[Transaction]:
        """
        A transaction, the lane being held; what is staged in the block is durable after it.

        Args:
            durable: keep the lane until then.
            alone: begin when nothing is staged, so that what refuses the batch is its own doing.

        Raises:
            RunAgain: a batch was refused; nothing of it was written.
        """
        committer = self._committer
        await committer.lane.enter(self._limits.lane_deadline_s)
        try:
            if alone:
                await committer.wait_settled()
            view = pinned(committer)
            try:
                yield Transaction(
                    view,
                    usage=Usage(unbounded(self._limits)),
                    now_ns=self._runtime.now_ns(),
                    dice=self._runtime.random,
                    schema=None,
                )
            finally:
                committer.unpin(view.snapshot)
            upto = committer.head.ts
            if durable:
                await committer.settled(upto, view.generation)
        finally:
            committer.lane.leave()
        await committer.settled(upto, view.generation)

    def stage(
        self,
        transaction: Transaction,
        source: Source,
        on_publish: Callable[[], None] | None = None,
        *,
        kind: Kind = Kind.WRITES,
        covered: Sequence[Any] = (),
        changes: Sequence[Change] = (),
    ) -> None:
        """Stage what the transaction wrote, and a slice of index entries, if any of both."""
        if transaction.view.generation != self._committer.generation:
            raise RunAgain
        writes = transaction.finish()
        if writes or changes or on_publish is not None:
            self._committer.stage(
                writes,
                source,
                kind=kind,
                covered=covered,
                changes=changes,
                ts=self._committer.next_ts(transaction.created_upto),
                on_publish=on_publish,
            )


def pinned(committer: Committer, *, is_validated: bool = False) -> View:
    """A view of all that is staged; `Committer.unpin` takes its snapshot afterwards."""
    head = committer.head
    return View(
        committer.pin(),
        begin_ts=head.ts,
        catalog=head.catalog,
        counts=head.counts,
        staged=committer.staged,
        generation=committer.generation,
        is_validated=is_validated,
    )


def unbounded(limits: Limits) -> Limits:
    """`limits` without those on one function's reads and writes."""
    huge = 1 << 60
    return replace(
        limits,
        documents_read_max=huge,
        bytes_read_max=huge,
        documents_written_max=huge,
        bytes_written_max=huge,
        ranges_read_max=huge,
    )
