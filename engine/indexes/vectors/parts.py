"""
Parts of a vector index: rows side by side, in arrays.

    Tail    what was written of late, in the order in which it came; it grows
    Part    rows in the order of their keys, as a fold has left them; they only end

Every row counts from the timestamp at which it was written up to the one at which it was replaced
or deleted.  So one part answers every view at once: that of now, older ones that are still leased,
and the head that is staged above them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from engine.indexes.vectors.asked import Condition, Equal, evaluate
from engine.indexes.vectors.graph import Graph
from engine.indexes.vectors.rows import Row, Rows

Keys: TypeAlias = NDArray[np.bytes_]
"""Internal ids of documents."""
Times: TypeAlias = NDArray[np.int64]
Mask: TypeAlias = NDArray[np.bool_]
Codes: TypeAlias = NDArray[np.int32]

FOREVER: Final = np.iinfo(np.int64).max
"""The end of a row that is still there."""
KEY: Final = np.dtype("S16")
_TAIL_ROWS: Final = 64
"""Room of a tail that is new; it doubles when it is full."""


class Entry(NamedTuple):
    """What a vector index has of a document."""

    row: Row
    filters: tuple[bytes, ...]
    """The keys of the values of its filter fields, in the order of the declaration."""

    def equals(self, other: Entry) -> bool:
        return self.filters == other.filters and bool((self.row == other.row).all())


Values: TypeAlias = list[dict[bytes, int]]
"""Of each filter field the keys of the values that a part has, and the number of each."""


class Part:
    """
    Rows side by side.

    Args:
        keys: of the documents; in order, unless it is what a tail has.
        values, codes: the filter fields of each row, by their numbers.
        begins: when each row was written; `None` if no view is older than any of them.
        ends: when it was replaced or deleted; shared with whoever keeps it up.
        graph: a way to find rows without looking at all of them.
    """

    __slots__ = ("begins", "codes", "ends", "graph", "keys", "rows", "values")

    def __init__(
        self,
        keys: Keys,
        rows: Rows,
        values: Values,
        codes: Codes,
        ends: Times,
        *,
        begins: Times | None = None,
        graph: Graph | None = None,
    ) -> None:
        self.keys = keys
        self.rows = rows
        self.values = values
        self.codes = codes
        self.ends = ends
        self.begins = begins
        self.graph = graph

    def __len__(self) -> int:
        return len(self.keys)

    def counting(self, ts: int, condition: Condition | None, fields: Sequence[str]) -> Mask:
        """Which rows are there at `ts` and meet a condition on the filter fields."""
        there: Mask = self.ends > ts
        if self.begins is not None:
            there &= self.begins <= ts
        if condition is not None:
            there &= evaluate(condition, lambda equal: self._having(equal, fields))
        return there

    def place_of(self, key: bytes) -> int | None:
        """Where the row of a document is, in a part whose keys are in order."""
        at = int(np.searchsorted(self.keys, np.array(key, KEY)))
        return at if at < len(self.keys) and key_at(self.keys, at) == key else None

    def end(self, key: bytes, ts: int) -> bool:
        """Let the row of a document count up to `ts`; whether there was one that did for longer."""
        at = self.place_of(key)
        if at is None or self.ends[at] != FOREVER:
            return False
        self.ends[at] = ts
        return True

    def take_back(self, ts: int) -> None:
        """Whatever was to end after `ts` stays."""
        self.ends[(self.ends > ts) & (self.ends != FOREVER)] = FOREVER

    def entry_at(self, at: int) -> Entry:
        filters = tuple(
            next(key for key, code in known.items() if code == self.codes[at, place])
            for place, known in enumerate(self.values)
        )
        return Entry(self.rows[at], filters)

    @property
    def size_bytes(self) -> int:
        """About how much memory it takes."""
        arrays: tuple[NDArray[Any], ...] = (self.keys, self.rows, self.codes, self.ends)
        return sum(a.nbytes for a in arrays) + (self.graph.size_bytes if self.graph else 0)

    def _having(self, equal: Equal, fields: Sequence[str]) -> Mask:
        at = fields.index(equal.field)
        found: Mask = self.codes[:, at] == self.values[at].get(equal.key, -1)
        return found


class Tail:
    """
    Rows in the order in which they were written.

    Whoever searches captures it with `part`: what is added later, also by making more room, is not
    seen there, and what ends later ends past what such a search asks for.
    """

    def __init__(self, dimensions: int, filters: int, room: int = _TAIL_ROWS) -> None:
        self.count = 0
        self.values: Values = [{} for _ in range(filters)]
        self._slots: dict[bytes, int] = {}
        """Where the row of each document is that has not ended."""
        self._keys: Keys = np.zeros(room, KEY)
        self._rows: Rows = np.zeros((room, dimensions), np.float32)
        self._codes: Codes = np.zeros((room, filters), np.int32)
        self._begins: Times = np.zeros(room, np.int64)
        self._ends: Times = np.zeros(room, np.int64)

    def part(self, start: int = 0, stop: int | None = None) -> Part:
        """What it has now, or some of it."""
        kept = slice(start, self.count if stop is None else stop)
        return Part(
            self._keys[kept],
            self._rows[kept],
            self.values,
            self._codes[kept],
            self._ends[kept],
            begins=self._begins[kept],
        )

    def add(self, key: bytes, entry: Entry, ts: int) -> None:
        """Let a document have this row from `ts` on; an earlier one of it has ended."""
        at = self.count
        if at == len(self._keys):
            self._grow()
        self._keys[at] = key
        self._rows[at] = entry.row
        for place, value in enumerate(entry.filters):
            known = self.values[place]
            self._codes[at, place] = known.setdefault(value, len(known))
        self._begins[at] = ts
        self._ends[at] = FOREVER
        self._slots[key] = at
        self.count = at + 1

    def end(self, key: bytes, ts: int) -> bool:
        """As `Part.end`."""
        at = self._slots.pop(key, None)
        if at is None:
            return False
        self._ends[at] = ts
        return True

    def take_back(self, ts: int) -> None:
        """Forget whatever was written or ended after `ts`."""
        self.count = int(np.searchsorted(self._begins[: self.count], ts, side="right"))
        ends = self._ends[: self.count]
        ends[(ends > ts) & (ends != FOREVER)] = FOREVER
        self._find_slots()

    def written_upto(self, ts: int) -> int:
        """How many of its rows were written at `ts` or before it."""
        return int(np.searchsorted(self._begins[: self.count], ts, side="right"))

    def without(self, first: int) -> Tail:
        """A tail without its first rows."""
        left = self.count - first
        room = max(_TAIL_ROWS, 1 << left.bit_length())
        tail = Tail(self._rows.shape[1], len(self.values), room)
        kept = self.part(first)
        tail.count = left
        tail._keys[:left] = kept.keys
        tail._rows[:left] = kept.rows
        tail._begins[:left] = self._begins[first : self.count]
        tail._ends[:left] = kept.ends
        for place, known in enumerate(self.values):
            codes = kept.codes[:, place]
            used = np.unique(codes)
            names = list(known)
            tail.values[place] = {names[code]: new for new, code in enumerate(used.tolist())}
            tail._codes[:left, place] = np.searchsorted(used, codes)
        tail._find_slots()
        return tail

    @property
    def size_bytes(self) -> int:
        arrays: tuple[NDArray[Any], ...] = (self._keys, self._rows, self._codes, self._begins)
        return sum(array.nbytes for array in arrays) + self._ends.nbytes

    def _find_slots(self) -> None:
        alive = np.flatnonzero(self._ends[: self.count] == FOREVER)
        self._slots = {key_at(self._keys, at): at for at in alive.tolist()}

    def _grow(self) -> None:
        """Twice the room, elsewhere: whoever has captured what there was keeps it."""
        self._keys = _doubled(self._keys)
        self._rows = _doubled(self._rows)
        self._codes = _doubled(self._codes)
        self._begins = _doubled(self._begins)
        self._ends = _doubled(self._ends)


def key_at(keys: Keys, at: int) -> bytes:
    """A key as it is: numpy takes the zeros at its end away."""
    return bytes(keys[at]).ljust(KEY.itemsize, b"\0")


def _doubled(array: NDArray[Any]) -> NDArray[Any]:
    return np.concatenate([array, np.zeros_like(array)])


def joined(parts: Sequence[Part], ts: int) -> Part:
    """
    One part of the rows that several have at `ts`, in the order of their keys.

    Rows that end later end there too.  No document has two rows at a time, so every key is
    there once.
    """
    chosen = [np.flatnonzero(part.counting(ts, None, ())) for part in parts]
    keys = np.concatenate([part.keys[at] for part, at in zip(parts, chosen, strict=True)])
    order = np.argsort(keys, kind="stable")
    rows = np.concatenate([part.rows[at] for part, at in zip(parts, chosen, strict=True)])
    ends = np.concatenate([part.ends[at] for part, at in zip(parts, chosen, strict=True)])
    values, codes = _joined_filters(parts, chosen)
    return Part(keys[order], rows[order], values, codes[order], ends[order])


def _joined_filters(
    parts: Sequence[Part], chosen: Sequence[NDArray[np.int64]]
) -> tuple[Values, Codes]:
    """The values that the chosen rows have, numbered anew."""
    count = sum(map(len, chosen))
    fields = len(parts[0].values)
    values: Values = [{} for _ in range(fields)]
    codes: Codes = np.zeros((count, fields), np.int32)
    for place, known in enumerate(values):
        start = 0
        for part, at in zip(parts, chosen, strict=True):
            used, of_row = np.unique(part.codes[at, place], return_inverse=True)
            names = list(part.values[place])
            new = [known.setdefault(names[code], len(known)) for code in used.tolist()]
            codes[start : start + len(at), place] = np.array(new, np.int32)[of_row]
            start += len(at)
    return values, codes
