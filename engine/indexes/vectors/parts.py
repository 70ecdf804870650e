"""
Parts of a vector index: rows side by side, in arrays.

    Tail    what was written of late, in the order in which it came, in blocks
    Part    rows as a fold has left them, the oldest first; they only end

Every row counts from the timestamp at which it was written up to the one at which it was replaced
or deleted.  So one part answers every view at once: that of now, older ones that are still leased,
and the head that is staged above them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from engine.indexes.vectors.asked import Condition, Equal, evaluate
from engine.indexes.vectors.entry import Entry
from engine.indexes.vectors.graph import Graph
from engine.indexes.vectors.rows import Places, Rows
from engine.model.codec import decode, encode
from engine.model.ids import encode_id, encode_ids

Keys: TypeAlias = NDArray[np.bytes_]
"""Internal ids of documents."""
Ids: TypeAlias = NDArray[np.bytes_]
"""The same as they are told, which are in the same order."""
Times: TypeAlias = NDArray[np.int64]
Mask: TypeAlias = NDArray[np.bool_]
Codes: TypeAlias = NDArray[np.int32]

FOREVER: Final = int(np.iinfo(np.int64).max)
"""The end of a row that is still there."""
KEY: Final = np.dtype("S16")

Values: TypeAlias = list[dict[bytes, int]]
"""Of each filter field the keys of the values that a part has, and the number of each."""


class Part:
    """
    Rows side by side.

    Args:
        keys: of the documents; the newer of two rows of one stands behind the other.
        ids: of the same documents; a search tells them without spelling them.
        values, codes: the filter fields of each row, by their numbers.
        begins: when each row was written.
        ends: when it was replaced or deleted; whoever keeps the index up changes it.
        graph: a way to find rows without looking at all of them.
    """

    __slots__ = (
        "_newest_ts",
        "_order",
        "begins",
        "codes",
        "ends",
        "file",
        "gone",
        "graph",
        "ids",
        "is_on_disk",
        "keys",
        "rows",
        "values",
    )

    def __init__(
        self,
        keys: Keys,
        ids: Ids,
        rows: Rows,
        values: Values,
        codes: Codes,
        begins: Times,
        ends: Times,
        graph: Graph | None = None,
    ) -> None:
        self.keys = keys
        self.ids = ids
        self.rows = rows
        self.values = values
        self.codes = codes
        self.begins = begins
        self.ends = ends
        self.graph = graph
        self.file = ""
        """Its name on disk, once it has one."""
        self.is_on_disk = False
        self.gone = 0
        """How many of its rows have ended or are to end; whoever sets `ends` counts them."""
        self._order: Places | None = None
        self._newest_ts = FOREVER

    def __len__(self) -> int:
        return len(self.keys)

    def counting(self, ts: int, condition: Condition | None, fields: Sequence[str]) -> Mask:
        """Which rows are there at `ts` and meet a condition on the filter fields."""
        there = self.there(ts, slice(None))
        if condition is not None:
            there &= evaluate(condition, lambda equal: self._having(equal, fields))
        return there

    def there(self, ts: int, places: Places | slice) -> Mask:
        """Which of some rows are there at `ts`."""
        there: Mask = (self.ends[places] > ts) & (self.begins[places] <= ts)
        return there

    def is_whole(self, ts: int) -> bool:
        """Whether it is known that all rows are there at `ts`."""
        return self.gone == 0 and self._newest_ts <= ts

    def ids_at(self, places: Places) -> list[str]:
        """The ids of the documents at some places."""
        return [one.decode() for one in self.ids.take(places).tolist()]

    def put_in_order(self) -> None:
        """Get ready to be asked for keys; takes a while."""
        self._order = np.argsort(self.keys, kind="stable")
        self._newest_ts = int(self.begins.max(initial=0))

    def places_of(self, key: bytes) -> list[int]:
        """Where the rows of a document are, also those that have ended."""
        wanted = np.array(key, KEY)
        if self._order is None:
            return np.flatnonzero(self.keys == wanted).tolist()
        first, after = (
            int(np.searchsorted(self.keys, wanted, side=side, sorter=self._order))
            for side in ("left", "right")
        )
        places: list[int] = self._order[first:after].tolist()
        return places

    def end(self, key: bytes, ts: int) -> bool:
        """Let the row of a document count up to `ts`; whether there was one that did for longer."""
        assert self._order is not None, "it was put in order"
        wanted = np.array(key, KEY)
        after = int(np.searchsorted(self.keys, wanted, side="right", sorter=self._order))
        if after == 0:
            return False
        at = self._order[after - 1]
        if self.keys[at] != wanted or self.ends[at] != FOREVER:
            return False
        self.ends[at] = ts
        self.gone += 1
        return True

    def count_gone(self) -> None:
        self.gone = int(np.count_nonzero(self.ends != FOREVER))

    def arrays(self) -> dict[str, NDArray[Any]]:
        """What is kept of it on disk; of rows that ended, only the index knows."""
        values = encode([list(known) for known in self.values])
        graph = b"" if self.graph is None else self.graph.to_bytes()
        return {
            "keys": self.keys,
            "ids": self.ids,
            "rows": self.rows,
            "codes": self.codes,
            "values": np.frombuffer(values, np.uint8),
            "graph": np.frombuffer(graph, np.uint8),
            "largest": np.array([0.0 if self.graph is None else self.graph.largest]),
        }

    @staticmethod
    def of_arrays(arrays: Mapping[str, NDArray[Any]], table_number: int) -> Part:
        """What `arrays` gave, as if all of it had been there for ever."""
        keys, rows = arrays["keys"], arrays["rows"]
        values = decode(arrays["values"].tobytes())
        part = Part(
            keys,
            # Files of earlier versions have none.
            arrays["ids"] if "ids" in arrays else ids_of(table_number, keys),
            rows,
            [{key: code for code, key in enumerate(known)} for known in values],
            arrays["codes"],
            np.zeros(len(rows), np.int64),
            np.full(len(rows), FOREVER, np.int64),
        )
        part.graph = graph_over(arrays)
        part.put_in_order()
        return part

    def use(self, arrays: Mapping[str, NDArray[Any]], graph: Graph | None) -> None:
        """From now on read the same arrays, and the graph in them, from its file."""
        self.keys, self.ids = arrays["keys"], arrays["ids"]
        self.rows, self.codes = arrays["rows"], arrays["codes"]
        self.graph = graph
        self.is_on_disk = True

    def roll_back(self, ts: int) -> None:
        """Whatever was to end after `ts` stays."""
        self.ends[(self.ends > ts) & (self.ends != FOREVER)] = FOREVER
        self.count_gone()

    def ended(self, ts: int) -> int:
        """How many of its rows no view sees that is of `ts` or later."""
        return int((self.ends <= ts).sum())

    @property
    def size_bytes(self) -> int:
        """About how much memory it takes."""
        arrays: list[NDArray[Any]] = [self.keys, self.ids, self.rows, self.codes]
        arrays += [self.begins, self.ends]
        graph = 0 if self.graph is None else self.graph.size_bytes
        return sum(array.nbytes for array in arrays) + graph

    def _having(self, equal: Equal, fields: Sequence[str]) -> Mask:
        at = fields.index(equal.field)
        found: Mask = self.codes[:, at] == self.values[at].get(equal.key, -1)
        return found


def graph_over(arrays: Mapping[str, NDArray[Any]]) -> Graph | None:
    """The graph among the arrays of a part, if it has one, read where it lies."""
    data, largest = arrays["graph"], float(arrays["largest"][0])
    return Graph.over(data, largest, arrays["rows"].shape[1]) if len(data) else None


class Tail:
    """
    Rows in the order in which they were written, in blocks: what is there is never moved.

    Whoever searches captures it with `parts`: what is added later is not seen there, and what ends
    later ends past what such a search asks for.

    Args:
        table_number: of its documents.
        block_rows: rows of a block; what nobody wrote to takes no memory.
    """

    def __init__(self, table_number: int, dimensions: int, filters: int, block_rows: int) -> None:
        self._new = partial(_Block, table_number, dimensions, filters, block_rows)
        self._blocks = [self._new()]

    @property
    def count(self) -> int:
        """How many rows it has."""
        return sum(map(len, self._blocks))

    def parts(self, rows: int | None = None) -> list[Part]:
        """What it has now, or the first of its rows."""
        if rows is None:
            return [block.part(some) for block in self._blocks if (some := len(block))]
        parts = []
        left = rows
        for block in self._blocks:
            if (some := min(left, len(block))) > 0:
                parts.append(block.part(some))
                left -= some
        return parts

    def add(self, key: bytes, entry: Entry, ts: int) -> None:
        """Let a document have this row from `ts` on; an earlier one of it has ended."""
        if self._blocks[-1].is_full:
            self._blocks.append(self._new())
        self._blocks[-1].add(key, entry, ts)

    def end(self, key: bytes, ts: int) -> bool:
        """As `Part.end`."""
        return any(block.end(key, ts) for block in reversed(self._blocks))

    def roll_back(self, ts: int) -> None:
        """Forget whatever was written or ended after `ts`."""
        for block in self._blocks:
            block.roll_back(ts)
        self._leave_out_empty()

    def written_upto(self, ts: int) -> int:
        """How many of its rows were written at `ts` or before it."""
        return sum(block.written_upto(ts) for block in self._blocks)

    def oldest(self) -> int | None:
        """When the first of its rows was written."""
        return next((block.oldest() for block in self._blocks if len(block)), None)

    def drop(self, first: int) -> None:
        """Go on without the first rows."""
        for block in self._blocks:
            some = min(first, len(block))
            block.drop(some)
            first -= some
        self._leave_out_empty()

    @property
    def size_bytes(self) -> int:
        """About how much memory it takes."""
        return sum(part.size_bytes for part in self.parts())

    def _leave_out_empty(self) -> None:
        """All but one: a block that is empty may be full, of what was dropped."""
        kept = [block for block in self._blocks if len(block)]
        self._blocks = kept or [self._new()]


class _Block:
    """Some rows of a tail, side by side."""

    def __init__(self, table_number: int, dimensions: int, filters: int, room: int) -> None:
        self._table_number = table_number
        self._start = 0
        self._stop = 0
        self._values: Values = [{} for _ in range(filters)]
        self._slots: dict[bytes, int] = {}
        """Where the row of each document is that has not ended."""
        self._keys: Keys = np.zeros(room, KEY)
        self._ids: Ids = np.zeros(room, ids_type(table_number))
        self._rows: Rows = np.zeros((room, dimensions), np.float32)
        self._codes: Codes = np.zeros((room, filters), np.int32)
        self._begins: Times = np.zeros(room, np.int64)
        self._ends: Times = np.zeros(room, np.int64)

    def __len__(self) -> int:
        return self._stop - self._start

    @property
    def is_full(self) -> bool:
        return self._stop == len(self._keys)

    def part(self, rows: int) -> Part:
        """Its first rows."""
        kept = slice(self._start, self._start + rows)
        return Part(
            self._keys[kept],
            self._ids[kept],
            self._rows[kept],
            self._values,
            self._codes[kept],
            self._begins[kept],
            self._ends[kept],
        )

    def add(self, key: bytes, entry: Entry, ts: int) -> None:
        at = self._stop
        self._keys[at] = key
        self._ids[at] = encode_id(self._table_number, key)
        self._rows[at] = entry.row
        for place, value in enumerate(entry.filters):
            known = self._values[place]
            self._codes[at, place] = known.setdefault(value, len(known))
        self._begins[at] = ts
        self._ends[at] = FOREVER
        self._slots[key] = at
        self._stop = at + 1

    def end(self, key: bytes, ts: int) -> bool:
        at = self._slots.pop(key, None)
        if at is None:
            return False
        self._ends[at] = ts
        return True

    def roll_back(self, ts: int) -> None:
        self._stop = self._start + self.written_upto(ts)
        ends = self._ends[self._start : self._stop]
        ends[(ends > ts) & (ends != FOREVER)] = FOREVER
        self._find_slots()

    def written_upto(self, ts: int) -> int:
        begins = self._begins[self._start : self._stop]
        return int(np.searchsorted(begins, ts, side="right"))

    def oldest(self) -> int:
        return int(self._begins[self._start])

    def drop(self, first: int) -> None:
        self._start += first
        if first and len(self):
            self._find_slots()

    def _find_slots(self) -> None:
        there = self._start + np.flatnonzero(self._ends[self._start : self._stop] == FOREVER)
        self._slots = dict(zip(keys_at(self._keys, there), there.tolist(), strict=True))


def keys_at(keys: Keys, places: Places) -> list[bytes]:
    """Some keys as they are: of bytes that are a text to it numpy takes the zeros at their ends."""
    found: list[bytes] = keys[places].view(f"V{KEY.itemsize}").tolist()
    return found


def ids_type(table_number: int) -> np.dtype[np.bytes_]:
    """How the ids of a table lie in an array: all are equally long."""
    return np.dtype(f"S{len(encode_id(table_number, bytes(KEY.itemsize)))}")


def ids_of(table_number: int, keys: Keys) -> Ids:
    """The ids of the documents with these keys."""
    spelled = encode_ids(table_number, keys_at(keys, np.arange(len(keys))))
    return np.array(spelled, ids_type(table_number))


def joined(parts: Sequence[Part], chosen: Sequence[Places]) -> Part:
    """One part of the rows that stand at the chosen places of several, in their order."""
    pairs = list(zip(parts, chosen, strict=True))
    values, codes = _joined_filters(parts, chosen)
    return Part(
        np.concatenate([_at(part.keys, at) for part, at in pairs]),
        np.concatenate([_at(part.ids, at) for part, at in pairs]),
        np.concatenate([_at(part.rows, at) for part, at in pairs]),
        values,
        codes,
        np.concatenate([_at(part.begins, at) for part, at in pairs]),
        np.concatenate([_at(part.ends, at) for part, at in pairs]),
    )


def _at(array: NDArray[Any], places: Places) -> NDArray[Any]:
    """What stands at some places, which rise; all of it is not copied."""
    return array if len(places) == len(array) else array[places]


def _joined_filters(parts: Sequence[Part], chosen: Sequence[Places]) -> tuple[Values, Codes]:
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
