"""
One text index in memory: its parts, and what is staged.

    parts    [ segment ] [ segment ] [ tail being compacted ] [ tail ]  ◀── what is staged
                  └────────── compacted into one ──────────┘

Whatever is staged ends the slot that the document had and begins another, and a batch that
failed takes that back.  A search asks all parts as of its view's timestamp.
"""

from __future__ import annotations

import sys
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np

from engine.indexes.catalog import IndexInfo
from engine.indexes.files import SUFFIX, read_arrays, write_arrays
from engine.indexes.live import Checkpoint, Install, Leisure
from engine.indexes.text.asked import TextSought
from engine.indexes.text.parts import NEVER, NOW, Arrays, Part, Segment, Tail, compacted, frozen
from engine.indexes.text.ranking import Found, Totals, ranked
from engine.indexes.text.words import entry_in_steps, entry_of, filters_of
from engine.model.commits import RowWrite
from engine.model.ids import INTERNAL_BYTES
from engine.model.values import UNDEFINED, get_path

TAIL_SLOTS_MAX: Final = 4_096
"""Of the tail before it is compacted: what it costs a search, some 0.1 ms, and a fold, 20 ms of a
thread, stay small beside what they are part of."""
TAIL_BYTES_MAX: Final = 8 << 20
"""Likewise: of texts of many words each a few are as much, and nobody may write when it is too
much (`index_unfolded_bytes_max`)."""
SEGMENT_SLOTS_MAX: Final = 1 << 17
"""Of a part: asking one of as many takes some milliseconds, after which others get their turn."""
ENDED_PART: Final = 5
"""A segment of which one in so many slots has ended is written anew without them."""


class OwnTexts:
    """What a transaction has written, for an index that knows nothing of it yet."""

    def __init__(self, info: IndexInfo) -> None:
        self._info = info
        self.tail = Tail(len(info.options["filter_fields"]))
        self.written: dict[bytes, None] = {}
        self.length = 0

    def put(self, internal: bytes, doc: dict[str, Any] | None) -> None:
        """A document as it is from now on, or that it is gone."""
        slot = self.tail.current(internal)
        if slot is not None:
            self.length -= int(self.tail.lengths[slot])
            self.tail.end(slot, 1)
        self.written[internal] = None
        if doc is not None and (entry := entry_of(self._info, doc)).words:
            self.tail.add(internal, 0, entry, float(doc["_creationTime"]))
            self.length += entry.length


Parts: TypeAlias = "list[Segment | Tail]"


class TextIndex:
    """
    Args:
        ts: nothing is known of before.
    """

    def __init__(self, info: IndexInfo, ts: int = 0, segments: Sequence[Segment] = ()) -> None:
        self.info = info
        self.floor_ts = ts
        """Views that are older cannot be answered."""
        self.changed_ts = ts
        self._files = max((int(s.file.removesuffix(SUFFIX)) for s in segments), default=0)
        """The name of the last file."""
        self._fields = [info.options["search_field"], *info.options["filter_fields"]]
        self.tail = Tail(len(info.options["filter_fields"]))
        self.parts: Parts = [*segments, self.tail]
        total = sum(int(s.lengths[s.ended == 0].sum(dtype=np.int64)) for s in segments)
        self._stamps = [ts]
        self._totals = [total]
        """The length of all documents from a timestamp on."""

    # Writing

    def stage(self, ts: int, write: RowWrite) -> None:
        """Take in what a commit of `ts` does to a row of the table."""
        before, after = write.before_doc, write.after_doc
        if before is not None and after is not None and self._are_alike(before, after):
            return
        self.put(ts, write.key[4:], after)

    def put(self, ts: int, internal: bytes, doc: dict[str, Any] | None) -> None:
        """From `ts` on a document is this, or gone, whatever it was; `ts` never falls."""
        for _ in self.put_in_steps(ts, internal, doc):
            pass

    def put_in_steps(self, ts: int, internal: bytes, doc: dict[str, Any] | None) -> Iterator[None]:
        """As `LiveIndex.put_in_steps`."""
        self.changed_ts = ts
        grown = -self._end(ts, internal)
        if doc is not None:
            entry = yield from entry_in_steps(self.info, doc)
            if entry.words:
                created = float(doc["_creationTime"])
                yield from self.tail.add_in_steps(internal, ts, entry, created)
                grown += entry.length
        if grown:
            self._grow(ts, grown)

    def _end(self, ts: int, internal: bytes) -> int:
        """End the slot that a document has; its length."""
        for part in reversed(self.parts):
            slot = part.current(internal)
            if slot is not None:
                part.end(slot, ts)
                return int(part.lengths[slot])
        return 0

    def _grow(self, ts: int, by: int) -> None:
        total = self._totals[-1] + by
        if self._stamps[-1] == ts:
            self._totals[-1] = total
        else:
            self._stamps.append(ts)
            self._totals.append(total)

    def _are_alike(self, before: dict[str, Any], after: dict[str, Any]) -> bool:
        """Whether nothing changed that the index has, as far as is told without the words."""
        tops = {name.partition(".")[0] for name in self._fields}
        if all(before.get(name, UNDEFINED) is after.get(name, UNDEFINED) for name in tops):
            return True
        text = self._fields[0]
        return get_path(before, text) == get_path(after, text) and (
            filters_of(self.info, before) == filters_of(self.info, after)
        )

    def roll_back(self, ts: int) -> None:
        """Forget what was staged after `ts`: it will never have been."""
        for part in self.parts:
            part.roll_back(ts)
        known = bisect_right(self._stamps, ts)
        del self._stamps[known:], self._totals[known:]

    def retire(self) -> None:
        self.changed_ts = sys.maxsize

    # Asking

    def search(
        self,
        ts: int,
        sought: TextSought,
        *,
        documents: int,
        wanted: int,
        own: Sequence[OwnTexts] = (),
        among: Sequence[bytes] | None = None,
    ) -> Iterator[list[Found] | None]:
        """
        As `ranking.ranked`.

        Args:
            documents: how many the table has, for whoever asks.
            own: what whoever asks has written, in the order in which it was.
            among: internal ids of the documents to look at, if not at all.
        """
        assert ts >= self.floor_ts, "whoever is older looks at the documents"
        parts: list[Part] = [*self.parts, *(one.tail for one in own)]
        hidden, length = self._hidden(parts, ts, own)
        totals = Totals(
            documents=documents,
            length=self.length_at(ts) - length + sum(one.length for one in own),
        )
        ids = None if among is None else np.array(among, f"S{INTERNAL_BYTES}")
        return ranked(parts, ts, sought, totals, wanted, hidden, ids)

    def length_at(self, ts: int) -> int:
        """How many words all documents have together."""
        return self._totals[bisect_right(self._stamps, ts) - 1]

    def _hidden(
        self, parts: Sequence[Part], ts: int, own: Sequence[OwnTexts]
    ) -> tuple[dict[int, list[int]], int]:
        """By the place of a part: slots of documents that were written since; and their length."""
        hidden: dict[int, list[int]] = {}
        length = 0
        for layer, one in enumerate(own):
            if not one.written:
                continue
            written = np.array(list(one.written), f"S{INTERNAL_BYTES}")
            for at, part in enumerate(parts[: len(self.parts) + layer]):
                slots = set(part.slots_of(written, ts)) - set(hidden.get(at, ()))
                if slots:
                    hidden.setdefault(at, []).extend(sorted(slots))
                    length += int(part.lengths[sorted(slots)].sum(dtype=np.int64))
        return hidden, length

    # Upkeep

    @property
    def unfolded_bytes(self) -> int:
        return sum(part.size_bytes for part in self.parts if isinstance(part, Tail))

    @property
    def size_bytes(self) -> int:
        return sum(part.size_bytes for part in self.parts)

    def count(self) -> int:
        return sum(part.size - part.ended_count for part in self.parts)

    def parts_count(self) -> int:
        return len(self.parts)

    @property
    def is_loose(self) -> bool:
        """As `LiveIndex.is_loose`: what a search takes hardly follows from the number of parts."""
        return False

    @property
    def is_due(self) -> bool:
        return self._is_tail_full or any(
            isinstance(part, Tail) and part is not self.tail for part in self.parts
        )

    @property
    def _is_tail_full(self) -> bool:
        return self.tail.size >= TAIL_SLOTS_MAX or self.tail.size_bytes >= TAIL_BYTES_MAX

    def own(self) -> OwnTexts:
        return OwnTexts(self.info)

    def fold(self, durable_ts: int) -> Callable[[], Install] | None:
        """
        As `LiveIndex.fold`: make one part of a tail and the segments that are no larger.

        What is staged stays in its tail: a segment has only what is durable.
        """
        if self._is_tail_full:
            self.freeze()
        parts = self.to_compact(durable_ts)
        if not parts:
            return None
        before, floor_ts = [frozen(part) for part in parts], self.floor_ts

        def compact() -> Install:
            made = compacted(before, floor_ts)
            return lambda: self.replace(parts, made.segment(parts))

        return compact

    def checkpoint(self, durable_ts: int) -> Checkpoint:
        segments = [part for part in self.parts if isinstance(part, Segment)]
        begun = [part.oldest() for part in self.parts if isinstance(part, Tail)]
        # All that began before the first slot of a tail is in a segment.
        ts = min([durable_ts, *(first - 1 for first in begun if first is not None)])
        unwritten = [part for part in segments if not part.is_on_disk]
        for segment in unwritten:
            if not segment.file:
                self._files += 1
                segment.file = f"{self._files}{SUFFIX}"
        ended = [
            np.flatnonzero((part.ended != NOW) & (part.ended <= durable_ts)).astype("<u4").tobytes()
            for part in segments
        ]
        names = [part.file for part in segments]
        return Checkpoint(
            ts=ts,
            manifest={"segments": [[*one] for one in zip(names, ended, strict=True)]},
            write=lambda folder: self._write(folder, unwritten),
            names=names,
        )

    def _write(self, folder: Path, segments: Sequence[Segment]) -> Install:
        written = []
        for segment in segments:
            path = folder / segment.file
            arrays = segment.arrays
            write_arrays(path, {one.name: getattr(arrays, one.name) for one in fields(arrays)})
            written.append((segment, Arrays(**read_arrays(path, checked=False))))

        def install() -> None:
            for segment, arrays in written:
                segment.use(arrays)

        return install

    @staticmethod
    def read(info: IndexInfo, ts: int, manifest: dict[str, Any], folder: Path) -> TextIndex:
        """
        The index of a checkpoint of `ts`.

        Raises:
            StoreDamaged, OSError: its files are not what was written.
        """
        segments = []
        for name, gone in manifest["segments"]:
            arrays = Arrays(**read_arrays(folder / name))
            ended = np.zeros(len(arrays.ids), np.int64)
            ended[np.frombuffer(gone, "<u4")] = NEVER
            segment = Segment(arrays, ended=ended)
            segment.file, segment.is_on_disk = name, True
            segments.append(segment)
        return TextIndex(info, ts, segments)

    def freeze(self, leisure: Leisure = Leisure.NONE) -> None:  # noqa: ARG002 - as any index
        """Begin a new tail, so that the one until now can be compacted."""
        if self.tail.size:
            self.tail = Tail(len(self.info.options["filter_fields"]))
            self.parts.append(self.tail)

    def to_compact(self, durable_ts: int) -> Parts:
        """Parts of which one is to be made; none if all is well."""
        tails: Parts = [
            part
            for part in self.parts
            if isinstance(part, Tail) and part is not self.tail and part.newest() <= durable_ts
        ]
        segments = [p for p in self.parts if isinstance(p, Segment)]
        if not tails:
            return [*[p for p in segments if p.is_worn(self.floor_ts, ENDED_PART)][:1]]
        size = sum(part.size for part in tails)
        chosen = tails
        # Those that are no more than twice as large go along, so there are few: as many as
        # the size of the index can be doubled.
        for segment in sorted(segments, key=lambda one: one.size):
            if segment.size > 2 * size or segment.size + size > SEGMENT_SLOTS_MAX:
                break
            chosen = [segment, *chosen]
            size += segment.size
        return chosen

    def replace(self, parts: Parts, segment: Segment) -> None:
        """Put one in the place of those it was made of."""
        kept = [part for part in self.parts if part not in parts]
        self.parts = [segment, *kept] if segment.size else kept

    def forget(self, floor_ts: int) -> None:
        """No view is older than that."""
        self.floor_ts = max(self.floor_ts, floor_ts)
        known = bisect_right(self._stamps, floor_ts) - 1
        if known > 0:
            del self._stamps[:known], self._totals[:known]
