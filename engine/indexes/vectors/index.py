"""
One vector index in memory: its parts, and what is staged.

    stage ──▶ tail ──fold──▶ a part, with those before it that are not much larger
               └── a batch that failed: what it wrote goes, and what it ended stays

Everything that changes it happens on the engine's own thread.  Searches and folds read what they
have captured, folds in a thread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import numpy as np

from engine.indexes.catalog import IndexInfo
from engine.indexes.files import SUFFIX, read_arrays, write_arrays
from engine.indexes.live import Checkpoint, Install, Leisure
from engine.indexes.vectors.entry import Entry, entry_of
from engine.indexes.vectors.graph import LEAD_BYTES, ROWS_MIN, Graph
from engine.indexes.vectors.parts import FOREVER, Part, Tail, graph_over, joined
from engine.indexes.vectors.rows import Places
from engine.model.commits import RowWrite
from engine.model.values import UNDEFINED, get_path

TAIL_ROWS_MAX: Final = 1_024
"""A tail is folded when it has so many rows: a search looks at each."""
TAKEN_PART: Final = 4
"""A part takes those behind it when they have one in so many of its rows. So each is more than so
many times as large as all behind it, there are few, and what a fold copies is a few times what is
new."""
PAUSED_PART: Final = 16
"""The same in a pause of the writers: mostly all becomes one, which is searched once."""
PART_ROWS_MAX: Final = 1 << 17
"""Rows of a part that takes more: what a fold copies is some 200 MB at 384 dimensions."""
ENDED_PART: Final = 2
"""A part of which one in so many rows has ended is written anew without them, with a new graph:
no more is laid again than was written."""


_TAKEN_PARTS: Final = {
    Leisure.NONE: TAKEN_PART,
    Leisure.PAUSE: PAUSED_PART,
    Leisure.REST: PART_ROWS_MAX,
}


class OwnVectors:
    """What a transaction has written, for an index that knows nothing of it yet."""

    def __init__(self, info: IndexInfo) -> None:
        self._info = info
        self.written: dict[bytes, Entry | None] = {}

    def put(self, internal: bytes, doc: dict[str, Any] | None) -> None:
        """A document as it is from now on, or that it is gone."""
        self.written[internal] = entry_of(self._info, doc)


class VectorIndex:
    """
    Args:
        ts: nothing is known of before.
        folded: what it has already.
        tail_rows_max: rows of a tail that is folded.
        part_rows_max: rows of a part that takes more.
    """

    changed_ts: Final = 0
    """The order of what is found follows from the documents that are found alone."""

    def __init__(
        self,
        info: IndexInfo,
        ts: int = 0,
        folded: Sequence[Part] = (),
        *,
        tail_rows_max: int = TAIL_ROWS_MAX,
        part_rows_max: int = PART_ROWS_MAX,
    ) -> None:
        self.info = info
        self._part_rows_max = part_rows_max
        self._tail_rows_max = tail_rows_max
        self.floor_ts = ts
        """Views that are older cannot be answered."""
        self.dimensions = int(info.options["dimensions"])
        self._row_bytes = 4 * self.dimensions
        self._vector_field: str = info.options["vector_field"]
        self.fields: tuple[str, ...] = tuple(info.options["filter_fields"])
        self.folded: list[Part] = list(folded)
        self._files = max((int(part.file.removesuffix(SUFFIX)) for part in folded), default=0)
        self._is_frozen = False
        self._taken_part = TAKEN_PART
        self.tail = Tail(info.table_number, self.dimensions, len(self.fields), tail_rows_max)

    def parts(self) -> list[Part]:
        """All of them as they are now, for one search."""
        return self.folded + self.tail.parts()

    def own(self) -> OwnVectors:
        return OwnVectors(self.info)

    # Writing

    def stage(self, ts: int, write: RowWrite) -> None:
        """Take in what a commit of `ts` does to a row of the table."""
        before, after = write.before_doc, write.after_doc
        if before is not None and after is not None and self._is_same(before, after):
            return
        self.put(ts, write.key[4:], after)

    def put(self, ts: int, internal: bytes, doc: dict[str, Any] | None) -> None:
        """From `ts` on a document is this, or gone, whatever it was; `ts` never falls."""
        self.change(ts, internal, entry_of(self.info, doc))

    def put_in_steps(self, ts: int, internal: bytes, doc: dict[str, Any] | None) -> Iterator[None]:
        """As `LiveIndex.put_in_steps`: a vector is quick."""
        self.put(ts, internal, doc)
        return iter(())

    def change(self, ts: int, internal: bytes, entry: Entry | None) -> None:
        """From `ts` on a document has this entry, or none."""
        if not self.tail.end(internal, ts):
            for part in reversed(self.folded):
                if part.end(internal, ts):
                    break
        if entry is not None:
            self.tail.add(internal, entry, ts)

    def retire(self) -> None:
        """Nothing follows from it but what is found."""

    def roll_back(self, ts: int) -> None:
        """Forget what was staged after `ts`: it will never have been."""
        self.tail.roll_back(ts)
        for part in self.folded:
            part.roll_back(ts)

    def _is_same(self, before: dict[str, Any], after: dict[str, Any]) -> bool:
        """Whether nothing changed that the index has; not at all costs is it found out."""
        tops = {name.partition(".")[0] for name in (self._vector_field, *self.fields)}
        if all(before.get(name, UNDEFINED) is after.get(name, UNDEFINED) for name in tops):
            return True
        if get_path(before, self._vector_field) != get_path(after, self._vector_field):
            return False  # told by the first number that differs, where two rows take much longer
        return entry_of(self.info, before) == entry_of(self.info, after)

    # Upkeep

    @property
    def unfolded_bytes(self) -> int:
        return self.tail.count * self._row_bytes

    @property
    def is_due(self) -> bool:
        is_tail_due = self.tail.count >= self._tail_rows_max or self._is_frozen
        return is_tail_due or self._to_renew() is not None

    @property
    def is_loose(self) -> bool:
        """As `LiveIndex.is_loose`: whether there would be fewer parts."""
        return self._taken_from(self.tail.count, PAUSED_PART) < len(self.folded)

    def forget(self, floor_ts: int) -> None:
        """No view is older than that."""
        self.floor_ts = max(self.floor_ts, floor_ts)

    def freeze(self, leisure: Leisure = Leisure.NONE) -> None:
        """As `LiveIndex.freeze`; with leisure small parts become one with those before them."""
        self._is_frozen = self.tail.count > 0
        self._taken_part = _TAKEN_PARTS[leisure]

    def fold(self, durable_ts: int) -> Callable[[], Install] | None:
        """
        As `LiveIndex.fold`: the rows of the tail become a part, with those before it that are not
        much larger, or a worn one is made anew.

        What is staged stays in the tail: a part has only what is durable.
        """
        rows = self.tail.written_upto(durable_ts)
        if rows >= self._tail_rows_max or (rows and self._is_frozen):
            self._is_frozen = False
            first = self._taken_from(rows, self._taken_part)
            return self._folding(slice(first, len(self.folded)), rows)
        renewed = self._to_renew()
        if renewed is None:
            self._taken_part = TAKEN_PART
            return None
        return self._folding(renewed, 0)

    def _taken_from(self, rows: int, taken_part: int) -> int:
        """Where the parts begin that so many rows behind all of them become one with."""
        first = len(self.folded)
        for at in reversed(range(first)):
            if self._takes(len(self.folded[at]), rows, taken_part):
                first = at
            rows += len(self.folded[at])
        return first

    def _takes(self, part: int, rows: int, taken_part: int) -> bool:
        """Whether a part of so many takes so many: it has room, and they are worth copying it."""
        return rows * taken_part >= part and part + rows <= self._part_rows_max

    def _to_renew(self) -> slice | None:
        """A part that is to be made anew, or some that are to become one."""
        for at, part in enumerate(self.folded):
            if self._is_worn(part):
                return slice(at, at + 1)
        for at, (before, part) in enumerate(pairwise(self.folded)):
            if self._takes(len(before), len(part), self._taken_part):
                return slice(at, at + 2)
        first, end = self._taken_from(0, self._taken_part), len(self.folded)
        return slice(first, end) if first < end else None

    def _is_worn(self, part: Part) -> bool:
        # The first of these is asked with every batch, and counts nothing.
        return part.gone * ENDED_PART > len(part) < part.ended(self.floor_ts) * ENDED_PART

    def _sources(self, at: slice, rows: int) -> list[Part]:
        """Some of the parts, and the first rows of the tail."""
        return self.folded[at] + self.tail.parts(rows)

    def _folding(self, at: slice, rows: int) -> Callable[[], Install]:
        """Make one of some parts and the first rows of the tail; the first keeps its graph."""
        sources = self._sources(at, rows)
        known = next((part for part in self.folded[at][:1] if not self._is_worn(part)), None)
        floor_ts = self.floor_ts

        def run() -> Install:
            chosen = [
                np.arange(len(one)) if one is known else np.flatnonzero(one.ends > floor_ts)
                for one in sources
            ]
            part = joined(sources, chosen)
            part.put_in_order()
            if len(part) >= ROWS_MIN:
                part.graph = Graph.of(part.rows, None if known is None else known.graph)
            return lambda: self._install(at, rows, part, chosen)

        return run

    def _install(self, at: slice, rows: int, part: Part, chosen: Sequence[Places]) -> None:
        """Put a part in the place of what it was made of; what ended meanwhile ends there too."""
        sources = self._sources(at, rows)
        ends = [one.ends[places] for one, places in zip(sources, chosen, strict=True)]
        part.ends[:] = np.concatenate(ends)
        part.count_gone()
        self.folded[at] = [part] if len(part) else []
        if rows:
            self.tail.drop(rows)

    # Files

    def checkpoint(self, durable_ts: int) -> Checkpoint:
        first = self.tail.oldest()
        # All that was written before the first row of the tail is in a part.
        ts = durable_ts if first is None else min(durable_ts, first - 1)
        unwritten = [part for part in self.folded if not part.is_on_disk]
        for part in unwritten:
            if not part.file:
                self._files += 1
                part.file = f"{self._files}{SUFFIX}"
        ended = [np.flatnonzero(part.ends <= durable_ts).astype("<u4") for part in self.folded]
        names = [part.file for part in self.folded]
        return Checkpoint(
            ts=ts,
            manifest={"parts": [[n, e.tobytes()] for n, e in zip(names, ended, strict=True)]},
            write=lambda folder: _write(folder, unwritten),
            names=names,
        )

    @staticmethod
    def read(info: IndexInfo, ts: int, manifest: dict[str, Any], folder: Path) -> VectorIndex:
        """
        The index of a checkpoint of `ts`.

        Raises:
            StoreDamaged, OSError: its files are not what was written.
        """
        parts = []
        for name, ended in manifest["parts"]:
            part = Part.of_arrays(read_arrays(folder / name), info.table_number)
            part.ends[np.frombuffer(ended, "<u4")] = 0
            part.count_gone()
            part.file, part.is_on_disk = name, True
            parts.append(part)
        return VectorIndex(info, ts, parts)

    @property
    def size_bytes(self) -> int:
        """About how much memory it takes."""
        return self.tail.size_bytes + sum(part.size_bytes for part in self.folded)

    def parts_count(self) -> int:
        """Of how many parts it is made."""
        return len(self.folded) + 1

    def count(self) -> int:
        """How many documents it has."""
        return sum(int((part.ends == FOREVER).sum()) for part in self.parts())


def _write(folder: Path, parts: Sequence[Part]) -> Install:
    """Write the files of parts; what it returns has them read from there."""
    written = []
    for part in parts:
        # A row of a graph that begins within a line of the processor's cache takes one line more.
        write_arrays(folder / part.file, part.arrays(), leads={"graph": LEAD_BYTES})
        arrays = read_arrays(folder / part.file, checked=False)
        written.append((part, arrays, graph_over(arrays)))

    def install() -> None:
        for part, arrays, graph in written:
            part.use(arrays, graph)

    return install
