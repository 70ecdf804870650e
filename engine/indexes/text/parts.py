"""
Documents of a text index by their words: as arrays that stay, and as a tail that grows.

Each version of a document has a slot of its own, with the timestamp from which it holds and, once
it was replaced or deleted, the one from which it no longer does.  So one part answers for every
view at once: a slot is there at `ts` if it began at or before it and had not ended.

    words    sorted;  postings of one: slots, rising, with how often each has it
    slots    id, length, creation time, hashes of filter values       never changed
             begun, ended                                             ended once, or taken back

`compacted` makes one part of several, in which slots are in the order of their ids and those that
no view can see any more are left out.
"""

from __future__ import annotations

import itertools
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Final, NamedTuple, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from engine.indexes.text.lexicon import Lexicon, Ordered
from engine.indexes.text.words import TextEntry
from engine.model.ids import INTERNAL_BYTES

Strings: TypeAlias = npt.NDArray[np.bytes_]
Whole: TypeAlias = npt.NDArray[np.unsignedinteger]
Slots: TypeAlias = npt.NDArray[np.uint32]
Stamps: TypeAlias = npt.NDArray[np.int64]
Floats: TypeAlias = npt.NDArray[np.float64]
Mask: TypeAlias = npt.NDArray[np.bool_]
Places: TypeAlias = npt.NDArray[np.int64]

NOW: Final = 0
"""In the place of the timestamp at which a slot ended: it has not."""
NEVER: Final = 1
"""Likewise of one that was staged and taken back: no view is as old."""
_ID: Final = f"S{INTERNAL_BYTES}"


class Postings(NamedTuple):
    """The slots that have a word, rising, and how often."""

    slots: Whole
    counts: Whole


class Words(NamedTuple):
    """Several words in order, with the postings of all of them one after the other."""

    words: Strings
    offsets: Places
    """Where those of each begin, and last where they end."""
    postings: Postings


_NO_WORDS: Final = Words(
    np.zeros(0, np.bytes_),
    np.zeros(1, np.int64),
    Postings(np.zeros(0, np.uint32), np.zeros(0, np.uint32)),
)


@dataclass(frozen=True, slots=True)
class Arrays:
    """What never changes of a part, as it is on disk too."""

    words: Strings
    offsets: Places
    slots: Whole
    counts: Whole
    ids: Strings
    lengths: Whole
    created: Floats
    filters: npt.NDArray[np.uint64]
    """A row for each filter field."""

    @property
    def size_bytes(self) -> int:
        return sum(getattr(self, one.name).nbytes for one in fields(self))


class Kept:
    """
    What was worked out of a part that does not change, for searches to come.

    Args:
        bytes_max: beyond that what was not used for longest goes.
    """

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._kept: dict[Any, tuple[Any, int]] = {}
        self.size_bytes = 0
        self.number = next(_numbers)
        """Another than that of any other part."""

    def get(self, key: Any) -> Any:
        """A value that was put there, or `None`."""
        found = self._kept.pop(key, None)
        if found is None:
            return None
        self._kept[key] = found
        return found[0]

    def put(self, key: Any, value: Any, arrays: Iterable[npt.NDArray[Any]]) -> None:
        """
        Args:
            arrays: that take memory as long as it is kept.
        """
        self._remove(key)
        size_bytes = _KEPT_BYTES + sum(array.nbytes for array in arrays)
        self._kept[key] = (value, size_bytes)
        self.size_bytes += size_bytes
        while self.size_bytes > self._bytes_max:
            self._remove(next(iter(self._kept)))

    def _remove(self, key: Any) -> None:
        _, size_bytes = self._kept.pop(key, (None, 0))
        self.size_bytes -= size_bytes


_KEPT_BYTES: Final = 500
"""About what a value takes besides its arrays."""
_numbers: Final = itertools.count()


class Part(Protocol):
    """What ranking asks of a part; arrays are as of now, and are dropped before others write."""

    @property
    def size(self) -> int:
        """How many slots it has."""

    @property
    def kept(self) -> Kept | None:
        """`None` of a part that changes."""

    @property
    def lengths(self) -> Whole: ...
    @property
    def created(self) -> Floats: ...
    @property
    def ids(self) -> Strings: ...
    @property
    def filters(self) -> npt.NDArray[np.uint64]: ...

    def postings(self, word: str) -> Postings:
        """Those of one word; none if no slot has it."""

    def beginning(self, prefix: str) -> Words:
        """All longer words that begin so."""

    def present(self, ts: int) -> Mask | None:
        """Which slots are there at `ts`; `None` if all are."""

    def slots_of(self, ids: Strings, ts: int) -> list[int]:
        """The slots that documents have at `ts`."""


class Segment:
    """
    Arrays, and when their slots began and ended.

    Args:
        begun: `None` if all did before any view that there may be.
    """

    def __init__(
        self, arrays: Arrays, begun: Stamps | None = None, ended: Stamps | None = None
    ) -> None:
        self.arrays = arrays
        self.begun = begun
        self.ended = np.zeros(len(arrays.ids), np.int64) if ended is None else ended
        self.lengths, self.created = arrays.lengths, arrays.created
        self.ids, self.filters = arrays.ids, arrays.filters
        self.kept = Kept(max(1 << 20, arrays.size_bytes // 2))
        self._begun_max = int(begun.max()) if begun is not None and len(begun) else 0
        self._mask: Mask | None = None
        self._ended_max = int(self.ended.max()) if len(self.ended) else 0
        self.ended_count = int(np.count_nonzero(self.ended))
        self._first, self._last = (_id_at(self.ids, at) for at in (0, -1))
        self.file = ""
        """Its name on disk, once it has one."""
        self.is_on_disk = False

    def use(self, arrays: Arrays) -> None:
        """From now on read the same arrays from its file."""
        self.arrays, self.is_on_disk = arrays, True
        self.lengths, self.created = arrays.lengths, arrays.created
        self.ids, self.filters = arrays.ids, arrays.filters

    @property
    def size(self) -> int:
        return len(self.ended)

    @property
    def size_bytes(self) -> int:
        begun = 0 if self.begun is None else self.begun.nbytes
        own = self.arrays.size_bytes + self.kept.size_bytes
        return int(own + begun + self.ended.nbytes)

    def postings(self, word: str) -> Postings:
        arrays = self.arrays
        key = word.encode()
        if len(key) > arrays.words.itemsize:  # it would be given a copy of them all
            return _NO_WORDS.postings
        at = int(arrays.words.searchsorted(key))
        if at == len(arrays.words) or arrays.words[at] != key:
            return _NO_WORDS.postings
        start, end = arrays.offsets[at], arrays.offsets[at + 1]
        return Postings(arrays.slots[start:end], arrays.counts[start:end])

    def beginning(self, prefix: str) -> Words:
        arrays = self.arrays
        key = prefix.encode()
        if len(key) >= arrays.words.itemsize:
            return _NO_WORDS
        lower = int(arrays.words.searchsorted(key, "right"))
        if lower == len(arrays.words) or not arrays.words[lower].startswith(key):
            return _NO_WORDS
        upper = int(arrays.words.searchsorted(key + b"\xff"))  # no UTF-8 has that byte
        offsets = arrays.offsets[lower : upper + 1]
        start, end = offsets[0], offsets[-1]
        postings = Postings(arrays.slots[start:end], arrays.counts[start:end])
        return Words(arrays.words[lower:upper], offsets - start, postings)

    def present(self, ts: int) -> Mask | None:
        if ts < self._begun_max or ts < self._ended_max:
            mask: Mask = (self.ended == NOW) | (self.ended > ts)
            if self.begun is not None:
                mask &= self.begun <= ts
            return mask
        if not self.ended_count:
            return None
        if self._mask is None:
            self._mask = self.ended == NOW
        return self._mask

    def slots_of(self, ids: Strings, ts: int) -> list[int]:
        """The slots that documents have at `ts`."""
        present = self.present(ts)
        found: list[int] = []
        at = np.searchsorted(self.ids, ids)
        while len(at):
            within = at < self.size
            at, ids = at[within], ids[within]
            same = self.ids[at] == ids
            at, ids = at[same], ids[same]
            found += at.tolist() if present is None else at[present[at]].tolist()
            at = at + 1
        return found

    def current(self, internal: bytes) -> int | None:
        """The slot that a document has now."""
        if not self._first <= internal <= self._last:
            return None
        at = int(np.searchsorted(self.ids, internal))
        while at < len(self.ids) and _id_at(self.ids, at) == internal:
            if self.ended[at] == NOW:
                return at
            at += 1
        return None

    def end(self, slot: int, ts: int) -> None:
        self.ended[slot] = ts
        self.ended_count += 1
        self._ended_max = max(self._ended_max, ts)
        self._mask = None

    def roll_back(self, ts: int) -> None:
        """Forget what began or ended after `ts`."""
        self.ended[self.ended > ts] = NOW
        if self.begun is not None and ts < self._begun_max:
            self.ended[self.begun > ts] = NEVER
        self.ended_count = int(np.count_nonzero(self.ended))
        self._ended_max = int(self.ended.max()) if len(self.ended) else 0
        self._mask = None

    def is_worn(self, floor_ts: int, part: int) -> bool:
        """Whether over one in `part` slots can be seen by nobody any more."""
        if self.ended_count * part <= self.size:
            return False
        gone = np.count_nonzero((self.ended != NOW) & (self.ended <= floor_ts))
        return int(gone) * part > self.size


_TAIL_SLOTS: Final = 256
_TAIL_POSTINGS: Final = 1_024
"""Room that a tail begins with; it doubles."""
_TAIL_KEPT_BYTES: Final = 1 << 20
"""Of what was found of prefixes, or half of what the tail takes: one that all words of a long text
begin with is gathered once for everybody who looks for it, and that takes 22 bytes a word."""
FEW_WORDS: Final = 64
"""So many words are gone through one by one."""
WORDS_AT_ONCE: Final = 4_096
"""Of a document, added before others get their turn where they may: some three milliseconds."""


class Tail:
    """The newest slots, in the order in which they came."""

    kept = None

    def __init__(self, filters_count: int) -> None:
        self.size = 0
        self._lexicon = Lexicon()
        self._by_word: list[array[int]] = []
        """By the number of a word, slot and count in turns."""
        self._of = np.zeros(_TAIL_POSTINGS, np.uint32)
        """Of each posting the number of its word, in the order in which they came, for whoever
        asks for many words: to go through their own arrays takes ten times as long."""
        self._slots = np.zeros(_TAIL_POSTINGS, np.uint32)
        self._counts = np.zeros(_TAIL_POSTINGS, np.uint32)
        self._beginning = Kept(_TAIL_KEPT_BYTES)
        """What was found of prefixes since it grew last: gathering many words takes a while."""
        self._current: dict[bytes, int] = {}
        self._ids = np.zeros(_TAIL_SLOTS, _ID)
        self._lengths = np.zeros(_TAIL_SLOTS, np.uint32)
        self._created = np.zeros(_TAIL_SLOTS, np.float64)
        self._filters = np.zeros((filters_count, _TAIL_SLOTS), np.uint64)
        self._begun = np.zeros(_TAIL_SLOTS, np.int64)
        self._ended = np.zeros(_TAIL_SLOTS, np.int64)
        self.postings_count = 0
        self.ended_count = 0

    @property
    def lengths(self) -> Whole:
        return self._lengths[: self.size]

    @property
    def created(self) -> Floats:
        return self._created[: self.size]

    @property
    def ids(self) -> Strings:
        return self._ids[: self.size]

    @property
    def filters(self) -> npt.NDArray[np.uint64]:
        return self._filters[:, : self.size]

    @property
    def begun(self) -> Stamps:
        return self._begun[: self.size]

    @property
    def ended(self) -> Stamps:
        return self._ended[: self.size]

    @property
    def size_bytes(self) -> int:
        """About what it takes in memory."""
        return self._own_bytes + self._beginning.size_bytes

    @property
    def _own_bytes(self) -> int:
        of_words = 12 * len(self._of) + 8 * self.postings_count + 300 * len(self._lexicon)
        of_slots = len(self._ids) * (44 + 8 * len(self._filters))
        return of_words + of_slots + 150 * len(self._current)

    def add(self, internal: bytes, ts: int, entry: TextEntry, created: float) -> None:
        """Add a version of a document that holds from `ts` on."""
        self._add_postings(self.size, entry.words)
        self._add_slot(internal, ts, entry, created)

    def add_in_steps(
        self, internal: bytes, ts: int, entry: TextEntry, created: float
    ) -> Iterator[None]:
        """As `add`, of many words in steps of some milliseconds; nobody looks meanwhile."""
        words = iter(entry.words.items())
        while some := dict(itertools.islice(words, WORDS_AT_ONCE)):
            self._add_postings(self.size, some)
            if len(some) == WORDS_AT_ONCE:
                yield
        self._add_slot(internal, ts, entry, created)

    def _add_slot(self, internal: bytes, ts: int, entry: TextEntry, created: float) -> None:
        slot = self.size
        if slot == len(self._ids):
            self._grow()
        self._ids[slot] = internal
        self._lengths[slot] = entry.length
        self._created[slot] = created
        for at, value in enumerate(entry.filters):
            self._filters[at, slot] = value
        self._begun[slot] = ts
        self._current[internal] = slot
        self.size = slot + 1
        if self._beginning.size_bytes:
            self._beginning = Kept(_TAIL_KEPT_BYTES)

    def _add_postings(self, slot: int, words: Mapping[str, int]) -> None:
        first, last = self.postings_count, self.postings_count + len(words)
        while last > len(self._of):
            self._of, self._slots, self._counts = (
                np.concatenate((one, np.zeros_like(one)))
                for one in (self._of, self._slots, self._counts)
            )
        by_word, numbers = self._by_word, [self._lexicon.number(word) for word in words]
        for number, count in zip(numbers, words.values(), strict=True):
            if number == len(by_word):
                by_word.append(array("I"))
            by_word[number].extend((slot, count))
        self._of[first:last] = numbers
        self._slots[first:last] = slot
        self._counts[first:last] = list(words.values())
        self.postings_count = last

    def postings(self, word: str) -> Postings:
        number = self._lexicon.find(word)
        if number is None:
            return _NO_WORDS.postings
        found = np.array(self._by_word[number], np.uint32)
        return Postings(found[0::2], found[1::2])

    def beginning(self, prefix: str) -> Words:
        found: Words | None = self._beginning.get(prefix)
        if found is None:
            if not self._beginning.size_bytes:
                self._beginning = Kept(max(_TAIL_KEPT_BYTES, self._own_bytes // 2))
            found = self._as_words(self._lexicon.beginning(prefix))
            self._beginning.put(prefix, found, [found.words, found.offsets, *found.postings])
        return found

    def present(self, ts: int) -> Mask | None:
        ended = self.ended
        if not self.ended_count and (not self.size or self._begun[self.size - 1] <= ts):
            return None
        mask: Mask = (self.begun <= ts) & ((ended == NOW) | (ended > ts))
        return mask

    def slots_of(self, ids: Strings, ts: int) -> list[int]:
        """The slots that documents have at `ts`."""
        found = np.isin(self.ids, ids)
        if (present := self.present(ts)) is not None:
            found &= present
        slots: list[int] = np.flatnonzero(found).tolist()
        return slots

    def current(self, internal: bytes) -> int | None:
        """The slot that a document has now."""
        return self._current.get(internal)

    def end(self, slot: int, ts: int) -> None:
        self._ended[slot] = ts
        self.ended_count += 1
        del self._current[_id_at(self._ids, slot)]

    def roll_back(self, ts: int) -> None:
        """Forget what began or ended after `ts`."""
        ended, begun = self.ended, self.begun
        ended[ended > ts] = NOW
        ended[begun > ts] = NEVER
        self.ended_count = int(np.count_nonzero(ended))
        there = np.flatnonzero(ended == NOW)
        self._current = {_id_at(self._ids, slot): slot for slot in there.tolist()}

    def newest(self) -> int:
        """The last timestamp at which one began that was not taken back."""
        return int(self.begun[self.ended != NEVER].max(initial=0))

    def oldest(self) -> int | None:
        """The first timestamp at which one began that was not taken back; these come again."""
        begun = self.begun[self.ended != NEVER]
        return int(begun.min()) if len(begun) else None

    @property
    def arrays(self) -> Arrays:
        """All of it, as a part that stays would have it; its slots are in no order."""
        words = self._as_words(self._lexicon.all())
        return Arrays(
            words.words,
            words.offsets,
            words.postings.slots,
            words.postings.counts,
            self.ids.copy(),
            self.lengths.copy(),
            self.created.copy(),
            self.filters.copy(),
        )

    def _as_words(self, ordered: Ordered) -> Words:
        count = len(ordered.numbers)
        if not count:
            return _NO_WORDS
        offsets = np.zeros(count + 1, np.int64)
        if count <= FEW_WORDS:
            several = [self._by_word[number] for number in ordered.numbers.tolist()]
            np.cumsum([len(one) // 2 for one in several], out=offsets[1:])
            pairs = np.concatenate([np.frombuffer(one, np.uint32) for one in several])
            return Words(ordered.words, offsets, Postings(pairs[0::2], pairs[1::2]))
        # Of 16 bits a radix sort puts in order, which takes a tenth of the time.
        place: npt.NDArray[np.signedinteger]
        place = np.full(len(self._lexicon), -1, np.int16 if count < 1 << 15 else np.int32)
        place[ordered.numbers] = np.arange(count)
        every = place.take(self._of[: self.postings_count])
        there = (every >= 0).nonzero()[0]
        of = every.take(there)
        found = there.take(of.argsort(kind="stable"))
        np.bincount(of, minlength=count).cumsum(out=offsets[1:])
        postings = Postings(self._slots.take(found), self._counts.take(found))
        return Words(ordered.words, offsets, postings)

    def _grow(self) -> None:
        more = len(self._ids)
        self._ids = np.concatenate([self._ids, np.zeros(more, _ID)])
        self._lengths = np.concatenate([self._lengths, np.zeros(more, np.uint32)])
        self._created = np.concatenate([self._created, np.zeros(more)])
        empty = np.zeros((len(self._filters), more), np.uint64)
        self._filters = np.concatenate([self._filters, empty], axis=1)
        self._begun = np.concatenate([self._begun, np.zeros(more, np.int64)])
        self._ended = np.concatenate([self._ended, np.zeros(more, np.int64)])


class Frozen(NamedTuple):
    """A part to which nothing is added, as it was when its compaction began."""

    part: Segment | Tail
    begun: Stamps
    ended: Stamps


def frozen(part: Segment | Tail) -> Frozen:
    """What compaction needs of a part, to be read by a thread while others go on ending slots."""
    begun = np.zeros(part.size, np.int64) if part.begun is None else part.begun.copy()
    return Frozen(part, begun, part.ended.copy())


class Compacted(NamedTuple):
    """One part made of several."""

    arrays: Arrays
    begun: Stamps | None
    """`None` if all did at or before the floor."""
    origin: Places
    """Of each slot, where it was in all parts one after the other."""

    def segment(self, parts: Sequence[Segment | Tail]) -> Segment:
        """
        The part in their place, as of now.

        Args:
            parts: that were compacted; what has ended meanwhile ended in these.
        """
        ended = np.concatenate([part.ended for part in parts])[self.origin]
        return Segment(self.arrays, self.begun, ended)


def compacted(parts: Sequence[Frozen], floor_ts: int) -> Compacted:
    """
    Make one part of several, without what ended at or before `floor_ts`: no view is older.

    All that is done on the way is done by arrays, so that a thread can.
    """
    arrays = [one.part.arrays for one in parts]
    ended = np.concatenate([one.ended for one in parts])
    kept = np.flatnonzero((ended == NOW) | (ended > floor_ts))
    ids = np.concatenate([one.ids for one in arrays])[kept]
    begun = np.concatenate([one.begun for one in parts])[kept]
    order = np.lexsort((begun, ids))
    origin = kept[order]
    begun = begun[order]
    place = np.full(len(ended), -1, np.int64)
    place[origin] = np.arange(len(origin))
    words, offsets, postings = _merged(arrays, place)
    merged = Arrays(
        words=words,
        offsets=offsets,
        slots=postings.slots,
        counts=_smallest(postings.counts),
        ids=ids[order],
        lengths=_smallest(np.concatenate([one.lengths for one in arrays])[origin]),
        created=np.concatenate([one.created for one in arrays])[origin],
        filters=np.concatenate([one.filters for one in arrays], axis=1)[:, origin],
    )
    return Compacted(merged, begun if begun.max(initial=0) > floor_ts else None, origin)


def _merged(parts: Sequence[Arrays], place: Places) -> Words:
    """The words of all parts, their slots at new places; -1 is none."""
    first = np.cumsum([0, *(len(part.ids) for part in parts)])
    moved = [place[first[at] + part.slots.astype(np.int64)] for at, part in enumerate(parts)]
    every, word_of = np.unique(np.concatenate([part.words for part in parts]), return_inverse=True)
    words = np.repeat(word_of, np.concatenate([np.diff(part.offsets) for part in parts]))
    slots, counts = np.concatenate(moved), np.concatenate([part.counts for part in parts])
    there = slots >= 0
    words, slots, counts = words[there], slots[there], counts[there]
    order = np.lexsort((slots, words))
    found = np.bincount(words, minlength=len(every))
    offsets = np.concatenate([[0], np.cumsum(found[found > 0])]).astype(np.int64)
    postings = Postings(slots[order].astype(np.uint32), counts[order])
    return Words(every[found > 0], offsets, postings)


def _smallest(values: Whole) -> Whole:
    """The same numbers in as few bytes as hold them all."""
    return values.astype(np.min_scalar_type(int(values.max(initial=0))))


def _id_at(ids: Strings, at: int) -> bytes:
    """An id as it is: reading it takes the zeros at its end away."""
    if not len(ids):
        return b""
    found: bytes = ids[at]
    return found.ljust(INTERNAL_BYTES, b"\0")


def all_ids(ids: Strings) -> Iterator[bytes]:
    """All of some ids, likewise."""
    found = ids.tobytes()
    return (found[at : at + INTERNAL_BYTES] for at in range(0, len(found), INTERNAL_BYTES))
