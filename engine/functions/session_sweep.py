"""
Forgets what sessions have sent, when they have been silent for long.

It walks the sessions in slices, each a transaction of its own, and looks only
at the newest record of each.
"""

from __future__ import annotations

from functools import partial
from typing import Final

from engine.functions.turns import Turns
from engine.indexes.catalog import SESSION_REQUESTS
from engine.kernel.runtime import Runtime
from engine.kernel.trace import tracer
from engine.model.codec import decode
from engine.model.limits import Limits
from engine.transaction.transaction import Transaction

trace = tracer(__name__)

SWEEP_EVERY_S: Final = 3600.0
SLICE_SESSIONS: Final = 64
SLICE_ROWS: Final = 512
_SESSION_BYTES: Final = 16
_PAST_SESSION: Final = b"\xff" * 5


class SessionSweep:
    """Runs in the background for as long as the engine does."""

    def __init__(self, turns: Turns, *, runtime: Runtime, limits: Limits) -> None:
        self._turns = turns
        self._runtime = runtime
        self._silence_ns = int(limits.session_silence_s_max * 1e9)

    async def run(self) -> None:
        while True:
            await self._runtime.sleep(SWEEP_EVERY_S)
            await self.sweep()

    async def sweep(self) -> int:
        """Drop the records of all silent sessions; returns how many records went."""
        after: bytes | None = b""
        dropped = 0
        while after is not None:
            after, count = await self._turns.write(partial(self._slice, after))
            dropped += count
        trace.info("sessions.swept", dropped=dropped)
        return dropped

    def _slice(self, after: bytes, turn: Transaction) -> tuple[bytes | None, int]:
        """Where to go on (`None` is nowhere), and how many records were dropped."""
        dropped = 0
        for _ in range(SLICE_SESSIONS):
            first = self._first(turn, after)
            if first is None:
                return None, dropped
            session = first[:_SESSION_BYTES]
            if self._is_silent(turn, session):
                rows = self._rows(turn, session)
                for key in rows:
                    turn.put_row(key, None)
                dropped += len(rows)
                if len(rows) == SLICE_ROWS:
                    return session, dropped
            after = session + _PAST_SESSION
        return after, dropped

    def _first(self, turn: Transaction, after: bytes) -> bytes | None:
        index = turn.catalog.by_number[SESSION_REQUESTS].indexes["by_id"]
        entry = next(iter(turn.view.entries(index, after, None, reverse=False)), None)
        return None if entry is None else entry[0]

    def _is_silent(self, turn: Transaction, session: bytes) -> bool:
        index = turn.catalog.by_number[SESSION_REQUESTS].indexes["by_id"]
        newest = turn.view.entries(index, session, session + b"\xff\xff\xff\xff", reverse=True)
        for _, key in newest:
            image = turn.view.row(key)
            assert image is not None, "an entry leads to a row"
            said_ns = int.from_bytes(decode(image)["ts"], "big")
            # As timestamps go, which do not follow a clock that leaps: all would be silent at once.
            return self._turns.next_ts() - said_ns > self._silence_ns
        return True

    def _rows(self, turn: Transaction, session: bytes) -> list[bytes]:
        index = turn.catalog.by_number[SESSION_REQUESTS].indexes["by_id"]
        rows: list[bytes] = []
        for _, key in turn.view.entries(index, session, session + _PAST_SESSION, reverse=False):
            rows.append(key)
            if len(rows) == SLICE_ROWS:
                break
        return rows
