"""
What a test puts at a pause point: hold whoever passes there, then let go, fail or crash it.

    hold = runtime.hold("committer.persist")
    nursery.start_soon(engine.mutation, send)
    await hold.wait_reached()     # it stands there, and nothing after it has happened
    ...                           # a second commit, a jump of the clock, a power cut
    hold.release()                # or hold.fail(OSError("disk on fire"))

The engine names the points (`await runtime.pause("committer.persist")`); a
real runtime has nothing at any of them.  `ops/prove simulation` comes to each:

    committer.persist   before a batch is handed to the store    committer.published   after it
    fanout.planned      before the queries of a round are run
    session.committed   between a client's mutation and its answer
    jobs.found          a job is due, and not begun              jobs.ended    its end is durable
    jobs.begun          an action is marked as begun             jobs.acted    its end is not noted
    retention.chosen    before a slice of the log goes
    push.checked        after a part of a check                  push.switch   before the switch
    index.filled        after a slice of an index                index.swept
"""

from __future__ import annotations

import trio


class Hold:
    """
    Holds everybody who passes until it is released; then nobody any more.

    Args:
        skip: how many may pass before the first is held.
    """

    __slots__ = ("_error", "_passed", "_reached", "_released", "_skip")

    def __init__(self, *, skip: int = 0) -> None:
        self._skip = skip
        self._passed = 0
        self._reached = trio.Event()
        self._released = trio.Event()
        self._error: BaseException | None = None

    async def __call__(self) -> None:
        self._passed += 1
        if self._passed <= self._skip:
            return
        self._reached.set()
        await self._released.wait()
        if self._error is not None:
            raise self._error

    @property
    def passed(self) -> int:
        """How many have come to the point, whether they were held or not."""
        return self._passed

    async def wait_reached(self) -> None:
        """Wait until somebody is held."""
        await self._reached.wait()

    def release(self) -> None:
        """Let all who are held, and all who come later, go on."""
        self._released.set()

    def fail(self, error: BaseException) -> None:
        """Raise `error` in all who are held, and in all who come later."""
        self._error = error
        self._released.set()
