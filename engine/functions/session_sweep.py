"""
Forgets what sessions have sent: all of one that is silent for long, of others what is old.

It walks the sessions in slices, each a transaction of its own, and looks only at
the oldest and the newest record of those that keep everything.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import takewhile
from typing import Final

from engine.functions.idempotence import forget_below
from engine.functions.sweeping import Room, keep_sweeping
from engine.functions.turns import Turns
from engine.indexes.catalog import KEYED_REQUESTS, SESSION_REQUESTS
from engine.indexes.stored import Entry
from engine.kernel.runtime import Runtime
from engine.model.codec import decode
from engine.model.limits import Limits
from engine.transaction.transaction import Transaction

SLICE_SESSIONS: Final = 64
SLICE_ROWS: Final = 512
_SESSION_BYTES: Final = 16
_NUMBER_BYTES: Final = 4
_FLOOR: Final = b"\xff" * _NUMBER_BYTES
_PAST_SESSION: Final = b"\xff" * (_NUMBER_BYTES + 1)


class SessionSweep:
    """Runs in the background for as long as the engine does."""

    def __init__(self, turns: Turns, *, runtime: Runtime, limits: Limits) -> None:
        self._turns = turns
        self._runtime = runtime
        self._silence_ns = int(limits.session_silence_s_max * 1e9)
        self._young_ns = int(limits.session_record_age_s_min * 1e9)
        self._records_max = limits.session_records_max

    async def run(self) -> None:
        await keep_sweeping("sessions", self.sweep, self._runtime)

    async def sweep(self) -> int:
        """Drop the records that no session keeps; returns how many went."""
        dropped = 0
        for table in (SESSION_REQUESTS, KEYED_REQUESTS):
            after: bytes | None = b""
            while after is not None:
                after, count = await self._turns.write(partial(self._slice, table, after))
                dropped += count
        return dropped

    def _slice(self, table: int, after: bytes, turn: Transaction) -> tuple[bytes | None, int]:
        """Where to go on (`None` is nowhere), and how many records were dropped."""
        records = _Records(turn, table)
        dropped, room = 0, Room(SLICE_ROWS)
        for _ in range(SLICE_SESSIONS):
            oldest = next(records.entries(after, None), None)
            if oldest is None:
                return None, dropped
            session = oldest[0][:_SESSION_BYTES]
            dropped += self._sweep_session(records, session, oldest[0], room)
            if not room.is_left:
                return session, dropped
            after = session + _PAST_SESSION
        return after, dropped

    def _sweep_session(self, records: _Records, session: bytes, oldest: bytes, room: Room) -> int:
        """Drop records of one session while there is room; returns how many went."""
        newest = next(records.entries(session, session + _FLOOR, reverse=True), None)
        if newest is None or self._age_ns(records.turn, newest[1]) > self._silence_ns:
            rows = records.fitting(records.entries(session, session + _PAST_SESSION), room)
        else:
            kept_from = _number(newest[0]) + 1 - self._records_max
            if _number(oldest) >= kept_from:
                return 0
            rows = records.fitting(self._old(records, session, kept_from), room)
            if rows:
                forget_below(records.turn, session, _number(rows[-1][0]) + 1)
        for _, key in rows:
            records.turn.put_row(key, None)
        return len(rows)

    def _old(self, records: _Records, session: bytes, below: int) -> Iterator[Entry]:
        """Records of requests below that number, up to the first that is young."""
        upper = session + below.to_bytes(_NUMBER_BYTES, "big")
        rows = records.entries(session, upper)
        return takewhile(lambda row: self._age_ns(records.turn, row[1]) > self._young_ns, rows)

    def _age_ns(self, turn: Transaction, key: bytes) -> int:
        said_ns = int.from_bytes(decode(_image(turn, key))["ts"], "big")
        # As timestamps go, which do not follow a clock that leaps: all would be silent at once.
        return self._turns.next_ts() - said_ns


@dataclass(frozen=True, slots=True)
class _Records:
    """Those of sessions, or those of keys: each of these is a session with one request."""

    turn: Transaction
    table: int

    def entries(
        self, lower: bytes, upper: bytes | None, *, reverse: bool = False
    ) -> Iterator[Entry]:
        index = self.turn.catalog.by_number[self.table].indexes["by_id"]
        return self.turn.view.entries(index, lower, upper, reverse=reverse)

    def fitting(self, rows: Iterator[Entry], room: Room) -> list[Entry]:
        """The first of `rows` for which there is room."""
        found: list[Entry] = []
        while room.is_left and (row := next(rows, None)) is not None:
            room.take(len(_image(self.turn, row[1])))
            found.append(row)
        return found


def _image(turn: Transaction, key: bytes) -> bytes:
    image = turn.view.row(key)
    assert image is not None, "an entry leads to a row"
    return image


def _number(entry_key: bytes) -> int:
    """The request that an entry is of."""
    return int.from_bytes(entry_key[_SESSION_BYTES:], "big")
